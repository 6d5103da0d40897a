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
use crate::context::{Ctx, allowance, bytes};
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
        let until = Instant::now() + allowance(Duration::from_millis(timeout_ms.into()), self.deadline);
        let size = payload.len() as u64;
        let answer = send(self.host.as_ref(), to, payload, until, self.limits.message_bytes).await;
        if answer == Err(WorkError::TooLarge(self.limits.message_bytes)) {
            self.explain_size(size);
        }
        Ok(answer.map(Vec::from).map_err(Into::into))
    }

    async fn scatter(
        &mut self,
        assignments: Vec<workers::Assignment>,
        timeout_ms: u32,
    ) -> wasmtime::Result<Vec<Result<Vec<u8>, workers::Error>>> {
        self.count()?;
        let until = Instant::now() + allowance(Duration::from_millis(timeout_ms.into()), self.deadline);
        let largest = assignments.iter().map(|assignment| assignment.payload.len() as u64).max().unwrap_or_default();
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
        let answers: Vec<Result<Vec<u8>, WorkError>> = answers
            .into_iter()
            .map(|(_, answer)| {
                let answer = answer?;
                // The answers reach the guest as one message.
                room = room.checked_sub(answer.len() as u64).ok_or(WorkError::TooLarge(limit))?;
                Ok(Vec::from(answer))
            })
            .collect();
        if answers.contains(&Err(WorkError::TooLarge(limit))) {
            self.explain_size(largest);
        }
        Ok(answers.into_iter().map(|answer| answer.map_err(Into::into)).collect())
    }
}

/// The node answers each operation with the reply that belongs to it.
fn unexpected(reply: &StateReply) -> state::Error {
    state::Error::Other(format!("the runtime gave an answer that does not fit: {reply:?}"))
}

impl Ctx {
    /// Says which side of a piece of work was too large, when the largest payload had so many bytes.
    fn explain_size(&self, payload: u64) {
        let limit = bytes(self.limits.message_bytes);
        if payload > self.limits.message_bytes {
            self.advise(&format!(
                "a payload of {} was not sent: `message` under [group.limits] allows {limit}; send it in pieces, or raise the \
                 limit on every node",
                bytes(payload)
            ));
        } else {
            self.advise(&format!(
                "an answer was left out: the answers to one call have at most {limit}, all together (`message` under \
                 [group.limits]); ask for less at once, or raise the limit"
            ));
        }
    }

    async fn state_op(&mut self, op: StateOp) -> wasmtime::Result<Result<StateReply, state::Error>> {
        self.count()?;
        let size = if let StateOp::Put { value, .. } = &op { value.len() } else { 0 };
        let answer = match tokio::time::timeout_at(self.deadline, self.host.state(op)).await {
            Ok(answer) => answer,
            Err(_) => Err(StateError::Unavailable("no answer within the budget of this call".into())),
        };
        if let Err(StateError::TooLarge(most)) = &answer {
            self.advise(&format!(
                "a value of {size} bytes was not written to the state: a value has at most {most}; spread it over several keys, or \
                 keep the data elsewhere and its address here"
            ));
        }
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
        Ok(Ok(self.settings.get(key)))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        self.count()?;
        Ok(Ok(self.settings.all()))
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
