//! The contract's imports, forwarded to the node.

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::NodeId;
use bellwether_core::state::{StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use crate::bindings::bellwether::runtime::{cluster, state, types, workers};
use crate::bindings::wasi::config::store;
use crate::bindings::wasi::logging::logging;
use crate::context::Ctx;
use crate::convert;
use crate::host::{Assignment, Host, LogLevel};

/// Pieces of one `scatter` that are under way at the same time.
const SCATTER: usize = 64;

impl types::Host for Ctx {}

impl cluster::Host for Ctx {
    async fn this(&mut self) -> wasmtime::Result<types::Member> {
        self.count()?;
        Ok(convert::member(&self.host.this()))
    }

    async fn members(&mut self) -> wasmtime::Result<Vec<types::Member>> {
        self.count()?;
        Ok(convert::members(&self.host.members()))
    }

    async fn leader(&mut self) -> wasmtime::Result<Result<Option<cluster::LeaderInfo>, cluster::Error>> {
        self.count()?;
        Ok(self.host.leader().await.map(|leader| leader.map(convert::leader)).map_err(Into::into))
    }

    async fn epoch(&mut self) -> wasmtime::Result<Option<u64>> {
        self.count()?;
        Ok(self.host.epoch().map(|epoch| epoch.0))
    }

    async fn resign(&mut self) -> wasmtime::Result<Result<(), cluster::Error>> {
        self.count()?;
        Ok(self.host.resign().map_err(Into::into))
    }
}

/// The time that a piece of work has: what the guest asks for, and never so much that the guest cannot hear of the
/// time-out before its own budget ends.
fn allowance(asked_ms: u32, deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    let margin = (left / 10).min(Duration::from_millis(50));
    Duration::from_millis(asked_ms.into()).min(left.saturating_sub(margin))
}

/// Sends one piece; the answer is within the limit and in time.
async fn send(host: &dyn Host, to: String, payload: Vec<u8>, until: Instant, limit: u64) -> Result<Bytes, WorkError> {
    if payload.len() as u64 > limit {
        return Err(WorkError::TooLarge(limit));
    }
    // A name that no node can have is a member that nobody knows.
    let to = NodeId::new(to).map_err(|_| WorkError::UnknownMember)?;
    let timeout = until.saturating_duration_since(Instant::now());
    if timeout.is_zero() {
        return Err(WorkError::TimedOut);
    }
    let sent = host.send(Assignment { to, payload: payload.into() }, timeout);
    match tokio::time::timeout_at(until, sent).await {
        Ok(Ok(answer)) if answer.len() as u64 > limit => Err(WorkError::TooLarge(limit)),
        Ok(result) => result,
        Err(_) => Err(WorkError::TimedOut),
    }
}

impl workers::Host for Ctx {
    async fn send(
        &mut self,
        to: String,
        payload: Vec<u8>,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, workers::Error>> {
        self.count()?;
        let until = Instant::now() + allowance(timeout_ms, self.deadline);
        let answer = send(self.host.as_ref(), to, payload, until, self.limits.message_bytes).await;
        Ok(answer.map(Vec::from).map_err(Into::into))
    }

    async fn scatter(
        &mut self,
        assignments: Vec<workers::Assignment>,
        timeout_ms: u32,
    ) -> wasmtime::Result<Vec<Result<Vec<u8>, workers::Error>>> {
        self.count()?;
        let until = Instant::now() + allowance(timeout_ms, self.deadline);
        let limit = self.limits.message_bytes;
        let host = &self.host;
        let answers = futures::stream::iter(assignments.into_iter().enumerate()).map(|(index, assignment)| {
            let host = Arc::clone(host);
            async move { (index, send(host.as_ref(), assignment.to, assignment.payload, until, limit).await) }
        });
        // Each piece ends by `until`, so all of them do: those whose turn never came time out without being sent.
        let mut answers: Vec<_> = answers.buffer_unordered(SCATTER).collect().await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        let mut room = limit;
        Ok(answers
            .into_iter()
            .map(|(_, answer)| {
                let answer = answer?;
                // The answers reach the guest as one message.
                room = room.checked_sub(answer.len() as u64).ok_or(WorkError::TooLarge(limit))?;
                Ok(Vec::from(answer))
            })
            .map(|answer: Result<_, WorkError>| answer.map_err(Into::into))
            .collect())
    }
}

/// The node answers each operation with the reply that belongs to it.
fn unexpected(reply: &StateReply) -> state::Error {
    state::Error::Other(format!("the runtime gave an answer that does not fit: {reply:?}"))
}

impl Ctx {
    async fn state_op(&mut self, op: StateOp) -> wasmtime::Result<Result<StateReply, state::Error>> {
        self.count()?;
        let answer = match tokio::time::timeout_at(self.deadline, self.host.state(op)).await {
            Ok(answer) => answer,
            Err(_) => Err(StateError::Unavailable("no answer within the budget of this call".into())),
        };
        Ok(answer.map_err(Into::into))
    }

    async fn state_done(&mut self, op: StateOp) -> wasmtime::Result<Result<(), state::Error>> {
        Ok(match self.state_op(op).await? {
            Ok(StateReply::Done) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        })
    }
}

impl state::Host for Ctx {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<state::Entry>, state::Error>> {
        Ok(match self.state_op(StateOp::Get(key)).await? {
            Ok(StateReply::Entry(entry)) => Ok(entry.as_ref().map(convert::entry)),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        })
    }

    async fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        expect: state::Expectation,
    ) -> wasmtime::Result<Result<u32, state::Error>> {
        let op = StateOp::Put { key, value: value.into(), expect: convert::expectation(expect) };
        Ok(match self.state_op(op).await? {
            Ok(StateReply::Version(version)) => Ok(version),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        })
    }

    async fn delete(&mut self, key: String, expect: state::Expectation) -> wasmtime::Result<Result<(), state::Error>> {
        self.state_done(StateOp::Delete { key, expect: convert::expectation(expect) }).await
    }

    async fn list(&mut self, prefix: String) -> wasmtime::Result<Result<Vec<String>, state::Error>> {
        Ok(match self.state_op(StateOp::List(prefix)).await? {
            Ok(StateReply::Keys(keys)) => Ok(keys),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        })
    }

    async fn watch(&mut self, key: String) -> wasmtime::Result<Result<(), state::Error>> {
        self.state_done(StateOp::Watch(key)).await
    }

    async fn unwatch(&mut self, key: String) -> wasmtime::Result<Result<(), state::Error>> {
        self.state_done(StateOp::Unwatch(key)).await
    }
}

impl store::Host for Ctx {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        self.count()?;
        Ok(Ok(self.config.get(&key).cloned()))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        self.count()?;
        Ok(Ok(self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}

impl logging::Host for Ctx {
    async fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        self.count()?;
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error | logging::Level::Critical => LogLevel::Error,
        };
        self.output.message(level, &context, &message);
        Ok(())
    }
}
