//! The calls about what a group runs as a whole: its document, and the rollouts that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use bellwether_core::id::NodeId;
use bellwether_core::release::{Document, Numbered, OnFailure, Policy, ReleaseError, Report, Wanted};
use serde::{Deserialize, Serialize};

use super::error::ControlError;
use super::routes::{Api, Reply, Shared, group_name, malformed, within};

/// The largest body of a deployment: its configuration may take 96 KiB, which JSON's escapes can multiply.
const MAX_BODY: usize = 1 << 20;

/// How a release shall make its way; what is not given is as [`Policy`]'s default has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyRequest {
    /// How many nodes run it first.
    pub canaries: Option<u32>,
    /// How many nodes may be between releases at once after that.
    pub max_unavailable: Option<u32>,
    /// How long a wave must have been well, in milliseconds.
    pub settle_ms: Option<u64>,
    /// How long a node may take, in milliseconds.
    pub patience_ms: Option<u64>,
    /// What is done when a node fails.
    pub on_failure: Option<OnFailure>,
}

impl PolicyRequest {
    /// The whole policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let default = Policy::default();
        Policy {
            canaries: self.canaries.unwrap_or(default.canaries),
            max_unavailable: self.max_unavailable.unwrap_or(default.max_unavailable),
            settle: self.settle_ms.map_or(default.settle, Duration::from_millis),
            patience: self.patience_ms.map_or(default.patience, Duration::from_millis),
            on_failure: self.on_failure.unwrap_or(default.on_failure),
        }
    }
}

/// What a group shall run. What is not named stays as it is deployed now; before the first deployment, as this node's manifest has
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeployRequest {
    /// Where the component is to be had: `file:` and an absolute path on the nodes' machines.
    pub component: Option<String>,
    /// Where the component for tasks is.
    pub worker: Option<String>,
    /// The component does the tasks itself.
    pub no_worker: bool,
    /// The whole configuration, in place of the manifests'.
    pub config: Option<BTreeMap<String, String>>,
    /// The configuration is each node's manifest's again.
    pub manifest_config: bool,
    /// How it makes its way.
    pub policy: PolicyRequest,
    /// Who asks, for people.
    pub by: Option<String>,
    /// Say what would happen, and change nothing.
    pub plan: bool,
}

impl DeployRequest {
    fn check(&self) -> Result<(), ControlError> {
        let both = |one: &str, other: &str| {
            Err(ControlError::BadRequest(format!("`{one}` and `{other}` contradict each other: give one of them")))
        };
        if self.worker.is_some() && self.no_worker {
            return both("worker", "no_worker");
        }
        if self.config.is_some() && self.manifest_config {
            return both("config", "manifest_config");
        }
        Ok(())
    }
}

/// An earlier release that a group shall run again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRequest {
    /// Its number; none for the last one that was rolled out to its end and differs from what runs.
    pub to: Option<u64>,
    /// How it makes its way.
    pub policy: PolicyRequest,
    /// Who asks, for people.
    pub by: Option<String>,
    /// Say what would happen, and change nothing.
    pub plan: bool,
}

/// How a rollout that is under way shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steer {
    /// Admit no further node.
    Pause,
    /// Admit nodes again.
    Resume,
    /// Take every node back to the release before.
    Abort,
}

/// Who steers a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SteerRequest {
    /// Who asks, for people.
    pub by: Option<String>,
}

/// A rollout that has begun, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Whether it was only planned: then nothing was written.
    pub plan: bool,
    /// What is deployed now; none for each node's manifest's release.
    pub current: Option<Numbered>,
    /// What comes.
    pub to: Numbered,
    /// How.
    pub policy: Policy,
    /// Which nodes change together, in order, as the group is now.
    pub waves: Vec<Vec<NodeId>>,
    /// Who leads, and so changes last.
    pub leader: Option<NodeId>,
}

/// What a group runs as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// What it shall run, what is on its way, and what was.
    pub document: Document,
    /// The nodes of the group.
    pub nodes: Vec<NodeReport>,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
}

/// How far one node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Which release it shall run; none for its manifest's.
    pub target: Option<u64>,
    /// What it says of itself; none before the first deployment, or while it does not answer.
    pub report: Option<Report>,
}

/// What differs between two releases, the first of which may be each node's manifest's.
#[must_use]
pub fn differences(before: Option<&Wanted>, after: &Wanted) -> Vec<String> {
    let digest = |wanted: &Wanted| wanted.component.digest.clone();
    let worker = |wanted: &Wanted| wanted.worker.as_ref().map(|worker| worker.digest.clone());
    let mut changes = Vec::new();
    if before.map(digest).as_ref() != Some(&after.component.digest) {
        changes.push("component".to_owned());
    }
    if before.and_then(worker) != worker(after) {
        changes.push("worker".to_owned());
    }
    let config = |wanted: &Wanted| wanted.config.clone();
    match (before.and_then(config), config(after)) {
        (None, None) => {}
        // Names alone: what they hold is not for a log or a screen.
        (Some(old), Some(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
            changes.extend(changed.map(|name| format!("config {name}")));
        }
        (None, Some(new)) => changes.push(format!("config: {} in place of the manifests'", counted(new.len()))),
        (Some(_), None) => changes.push("config: the manifests' again".to_owned()),
    }
    changes
}

fn counted(settings: usize) -> String {
    if settings == 1 { "1 setting".to_owned() } else { format!("{settings} settings") }
}

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/rollout", get(status))
        .route("/rollout/pause", post(pause))
        .route("/rollout/resume", post(resume))
        .route("/rollout/abort", post(abort))
        .route("/rollback", post(rollback))
        .route("/deploy", post(deploy).layer(DefaultBodyLimit::max(MAX_BODY)))
}

