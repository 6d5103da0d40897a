//! What operators ask: any node of the group reads and changes the document for them, with its version and without a fence.

use std::collections::BTreeSet;

use super::{Purpose, Rollouts};
use crate::command::{Answer, Command};
use crate::election::leader_of;
use crate::event::Asker;
use crate::id::{NodeId, RequestId};
use crate::link::Cx;
use crate::member::Member;
use crate::release::{Document, ReleaseError, ReleaseOp, ReleaseReply, Report};
use crate::request::{Reply, Request, RequestError};

/// Which part of a question a request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// The sync before it.
    Sync,
    /// The document.
    Document,
    /// The document is written.
    Write,
    /// Who leads.
    Leader,
    /// Who reports.
    Running,
    /// What a node reports.
    Report(NodeId),
    /// Who is a member.
    Members,
    /// A member.
    Member,
}

#[derive(Debug, Clone)]
pub(super) struct Question {
    op: ReleaseOp,
    tries: u32,
    reply: ReleaseReply,
    /// Answers that are still to come.
    awaited: usize,
    /// Whether the document is being written: then it is not known what came of it, should the answer be lost.
    writing: bool,
}

/// Questions that may be under way at once.
const MOST: usize = 64;
/// Others may change the document in between so often.
const TRIES: u32 = 8;

impl Rollouts {
    /// Takes a question.
    pub fn put_question(&mut self, cx: &mut Cx<'_>, request: RequestId, asker: Asker, op: ReleaseOp) {
        let refused = match asker {
            Asker::Guest(_) | Asker::Worker => Some(ReleaseError::NotAllowed),
            Asker::Operator if !cx.link.connected() => Some(ReleaseError::Unavailable("there is no connection".into())),
            Asker::Operator if self.questions.len() >= MOST => {
                Some(ReleaseError::Unavailable(format!("{MOST} questions about the group's releases wait for answers")))
            }
            Asker::Operator => None,
        };
        if let Some(error) = refused {
            return answer(cx, request, Err(error));
        }
        let question = Question { op, tries: 0, reply: ReleaseReply::default(), awaited: 0, writing: false };
        self.questions.insert(request, question);
        self.pose(cx, request);
    }

    fn part(&self, cx: &mut Cx<'_>, request: RequestId, part: Part, wire: Request) {
        self.ask(cx, Purpose::Asked { request, part }, wire);
    }

    fn pose(&mut self, cx: &mut Cx<'_>, request: RequestId) {
        self.part(cx, request, Part::Sync, Request::Sync { path: self.path.clone() });
        self.part(cx, request, Part::Document, Request::Get { path: self.path.clone(), watch: false });
    }

    fn close(&mut self, cx: &mut Cx<'_>, request: RequestId, result: Result<Document, ReleaseError>) {
        if let Some(mut question) = self.questions.remove(&request) {
            let result = result.map(|document| {
                question.reply.document = document;
                Box::new(question.reply)
            });
            answer(cx, request, result);
        }
    }

    /// The session is gone, and with it every answer that was on its way.
    pub(super) fn fail_questions(&mut self, cx: &mut Cx<'_>) {
        for (request, question) in std::mem::take(&mut self.questions) {
            let why = "the session has ended".to_owned();
            let error = if question.writing { ReleaseError::Unknown(why) } else { ReleaseError::Unavailable(why) };
            answer(cx, request, Err(error));
        }
    }

    /// Others were quicker, or the znode was not there: once more from the beginning.
    fn again(&mut self, cx: &mut Cx<'_>, request: RequestId) {
        let Some(question) = self.questions.get_mut(&request) else { return };
        question.tries += 1;
        question.writing = false;
        if question.tries > TRIES {
            return self.close(cx, request, Err(ReleaseError::Contended));
        }
        self.pose(cx, request);
    }

    pub(super) fn question_answered(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        part: Part,
        result: Result<Reply, RequestError>,
    ) {
        if !self.questions.contains_key(&request) || part == Part::Sync {
            return;
        }
        match (part, result) {
            (Part::Document, Ok(Reply::Data { data, stat })) => {
                let path = self.path.clone();
                match Document::parse(&data) {
                    Ok(document) => self.proceed(cx, request, document, stat.version),
                    Err(why) => self.close(cx, request, Err(ReleaseError::Unreadable { path, why })),
                }
            }
            (Part::Document | Part::Write, Err(RequestError::NoNode)) => {
                self.make(cx, &self.path);
                self.again(cx, request);
            }
            (Part::Write, Err(RequestError::BadVersion)) => self.again(cx, request),
            (Part::Write, Ok(_)) => {
                let document = self.questions.get(&request).map(|question| question.reply.document.clone());
                self.close(cx, request, Ok(document.unwrap_or_default()));
            }
            (Part::Write, Err(RequestError::Unknown(why))) => self.close(cx, request, Err(ReleaseError::Unknown(why))),
            (part @ (Part::Leader | Part::Running | Part::Report(_) | Part::Members | Part::Member), result) => {
                self.gathered(cx, request, part, result);
            }
            (_, Err(error @ (RequestError::Unknown(_) | RequestError::SessionEnded))) => {
                self.close(cx, request, Err(ReleaseError::Unavailable(error.to_string())));
            }
            (_, Err(error)) => {
                let why = format!("{}: {error}", self.path);
                self.close(cx, request, Err(ReleaseError::Other(why)));
            }
            (_, Ok(_)) => {
                let why = "an answer of the wrong kind".to_owned();
                self.close(cx, request, Err(ReleaseError::Other(why)));
            }
        }
    }

