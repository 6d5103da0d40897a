//! Debian's `docker-registry` on a free port, with data and configuration of its own; and what puts components there.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cluster::process::SUPERVISE;

const INSTALL: &str = "apt-get install -y --no-install-recommends docker-registry";
const PROGRAM: &str = "/usr/bin/docker-registry";
/// How long it may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How long it may take to answer one request.
const ANSWER: Duration = Duration::from_secs(10);

/// A registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    folder: TempDir,
    process: Option<(Child, ChildStdin)>,
}

/// The digest of some bytes, as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An answer of the registry's.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Registry {
    /// Starts one that asks nobody who they are, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts one with more lines of configuration. `{folder}` stands for its folder.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start_with(extra: &str) -> Result<Self> {
        ensure!(
            Path::new(PROGRAM).exists(),
            "{PROGRAM} is missing: a real registry is needed here. Install it: {INSTALL}"
        );
        let folder = TempDir::with_prefix("bellwether-registry-")?;
        // Free a moment ago; whoever takes it in between is noticed, as the registry then does not start.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shown = folder.path().display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {shown}/data}}\nhttp:\n  addr: {address}\n{}",
            extra.replace("{folder}", &shown)
        );
        std::fs::write(folder.path().join("config.yml"), config)?;
        let mut registry = Self { address, folder, process: None };
        registry.resume()?;
        Ok(registry)
    }

    /// Where it answers: `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some((mut child, mut watcher)) = self.process.take() {
            let _ = watcher.write_all(b"done\n");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was, with what it had.
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let config = self.folder.path().join("config.yml");
        let mut child = Command::new("sh")
            .args(["-c", SUPERVISE, "sh", PROGRAM, "serve"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let watcher = child.stdin.take().context("it has no input")?;
        self.process = Some((child, watcher));
        let deadline = Instant::now() + START;
        loop {
            if self.request("GET", "/v2/", None, &[], b"").is_ok() {
                return Ok(());
            }
            let ended = self.process.as_mut().is_none_or(|(child, _)| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                bail!("the registry does not answer. Its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts a component there, as `oras` would, and gives back the digest of the image. `user` is `name:password` in base64.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub fn push(
        &self,
        repository: &str,
        tag: &str,
        component: &[u8],
        signature: Option<&str>,
        user: Option<&str>,
    ) -> Result<String> {
        for blob in [component, b"{}"] {
            let begun = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), user, &[], b"")?;
            ensure!(begun.status == 202, "an upload was answered with {}", begun.status);
            let location = begun.headers.iter().find(|(name, _)| name == "location").context("no location")?;
            let path = location
                .1
                .split_once("://")
                .map_or(location.1.as_str(), |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
            let join = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{join}digest={}", digest(blob));
            let put = self.request("PUT", &path, user, &["content-type: application/octet-stream"], blob)?;
            ensure!(put.status == 201, "a blob was answered with {}", put.status);
        }
        let annotations = signature.map_or_else(
            || serde_json::json!({}),
            |signature| serde_json::json!({ "dev.bellwether.signature": signature }),
        );
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(b"{}"), "size": 2 },
            "layers": [{ "mediaType": "application/wasm", "digest": digest(component), "size": component.len() }],
            "annotations": annotations,
        });
        let manifest = serde_json::to_vec(&manifest)?;
        let kind = ["content-type: application/vnd.oci.image.manifest.v1+json"];
        let put = self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), user, &kind, &manifest)?;
        ensure!(put.status == 201, "the manifest was answered with {}", put.status);
        Ok(digest(&manifest))
    }

    fn request(&self, method: &str, path: &str, user: Option<&str>, headers: &[&str], body: &[u8]) -> Result<Answered> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        write!(head, "content-length: {}\r\n", body.len())?;
        if let Some(user) = user {
            write!(head, "authorization: Basic {user}\r\n")?;
        }
        for header in headers {
            write!(head, "{header}\r\n")?;
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no status")?.parse()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        reader.take(1 << 20).read_to_end(&mut Vec::new())?;
        Ok(Answered { status, headers })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
