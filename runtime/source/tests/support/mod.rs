//! A server that does as it is told, with or without TLS, and a private authority.

#![allow(dead_code, reason = "each test program uses a part")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server answers.
#[derive(Clone)]
pub enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A status, some header lines, and a body.
    Status(u16, String, Vec<u8>),
    /// So many bytes are announced, and only these come.
    Short(usize, Vec<u8>),
    /// Elsewhere.
    Redirect(String),
    /// The head, and nothing more.
    Silence,
    /// Bytes without an end, and without a length.
    Endless,
}

/// A request: its path and its `authorization` header.
pub struct Request {
    pub path: String,
    pub authorization: Option<String>,
}

type Answer = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A server of this process.
pub struct Server {
    pub address: SocketAddr,
    /// The paths that were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// The authority's certificate.
    pub ca: PathBuf,
    _folder: TempDir,
}

impl Server {
    pub async fn start(tls: bool, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (acceptor, pem) = certified();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    if tls {
                        // Clients that do not trust it go away here.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        serve(stream, &log, &answer).await;
                    } else {
                        serve(stream, &log, &answer).await;
                    }
                });
            }
        });
        Self { address, asked, ca, _folder: folder }
    }

    pub fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn certified() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::default();
    // Of its own, as clients look for an authority by its name.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der())),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, log: &Mutex<Vec<String>>, answer: &Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    });
    log.lock().unwrap().push(path.clone());
    let with = |status: u16, headers: &str, length: usize| {
        format!("HTTP/1.1 {status} it\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let (head, body) = match answer(&Request { path, authorization }) {
        Reply::Bytes(bytes) => (with(200, "", bytes.len()), bytes),
        Reply::Status(status, headers, body) => (with(status, &headers, body.len()), body),
        Reply::Short(length, bytes) => (with(200, "", length), bytes),
        Reply::Redirect(to) => (with(302, &format!("location: {to}\r\n"), 0), Vec::new()),
        Reply::Silence => (with(200, "", 10), Vec::new()),
        Reply::Endless => (b"HTTP/1.1 200 it\r\nconnection: close\r\n\r\n".to_vec(), vec![7; 1 << 16]),
    };
    let endless = head.starts_with(b"HTTP/1.1 200 it\r\nconnection");
    let silent = body.is_empty() && head.windows(18).any(|part| part == b"content-length: 10");
    let _ = stream.write_all(&head).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.flush().await;
    while endless && stream.write_all(&body).await.is_ok() {}
    if silent {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}
