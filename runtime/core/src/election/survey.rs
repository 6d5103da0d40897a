//! What is there, what of it is ours, and what must go: the answer to whatever is not known.

use super::{Election, PLANTED_MAX, Phase, Purpose};
use crate::candidate::Candidate;
use crate::command::Notice;
use crate::link::{self, Cx, Owner};
use crate::request::{CreateMode, Reply, Request, RequestError};

impl Election {
    pub(super) fn survey(&mut self, cx: &mut Cx<'_>) {
        self.round += 1;
        if !self.parents {
            for path in self.paths.all() {
                let request =
                    Request::Create { path: path.to_owned(), data: Vec::new().into(), mode: CreateMode::Persistent };
                cx.submit(Owner::Group(self.group.clone(), link::Purpose::Parent), request);
            }
            self.parents = true;
        }
        self.ask(cx, Purpose::Sync, Request::Sync { path: self.paths.election.clone() });
        let list = Request::List { path: self.paths.election.clone(), watch: false };
        self.ask(cx, Purpose::Survey { round: self.round }, list);
        self.phase = Phase::Surveying { inspecting: 0, ours: Vec::new(), all: Vec::new() };
    }

    pub(super) fn sweep(&self, cx: &mut Cx<'_>, name: &str) {
        self.ask(cx, Purpose::Sweep, Request::Delete { path: self.path(name), version: None });
    }

    pub(super) fn surveyed(&mut self, cx: &mut Cx<'_>, names: &[String]) {
        let all = self.sort(names);
        // By the whole name: another node may have been given a copy of our data folder, and with it our GUID.
        let prefix = self.format.prefix(&cx.node.id, &cx.node.guid);
        let carry_our_guid: Vec<Candidate> = all.iter().filter(|one| one.name.starts_with(&prefix)).cloned().collect();
        for candidate in &carry_our_guid {
            let purpose = Purpose::Inspect { round: self.round, name: candidate.name.clone() };
            self.ask(cx, purpose, Request::Get { path: self.path(&candidate.name), watch: false });
        }
        self.phase = Phase::Surveying { inspecting: carry_our_guid.len(), ours: Vec::new(), all };
        self.surveyed_all(cx);
    }

    pub(super) fn inspected(&mut self, cx: &mut Cx<'_>, name: &str, result: Result<Reply, RequestError>) {
        let ours_now = match result {
            Ok(Reply::Data { stat, .. }) => self.is_ours(cx, stat.owner),
            Err(RequestError::NoNode) => false,
            result => return self.unclear(cx, &result),
        };
        if !ours_now {
            // It belongs to an earlier session of ours, which the ensemble may keep alive for long: it must not outrank anyone.
            self.sweep(cx, name);
        }
        if let Phase::Surveying { inspecting, ours, .. } = &mut self.phase {
            *inspecting -= 1;
            if ours_now {
                ours.extend(self.format.parse(name));
            }
        }
        self.surveyed_all(cx);
    }

    pub(super) fn surveyed_all(&mut self, cx: &mut Cx<'_>) {
        let Phase::Surveying { inspecting: 0, ours, all } = &mut self.phase else { return };
        let (mut ours, all) = (std::mem::take(ours), std::mem::take(all));
        ours.sort_by_key(|candidate| candidate.seq);
        for ghost in ours.iter().skip(1) {
            self.sweep(cx, &ghost.name);
        }
        self.own = ours.into_iter().next();
        match &self.own {
            Some(own) => {
                // Placed by the same list, less what was swept.
                let (own, prefix) = (own.name.clone(), self.format.prefix(&cx.node.id, &cx.node.guid));
                let all: Vec<Candidate> =
                    all.into_iter().filter(|one| one.name == own || !one.name.starts_with(&prefix)).collect();
                self.place(cx, &all);
            }
            None if self.wanted => self.join(cx),
            None => self.phase = Phase::Out { clean: false },
        }
    }

    /// Somebody made a znode by hand that looks like a candidate's. Behind it the group would wait for ever.
    pub(super) fn planted(&mut self, cx: &mut Cx<'_>, name: String) {
        if self.planted.len() == PLANTED_MAX {
            self.planted.clear();
        }
        let text = format!("{}: belongs to no session, so it is no candidate, and is passed over", self.path(&name));
        cx.notice(Notice::warning(&self.group, "planted-candidate", text));
        self.planted.insert(name);
        self.list(cx);
    }
}