    /// The document was read: it is changed, given, or the first part of what is given.
    fn proceed(&mut self, cx: &mut Cx<'_>, request: RequestId, document: Document, version: i32) {
        if self.document().is_some_and(|known| known.deployed()) && !document.deployed() {
            let why = format!("{} was lost, and is about to be put back", self.path);
            return self.close(cx, request, Err(ReleaseError::Unavailable(why)));
        }
        let Some(question) = self.questions.get_mut(&request) else { return };
        match question.op.apply(document.clone()) {
            Err(refusal) => self.close(cx, request, Err(refusal.into())),
            Ok(Some(changed)) => {
                let data = changed.encode().into();
                question.reply.document = changed;
                question.writing = true;
                let set = Request::Set { path: self.path.clone(), data, version: Some(version) };
                self.part(cx, request, Part::Write, set);
            }
            Ok(None) if question.op == ReleaseOp::Nodes => {
                question.reply.document = document;
                question.awaited = 3;
                self.part(cx, request, Part::Leader, Request::Get { path: self.epoch.clone(), watch: false });
                self.part(cx, request, Part::Running, Request::List { path: self.running.clone(), watch: false });
                self.part(cx, request, Part::Members, Request::List { path: self.registry.clone(), watch: false });
            }
            Ok(None) => self.close(cx, request, Ok(document)),
        }
    }

    /// One more part of what the nodes are and say.
    fn gathered(&mut self, cx: &mut Cx<'_>, request: RequestId, part: Part, result: Result<Reply, RequestError>) {
        let Some(question) = self.questions.get_mut(&request) else { return };
        question.awaited -= 1;
        let mut reads: Vec<(Part, String)> = Vec::new();
        match (part, result) {
            (Part::Leader, Ok(Reply::Data { data, stat })) => {
                if let Some(leader) = leader_of(&data, stat.mzxid) {
                    question.reply.nodes.entry(leader.id.clone()).or_default();
                    question.reply.addresses.insert(leader.id.clone(), leader.address);
                    question.reply.leader = Some(leader.id);
                }
            }
            (Part::Running, Ok(Reply::Children { names, .. })) => {
                let nodes: BTreeSet<NodeId> = names.iter().filter_map(|name| NodeId::new(name).ok()).collect();
                reads.extend(
                    nodes.into_iter().map(|node| (Part::Report(node.clone()), format!("{}/{node}", self.running))),
                );
            }
            (Part::Members, Ok(Reply::Children { names, .. })) => {
                reads.extend(names.iter().map(|name| (Part::Member, format!("{}/{name}", self.registry))));
            }
            (Part::Report(node), Ok(Reply::Data { data, .. })) => {
                question.reply.nodes.insert(node, Report::parse(&data));
            }
            (Part::Member, Ok(Reply::Data { data, .. })) => {
                if let Ok(member) = serde_json::from_slice::<Member>(&data) {
                    question.reply.nodes.entry(member.id.clone()).or_default();
                    question.reply.addresses.insert(member.id, member.address);
                }
            }
            // It came and went in between, or nobody ever led or reported.
            (_, Err(RequestError::NoNode)) => {}
            (_, Err(error)) => return self.close(cx, request, Err(ReleaseError::Unavailable(error.to_string()))),
            (_, Ok(_)) => {
                let why = "an answer of the wrong kind".to_owned();
                return self.close(cx, request, Err(ReleaseError::Other(why)));
            }
        }
        question.awaited += reads.len();
        if question.awaited == 0 {
            let document = std::mem::take(&mut question.reply.document);
            return self.close(cx, request, Ok(document));
        }
        for (part, path) in reads {
            self.part(cx, request, part, Request::Get { path, watch: false });
        }
    }
}

fn answer(cx: &mut Cx<'_>, request: RequestId, result: Result<Box<ReleaseReply>, ReleaseError>) {
    cx.out.push(Command::Answer { request, answer: Answer::Release(result) });
}
