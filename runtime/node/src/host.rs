//! What an instance of a guest may do, decided at each call.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bellwether_core::command::Answer;
use bellwether_core::config::Watch;
use bellwether_core::event::{Ask, Asker};
use bellwether_core::id::{Epoch, GroupName, InstanceId, NodeId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::state::{StateError, StateOp, StateReply};
use bellwether_core::work::{Fence, WorkError};
use bellwether_guest::host::{Assignment, ClusterError, Host, HttpError, HttpRequest, LogLevel, Task};
use bellwether_source::Digest;
use bellwether_source::store::Store;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::effects;
use crate::holders;
use crate::peers::Part;
use crate::shared::{GroupShared, NodeShared};

const STOPPED: &str = "the node has stopped";
const INERT: &str = "effects are refused while an instance is made, and while a snapshot is taken or restored";

/// A guest's text without control characters: it must not forge lines or colours in the node's log.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| match c {
        '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    });
    Cow::Owned(shown.collect())
}

/// The node as one instance sees it.
pub(crate) struct InstanceHost {
    node: Arc<NodeShared>,
    group: Arc<GroupShared>,
    /// The instance that hears the callbacks; none for one that does tasks.
    instance: Option<InstanceId>,
    /// Off until the first callback or task, and while `snapshot` or `restore` runs: a release that does not take over has done nothing.
    effects: AtomicBool,
}

impl InstanceHost {
    /// For an instance that is about to be made.
    pub fn new(node: Arc<NodeShared>, group: Arc<GroupShared>, instance: Option<InstanceId>) -> Arc<Self> {
        Arc::new(Self { node, group, instance, effects: AtomicBool::new(false) })
    }

    /// Whether the instance may act from now on.
    pub fn let_act(&self, may: bool) {
        self.effects.store(may, Ordering::Release);
    }

    fn asker(&self) -> Asker {
        self.instance.map_or(Asker::Worker, Asker::Guest)
    }

    /// The term that this instance may act in.
    fn term(&self) -> Option<Epoch> {
        self.instance.and_then(|_| self.group.gate.leading())
    }

    fn may_act(&self) -> bool {
        self.effects.load(Ordering::Acquire)
    }

    async fn send_work(&self, assignment: Assignment, timeout: Duration) -> Result<Bytes, WorkError> {
        if !self.may_act() {
            return Err(WorkError::Other(INERT.into()));
        }
        let term = self.term();
        if term.is_none() && self.group.watch == Watch::Leader {
            return Err(WorkError::NotLeader);
        }
        if assignment.to == self.group.this.id {
            return Err(WorkError::Other("a node cannot hand work to itself".into()));
        }
        let members = self.group.members();
        let member = members.get(&assignment.to).ok_or(WorkError::UnknownMember)?.clone();
        let sending = self.node.peers.send(&member, &self.group.name, term, assignment.payload, timeout);
        let Some(term) = term else { return sending.await };
        tokio::select! {
            biased;
            () = self.group.gate.lost(term) => Err(WorkError::NotLeader),
            answer = sending => match self.group.gate.leading() {
                Some(now) if now == term => answer,
                _ => Err(WorkError::NotLeader),
            },
        }
    }

    /// Who may send requests is who may send work; a task may too, and ends with its sender's term.
    async fn send_request(&self, request: HttpRequest) -> Result<http::Response<Bytes>, HttpError> {
        if !self.may_act() {
            return Err(HttpError::Other(INERT.into()));
        }
        let term = self.term();
        if self.instance.is_some() && term.is_none() && self.group.watch == Watch::Leader {
            return Err(HttpError::NotLeader);
        }
        let Some(outgoing) = &self.node.outgoing else {
            return Err(HttpError::Other("this node sends no requests".into()));
        };
        let what = (request.request.method().clone(), request.request.uri().authority().cloned());
        let answer =
            match term {
                None => outgoing.send(request, Arc::new(|| true)).await,
                Some(term) => {
                    // Asked by the clock, at each step and before each piece of the body: a process that was paused must not go on
                    // with it on waking. What the connection has taken by then is on its way.
                    let group = Arc::clone(&self.group);
                    let leading = move || group.gate.leading() == Some(term);
                    let mut sending = pin!(outgoing.send(request, Arc::new(leading.clone())));
                    let while_leading = poll_fn(|cx| {
                        if leading() { sending.as_mut().poll(cx) } else { Poll::Ready(Err(HttpError::NotLeader)) }
                    });
                    tokio::select! {
                        biased;
                        () = self.group.gate.lost(term) => Err(HttpError::NotLeader),
                        answer = while_leading => answer,
                    }
                }
            };
        let (method, authority) = (what.0, what.1.as_ref().map_or("", |authority| authority.as_str()));
        let (node, group) = (self.group.this.id.as_str(), self.group.name.as_str());
        match &answer {
            Ok(answer) => tracing::debug!(node, group, "{method} to {authority}: status {}", answer.status().as_u16()),
            Err(why) => tracing::debug!(node, group, "{method} to {authority}: {why}"),
        }
        answer
    }

