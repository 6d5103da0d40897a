//! The calls of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use bellwether_core::id::GroupName;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::json;

use super::control::{Answer, Control, Nodes, SwapRequest};
use super::error::{ControlError, ErrorBody, ErrorKind, Problem, unknown_node};
use super::guard::{Guard, guard};
use super::server::AdminOptions;
use super::status::{
    GroupStatus, Members, NodeList, NodeStatus, StateKeys, StatusReply, SwapOutcome, SwapReport, Unanswered,
};
use super::{VERSION_HEADER, metrics, rollout};

/// The largest body of a request: all that is ever sent is a path and a few settings.
const MAX_BODY: usize = 64 << 10;

/// What the calls share.
pub(super) struct Api {
    pub(super) nodes: Arc<dyn Nodes>,
    pub(super) options: AdminOptions,
}

pub(super) type Shared = State<Arc<Api>>;
pub(super) type Reply<T> = Result<T, Problem>;

/// All calls, guarded.
pub(super) fn router(api: Arc<Api>, tcp: bool) -> Router {
    let group = Router::new()
        .route("/", get(group_status))
        .route("/members", get(members))
        .route("/swap", post(swap))
        .route("/resign", post(resign))
        .route("/state", get(state_list))
        .route("/state/value", get(state_get))
        .merge(rollout::routes());
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{node}", get(node_status))
        .route("/v1/nodes/{node}/stop", post(stop))
        .route("/v1/nodes/{node}/kill", post(kill))
        .nest("/v1/nodes/{node}/groups/{group}", group)
        .fallback(unknown_call)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Guard { tcp }, guard))
        .with_state(api)
}

impl Api {
    pub(super) fn node(&self, name: &str) -> Result<Arc<dyn Control>, ControlError> {
        let nodes = self.nodes.list();
        match nodes.iter().find(|node| node.node().as_str() == name) {
            Some(node) => Ok(Arc::clone(node)),
            None => Err(unknown_node(name, nodes.iter().map(|node| node.node()))),
        }
    }

    async fn statuses(&self) -> StatusReply {
        let nodes = self.nodes.list();
        let asked = nodes.iter().map(|node| within(self.options.read, "the status", node.status()));
        let mut reply = StatusReply { nodes: Vec::new(), unanswered: Vec::new() };
        for (node, answer) in nodes.iter().zip(join_all(asked).await) {
            match answer {
                Ok(status) => reply.nodes.push(status),
                Err(error) => {
                    reply.unanswered.push(Unanswered { node: node.node(), reason: error.to_string() });
                }
            }
        }
        reply
    }
}

/// Waits for an answer for at most `limit`.
pub(super) async fn within<T>(limit: Duration, what: &str, answer: Answer<'_, T>) -> Result<T, ControlError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(ControlError::TimedOut(format!("no answer to {what} within {limit:?}; the node may be overloaded")))
        }
    }
}

pub(super) fn group_name(name: &str) -> Result<GroupName, ControlError> {
    GroupName::new(name).map_err(|error| ControlError::BadRequest(error.to_string()))
}

/// A body that could not be taken.
pub(super) fn malformed(rejected: &JsonRejection, hint: &str) -> Problem {
    // The framework's 422 for a body of another shape would read as something that was tried and failed.
    let status = match rejected.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    Problem::bad(status, format!("{}; {hint} as application/json", rejected.body_text()))
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz(State(api): Shared) -> Response {
    let reply = api.statuses().await;
    let mut waiting: Vec<_> =
        reply.unanswered.iter().map(|node| json!({ "node": node.node, "why": node.reason })).collect();
    for node in reply.nodes.iter().filter(|node| !node.is_ready()) {
        let groups = node.groups.iter().filter(|group| !group.is_ready());
        let before = waiting.len();
        waiting.extend(groups.map(|group| json!({ "node": node.node, "group": group.name, "why": group.role })));
        if waiting.len() == before {
            waiting.push(json!({ "node": node.node, "why": format!("session {}", node.session.state) }));
        }
    }
    // A `dev` whose nodes have all been killed is not ready either.
    let ready = waiting.is_empty() && !reply.nodes.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "waiting": waiting }))).into_response()
}

async fn metrics_text(State(api): Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&api.statuses().await.nodes))
}

async fn status(State(api): Shared) -> Json<StatusReply> {
    Json(api.statuses().await)
}

async fn nodes(State(api): Shared) -> Json<NodeList> {
    Json(NodeList { nodes: api.nodes.list().iter().map(|node| node.node()).collect() })
}

async fn node_status(State(api): Shared, Path(node): Path<String>) -> Reply<Json<NodeStatus>> {
    let node = api.node(&node)?;
    Ok(Json(within(api.options.read, "the status", node.status()).await?))
}

