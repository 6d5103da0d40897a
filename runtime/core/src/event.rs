//! What happens to a node: everything that reaches the core comes as one of these, in one order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::callback::{CallFailure, PrepareFailure, Prepared, Returned};
use crate::id::{CallId, Generation, GroupName, InstanceId, ReleaseId, RequestId, SessionId, Tag};
use crate::release::{Numbered, ReleaseOp};
use crate::request::{Reply, RequestError};
use crate::state::StateOp;
use crate::work::Outcomes;

/// What a session tells its owner. Every event carries the generation under which the session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session exists and is connected.
    Opened {
        /// Its id.
        session: SessionId,
        /// The timeout that the server granted.
        timeout: Duration,
    },
    /// Trying to open a session goes on, but the last attempt failed. Told once for each new reason.
    Waiting {
        /// What is wrong, for a person.
        reason: String,
    },
    /// The connection is gone; the session may live on. Requests that were under way end as `Unknown`.
    Disconnected,
    /// Connected again. The session must be compared: some servers silently open a new one.
    Reconnected {
        /// The session that the server says this is.
        session: SessionId,
    },
    /// The session has ended, or will never be: expired, closed or refused. The last event of its generation.
    Ended {
        /// Why, for a person.
        reason: String,
        /// Whether trying again is pointless (wrong credentials, bad address).
        permanent: bool,
    },
    /// The answer to a request.
    Answered {
        /// The request.
        tag: Tag,
        /// Its result.
        result: Result<Reply, RequestError>,
    },
    /// The watch that a request left has fired, and is gone: look again. What a watch tells is told before the answers that show it; maybe
    /// before some that do not.
    Fired {
        /// The request.
        tag: Tag,
    },
    /// A lasting watch tells of a child: look at it again.
    ChildChanged {
        /// The request that left the watch.
        tag: Tag,
        /// The child's name.
        name: String,
    },
}

impl SessionEvent {
    /// The watch that tells this, if one does.
    #[must_use]
    pub fn watch(&self) -> Option<Tag> {
        match self {
            Self::Fired { tag } | Self::ChildChanged { tag, .. } => Some(*tag),
            _ => None,
        }
    }
}

/// Where a release comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the manifest names.
    Manifest,
    /// The release that the group runs already, in a fresh instance.
    Current,
    /// The release that the group ran before, in a fresh instance.
    Earlier(ReleaseId),
    /// The component of this reference (a path, an address, an image, a digest), with the manifest's configuration, grants
    /// and limits.
    Component(Arc<str>),
    /// The same with other settings: those of the manifest, changed by these.
    Configured {
        /// What names the component; none for the component that runs.
        component: Option<Arc<str>>,
        /// The settings that are not the manifest's.
        config: BTreeMap<String, String>,
    },
    /// A release that was deployed to the group, with the manifest's grants and limits.
    Wanted(Arc<Numbered>),
}

/// Who asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The instance of a guest that hears the callbacks.
    Guest(InstanceId),
    /// An instance that does tasks; it may read, where the group's state is granted to all.
    Worker,
    /// A person, through the admin API; may read.
    Operator,
}

/// What can be asked of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Reads or writes the group's state → [`crate::command::Answer::State`].
    State(StateOp),
    /// Who leads → [`crate::command::Answer::Leader`].
    Leader,
    /// Give leadership up → [`crate::command::Answer::Resigned`], as soon as that has begun.
    Resign,
    /// Run another release → [`crate::command::Answer::Swapped`], when the swap has ended.
    Swap(Source),
    /// The group's releases: what is deployed, and changes of it → [`crate::command::Answer::Release`].
    Release(ReleaseOp),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From the session.
    Session {
        /// The generation under which it was opened.
        generation: Generation,
        /// What.
        event: SessionEvent,
    },
    /// A release was prepared, or could not be.
    Prepared {
        /// The group.
        group: GroupName,
        /// The instance that was asked for.
        instance: InstanceId,
        /// The outcome.
        result: Result<Prepared, PrepareFailure>,
    },
    /// A callback has ended.
    Returned {
        /// The group.
        group: GroupName,
        /// The instance.
        instance: InstanceId,
        /// The call.
        call: CallId,
        /// How it ended.
        result: Result<Returned, CallFailure>,
    },
    /// Somebody asks for something and waits for an [`crate::command::Command::Answer`].
    Ask {
        /// The group.
        group: GroupName,
        /// Names the question.
        request: RequestId,
        /// Who asks.
        asker: Asker,
        /// What.
        ask: Ask,
    },
    /// Tasks have ended on this node: how all did that this release was given since it took over. Told of releases on probation,
    /// now and then, and never for each task.
    TasksEnded {
        /// The group.
        group: GroupName,
        /// The release whose instances did them.
        release: ReleaseId,
        /// How they ended.
        outcomes: Outcomes,
    },
    /// The tasks in flight have ended, after [`crate::command::Command::Drain`].
    Drained {
        /// The group.
        group: GroupName,
    },
    /// The process is to end.
    Shutdown,
    /// Time has passed.
    Tick,
}
