//! A client of the admin API: one connection a request.

use std::io;
use std::time::Duration;

use bellwether_node::admin::{AdminAddress, ErrorBody, ErrorKind, ErrorReply, VERSION_HEADER};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::exit::{Exit, Failure};

/// The largest answer: a status with very many members, or the largest value that a key can hold, fits many times.
const MAX_ANSWER: usize = 64 << 20;

/// How long a call may take; the node itself gives up sooner.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a swap may take; the node itself gives up sooner.
const SWAP_PATIENCE: Duration = Duration::from_secs(320);

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a call, built part by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one part.
    pub fn new(part: &str) -> Self {
        Self(String::new()).then(part)
    }

    /// The calls of a node.
    pub fn node(node: &str) -> Self {
        Self::new("v1").then("nodes").then(node)
    }

    /// One part more.
    pub fn then(&self, part: &str) -> Self {
        Self(format!("{}/{}", self.0, utf8_percent_encode(part, KEPT)))
    }

    /// With a parameter.
    pub fn query(&self, name: &str, value: &str) -> Self {
        Self(format!("{}?{name}={}", self.0, utf8_percent_encode(value, KEPT)))
    }
}

/// A value of a group's state.
pub struct Value {
    /// What it holds.
    pub bytes: Bytes,
    /// Its version.
    pub version: Option<u32>,
}

struct Answer {
    status: StatusCode,
    version: Option<u32>,
    body: Bytes,
}

/// Why a call did not do what it was to do.
pub enum CallError {
    /// The node said so.
    Refused(Box<ErrorBody>),
    /// The node could not be asked, or its answer not be read.
    Broken(Failure),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(body) => refused(*body),
            CallError::Broken(failure) => failure,
        }
    }
}

/// A client of one admin API.
#[derive(Debug, Clone)]
pub struct Client {
    address: AdminAddress,
}

impl Client {
    /// A client; connects when something is asked.
    pub fn new(address: AdminAddress) -> Self {
        Self { address }
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(&self, path: &Path) -> Result<T, CallError> {
        self.parse(&self.call(Method::GET, path, None, PATIENCE).await?)
    }

    /// Asks for a value of a group's state.
    pub async fn value(&self, path: &Path) -> Result<Value, CallError> {
        let answer = self.call(Method::GET, path, None, PATIENCE).await?;
        Ok(Value { bytes: answer.body, version: answer.version })
    }

    /// Has something done that answers nothing.
    pub async fn post(&self, path: &Path) -> Result<(), CallError> {
        self.call(Method::POST, path, None, PATIENCE).await.map(drop)
    }

    /// Has something done that may take long, and tells how it ended.
    pub async fn post_long<T: DeserializeOwned>(
        &self,
        path: &Path,
        body: &(impl serde::Serialize + Sync),
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| self.nonsense("request", &error))?;
        self.parse(&self.call(Method::POST, path, Some(body.into()), SWAP_PATIENCE).await?)
    }

    async fn call(
        &self,
        method: Method,
        path: &Path,
        body: Option<Bytes>,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let exchange = async {
            match &self.address {
                AdminAddress::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
                AdminAddress::Tcp(address) => TcpStream::connect(address).await.map(Connection::Tcp),
            }
        };
        let connected = tokio::time::timeout(Duration::from_secs(5), exchange).await;
        let connection = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let connection = connection.map_err(|error| CallError::Broken(self.no_node(&error)))?;
        let asked = async {
            match connection {
                Connection::Unix(stream) => self.exchange(stream, method, path, body).await,
                Connection::Tcp(stream) => self.exchange(stream, method, path, body).await,
            }
        };
        let answer = tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let what = format!("the node at {} did not answer within {patience:?}", self.address);
            Err(CallError::Broken(Failure::new(Exit::NoNode, what)))
        })?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let reply: ErrorReply =
            serde_json::from_slice(&answer.body).map_err(|error| self.nonsense("answer", &error))?;
        Err(CallError::Refused(Box::new(reply.error)))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        method: Method,
        path: &Path,
        body: Option<Bytes>,
    ) -> Result<Answer, CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: &dyn std::fmt::Display| {
            let what = format!("the node at {} broke off before it answered", self.address);
            CallError::Broken(Failure::new(Exit::NoNode, what).why(error))
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends with the stream; its errors come out of the request as well.
        let driver = tokio::spawn(connection);
        let host = match &self.address {
            AdminAddress::Unix(_) => "localhost".to_owned(),
            AdminAddress::Tcp(address) => address.to_string(),
        };
        let mut request = Request::builder().method(method).uri(&path.0).header(header::HOST, host);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::new(body.unwrap_or_default())).map_err(|error| self.nonsense("request", &error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let version = response.headers().get(VERSION_HEADER);
        let version = version.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| broken(&error))?;
        driver.abort();
        Ok(Answer { status, version, body: body.to_bytes() })
    }

    fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, CallError> {
        serde_json::from_slice(&answer.body).map_err(|error| self.nonsense("answer", &error))
    }

    fn nonsense(&self, which: &str, error: &dyn std::fmt::Display) -> CallError {
        let what = format!("the {which} makes no sense: is a bellwether node of this version at {}?", self.address);
        CallError::Broken(Failure::new(Exit::Failed, what).why(error))
    }

    fn no_node(&self, error: &io::Error) -> Failure {
        let failure = Failure::new(Exit::NoNode, format!("no node answers at {}", self.address));
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure
                .why(error)
                .help("the socket belongs to the user who runs the node: run this as that user, or as root"),
            io::ErrorKind::NotFound => failure
                .why("there is no such socket")
                .help("start it with `bellwether run`, or name another with --admin"),
            io::ErrorKind::ConnectionRefused => {
                failure.why("nobody listens there").help("start it with `bellwether run`, or name another with --admin")
            }
            _ => failure.why(error),
        }
    }
}

enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

fn refused(body: ErrorBody) -> Failure {
    let exit = match body.kind {
        ErrorKind::BadRequest => Exit::Usage,
        ErrorKind::Unavailable => Exit::Coordinator,
        ErrorKind::Refused => Exit::Refused,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, body.message);
    match body.kind {
        ErrorKind::NotLeader => match body.leader {
            Some(leader) => failure.help(format!("ask {} for it", leader.id)),
            None => failure.help("`bellwether status` tells who leads"),
        },
        ErrorKind::Busy => failure.help("try again when that has ended; `bellwether status` tells"),
        ErrorKind::TimedOut => failure.help("`bellwether status` tells how it ends"),
        ErrorKind::UnknownCall => {
            failure.help("the node may run another version: compare `bellwether status` and --version")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_any_name() {
        let path = Path::node("node-1").then("groups").then("a/b?c d").then("state").query("prefix", "x/../ü&=");
        assert_eq!(path.0, "/v1/nodes/node-1/groups/a%2Fb%3Fc%20d/state?prefix=x%2F..%2F%C3%BC%26%3D");
    }

    #[test]
    fn each_kind_of_refusal_has_its_exit_code() {
        let exit = |kind| refused(ErrorBody::new(kind, "m")).exit;
        assert_eq!(exit(ErrorKind::Failed), Exit::Failed);
        assert_eq!(exit(ErrorKind::NotLeader), Exit::Failed);
        assert_eq!(exit(ErrorKind::UnknownGroup), Exit::Failed);
        assert_eq!(exit(ErrorKind::BadRequest), Exit::Usage);
        assert_eq!(exit(ErrorKind::Unavailable), Exit::Coordinator);
        assert_eq!(exit(ErrorKind::Refused), Exit::Refused);
    }
}
