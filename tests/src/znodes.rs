//! ZooKeeper's tree as another client sees it, for looking at what nodes write and for meddling with it as an operator would.
//!
//! It speaks the protocol by itself, and so shares nothing with the client library that the nodes use.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longer than a call lasts; the session is closed when the call ends.
const SESSION_MS: i32 = 20_000;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;

/// What ZooKeeper answers to a call that it does not carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub i32);

impl Refused {
    /// There is no such znode.
    pub const NO_NODE: Self = Self(-101);
    /// The ACL does not allow it.
    pub const NO_AUTH: Self = Self(-102);
    /// There is one of that name already.
    pub const NODE_EXISTS: Self = Self(-110);
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NO_NODE => f.write_str("no such znode"),
            Self::NODE_EXISTS => f.write_str("there is such a znode"),
            Self::NO_AUTH => f.write_str("not allowed by the ACL"),
            Self(code) => write!(f, "refused by ZooKeeper with {code}"),
        }
    }
}

impl std::error::Error for Refused {}

/// A znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// What it holds.
    pub data: Vec<u8>,
    /// The session that it lives and dies with, in the form that the nodes' status has; none if it is persistent.
    pub owner: Option<String>,
    /// The transaction that wrote it last.
    pub mzxid: i64,
    /// How often it has been written.
    pub version: i32,
}

impl Znode {
    /// What it holds, as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.data).unwrap_or(Value::Null)
    }

    fn read(answer: &[u8]) -> Result<Self> {
        let mut answer = Answer(answer);
        let data = answer.bytes()?.to_vec();
        let (_czxid, mzxid, _ctime, _mtime) = (answer.long()?, answer.long()?, answer.long()?, answer.long()?);
        let (version, _cversion, _aversion) = (answer.int()?, answer.int()?, answer.int()?);
        let owner = answer.long()?;
        Ok(Self { data, owner: (owner != 0).then(|| format!("{owner:#x}")), mzxid, version })
    }
}

/// A client that is no node. Each call has a session of its own, so that it survives whatever becomes of the server.
#[derive(Debug, Clone)]
pub struct Znodes {
    server: String,
    credentials: Option<String>,
}

impl Znodes {
    /// A client of the server `host:port`.
    #[must_use]
    pub fn of(server: impl Display) -> Self {
        Self { server: server.to_string(), credentials: None }
    }

    /// The same with a user and password (`user:password`) of the scheme `digest`.
    #[must_use]
    pub fn with_credentials(self, credentials: &str) -> Self {
        Self { credentials: Some(credentials.to_owned()), ..self }
    }

    /// The names of a znode's children, sorted; none if there is no such znode.
    ///
    /// # Errors
    /// When the server does not answer or allow it.
    pub fn children(&self, path: &str) -> Result<Option<Vec<String>>> {
        let Some(answer) = present(self.call(GET_CHILDREN, Packet::new().text(path).flag(false)), path)? else {
            return Ok(None);
        };
        let mut answer = Answer(&answer);
        let mut names = (0..answer.int()?).map(|_| answer.text()).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(Some(names))
    }

    /// A znode; none if there is no such one.
    ///
    /// # Errors
    /// When the server does not answer or allow it.
    pub fn get(&self, path: &str) -> Result<Option<Znode>> {
        let answer = present(self.call(GET_DATA, Packet::new().text(path).flag(false)), path)?;
        answer.map(|answer| Znode::read(&answer)).transpose()
    }

    /// A session that reads what this server has at the moment. (To open one is a write, after which a server that lags has
    /// caught up; and so each call of this client sees what is true.)
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn session(&self) -> Result<Session> {
        Ok(Session { stream: self.open()?, calls: 0 })
    }

    /// A znode's children with what they hold; empty if there is no such znode. One that goes meanwhile is left out.
    ///
    /// # Errors
    /// When the server does not answer or allow it.
    pub fn below(&self, path: &str) -> Result<BTreeMap<String, Znode>> {
        let mut found = BTreeMap::new();
        for name in self.children(path)?.unwrap_or_default() {
            if let Some(znode) = self.get(&format!("{path}/{name}"))? {
                found.insert(name, znode);
            }
        }
        Ok(found)
    }