async fn group_status(State(api): Shared, Path((node, group)): Path<(String, String)>) -> Reply<Json<GroupStatus>> {
    let node = api.node(&node)?;
    let name = group_name(&group)?;
    let groups = within(api.options.read, "the status", node.status()).await?.groups;
    let known = groups.iter().map(|group| group.name.to_string()).collect();
    let found = groups.into_iter().find(|group| group.name == name);
    Ok(Json(found.ok_or(ControlError::UnknownGroup { name: group, known })?))
}

async fn members(State(api): Shared, Path((node, group)): Path<(String, String)>) -> Reply<Json<Members>> {
    let node = api.node(&node)?;
    let members = within(api.options.read, "the members", node.members(group_name(&group)?)).await?;
    Ok(Json(Members { members }))
}

async fn swap(
    State(api): Shared,
    Path((node, group)): Path<(String, String)>,
    request: Result<Json<SwapRequest>, JsonRejection>,
) -> Reply<Json<SwapReport>> {
    let hint =
        "send {\"component\": \"/absolute/path.wasm\"}, {\"config\": {\"key\": \"value\"}} or both as application/json";
    let Json(request) = request.map_err(|rejected| malformed(&rejected, hint))?;
    let file = request.component.as_ref().and_then(|component| component.file());
    if let Some(path) = file.filter(|path| !path.is_absolute()) {
        // The node's working directory is not the asker's: a relative path would mean another file.
        let path = path.display();
        return Err(ControlError::BadRequest(format!("the component's path must be absolute, not {path}")).into());
    }
    if request.component.is_none() && request.config.is_empty() {
        return Err(ControlError::BadRequest("nothing to swap: give `component`, `config` or both".into()).into());
    }
    let node = api.node(&node)?;
    let wait = api.options.swap;
    let report = match tokio::time::timeout(wait, node.swap(group_name(&group)?, request)).await {
        Ok(report) => report?,
        Err(_) => {
            let why = format!("the swap has not ended within {wait:?}; it goes on, and the status tells how it ends");
            return Err(ControlError::TimedOut(why).into());
        }
    };
    if report.outcome == SwapOutcome::RolledBack { Err(Problem::rolled_back(report)) } else { Ok(Json(report)) }
}

async fn resign(State(api): Shared, Path((node, group)): Path<(String, String)>) -> Reply<StatusCode> {
    let node = api.node(&node)?;
    within(api.options.change, "the resignation", node.resign(group_name(&group)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
}

async fn state_list(
    State(api): Shared,
    Path((node, group)): Path<(String, String)>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Reply<Json<StateKeys>> {
    let Query(query) = query.map_err(|rejected| Problem::bad(rejected.status(), rejected.body_text()))?;
    let node = api.node(&node)?;
    let keys = within(api.options.read, "the list of keys", node.state_list(group_name(&group)?, query.prefix)).await?;
    Ok(Json(StateKeys { keys }))
}

#[derive(Deserialize)]
struct GetQuery {
    key: String,
}

async fn state_get(
    State(api): Shared,
    Path((node, group)): Path<(String, String)>,
    query: Result<Query<GetQuery>, QueryRejection>,
) -> Reply<Response> {
    let Query(query) = query.map_err(|rejected| {
        Problem::bad(rejected.status(), format!("{}; the call needs ?key=KEY", rejected.body_text()))
    })?;
    let node = api.node(&node)?;
    let answer = node.state_get(group_name(&group)?, query.key.clone());
    let entry = within(api.options.read, "the value", answer).await?.ok_or(ControlError::UnknownKey(query.key))?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (VERSION_HEADER, entry.version.to_string()),
    ];
    Ok((headers, bytes::Bytes::from_owner(entry.value)).into_response())
}

async fn stop(State(api): Shared, Path(node): Path<String>) -> Reply<StatusCode> {
    api.node(&node)?.stop();
    Ok(StatusCode::ACCEPTED)
}

async fn kill(State(api): Shared, Path(node): Path<String>) -> Reply<StatusCode> {
    let node = api.node(&node)?.node();
    within(api.options.change, "the kill", api.nodes.kill(node)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unknown_call() -> Problem {
    let message = "no such call; GET /v1/status is one, ADMIN.md lists them all";
    Problem::new(StatusCode::NOT_FOUND, ErrorBody::new(ErrorKind::UnknownCall, message))
}

async fn wrong_method() -> Problem {
    let message = "this call has another method: what only reads is GET, what changes something is POST";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorBody::new(ErrorKind::UnknownCall, message))
}
