//! What the core wants done, in the order in which it must take effect; but for notices, which may be written last.

use std::time::Duration;

use crate::callback::{Callback, PrepareFailure, Step};
use crate::event::Source;
use crate::id::{CallId, Epoch, Generation, GroupName, InstanceId, ReleaseId, RequestId, Tag};
use crate::member::Leader;
use crate::members::Members;
use crate::release::{ReleaseError, ReleaseReply};
use crate::request::Request;
use crate::state::{StateError, StateReply};
use crate::time::Moment;

/// How much a [`Notice`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Debug,
    /// The usual course of things.
    Info,
    /// Something is wrong and is dealt with.
    Warn,
    /// Something is wrong and needs a person.
    Error,
}

/// Something that an operator may want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The group, if it is about one.
    pub group: Option<GroupName>,
    /// The term, if there is one.
    pub epoch: Option<Epoch>,
    /// The release, if it is about one.
    pub release: Option<ReleaseId>,
    /// What happened, in one word that does not change: `elected`, `demoted`, `swapped` …
    pub what: &'static str,
    /// What happened, for a person.
    pub text: String,
}

impl Notice {
    /// A warning about a group.
    pub(crate) fn warning(group: &GroupName, what: &'static str, text: String) -> Self {
        Self { level: Level::Warn, group: Some(group.clone()), epoch: None, release: None, what, text }
    }
}

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The new release has taken over.
    Committed {
        /// The one before; none if there was no running one.
        from: Option<ReleaseId>,
        /// The one that runs.
        to: ReleaseId,
        /// How long callbacks were held.
        pause: Duration,
    },
    /// What was asked for runs already.
    Unchanged(ReleaseId),
    /// The old release goes on.
    RolledBack(PrepareFailure),
    /// Nothing was tried.
    Refused(String),
}

/// A swap that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapRecord {
    /// The release that was to take over, if it came so far as to have an id.
    pub release: Option<ReleaseId>,
    /// Its number, if it was deployed to the group.
    pub number: Option<u64>,
    /// The one that ran when it began.
    pub from: Option<ReleaseId>,
    /// Whether the node went back by itself, and did not follow anybody's wish.
    pub rollback: bool,
    /// Why it did.
    pub why: Option<String>,
    /// How it ended.
    pub outcome: SwapOutcome,
    /// When it was asked for.
    pub began: Moment,
    /// When it ended.
    pub ended: Moment,
    /// How long each step took.
    pub steps: Vec<(Step, Duration)>,
}

/// The answer to an [`crate::event::Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `State`.
    State(Result<StateReply, StateError>),
    /// To `Leader`. The error says why it cannot be known now.
    Leader(Result<Option<Leader>, String>),
    /// To `Resign`: whether this node led.
    Resigned(bool),
    /// To `Swap`.
    Swapped(SwapOutcome),
    /// To `Release`.
    Release(Result<Box<ReleaseReply>, ReleaseError>),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open a session; its events carry the generation.
    OpenSession {
        /// The generation.
        generation: Generation,
        /// The session timeout to ask for.
        timeout: Duration,
    },
    /// Close the session.
    CloseSession {
        /// The generation.
        generation: Generation,
    },
    /// Send a request on the session.
    Submit {
        /// The generation.
        generation: Generation,
        /// Names the request and the watch that it leaves.
        tag: Tag,
        /// The request.
        request: Request,
    },
    /// Let go of a watch.
    Forget {
        /// The generation.
        generation: Generation,
        /// The request that left the watch.
        tag: Tag,
    },
    /// From now on the group's guest may act as the leader, until then.
    Grant {
        /// The group.
        group: GroupName,
        /// The term.
        epoch: Epoch,
        /// The end of the lease.
        until: Moment,
    },
    /// The lease of every granted group now ends then.
    Extend {
        /// The end of the lease.
        until: Moment,
    },
    /// The group's guest may not act as the leader any more. Calls of it that wait end with `not-leader`.
    Revoke {
        /// The group.
        group: GroupName,
    },
    /// Tasks of an older epoch must be refused.
    Witness {
        /// The group.
        group: GroupName,
        /// The epoch.
        epoch: Epoch,
    },
    /// Read, verify, compile, check and instantiate a release; an [`crate::event::Event::Prepared`] follows.
    Prepare {
        /// The group.
        group: GroupName,
        /// How the new instance shall be called.
        instance: InstanceId,
        /// What to prepare.
        source: Source,
    },
    /// Call an instance; an [`crate::event::Event::Returned`] follows.
    Call {
        /// The group.
        group: GroupName,
        /// The instance.
        instance: InstanceId,
        /// Names the call.
        call: CallId,
        /// What to call.
        callback: Callback,
        /// The time it may take.
        budget: Duration,
    },
    /// Stop an instance, at once and by force if it runs, and drop it.
    Stop {
        /// The group.
        group: GroupName,
        /// The instance.
        instance: InstanceId,
    },
    /// This instance has taken over: its effects count, and tasks go to instances of its release.
    Promote {
        /// The group.
        group: GroupName,
        /// The instance.
        instance: InstanceId,
    },
    /// Take no more tasks; say [`crate::event::Event::Drained`] when those in flight have ended.
    Drain {
        /// The group.
        group: GroupName,
    },
    /// The members as they are now known here.
    Publish {
        /// The group.
        group: GroupName,
        /// The members.
        members: Members,
    },
    /// An answer.
    Answer {
        /// The question.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Something to log.
    Notice(Notice),
    /// Nothing is left to do; the process may end.
    Finished {
        /// Why it could not go on; none after an ordinary shutdown.
        error: Option<String>,
    },
}
