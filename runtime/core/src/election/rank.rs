//! The order of candidates whose suffixes do not tell it.

use super::{Election, Phase, Purpose};
use crate::candidate::Candidate;
use crate::link::Cx;
use crate::request::{Reply, Request, RequestError};

impl Election {
    /// At the end of the counter servers give the same suffix again and again, and sometimes a later one in between. When the
    /// candidates were made tells them apart: that order, too, is one in which newcomers come last.
    pub(super) fn rank(&mut self, cx: &mut Cx<'_>, all: &[Candidate]) {
        // An answer to an earlier ranking must not count for this one.
        self.round += 1;
        let nearest = all.iter().filter(|one| !one.is_of_the_end()).max_by_key(|one| one.seq).cloned();
        let unsure: Vec<&Candidate> = all.iter().filter(|one| one.is_of_the_end()).collect();
        self.phase = Phase::Ranking { unread: unsure.len(), made: Vec::new(), nearest };
        for candidate in unsure {
            let purpose = Purpose::Rank { round: self.round, name: candidate.name.clone() };
            self.ask(cx, purpose, Request::Get { path: self.path(&candidate.name), watch: false });
        }
    }

    pub(super) fn ranked(&mut self, cx: &mut Cx<'_>, name: String, result: Result<Reply, RequestError>) {
        let found = match result {
            Ok(Reply::Data { stat, .. }) if stat.owner.is_none() => return self.planted(cx, name),
            Ok(Reply::Data { stat, .. }) => self.format.parse(&name).map(|candidate| (stat.czxid, candidate)),
            Err(RequestError::NoNode) => None,
            result => return self.unclear(cx, &result),
        };
        let Phase::Ranking { unread, made, .. } = &mut self.phase else { return };
        made.extend(found);
        *unread -= 1;
        if *unread > 0 {
            return;
        }
        let Phase::Ranking { made, nearest, .. } = std::mem::replace(&mut self.phase, Phase::Placing) else { return };
        let own = self.own.as_ref().and_then(|own| made.iter().find(|(_, one)| one.name == own.name));
        let Some(own) = own.map(|(own, _)| *own) else {
            self.own = None;
            return self.again_later(cx, "our znode is gone");
        };
        let ahead = made.into_iter().filter(|(made, _)| *made < own).max_by_key(|(made, _)| *made);
        let ahead = ahead.map(|(made, one)| (one.name, Some(made)));
        // Names come again there, so that one which is gone now proves nothing.
        self.behind(cx, ahead.or_else(|| nearest.map(|nearest| (nearest.name, None))), Vec::new());
    }
}