    async fn ask_state(&self, op: StateOp) -> Result<StateReply, StateError> {
        if !self.may_act() {
            return Err(StateError::Other(INERT.into()));
        }
        let written = match &op {
            StateOp::Put { key, .. } | StateOp::Delete { key, .. } => Some(key.clone()),
            _ => None,
        };
        let term = self.term();
        if written.is_some() && term.is_none() {
            return Err(StateError::NotLeader);
        }
        let asking = self.node.ask(&self.group.name, self.asker(), Ask::State(op)).map(|answer| match answer {
            Some(Answer::State(result)) => result,
            _ => Err(StateError::Unavailable(STOPPED.into())),
        });
        let Some(term) = term else { return asking.await };
        tokio::select! {
            biased;
            // An answer that is there is the truth, whatever came after.
            answer = asking => {
                if let (Some(key), Ok(done)) = (&written, &answer) {
                    let version = if let StateReply::Version(version) = done { Some(*version) } else { None };
                    effects::write(&self.group, term, key, version);
                }
                answer
            }
            () = self.group.gate.lost(term) => Err(StateError::NotLeader),
        }
    }
}

impl Host for InstanceHost {
    fn this(&self) -> Arc<Member> {
        self.group.this.clone()
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        self.group.members().iter().cloned().collect()
    }

    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>> {
        async {
            match self.node.ask(&self.group.name, self.asker(), Ask::Leader).await {
                Some(Answer::Leader(result)) => result.map_err(ClusterError::Unavailable),
                _ => Err(ClusterError::Unavailable(STOPPED.into())),
            }
        }
        .boxed()
    }

    fn epoch(&self) -> Option<Epoch> {
        self.term()
    }

    fn given_task(&self) {
        self.let_act(true);
    }

    fn resign(&self) -> Result<(), ClusterError> {
        if !self.may_act() {
            return Err(ClusterError::Other(INERT.into()));
        }
        let Some(term) = self.term() else { return Err(ClusterError::NotLeader) };
        if self.group.resigned.swap(term.0, Ordering::AcqRel) == term.0 {
            return Ok(());
        }
        let (node, group, asker) = (self.node.clone(), self.group.name.clone(), self.asker());
        tokio::spawn(async move { node.ask(&group, asker, Ask::Resign).await });
        Ok(())
    }

    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        self.send_work(assignment, timeout).boxed()
    }

    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>> {
        self.ask_state(op).boxed()
    }

    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        self.send_request(request).boxed()
    }

    fn log(&self, level: LogLevel, context: &str, message: &str) {
        let (node, group) = (self.group.this.id.as_str(), self.group.name.as_str());
        let (context, message) = (printable(context), printable(message));
        let part = if self.instance.is_some() { "callbacks" } else { "tasks" };
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(target: "guest", node, group, part, context = &*context, "{message}")
            };
        }
        match level {
            LogLevel::Trace => say!(trace),
            LogLevel::Debug => say!(debug),
            LogLevel::Info => say!(info),
            LogLevel::Warn => say!(warn),
            LogLevel::Error => say!(error),
        }
    }
}

