//! What the driver, the guests' hosts, the peers' tasks and the admin API share about a node.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bellwether_core::command::Answer;
use bellwether_core::config::Watch;
use bellwether_core::event::{Ask, Asker, Event};
use bellwether_core::id::{Epoch, GroupName, RequestId};
use bellwether_core::member::Member;
use bellwether_core::members::Members;
use bellwether_core::work::{Fence, WorkError};
use bellwether_guest::WorkerPool;
use tokio::sync::{mpsc, oneshot, watch};

use crate::gate::Gate;
use crate::outgoing::Outgoing;
use crate::peers::Peers;

/// A lock that outlives a panic of whoever held it: every critical section here leaves whole values behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node.
pub(crate) struct NodeShared {
    pub mailbox: mpsc::Sender<Event>,
    pub questions: Questions,
    pub groups: BTreeMap<GroupName, Arc<GroupShared>>,
    pub peers: Peers,
    /// None where no group may send requests.
    pub outgoing: Option<Outgoing>,
}

/// A group on a node.
pub(crate) struct GroupShared {
    pub name: GroupName,
    pub this: Arc<Member>,
    pub watch: Watch,
    pub gate: Gate,
    /// The highest epoch seen, watched by the tasks of lower ones.
    pub fence: watch::Sender<Fence>,
    /// The last term that the guest has asked to be rid of: asking again must not fill the mailbox.
    pub resigned: AtomicU64,
    members: RwLock<Members>,
    pool: RwLock<Option<WorkerPool>>,
    pub counts: Counts,
}

/// What became of the tasks that this node was handed.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub refused: AtomicU64,
}

impl GroupShared {
    /// Takes note of an epoch, and does `then` with the fence held; refuses a lower epoch than the highest that was seen.
    pub fn admit(&self, epoch: Epoch, then: impl FnOnce()) -> Result<(), WorkError> {
        let mut admitted = Ok(());
        self.fence.send_if_modified(|fence| {
            let before = *fence;
            admitted = fence.admit(epoch);
            if admitted.is_ok() {
                then();
            }
            *fence != before
        });
        admitted
    }

    pub fn new(name: GroupName, this: Arc<Member>, watch: Watch, gate: Gate) -> Self {
        Self {
            name,
            this,
            watch,
            gate,
            fence: watch::Sender::new(Fence::default()),
            resigned: AtomicU64::new(0),
            members: RwLock::new(Members::default()),
            pool: RwLock::new(None),
            counts: Counts::default(),
        }
    }

    pub fn members(&self) -> Members {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_members(&self, members: Members) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// The instances that tasks go to.
    pub fn pool(&self) -> Option<WorkerPool> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_pool(&self, pool: Option<WorkerPool>) -> Option<WorkerPool> {
        std::mem::replace(&mut *self.pool.write().unwrap_or_else(PoisonError::into_inner), pool)
    }
}

/// Questions to the core that wait for their answers.
#[derive(Default)]
pub(crate) struct Questions {
    next: AtomicU64,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Answer>>>,
}

impl Questions {
    pub fn answer(&self, request: RequestId, answer: Answer) {
        if let Some(asker) = lock(&self.waiting).remove(&request) {
            // Whoever asked may have gone away.
            let _ = asker.send(answer);
        }
    }
}

/// Forgets a question whose asker has gone away.
struct Waiting<'a> {
    questions: &'a Questions,
    request: RequestId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.questions.waiting).remove(&self.request);
    }
}

impl NodeShared {
    /// Puts a question to the core. `None` if the node has stopped.
    pub async fn ask(&self, group: &GroupName, asker: Asker, ask: Ask) -> Option<Answer> {
        let request = RequestId(self.questions.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        lock(&self.questions.waiting).insert(request, sender);
        let _waiting = Waiting { questions: &self.questions, request };
        self.mailbox.send(Event::Ask { group: group.clone(), request, asker, ask }).await.ok()?;
        answer.await.ok()
    }
}
