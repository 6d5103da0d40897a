//! A group's rollouts, on this node: the document is read and followed, this node's report is written, the leader conducts, and
//! operators' questions are answered.
//!
//! The document is read behind a `sync` on each connection, and watched; at rest nothing further is asked. Reports exist from
//! the first release that is deployed on. Only a leader reads them, and only while a rollout is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::command::{Level, Notice};
use crate::config::{Paths, Safeguard, Safeguards};
use crate::course::Aim;
use crate::id::{GroupName, NodeId, RequestId, SessionId, Tag};
use crate::link::{self, Cx, Owner};
use crate::members::Members;
use crate::release::{Document, Phase, Report, Unreadable};
use crate::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use crate::time::Moment;

mod conductor;
mod questions;
mod reporter;

use conductor::Conductor;
use questions::Question;
use reporter::Reporter;

/// What a request was for. Rounds tell the answers of an earlier connection from those that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The sync before the document is read; only the reading's answer counts.
    Sync,
    /// The document, with a watch.
    Read { round: u64 },
    /// The document is put back where it was lost.
    Restore { round: u64 },
    /// Our report, looked at.
    Look { round: u64 },
    /// Our report is made, changed or taken away.
    Report { round: u64 },
    /// Who reports.
    List { look: u64 },
    /// Another node's report.
    Peer { look: u64, node: NodeId },
    /// The leader's next step.
    Conduct { round: u64, look: u64 },
    /// An operator's question.
    Asked { request: RequestId, part: questions::Part },
}

/// What the group must do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    /// A write found that this node does not lead any more.
    Superseded,
    /// The ACL forbids it.
    Denied(String),
}

/// What the machine must know of the rest of the group.
pub(crate) struct Around<'a> {
    /// What this node reports; none if it shall not.
    pub report: Option<Report>,
    /// The checks of a leader's writes, while this node leads.
    pub fence: Option<[Op; 2]>,
    /// The members, where they are known.
    pub members: Option<&'a Members>,
}

/// The document as it is known here.
#[derive(Debug, Clone)]
struct Known {
    document: Arc<Document>,
    aim: Aim,
}

/// What was found in the document's place when it was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing that can be written to.
    Nothing,
    /// The document that is known, in this version.
    Document { version: i32 },
    /// Nothing, though a release was deployed: it is to be put back, not before this moment.
    Lost { version: i32, since: Moment },
}

#[derive(Debug, Clone)]
pub(crate) struct Rollouts {
    group: GroupName,
    me: NodeId,
    path: String,
    running: String,
    epoch: String,
    registry: String,
    known: Option<Known>,
    found: Found,
    mzxid: i64,
    /// The transaction that made the document's znode.
    czxid: i64,
    watch: Option<Tag>,
    reading: bool,
    stale: bool,
    /// The server may not have caught up with what was written before.
    sync: bool,
    retry_at: Moment,
    attempts: u32,
    round: u64,
    /// A write of the document is under way.
    writing: bool,
    /// What is wrong with the document, for the status.
    pub trouble: Option<String>,
    reporter: Reporter,
    conductor: Option<Conductor>,
    /// Names the looks that a leader takes at the reports.
    looks: u64,
    questions: BTreeMap<RequestId, Question>,
    pub safeguards: Safeguards,
}

const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

impl Rollouts {
    pub fn new(group: GroupName, me: NodeId, paths: &Paths) -> Self {
        Self {
            group,
            me,
            path: paths.release.clone(),
            running: paths.running.clone(),
            epoch: paths.epoch.clone(),
            registry: paths.registry.clone(),
            known: None,
            found: Found::Nothing,
            mzxid: 0,
            czxid: 0,
            watch: None,
            reading: false,
            stale: true,
            sync: true,
            retry_at: Moment::default(),
            attempts: 0,
            round: 0,
            writing: false,
            trouble: None,
            reporter: Reporter::default(),
            conductor: None,
            looks: 0,
            questions: BTreeMap::new(),
            safeguards: Safeguards::default(),
        }
    }