/// Does `work` of a term, unless a later term is heard of: a task of an older leader neither starts nor goes on then.
async fn unless_overtaken(
    mut fence: watch::Receiver<Fence>,
    epoch: Option<Epoch>,
    work: impl Future<Output = Result<Bytes, WorkError>>,
) -> Result<Bytes, WorkError> {
    let Some(epoch) = epoch else { return work.await };
    tokio::select! {
        biased;
        overtaken = fence.wait_for(|fence| !fence.allows(epoch)) => {
            // An error means that the node is gone.
            Err(WorkError::StaleEpoch(overtaken.ok().and_then(|fence| fence.seen()).unwrap_or(epoch)))
        }
        result = work => result,
    }
}

/// The worker of a member, for a request from a peer.
pub(crate) struct PeerTasks {
    pub node: Arc<NodeShared>,
    /// What this node keeps of components.
    pub store: Option<Store>,
}

impl crate::peers::Tasks for PeerTasks {
    fn handle(
        &self,
        group: GroupName,
        recipient: NodeId,
        task: Task,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        async move {
            let group = self.node.groups.get(&group).ok_or(WorkError::UnknownMember)?;
            if recipient != group.this.id {
                return Err(WorkError::UnknownMember);
            }
            let refused = |error| {
                group.counts.refused.fetch_add(1, Ordering::Relaxed);
                Err(error)
            };
            let epoch = task.epoch;
            match epoch {
                // The epoch is read before the member is made: until then a deposed leader's word would have to be believed.
                Some(_) if group.fence.borrow().seen().is_none() => {
                    return refused(WorkError::Other(
                        "this member does not know the group's epoch yet: try again".into(),
                    ));
                }
                Some(epoch) => {
                    if let Err(error) = group.admit(epoch, || effects::task(group, epoch)) {
                        return refused(error);
                    }
                }
                None if group.watch == Watch::Leader => {
                    return refused(WorkError::Other("in this group only the leader hands out work".into()));
                }
                None => {}
            }
            let work = async {
                loop {
                    let Some(pool) = group.pool() else {
                        let why = "this member does no tasks: its component has no `worker`";
                        return Err(WorkError::Other(why.into()));
                    };
                    let result = pool.handle(task.clone(), deadline).await;
                    // A swap may have put another pool in the place of this one just before it was asked. Then nothing has
                    // been done about the task, and the other one takes it.
                    let turned_away = result == Err(WorkError::Overloaded) && pool.is_draining();
                    if !turned_away || group.pool().is_none_or(|now| now.is_draining()) {
                        return result;
                    }
                }
            };
            let result = unless_overtaken(group.fence.subscribe(), epoch, work).await;
            let count = match &result {
                Ok(_) => &group.counts.done,
                Err(WorkError::Overloaded) => &group.counts.refused,
                Err(_) => &group.counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            result
        }
        .boxed()
    }

    fn part(
        &self,
        group: GroupName,
        recipient: NodeId,
        digest: Digest,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Part, WorkError>> {
        holders::part(&self.node, self.store.clone(), (group, recipient), digest, (offset, most)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_ends_when_a_later_term_is_heard_of_and_not_before() {
        let fence = watch::Sender::new(Fence::default());
        let raise = |epoch| fence.send_modify(|fence| assert_eq!(fence.admit(Epoch(epoch)), Ok(())));
        raise(5);
        let mut task = Box::pin(unless_overtaken(fence.subscribe(), Some(Epoch(5)), std::future::pending()));
        assert!(futures::poll!(&mut task).is_pending());
        raise(5);
        assert!(futures::poll!(&mut task).is_pending(), "its own term goes on");
        raise(6);
        assert_eq!(futures::poll!(&mut task), Poll::Ready(Err(WorkError::StaleEpoch(Epoch(6)))));
        // One that waited for its turn meanwhile never starts, though it could end at once.
        let late = async { Ok(Bytes::new()) };
        assert_eq!(
            unless_overtaken(fence.subscribe(), Some(Epoch(5)), late).await,
            Err(WorkError::StaleEpoch(Epoch(6)))
        );
        let current = async { Ok(Bytes::new()) };
        assert_eq!(unless_overtaken(fence.subscribe(), Some(Epoch(6)), current).await, Ok(Bytes::new()));
    }

    #[test]
    fn a_guest_cannot_forge_log_lines() {
        assert_eq!(printable("all is well\tünïcode"), "all is well\tünïcode");
        assert_eq!(printable("a\nERROR b\u{1b}[31m"), "a\\nERROR b\\u{1b}[31m");
    }
}
