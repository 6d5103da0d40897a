//! Requests of guests to the outside (`wasi:http`), on a real node: where they go, where not, and when.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Line, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper::Server;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A server that remembers what it was asked for.
#[derive(Clone)]
struct Web {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    /// The certificate of one that speaks TLS, in PEM.
    certificate: Option<String>,
}

impl Web {
    fn start() -> Result<Self> {
        Self::with(None)
    }

    fn start_tls() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        Self::with(Some((Arc::new(config), made.cert.pem())))
    }

    fn with(tls: Option<(Arc<ServerConfig>, String)>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (tls, certificate) = tls.map_or((None, None), |(config, pem)| (Some(config), Some(pem)));
        let web = Self { address: listener.local_addr()?, heard: Arc::default(), certificate };
        let serving = web.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (web, tls) = (serving.clone(), tls.clone());
                // What goes wrong with one connection is its client's to tell.
                thread::spawn(move || web.serve(stream, tls));
            }
        });
        Ok(web)
    }

    fn serve(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<()> {
        match tls {
            Some(config) => self.answer(StreamOwned::new(ServerConnection::new(config)?, stream)),
            None => self.answer(stream),
        }
    }

    fn answer(&self, stream: impl Read + Write) -> Result<()> {
        let mut stream = BufReader::new(stream);
        let (mut line, mut fields) = (String::new(), BTreeMap::new());
        stream.read_line(&mut line)?;
        loop {
            let mut field = String::new();
            stream.read_line(&mut field)?;
            let Some((name, value)) = field.trim().split_once(": ") else { break };
            fields.insert(name.to_lowercase(), value.to_owned());
        }
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let mut body = vec![0; field("content-length").parse().unwrap_or_default()];
        stream.read_exact(&mut body)?;
        let (host, by, body) = (field("host"), field("x-asked-by"), String::from_utf8_lossy(&body).into_owned());
        let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
        self.heard().push(format!("{line} {host} {by} {body}"));
        let stream = stream.get_mut();
        match line.rsplit('/').next().unwrap_or_default() {
            "wait" => loop {
                thread::park();
            },
            "redirect" => {
                stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")?
            }
            "big" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
                // Until the client has had enough.
                while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")?,
        }
        stream.flush()?;
        Ok(())
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group whose leader sends what it is ordered to in each tick, and where it may.
fn group(order: &str, granted: &str, more: &str) -> String {
    format!(
        "[group.config]\non-tick = {order:?}\n{more}\n[group.tick]\nevery = \"100ms\"\n[group.grants]\nhttp = [{granted:?}]\n\
         [group.limits]\ncallback = \"3s\"\n"
    )
}

/// What the guest says of its ticks, at first.
fn told(node: &Node, group: &str) -> Result<String> {
    let line = node.wait_log(0, "a tick", |line| line.group() == group && line.guest("on-tick").is_some())?;
    Ok(line.guest("on-tick").context("what was told")?.to_owned())
}

#[test]
fn requests_go_where_they_may_and_nowhere_else() -> Result<()> {
    let zookeeper = Server::start()?;
    let (web, other) = (Web::start()?, Web::start()?);
    let (trusted, strange) = (Web::start_tls()?, Web::start_tls()?);
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, trusted.certificate.as_deref().context("a certificate")?)?;
    let (web_at, other_at, closed_at) =
        (format!("http://{}", web.address), format!("http://{}", other.address), format!("http://{closed}"));
    let (trusted_at, strange_at) = (
        format!("https://localhost:{}", trusted.address.port()),
        format!("https://localhost:{}", strange.address.port()),
    );
    let cases = [
        ("ok", format!("POST {web_at}/ok?a=b hello"), &web_at, "200 fine"),
        ("redirect", format!("GET {web_at}/redirect"), &web_at, "302 "),
        ("big", format!("GET {web_at}/big"), &web_at, "ResponseBodySize(Some(4194304))"),
        ("slow", format!("GET {web_at}/wait"), &web_at, "HTTP-response-timeout"),
        ("denied", format!("GET {other_at}/"), &web_at, "HTTP-request-denied"),
        ("closed", format!("GET {closed_at}/"), &closed_at, "connection-refused"),
        ("tls", format!("PUT {trusted_at}/ok secret"), &trusted_at, "200 fine"),
        ("strange", format!("GET {strange_at}/"), &strange_at, "TlsCertificateError"),
    ];
    let mut builder = Cluster::builder(zookeeper.address()).env("SSL_CERT_FILE", &ca.display().to_string());
    for (name, order, granted, _) in &cases {
        builder = builder.group(name, guest("caller"), &group(order, granted, ""));
    }
    let cluster = builder.start()?;
    let node = cluster.node(0);
    for (name, _, _, wanted) in &cases {
        let said = told(node, name)?;
        ensure!(said.contains(wanted), "{name}: {wanted:?} is not in {said:?}");
        let failed = node.group(name)?["callbacks"]["failed"].clone();
        ensure!(failed == 0, "{name}: {failed} callbacks failed");
    }
    let heard = web.heard().clone();
    ensure!(heard.contains(&format!("POST /ok?a=b {} caller hello", web.address)), "{heard:#?}");
    ensure!(heard.iter().all(|line| !line.contains("/elsewhere")), "a redirect was followed: {heard:#?}");
    let host = trusted_at.trim_start_matches("https://");
    ensure!(trusted.heard().contains(&format!("PUT /ok {host} caller secret")), "{:#?}", trusted.heard());
    for silent in [&other, &strange] {
        ensure!(silent.heard().is_empty(), "a request came through: {:#?}", silent.heard());
    }
    let warned = node.logged(0, |line| line.group() == "denied" && line.guest("runtime").is_some());
    let warned = warned.first().and_then(|line| line.guest("runtime").map(str::to_owned)).unwrap_or_default();
    ensure!(warned.contains(&format!("add \"{other_at}\"")), "{warned}");
    Ok(())
}

#[test]
fn who_does_not_lead_any_more_sends_nothing() -> Result<()> {
    let zookeeper = Server::start()?;
    let web = Web::start()?;
    let at = format!("http://{}", web.address);
    let late = format!("on-demoted = \"POST {at}/late\"");
    let cluster = Cluster::builder(zookeeper.address())
        .group("g", guest("caller"), &group(&format!("GET {at}/wait"), &at, &late).replace("\"3s\"", "\"60s\""))
        .start()?;
    let node = cluster.node(0);
    cluster.wait_until("a request that waits", |_| !web.heard().is_empty())?;
    ensure!(node.cli(&["resign", "g"])?.code() == Some(0), "{}", node.report());
    // The one that waits ends at once, and `on-demoted` has its turn.
    let said = told(node, "g")?;
    ensure!(said.contains("not-leader"), "{said}");
    let demoted = node.wait_log(0, "on-demoted", |line| line.guest("on-demoted").is_some())?;
    ensure!(demoted.guest("on-demoted").is_some_and(|said| said.contains("not-leader")), "{demoted:?}");
    ensure!(web.heard().iter().all(|line| !line.contains("/late")), "{:#?}", web.heard());
    Ok(())
}

#[test]
fn a_leader_that_was_paused_does_not_go_on_with_a_request_on_waking() -> Result<()> {
    const BODY: usize = 4 << 20;
    let zookeeper = Server::start()?;
    // A server that takes in next to nothing until it is told to, so that much of the body is still to be written. The smaller its
    // window, the less the kernel takes from the node meanwhile: 3 MiB with this one, but all of it with 64 KiB.
    let server = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&server, 4 << 10)?;
    server.set_nonblocking(true)?;
    let at = format!("http://{}", server.local_addr()?);
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(2)
        .group("g", guest("caller"), &group(&format!("POST {at}/ x*{BODY}"), &at, "").replace("\"3s\"", "\"60s\""))
        .start()?;
    let patience = Duration::from_secs(60);
    let (mut stream, _) = cluster.wait_for("a request", patience, |_| server.accept().ok())?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.read_exact(&mut [0; 64])?;
    let leader = cluster.wait_leader("g")?;
    let node = cluster.node(leader);
    node.pause()?;
    cluster.wait_successor("g", leader)?;
    // What the kernel has taken for the node comes through; then its socket has room again.
    let mut read = 64;
    let mut piece = vec![0; 1 << 16];
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    while let Ok(more @ 1..) = stream.read(&mut piece) {
        read += more;
    }
    ensure!(read < BODY, "the whole request was on its way when the node was paused: {read} bytes");
    node.resume()?;
    stream.set_read_timeout(Some(patience))?;
    let end = loop {
        match stream.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    end.context("the connection stays open")?;
    // What the guest says of it is not looked for: it may be stopped by force before it can.
    ensure!(read < BODY, "the request was completed after the pause: {read} bytes");
    Ok(())
}

#[test]
fn a_task_may_send_requests_on_a_node_that_does_not_lead() -> Result<()> {
    let zookeeper = Server::start()?;
    let web = Web::start()?;
    let at = format!("http://{}", web.address);
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(2)
        .group("g", guest("caller"), &group(&format!("each PUT {at}/ok by-a-worker"), &at, ""))
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let done = |line: &Line| line.guest("on-tick").is_some_and(|said| said.contains("Ok(\"200 fine\")"));
    cluster.node(leader).wait_log(0, "an answer", done)?;
    ensure!(web.heard().iter().all(|line| line.ends_with("caller by-a-worker")), "{:#?}", web.heard());
    Ok(())
}