    /// The document; none until it was read.
    pub fn document(&self) -> Option<&Arc<Document>> {
        self.known.as_ref().map(|known| &known.document)
    }

    /// What it wants of this node; none until it was read.
    pub fn aim(&self) -> Option<&Aim> {
        self.known.as_ref().map(|known| &known.aim)
    }

    /// Whether the group's release is a matter of all of its nodes: one was deployed, or is on its way.
    pub fn in_force(&self) -> bool {
        self.document().is_some_and(|document| document.current.is_some() || document.rollout.is_some())
    }

    fn ask(&self, cx: &mut Cx<'_>, purpose: Purpose, request: Request) -> Option<Tag> {
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Rollout(purpose)), request)
    }

    fn report_path(&self, node: &NodeId) -> String {
        format!("{}/{node}", self.running)
    }

    fn notice(&self, cx: &mut Cx<'_>, level: Level, what: &'static str, text: String) {
        cx.notice(Notice { level, group: Some(self.group.clone()), epoch: None, release: None, what, text });
    }

    /// Connected (again): what was under way is unsure, and the document may have changed.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        if let Some(tag) = self.watch.take() {
            cx.forget(tag);
        }
        self.begin_anew();
        self.reporter.connected();
    }

    fn begin_anew(&mut self) {
        self.round += 1;
        self.reading = false;
        self.writing = false;
        self.stale = true;
        self.sync = true;
        self.retry_at = Moment::default();
        self.conductor = None;
    }

    pub fn session_lost(&mut self, cx: &mut Cx<'_>) {
        self.begin_anew();
        self.watch = None;
        // The next session's server is asked to catch up before it is believed.
        self.mzxid = 0;
        self.reporter = Reporter::default();
        self.fail_questions(cx);
    }

    /// Does what is due.
    pub fn drive(&mut self, cx: &mut Cx<'_>, around: &Around<'_>) {
        if !cx.link.ready() {
            return;
        }
        if self.stale && !self.reading && self.retry_at <= cx.now {
            self.read(cx);
        }
        self.drive_report(cx, around.report.as_ref());
        self.put_back(cx, around.fence.as_ref());
        self.conduct(cx, around);
    }

    pub fn deadline(&self, link: &link::Link, leading: bool, report: Option<&Report>) -> Option<Moment> {
        if !link.ready() {
            return None;
        }
        let read = (self.stale && !self.reading).then_some(self.retry_at);
        let lost = match self.found {
            Found::Lost { since, .. } if !self.writing => Some(if leading { since } else { since + LOST }),
            _ => None,
        };
        let conducts = leading && self.settled_version().is_some();
        let conduct = self.conductor.as_ref().filter(|_| conducts).and_then(Conductor::deadline);
        [read, lost, conduct, self.reporter.deadline(report, self.under_way())].into_iter().flatten().min()
    }

    /// Whether a rollout is under way, so that the leader needs our report.
    fn under_way(&self) -> bool {
        self.document().is_some_and(|document| document.rollout.is_some())
    }

    /// The version of the document, if the one that is known is the one that there is, as far as can be known.
    fn settled_version(&self) -> Option<i32> {
        match self.found {
            Found::Document { version } if !self.writing && !self.stale && !self.reading => Some(version),
            _ => None,
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>) {
        self.stale = false;
        if let Some(tag) = self.watch.take() {
            cx.forget(tag);
        }
        if std::mem::take(&mut self.sync) {
            self.ask(cx, Purpose::Sync, Request::Sync { path: self.path.clone() });
        }
        let request = Request::Get { path: self.path.clone(), watch: true };
        self.reading = self.ask(cx, Purpose::Read { round: self.round }, request).is_some();
    }

    fn read_later(&mut self, cx: &mut Cx<'_>) {
        self.stale = true;
        self.attempts += 1;
        self.retry_at = cx.now + cx.rng.backoff(RETRY, RETRY_MAX, self.attempts);
    }

    /// A watch has fired: look again.
    pub fn fired(&mut self, tag: Tag) {
        if self.watch == Some(tag) {
            self.watch = None;
            self.stale = true;
            self.retry_at = Moment::default();
        }
    }

    fn was_read(&mut self, cx: &mut Cx<'_>, tag: Tag, result: Result<Reply, RequestError>) {
        self.reading = false;
        match result {
            Ok(Reply::Data { data, stat }) => {
                self.attempts = 0;
                self.watch = Some(tag);
                // A server that lags behind answers with what was; its watch tells when it has caught up.
                if stat.mzxid >= self.mzxid {
                    if stat.czxid != self.czxid {
                        // Made anew: our report may have been lost as well.
                        self.reporter.unsure();
                    }
                    (self.mzxid, self.czxid) = (stat.mzxid, stat.czxid);
                    self.take(cx, Document::parse(&data), stat);
                }
            }
            Err(RequestError::NoNode) => {
                self.found = Found::Nothing;
                self.make(cx, &self.path);
                self.read_later(cx);
            }
            Ok(_) | Err(_) => self.read_later(cx),
        }
    }

    /// Makes a persistent znode; whether that works is seen by the next request that needs it.
    fn make(&self, cx: &mut Cx<'_>, path: &str) {
        let make = Request::Create { path: path.to_owned(), data: Vec::new().into(), mode: CreateMode::Persistent };
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Parent), make);
    }

    /// The znode is not there and may not be made: an operator has not allowed rollouts to a group that is older than they are.
    fn not_allowed(&mut self, cx: &mut Cx<'_>) {
        // The next connection looks again.
        self.stale = false;
        if self.known.is_none() {
            let text = format!(
                "{} is not there, and the ACL denies this node's identity to make it: no release can be deployed to the group",
                self.path
            );
            self.notice(cx, Level::Warn, "release-denied", text.clone());
            self.trouble = Some(text);
            self.know(Document::default());
        }
    }

    fn take(&mut self, cx: &mut Cx<'_>, document: Result<Document, Unreadable>, stat: Stat) {
        let version = stat.version;
        let deployed = self.document().is_some_and(|known| known.deployed());
        match document {
            Ok(document) if deployed && !document.deployed() => {
                if !matches!(self.found, Found::Lost { .. }) {
                    let text = format!("{} is empty, though a release was deployed: it is put back", self.path);
                    self.notice(cx, Level::Error, "release-lost", text);
                }
                self.found = Found::Lost { version, since: cx.now };
            }
            Ok(document) => {
                self.trouble = None;
                self.found = Found::Document { version };
                if self.document().is_none_or(|known| **known != document) {
                    self.know(document);
                }
            }
            Err(why) => {
                self.found = Found::Nothing;
                let text = format!("{} is not followed: {why}", self.path);
                if self.trouble.as_ref() != Some(&text) {
                    self.notice(cx, Level::Error, "release-unreadable", text.clone());
                    self.trouble = Some(text);
                }
                if self.known.is_none() {
                    self.know(Document::default());
                }
            }
        }
    }

    fn know(&mut self, document: Document) {
        let number = |document: &Document| document.rollout.as_ref().map(|rollout| rollout.to.number);
        let begins =
            number(&document).filter(|begins| self.document().and_then(|known| number(known)) != Some(*begins));
        if begins.is_some() {
            // Nobody looks after reports while nothing goes on.
            self.reporter.unsure();
        }
        let rollout = document.rollout.as_ref();
        let goes_back = rollout.is_some_and(|rollout| matches!(rollout.phase, Phase::Back { .. }));
        let waits = self.safeguards.hold(Safeguard::Admission);
        let coming = rollout.is_some_and(|rollout| !goes_back && (!waits || rollout.admitted.contains(&self.me)));
        let target = match rollout {
            Some(rollout) if coming => Some(&rollout.to),
            _ => document.target(&self.me),
        };
        let target = target.cloned().map(Arc::new);
        let before = document.current.clone().map(Arc::new);
        let aim = Aim { target, coming, before, under_way: rollout.is_some() };
        self.known = Some(Known { document: Arc::new(document), aim });
    }

    /// A document that was lost is put back: by the leader at once, and by others if there is none that does.
    fn put_back(&mut self, cx: &mut Cx<'_>, fence: Option<&[Op; 2]>) {
        let Found::Lost { version, since } = self.found else { return };
        let Some(document) = self.document().cloned() else { return };
        if self.writing || fence.is_none() && cx.now < since + LOST {
            return;
        }
        let set = Op::Set { path: self.path.clone(), data: document.encode().into(), version: Some(version) };
        let operations = fence.into_iter().flatten().cloned().chain([set]).collect();
        let purpose = Purpose::Restore { round: self.round };
        self.writing = self.ask(cx, purpose, Request::Multi(operations)).is_some();
    }

    /// Takes an answer.
    pub fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        tag: Tag,
        result: Result<Reply, RequestError>,
        parents_denied: bool,
    ) -> Outcome {
        let denied = result == Err(RequestError::NoAuth);
        match purpose {
            Purpose::Sync => {}
            Purpose::Asked { request, part } => self.question_answered(cx, request, part, result),
            _ if denied => {
                return Outcome::Denied(format!(
                    "{} or {} denies this node's identity what it needs (NoAuth): correct the credentials under [coordination] \
                     auth, or the ACL",
                    self.path, self.running
                ));
            }
            Purpose::Read { round } if round == self.round => {
                let missing = result == Err(RequestError::NoNode);
                self.was_read(cx, tag, result);
                if missing && parents_denied {
                    self.not_allowed(cx);
                }
            }
            Purpose::Read { .. } => cx.forget(tag),
            Purpose::Look { round } if round == self.round => self.looked(cx, result),
            Purpose::Report { round } if round == self.round => self.reported(cx, result),
            Purpose::List { look } if look == self.looks => self.listed(cx, result),
            Purpose::Peer { look, node } if look == self.looks => self.peer_read(node, result),
            Purpose::Conduct { round, look } if round == self.round => {
                let failed = matches!(&result, Err(RequestError::Multi { index: 0 | 1, .. }));
                self.written(cx, &result);
                // Of an earlier term nothing follows for this one.
                if failed && self.conductor.is_some() && look == self.looks {
                    return Outcome::Superseded;
                }
            }
            Purpose::Restore { round } if round == self.round => {
                if result.is_ok() {
                    let text = format!("{} was put back", self.path);
                    self.notice(cx, Level::Warn, "release-restored", text);
                }
                self.written(cx, &result);
            }
            Purpose::Look { .. }
            | Purpose::Report { .. }
            | Purpose::List { .. }
            | Purpose::Peer { .. }
            | Purpose::Conduct { .. }
            | Purpose::Restore { .. } => {}
        }
        Outcome::Nothing
    }

    /// The document was written, or not: what it holds now is read before anything further is done.
    fn written(&mut self, cx: &mut Cx<'_>, result: &Result<Reply, RequestError>) {
        self.writing = false;
        self.found = Found::Nothing;
        if matches!(result, Ok(_) | Err(RequestError::Multi { .. })) {
            self.stale = true;
            self.retry_at = cx.now;
        } else {
            self.read_later(cx);
        }
    }

    fn is_ours(owner: Option<SessionId>, cx: &Cx<'_>) -> bool {
        owner.is_some() && owner == cx.link.session()
    }
}

/// How long others wait for a leader to put a lost document back.
const LOST: Duration = Duration::from_secs(10);
