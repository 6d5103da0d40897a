//! What the admin API can ask of a running node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_core::command::{Answer, SwapOutcome as CoreOutcome, SwapRecord};
use bellwether_core::event::{Ask, Asker, Event, Source};
use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::members::Members;
use bellwether_core::state::{Entry, StateOp, StateReply};
use bellwether_core::status::{Role as CoreRole, SessionState as CoreSession, Status};
use bellwether_core::time::Moment;
use bellwether_source::Reference;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{
    CallbackCounts, Control, ControlError, DeployRequest, GroupStatus, NodeStatus, Planned, ReleaseStatus, Role,
    RollbackRequest, RolloutStatus, SessionState, SessionStatus, Steer, SteerRequest, StepTime, SwapOutcome,
    SwapReport, SwapRequest, TaskCounts, WatchScope,
};
use crate::clock;
use crate::driver::Inquiry;
use crate::guests::Guests;
use crate::shared::NodeShared;

/// The node as the admin API sees it.
pub(crate) struct NodeControl {
    pub id: NodeId,
    pub address: String,
    pub coordinator: String,
    pub started: Moment,
    pub shared: Arc<NodeShared>,
    pub guests: BTreeMap<GroupName, Arc<Guests>>,
    pub inquiries: mpsc::Sender<Inquiry>,
    /// The groups in the manifest's order.
    pub order: Vec<GroupName>,
}