type Place = Path<(String, String)>;
type Body<T> = Result<Json<T>, JsonRejection>;

async fn status(State(api): Shared, Path((node, group)): Place) -> Reply<Json<RolloutStatus>> {
    let node = api.node(&node)?;
    Ok(Json(within(api.options.read, "the group's releases", node.rollout(group_name(&group)?)).await?))
}

async fn deploy(State(api): Shared, Path((node, group)): Place, request: Body<DeployRequest>) -> Reply<Json<Planned>> {
    let Json(request) =
        request.map_err(|rejected| malformed(&rejected, "send {\"component\": \"file:/absolute/path.wasm\"}"))?;
    request.check()?;
    let node = api.node(&node)?;
    let limit = api.options.swap;
    match tokio::time::timeout(limit, node.deploy(group_name(&group)?, request)).await {
        Ok(planned) => Ok(Json(planned?)),
        Err(_) => {
            let why = format!("the component was not obtained, compiled and checked within {limit:?}");
            Err(ControlError::TimedOut(why).into())
        }
    }
}

async fn rollback(
    State(api): Shared,
    Path((node, group)): Place,
    request: Body<RollbackRequest>,
) -> Reply<Json<Planned>> {
    let Json(request) = request.map_err(|rejected| malformed(&rejected, "send {} or {\"to\": NUMBER}"))?;
    let node = api.node(&node)?;
    Ok(Json(within(api.options.change, "the rollback", node.rollback(group_name(&group)?, request)).await?))
}

async fn pause(api: Shared, place: Place, request: Body<SteerRequest>) -> Reply<Json<RolloutStatus>> {
    steer(api, place, request, Steer::Pause).await
}

async fn resume(api: Shared, place: Place, request: Body<SteerRequest>) -> Reply<Json<RolloutStatus>> {
    steer(api, place, request, Steer::Resume).await
}

async fn abort(api: Shared, place: Place, request: Body<SteerRequest>) -> Reply<Json<RolloutStatus>> {
    steer(api, place, request, Steer::Abort).await
}

async fn steer(
    State(api): Shared,
    Path((node, group)): Place,
    request: Body<SteerRequest>,
    steer: Steer,
) -> Reply<Json<RolloutStatus>> {
    let Json(request) = request.map_err(|rejected: JsonRejection| malformed(&rejected, "send {}"))?;
    let node = api.node(&node)?;
    let answer = node.steer(group_name(&group)?, steer, request);
    Ok(Json(within(api.options.change, "the change of the rollout", answer).await?))
}

impl From<ReleaseError> for ControlError {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Refused(why) => Self::Refused(why.to_string()),
            ReleaseError::Unavailable(why) => Self::Unavailable(why),
            ReleaseError::Unknown(_) => Self::TimedOut(error.to_string()),
            ReleaseError::Contended => Self::Busy(error.to_string()),
            ReleaseError::NotAllowed => Self::BadRequest(error.to_string()),
            ReleaseError::Unreadable { .. } | ReleaseError::Other(_) => {
                Self::Failed { step: "release".to_owned(), reason: error.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwether_core::release::Artifact;

    use super::*;

    fn wanted(digest: &str, config: &[(&str, &str)]) -> Wanted {
        let component = Artifact { reference: format!("file:/{digest}"), digest: digest.to_owned() };
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Wanted { component, worker: None, config: Some(config.collect()) }
    }

    #[test]
    fn what_differs_is_named_without_its_values() {
        let old = wanted("a", &[("kept", "1"), ("changed", "hidden"), ("gone", "1")]);
        let new = wanted("a", &[("kept", "1"), ("changed", "hidden too"), ("new", "1")]);
        assert_eq!(differences(Some(&old), &new), ["config changed", "config gone", "config new"]);
        assert_eq!(differences(Some(&old), &Wanted { config: None, ..old.clone() }), ["config: the manifests' again"]);
        let first = differences(None, &wanted("b", &[("one", "1")]));
        assert_eq!(first, ["component", "config: 1 setting in place of the manifests'"]);
        let tasks = Wanted { worker: Some(old.component.clone()), ..old.clone() };
        assert_eq!(differences(Some(&old), &tasks), ["worker"]);
    }

    #[test]
    fn what_a_policy_does_not_say_is_as_usual() {
        let some: PolicyRequest = serde_json::from_str(r#"{"settle_ms": 1500, "on_failure": "halt"}"#).unwrap();
        let expected = Policy { settle: Duration::from_millis(1500), on_failure: OnFailure::Halt, ..Policy::default() };
        assert_eq!(some.policy(), expected);
        assert!(serde_json::from_str::<PolicyRequest>(r#"{"settle": 1}"#).is_err(), "a misspelt setting is an error");
    }

    #[test]
    fn contradictions_are_refused() {
        let bad = DeployRequest { worker: Some("file:/w".into()), no_worker: true, ..DeployRequest::default() };
        assert!(matches!(bad.check(), Err(ControlError::BadRequest(_))));
        let bad = DeployRequest { config: Some(BTreeMap::new()), manifest_config: true, ..DeployRequest::default() };
        assert!(matches!(bad.check(), Err(ControlError::BadRequest(_))));
        assert_eq!(DeployRequest::default().check(), Ok(()));
    }
}
