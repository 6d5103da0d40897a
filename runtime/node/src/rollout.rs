//! What an operator can ask about a group as a whole: which release it shall run, and how that makes its way.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bellwether_core::command::Answer;
use bellwether_core::event::Ask;
use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::release::{Document, Policy, ReleaseError, ReleaseOp, ReleaseReply};

use crate::admin::{
    ControlError, DeployRequest, NodeReport, Planned, RollbackRequest, RolloutStatus, Steer, SteerRequest,
};
use crate::control::{NodeControl, stopped};
use crate::wanted::{Named, Wish};

/// Who asked, where nobody says.
const SOMEBODY: &str = "somebody";

/// For people only: nothing is decided by it.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is wished for: what a request does not name stays as it is deployed, or else as the manifest has it.
fn wish(request: &DeployRequest, document: &Document, manifest: Wish) -> Wish {
    let current = match &document.current {
        Some(current) => Wish {
            component: current.wanted.component.clone().into(),
            worker: current.wanted.worker.clone().map(Named::from),
            config: current.wanted.config.clone(),
        },
        None => manifest,
    };
    Wish {
        component: request.component.clone().map_or(current.component, Named::new),
        worker: match &request.worker {
            Some(worker) => Some(Named::new(worker.clone())),
            None => current.worker.filter(|_| !request.no_worker),
        },
        config: match &request.config {
            Some(config) => Some(config.clone()),
            None => current.config.filter(|_| !request.manifest_config),
        },
    }
}

fn status(reply: ReleaseReply) -> RolloutStatus {
    let ReleaseReply { document, nodes, leader, .. } = reply;
    let nodes = nodes.into_iter().map(|(node, report)| NodeReport {
        target: document.target(&node).map(|target| target.number),
        node,
        report,
    });
    RolloutStatus { nodes: nodes.collect(), document, leader }
}

impl NodeControl {
    async fn release(&self, group: &GroupName, op: ReleaseOp) -> Result<ReleaseReply, ControlError> {
        self.known(group)?;
        self.connected().await?;
        match self.ask(group, Ask::Release(op)).await? {
            Answer::Release(reply) => reply.map(|reply| *reply).map_err(ControlError::from),
            _ => Err(stopped()),
        }
    }

    /// Whether a release is deployed to the group, or on its way, as far as that can be known now.
    pub(crate) async fn deployed(&self, group: &GroupName) -> bool {
        let known = self.release(group, ReleaseOp::Get).await;
        known.is_ok_and(|reply| reply.document.current.is_some() || reply.document.rollout.is_some())
    }

    /// What the group runs as a whole.
    pub(crate) async fn releases(&self, group: &GroupName) -> Result<RolloutStatus, ControlError> {
        self.release(group, ReleaseOp::Nodes).await.map(status)
    }

    /// Checks what shall be deployed on this node, then has it rolled out.
    pub(crate) async fn begin_deploy(
        &self,
        group: &GroupName,
        request: DeployRequest,
    ) -> Result<Planned, ControlError> {
        let known = self.release(group, ReleaseOp::Nodes).await?;
        let guests = self.guests.get(group).ok_or_else(stopped)?;
        let wanted = guests.check(wish(&request, &known.document, guests.manifest())).await?;
        let by = request.by.unwrap_or_else(|| SOMEBODY.to_owned());
        let policy = request.policy.policy();
        let op = ReleaseOp::Deploy { wanted: Box::new(wanted), policy, by, at: wall_clock() };
        self.begin(group, known, op, policy, request.plan).await
    }

    /// Has an earlier release rolled out again.
    pub(crate) async fn begin_rollback(
        &self,
        group: &GroupName,
        request: RollbackRequest,
    ) -> Result<Planned, ControlError> {
        let known = self.release(group, ReleaseOp::Nodes).await?;
        let by = request.by.unwrap_or_else(|| SOMEBODY.to_owned());
        let policy = request.policy.policy();
        let op = ReleaseOp::Rollback { to: request.to, policy, by, at: wall_clock() };
        self.begin(group, known, op, policy, request.plan).await
    }

    /// Plans a change of the document, and makes it unless it was only to be planned.
    async fn begin(
        &self,
        group: &GroupName,
        known: ReleaseReply,
        op: ReleaseOp,
        policy: Policy,
        plan: bool,
    ) -> Result<Planned, ControlError> {
        let current = known.document.current.clone();
        let document = if plan {
            let planned = op.apply(known.document).map_err(ReleaseError::from)?;
            planned.ok_or_else(stopped)?
        } else {
            self.release(group, op).await?.document
        };
        let begun = document.rollout.map(|rollout| rollout.to);
        // It cannot have ended by now; but if it has, it is what runs.
        let to = begun.or(document.current).ok_or_else(stopped)?;
        let nodes: BTreeSet<NodeId> = known.nodes.into_keys().collect();
        let waves = Document::plan(&nodes, known.leader.as_ref(), &policy);
        Ok(Planned { plan, current, to, policy, waves, leader: known.leader })
    }

    /// Says how the rollout that is under way shall go on.
    pub(crate) async fn steer_rollout(
        &self,
        group: &GroupName,
        steer: Steer,
        request: SteerRequest,
    ) -> Result<RolloutStatus, ControlError> {
        let op = match steer {
            Steer::Pause => ReleaseOp::Pause,
            Steer::Resume => ReleaseOp::Resume,
            Steer::Abort => ReleaseOp::Abort { by: request.by.unwrap_or_else(|| SOMEBODY.to_owned()) },
        };
        self.release(group, op).await?;
        self.releases(group).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bellwether_core::release::{Artifact, Wanted};

    use super::*;

    fn artifact(name: &str) -> Artifact {
        Artifact { reference: format!("file:/{name}"), digest: name.to_owned() }
    }

    fn config(value: &str) -> Option<BTreeMap<String, String>> {
        Some(BTreeMap::from([("key".to_owned(), value.to_owned())]))
    }

    fn manifest() -> Wish {
        Wish { component: Named::new("file:/manifest"), worker: Some(Named::new("file:/tasks")), config: None }
    }

    fn deployed() -> Document {
        let wanted = Wanted { component: artifact("one"), worker: Some(artifact("two")), config: config("old") };
        let document = Document::default().deploy(wanted, Policy::default(), "ada".into(), 1).unwrap();
        document.end(&BTreeSet::new())
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let nothing = DeployRequest::default();
        assert_eq!(wish(&nothing, &Document::default(), manifest()), manifest());
        let kept = wish(&nothing, &deployed(), manifest());
        assert_eq!((kept.component, kept.worker), (artifact("one").into(), Some(artifact("two").into())));
        assert_eq!(kept.config, config("old"));
    }

    #[test]
    fn what_is_named_is_taken() {
        let request = DeployRequest {
            component: Some("file:/new".into()),
            worker: Some("file:/tasks".into()),
            config: config("new"),
            ..DeployRequest::default()
        };
        let taken = wish(&request, &deployed(), manifest());
        let expected =
            Wish { component: Named::new("file:/new"), worker: Some(Named::new("file:/tasks")), config: config("new") };
        assert_eq!(taken, expected, "a name that was given anew has no digest yet");
        let request = DeployRequest { no_worker: true, manifest_config: true, ..DeployRequest::default() };
        let without = wish(&request, &deployed(), manifest());
        assert_eq!((without.worker, without.config), (None, None));
    }
}