/// How long the status waits for the coordinator to say who leads.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn stopped() -> ControlError {
    ControlError::Unavailable("the node has stopped".into())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl NodeControl {
    async fn inquire(&self) -> Result<(Status, Moment), ControlError> {
        let (reply, status) = oneshot::channel();
        self.inquiries.send(Inquiry::Status(reply)).await.map_err(|_| stopped())?;
        status.await.map_err(|_| stopped())
    }

    /// Whether this node leads the group.
    pub(crate) async fn leads(&self, group: &GroupName) -> bool {
        let leads = |status: &Status| status.groups.iter().any(|it| it.name == *group && it.role == CoreRole::Leader);
        self.inquire().await.is_ok_and(|(status, _)| leads(&status))
    }

    pub(crate) fn known(&self, group: &GroupName) -> Result<(), ControlError> {
        if self.shared.groups.contains_key(group) {
            return Ok(());
        }
        let known = self.order.iter().map(ToString::to_string).collect();
        Err(ControlError::UnknownGroup { name: group.to_string(), known })
    }

    pub(crate) async fn ask(&self, group: &GroupName, ask: Ask) -> Result<Answer, ControlError> {
        self.known(group)?;
        self.shared.ask(group, Asker::Operator, ask).await.ok_or_else(stopped)
    }

    async fn leader(&self, group: &GroupName) -> Option<Leader> {
        match tokio::time::timeout(LEADER_PATIENCE, self.ask(group, Ask::Leader)).await {
            Ok(Ok(Answer::Leader(Ok(leader)))) => leader,
            _ => None,
        }
    }

    fn since(&self, at: Moment) -> u64 {
        millis(at.since(self.started))
    }

    fn report(&self, outcome: CoreOutcome, at: Moment) -> Result<SwapReport, ControlError> {
        let bare = SwapReport {
            release: None,
            from: None,
            outcome: SwapOutcome::Committed,
            step: None,
            reason: None,
            at_ms: self.since(at),
            pause_us: None,
            rollback: false,
            steps: Vec::new(),
        };
        match outcome {
            CoreOutcome::Committed { from, to, pause } => {
                Ok(SwapReport { release: Some(to), from, pause_us: Some(micros(pause)), ..bare })
            }
            CoreOutcome::Unchanged(release) => {
                let reason = Some("this release runs already".to_owned());
                Ok(SwapReport { from: Some(release.clone()), release: Some(release), reason, ..bare })
            }
            CoreOutcome::RolledBack(failure) => Ok(SwapReport {
                outcome: SwapOutcome::RolledBack,
                step: Some(failure.step),
                reason: Some(failure.reason),
                ..bare
            }),
            CoreOutcome::Refused(why) => Err(ControlError::Busy(why)),
        }
    }

    /// A swap that has ended. Those that were refused are not kept.
    fn recorded(&self, record: &SwapRecord) -> Option<SwapReport> {
        let report = self.report(record.outcome.clone(), record.ended).ok()?;
        let steps = record.steps.iter().map(|(step, took)| StepTime { step: *step, took_us: micros(*took) }).collect();
        let (release, from) = (record.release.clone(), record.from.clone());
        // What went wrong on the way back matters more than why it was taken.
        let reason = report.reason.or_else(|| record.why.clone());
        Some(SwapReport { release, from, reason, rollback: record.rollback, steps, ..report })
    }

    async fn whole_status(&self) -> Result<NodeStatus, ControlError> {
        let (status, now) = self.inquire().await?;
        // Each asks the coordinator who leads: together, so that a slow answer is waited for once.
        let groups = self.order.iter().filter_map(|name| status.groups.iter().find(|group| group.name == *name));
        let groups = futures::future::join_all(groups.map(|group| self.group_status(group))).await;
        Ok(NodeStatus {
            node: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.since(now),
            address: self.address.clone(),
            session: SessionStatus {
                id: status.session.map(|session| session.to_string()),
                state: match status.state {
                    CoreSession::Connecting => SessionState::Connecting,
                    CoreSession::Connected => SessionState::Connected,
                    CoreSession::Disconnected => SessionState::Disconnected,
                    CoreSession::Ended => SessionState::Ended,
                },
                timeout_ms: status.session.map(|_| millis(status.timeout)),
                coordinator: self.coordinator.clone(),
                last_error: status.trouble,
            },
            groups,
        })
    }

    async fn group_status(&self, group: &bellwether_core::status::GroupStatus) -> GroupStatus {
        let shared = self.shared.groups.get(&group.name);
        let component = self.guests.get(&group.name).and_then(|guests| guests.component()).map(|from| from.to_string());
        let count = |of: fn(&crate::shared::Counts) -> &std::sync::atomic::AtomicU64| {
            shared.map_or(0, |group| of(&group.counts).load(Ordering::Relaxed))
        };
        GroupStatus {
            name: group.name.clone(),
            role: match group.role {
                CoreRole::Starting | CoreRole::Denied => Role::Starting,
                CoreRole::Worker => Role::Worker,
                CoreRole::Leader => Role::Leader,
                CoreRole::Demoting => Role::Demoting,
                CoreRole::SittingOut => Role::SittingOut,
                CoreRole::Stopped => Role::Stopped,
            },
            epoch: group.epoch,
            leader: self.leader(&group.name).await,
            members: group.members.iter().flat_map(Members::iter).cloned().collect(),
            watch: match shared.map(|group| group.watch) {
                Some(bellwether_core::config::Watch::All) => WatchScope::All,
                _ => WatchScope::Leader,
            },
            release: group.release.as_ref().map(|(id, digest, since)| ReleaseStatus {
                id: id.clone(),
                digest: digest.to_string(),
                component: component.unwrap_or_default(),
                since_ms: self.since(*since),
            }),
            last_swap: group.swaps.iter().rev().find_map(|record| self.recorded(record)),
            probation: group.probation,
            history: group.swaps.iter().filter_map(|record| self.recorded(record)).collect(),
            tasks: TaskCounts {
                in_flight: shared.and_then(|group| group.pool()).map_or(0, |pool| pool.in_flight() as u64),
                done: count(|counts| &counts.done),
                failed: count(|counts| &counts.failed),
                refused: count(|counts| &counts.refused),
            },
            callbacks: CallbackCounts {
                called: group.callbacks.called,
                failed: group.callbacks.failed,
                restarts: group.callbacks.restarts,
            },
            last_error: group.last_error.clone(),
        }
    }

    /// The core keeps a question until it is connected again; an operator wants to hear that it is not.
    pub(crate) async fn connected(&self) -> Result<(), ControlError> {
        let (status, _) = self.inquire().await?;
        if matches!(status.state, CoreSession::Connected) {
            return Ok(());
        }
        let why = status.trouble.unwrap_or_else(|| "there is no session yet".into());
        Err(ControlError::Unavailable(format!("the coordinator cannot be asked: {why}")))
    }

    async fn state(&self, group: &GroupName, op: StateOp) -> Result<StateReply, ControlError> {
        self.connected().await?;
        match self.ask(group, Ask::State(op)).await? {
            Answer::State(result) => result.map_err(ControlError::from),
            _ => Err(stopped()),
        }
    }

    /// Swaps to the component that `reference` names.
    pub async fn swap_to(&self, group: &GroupName, reference: &Reference) -> Result<SwapReport, ControlError> {
        self.swap_from(group, Source::Component(reference.text().into())).await
    }

    async fn swap_from(&self, group: &GroupName, source: Source) -> Result<SwapReport, ControlError> {
        match self.ask(group, Ask::Swap(source)).await? {
            // To try again does not help where the group has a release for all of its nodes.
            Answer::Swapped(CoreOutcome::Refused(why)) if self.deployed(group).await => Err(ControlError::Refused(why)),
            Answer::Swapped(outcome) => self.report(outcome, clock::now()),
            _ => Err(stopped()),
        }
    }
}