    /// Deletes a znode.
    ///
    /// # Errors
    /// When it is not there, has children, or the server does not answer or allow it.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.call(DELETE, Packet::new().text(path).int(-1)).map(drop).with_context(|| format!("deleting {path}"))
    }

    /// Replaces what a znode holds, whatever its version.
    ///
    /// # Errors
    /// When it is not there, or the server does not answer or allow it.
    pub fn set(&self, path: &str, data: &[u8]) -> Result<()> {
        let packet = Packet::new().text(path).bytes(data).int(-1);
        self.call(SET_DATA, packet).map(drop).with_context(|| format!("writing {path}"))
    }

    /// Makes a persistent znode that everybody may read and change.
    ///
    /// # Errors
    /// When it exists, its parent does not, or the server does not answer or allow it.
    pub fn create(&self, path: &str, data: &[u8]) -> Result<()> {
        self.make(path, data, "world", "anyone")
    }

    /// Makes a persistent znode that nobody but this client's user may read or change.
    ///
    /// # Errors
    /// As [`Znodes::create`].
    pub fn create_private(&self, path: &str, data: &[u8]) -> Result<()> {
        self.make(path, data, "auth", "")
    }

    /// The same with a name to which the server appends its parent's counter; gives the whole path.
    ///
    /// # Errors
    /// As [`Znodes::create`].
    pub fn create_numbered(&self, path: &str, data: &[u8]) -> Result<String> {
        self.put(path, data, "world", "anyone", 2)
    }

    fn make(&self, path: &str, data: &[u8], scheme: &str, who: &str) -> Result<()> {
        self.put(path, data, scheme, who, 0).map(drop)
    }

    fn put(&self, path: &str, data: &[u8], scheme: &str, who: &str, mode: i32) -> Result<String> {
        // One entry of an ACL: all permissions for those.
        let packet = Packet::new().text(path).bytes(data).int(1).int(31).text(scheme).text(who).int(mode);
        let answer = self.call(CREATE, packet).with_context(|| format!("making {path}"))?;
        Answer(&answer).text()
    }

    /// One call in a session of its own.
    fn call(&self, kind: i32, body: Packet) -> Result<Vec<u8>> {
        let mut stream = self.open()?;
        let answer = exchange(&mut stream, 1, kind, body);
        exchange(&mut stream, 2, CLOSE, Packet::new())?;
        answer
    }

    fn open(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.server).with_context(|| self.server.clone())?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        // Protocol version, last seen transaction, timeout, session, password: a new session.
        Packet::new().int(0).long(0).int(SESSION_MS).long(0).bytes(&[0; 16]).send(&mut stream)?;
        receive(&mut stream)?;
        if let Some(credentials) = &self.credentials {
            let body = Packet::new().int(0).text("digest").text(credentials);
            exchange(&mut stream, -4, AUTH, body)?;
        }
        Ok(stream)
    }
}

/// See [`Znodes::session`]. It ends by itself some time after it is dropped.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    calls: i32,
}

impl Session {
    /// A znode; none if the server knows of no such one.
    ///
    /// # Errors
    /// When the server does not answer or allow it.
    pub fn get(&mut self, path: &str) -> Result<Option<Znode>> {
        self.calls += 1;
        let body = Packet::new().text(path).flag(false);
        let answer = present(exchange(&mut self.stream, self.calls, GET_DATA, body), path)?;
        answer.map(|answer| Znode::read(&answer)).transpose()
    }
}

/// What was answered; none if there is no such znode.
fn present(answer: Result<Vec<u8>>, path: &str) -> Result<Option<Vec<u8>>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.downcast_ref() == Some(&Refused::NO_NODE) => Ok(None),
        Err(error) => Err(error).with_context(|| path.to_owned()),
    }
}

fn exchange(stream: &mut TcpStream, id: i32, kind: i32, body: Packet) -> Result<Vec<u8>> {
    let mut packet = Packet::new().int(id).int(kind);
    packet.0.extend(body.0);
    packet.send(stream)?;
    let answer = receive(stream)?;
    let mut head = Answer(&answer);
    let (answered, _zxid, error) = (head.int()?, head.long()?, head.int()?);
    ensure!(answered == id, "ZooKeeper answered {answered} to {id}");
    if error != 0 {
        bail!(Refused(error));
    }
    Ok(head.0.to_vec())
}

fn receive(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("ZooKeeper did not answer")?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer).context("ZooKeeper broke off")?;
    Ok(answer)
}

/// What is sent, in ZooKeeper's form: numbers big-endian, texts and lists after their length.
struct Packet(Vec<u8>);

impl Packet {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn int(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn long(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn flag(mut self, flag: bool) -> Self {
        self.0.push(u8::from(flag));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn send(self, stream: &mut TcpStream) -> Result<()> {
        stream.write_all(&Self::new().bytes(&self.0).0).context("ZooKeeper does not listen")
    }
}

/// What is left of an answer.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().context("the answer is too short")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn int(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn long(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        // A length of -1 stands for nothing at all.
        let length = usize::try_from(self.int()?.max(0))?;
        let (taken, rest) = self.0.split_at_checked(length).context("the answer is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8(self.bytes()?.to_vec())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zookeeper::Server;

    #[test]
    fn znodes_are_made_read_and_deleted() -> Result<()> {
        let server = Server::start()?;
        let anyone = Znodes::of(server.address());
        anyone.create("/a", b"{\"x\": 1}")?;
        anyone.create("/a/c", b"")?;
        anyone.create("/a/b", b"2")?;
        let a = anyone.get("/a")?.context("it was made")?;
        assert_eq!((a.json()["x"].as_i64(), a.owner, a.version), (Some(1), None, 0));
        assert_eq!(anyone.children("/a")?.unwrap_or_default(), ["b", "c"]);
        assert_eq!(anyone.below("/a")?["b"].data, b"2");
        assert_eq!(anyone.children("/nowhere")?, None);
        assert_eq!(anyone.get("/nowhere")?, None);
        let mut session = anyone.session()?;
        assert_eq!(session.get("/nowhere")?, None);
        assert_eq!(session.get("/a")?, anyone.get("/a")?);
        assert!(anyone.delete("/a").is_err(), "it has children");
        anyone.delete("/a/b")?;
        assert_eq!(anyone.get("/a/b")?, None);

        let joe = anyone.clone().with_credentials("joe:secret");
        joe.create_private("/joe", b"mine")?;
        assert_eq!(joe.get("/joe")?.context("it was made")?.data, b"mine");
        let error = anyone.get("/joe").unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Refused::NO_AUTH));
        Ok(())
    }
}