type Reply<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

impl Control for NodeControl {
    fn node(&self) -> NodeId {
        self.id.clone()
    }

    fn status(&self) -> Reply<'_, NodeStatus> {
        self.whole_status().boxed()
    }

    fn members(&self, group: GroupName) -> Reply<'_, Vec<Arc<Member>>> {
        async move {
            self.known(&group)?;
            let members = self.shared.groups.get(&group).map(|group| group.members()).unwrap_or_default();
            Ok(members.iter().cloned().collect())
        }
        .boxed()
    }

    fn swap(&self, group: GroupName, request: SwapRequest) -> Reply<'_, SwapReport> {
        let SwapRequest { component, config } = request;
        let component = component.map(|reference| reference.text().into());
        async move { self.swap_from(&group, Source::Configured { component, config }).await }.boxed()
    }

    fn resign(&self, group: GroupName) -> Reply<'_, ()> {
        async move {
            match self.ask(&group, Ask::Resign).await? {
                Answer::Resigned(true) => Ok(()),
                Answer::Resigned(false) => Err(ControlError::NotLeader { leader: self.leader(&group).await }),
                _ => Err(stopped()),
            }
        }
        .boxed()
    }

    fn state_list(&self, group: GroupName, prefix: String) -> Reply<'_, Vec<String>> {
        async move {
            match self.state(&group, StateOp::List(prefix)).await? {
                StateReply::Keys(keys) => Ok(keys),
                _ => Err(stopped()),
            }
        }
        .boxed()
    }

    fn state_get(&self, group: GroupName, key: String) -> Reply<'_, Option<Entry>> {
        async move {
            match self.state(&group, StateOp::Get(key)).await? {
                StateReply::Entry(entry) => Ok(entry),
                _ => Err(stopped()),
            }
        }
        .boxed()
    }

    fn rollout(&self, group: GroupName) -> Reply<'_, RolloutStatus> {
        async move { self.releases(&group).await }.boxed()
    }

    fn deploy(&self, group: GroupName, request: DeployRequest) -> Reply<'_, Planned> {
        async move { self.begin_deploy(&group, request).await }.boxed()
    }

    fn rollback(&self, group: GroupName, request: RollbackRequest) -> Reply<'_, Planned> {
        async move { self.begin_rollback(&group, request).await }.boxed()
    }

    fn steer(&self, group: GroupName, steer: Steer, request: SteerRequest) -> Reply<'_, RolloutStatus> {
        async move { self.steer_rollout(&group, steer, request).await }.boxed()
    }

    fn stop(&self) {
        let mailbox = self.shared.mailbox.clone();
        tokio::spawn(async move { mailbox.send(Event::Shutdown).await });
    }
}
