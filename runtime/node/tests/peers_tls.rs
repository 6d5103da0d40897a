//! Mutual TLS between nodes, with certificates made here.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::work::WorkError;
use bellwether_guest::host::Task;
use bellwether_node::peers::{Part, PeerError, PeerLimits, PeerServer, Peers, Tasks, TlsError, TlsFiles};
use bellwether_source::Digest;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const LONG: Duration = Duration::from_secs(30);

/// A node that answers with what it was sent.
struct Echo;

impl Tasks for Echo {
    fn handle(&self, _: GroupName, _: NodeId, task: Task, _: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        async move { Ok(Bytes::copy_from_slice(&task.payload)) }.boxed()
    }

    fn part(
        &self,
        group: GroupName,
        _: NodeId,
        digest: Digest,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Part, WorkError>> {
        async move {
            let whole = component();
            let (first, second) = (Digest::of(&whole), Digest::of(b"torn"));
            if group.as_str() != "g" || (digest != first && digest != second) {
                return Err(WorkError::Other("it is not held".into()));
            }
            let (at, end) = (usize::try_from(offset).expect("an offset"), whole.len());
            // Of the torn one only the first part can be had.
            let data =
                if digest == second && at > 0 { Bytes::new() } else { whole.slice(at.min(end)..end.min(at + most)) };
            let signatures = if at == 0 { "signatures".to_owned() } else { String::new() };
            Ok(Part { data, whole: end as u64, signatures })
        }
        .boxed()
    }
}

/// Of several parts, the last of them short.
fn component() -> Bytes {
    Bytes::from((0..3_000_001_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect::<Vec<u8>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_come_part_by_part() {
    let authority = Authority::new("ours");
    let (_server, from) = serve(Some(&authority.sign("w")));
    let peers = client(Some(&authority.sign("other")));
    let (group, whole) = (GroupName::new("g").expect("a name"), component());
    let digest = Digest::of(&whole);
    let fetched = peers.fetch(&from, &group, &digest, 3_000_001).await;
    assert!(fetched == Ok((whole, "signatures".to_owned())), "{:?}", fetched.map(|(bytes, text)| (bytes.len(), text)));
    assert_eq!(peers.fetch(&from, &group, &digest, 3_000_000).await, Err(WorkError::TooLarge(3_000_000)));
    let torn = peers.fetch(&from, &group, &Digest::of(b"torn"), 1 << 30).await;
    assert!(matches!(&torn, Err(WorkError::Other(why)) if why.contains("of 3000001")), "{torn:?}");
    for (group, digest) in [("h", digest), ("g", Digest::of(b"absent"))] {
        let refused = peers.fetch(&from, &GroupName::new(group).expect("a name"), &digest, 1 << 30).await;
        assert_eq!(refused, Err(WorkError::Other("it is not held".into())));
    }
    // On one machine it needs no certificate.
    let (_plain, from) = serve(None);
    assert!(client(None).fetch(&from, &group, &digest, 1 << 30).await.is_ok());
}

/// An authority and the folder of what it signed.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, params.self_signed(&key).expect("signed").pem()).expect("written");
        Self { folder, issuer: Issuer::new(params, key), ca }
    }

    /// A certificate for `hosts`, after `change` had its way with it.
    fn sign_with(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let path = |kind: &str| self.folder.path().join(format!("{name}.{kind}.pem"));
        fs::write(path("cert"), cert.pem()).expect("written");
        fs::write(path("key"), key.serialize_pem()).expect("written");
        TlsFiles { cert: path("cert"), key: path("key"), ca: self.ca.clone() }
    }

    fn sign(&self, name: &str) -> TlsFiles {
        self.sign_with(name, &["127.0.0.1", "localhost"], |_| ())
    }
}

fn serve(tls: Option<&TlsFiles>) -> (PeerServer, Member) {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = PeerServer::bind(loopback, tls, PeerLimits::default(), Arc::new(Echo)).expect("bound");
    let member = member(&server.local_addr().to_string());
    (server, member)
}

fn member(address: &str) -> Member {
    Member { id: NodeId::new("w").expect("a name"), address: address.to_owned(), labels: BTreeMap::new() }
}

fn client(tls: Option<&TlsFiles>) -> Peers {
    Peers::new(NodeId::new("leader").expect("a name"), tls, PeerLimits::default()).expect("peers")
}

async fn ask(peers: &Peers, to: &Member, payload: impl Into<Bytes>) -> Result<Bytes, WorkError> {
    peers.send(to, &GroupName::new("g").expect("a name"), None, payload.into(), LONG).await
}

async fn unreachable(peers: &Peers, to: &Member) -> String {
    match ask(peers, to, "hello").await {
        Err(WorkError::Unreachable(text)) => {
            let begin = format!("w at {}: ", to.address);
            text.strip_prefix(&begin).unwrap_or_else(|| panic!("{text}")).to_owned()
        }
        other => panic!("expected unreachable, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_authority_work_together() {
    let authority = Authority::new("ours");
    let (server, to) = serve(Some(&authority.sign("w")));
    let peers = client(Some(&authority.sign("leader")));
    assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
    let by_name = member(&format!("localhost:{}", server.local_addr().port()));
    assert_eq!(ask(&peers, &by_name, "hello").await, Ok(Bytes::from_static(b"hello")));
    let large = Bytes::from(vec![5; 16 << 20]);
    assert!(ask(&peers, &to, large.clone()).await.expect("an answer") == large);
    // A restarted peer is found again over TLS, too.
    let address = server.local_addr();
    server.shutdown(LONG).await;
    let _server =
        PeerServer::bind(address, Some(&authority.sign("w2")), PeerLimits::default(), Arc::new(Echo)).expect("bound");
    assert_eq!(ask(&peers, &to, "again").await, Ok(Bytes::from_static(b"again")));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new("ours");
    let (server, _) = serve(Some(&authority.sign("w")));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.ca).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.local_addr()).await.expect("connected");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    // In TLS 1.3 the client's side is done before the server has looked: the refusal comes with the first read.
    let refused = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        stream.read_u8().await
    };
    let error = tokio::time::timeout(LONG, refused).await.expect("in time").expect_err("refused");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn a_peer_without_tls_is_refused_and_hears_why_it_may_be() {
    let authority = Authority::new("ours");
    let (_server, to) = serve(Some(&authority.sign("w")));
    let text = unreachable(&client(None), &to).await;
    assert!(text.contains("does the peer expect TLS"), "{text}");
}

#[tokio::test]
async fn a_peer_that_has_no_tls_is_not_trusted() {
    let authority = Authority::new("ours");
    let (_server, to) = serve(None);
    let text = unreachable(&client(Some(&authority.sign("leader"))), &to).await;
    assert_eq!(text, "TLS: connection closed during the handshake; has the peer no `tls` in its manifest?");
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (_server, to) = serve(Some(&theirs.sign("w")));
    let text = unreachable(&client(Some(&ours.sign("leader"))), &to).await;
    assert_eq!(text, "TLS: the peer's certificate is not signed by any authority in this node's `tls.ca`");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (_server, to) = serve(Some(&ours.sign("w")));
    // It knows our authority, so that it trusts the server; the server does not know its.
    let both = [fs::read(&ours.ca).expect("read"), fs::read(&theirs.ca).expect("read")].concat();
    let ca = theirs.folder.path().join("both.pem");
    fs::write(&ca, both).expect("written");
    let text = unreachable(&client(Some(&TlsFiles { ca, ..theirs.sign("leader") })), &to).await;
    assert_eq!(
        text,
        "TLS: the peer refused this node's certificate: it is not signed by any authority that the peer knows (UnknownCA)"
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let authority = Authority::new("ours");
    let (_server, to) = serve(Some(&authority.sign_with("w", &["10.9.8.7"], |_| ())));
    let text = unreachable(&client(Some(&authority.sign("leader"))), &to).await;
    assert!(text.starts_with("TLS: the peer's certificate does not name the host"), "{text}");
}

/// The message of the error that both sides meet.
fn refused(files: &TlsFiles) -> TlsError {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = PeerServer::bind(loopback, Some(files), PeerLimits::default(), Arc::new(Echo)).expect_err("refused");
    let peers = Peers::new(NodeId::new("leader").expect("a name"), Some(files), PeerLimits::default());
    let client = peers.expect_err("refused");
    assert_eq!(server.to_string(), client.to_string());
    match server {
        PeerError::Tls(error) => error,
        other => panic!("{other:?}"),
    }
}

fn names(error: &TlsError, path: &Path) {
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn files_that_do_not_fit_are_named_at_start() {
    let authority = Authority::new("ours");
    let good = authority.sign("w");
    let other = authority.sign("other");
    let missing = authority.folder.path().join("missing.pem");
    let nonsense = authority.folder.path().join("nonsense.pem");
    fs::write(&nonsense, [0x30, 0x82, 0x01]).expect("written");
    let broken = authority.folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");

    for bad in [
        TlsFiles { cert: missing.clone(), ..good.clone() },
        TlsFiles { key: missing.clone(), ..good.clone() },
        TlsFiles { ca: missing.clone(), ..good.clone() },
    ] {
        let error = refused(&bad);
        assert!(matches!(error, TlsError::Read { .. }), "{error:?}");
        names(&error, &missing);
    }
    for bad in [
        TlsFiles { cert: nonsense.clone(), ..good.clone() },
        TlsFiles { key: nonsense.clone(), ..good.clone() },
        TlsFiles { ca: nonsense.clone(), ..good.clone() },
    ] {
        let error = refused(&bad);
        assert!(matches!(error, TlsError::NotPem { .. }), "{error:?}");
        names(&error, &nonsense);
    }
    for bad in [TlsFiles { cert: broken.clone(), ..good.clone() }, TlsFiles { ca: broken.clone(), ..good.clone() }] {
        let error = refused(&bad);
        assert!(matches!(error, TlsError::Unfit { .. } | TlsError::OwnRefused { .. }), "{error:?}");
        names(&error, &broken);
    }
    let swapped = refused(&TlsFiles { cert: good.key.clone(), key: good.cert.clone(), ..good.clone() });
    assert!(matches!(swapped, TlsError::NotPem { what: "certificate", .. }), "{swapped:?}");
    let error = refused(&TlsFiles { key: other.key.clone(), ..good.clone() });
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error:?}");
    names(&error, &good.cert);
    names(&error, &other.key);
    let key = fs::read_to_string(&other.key).expect("read");
    assert!(!error.to_string().contains(key.lines().nth(1).expect("a line")), "no secret in a message");
}

#[tokio::test]
async fn a_certificate_that_every_peer_would_refuse_is_named_at_start() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let foreign = refused(&TlsFiles { ca: theirs.ca.clone(), ..ours.sign("w") });
    assert!(matches!(foreign, TlsError::OwnRefused { .. }), "{foreign:?}");
    names(&foreign, &theirs.ca);
    let expired = ours.sign_with("old", &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let error = refused(&expired);
    assert!(error.to_string().contains("it has expired"), "{error}");
    let server_only = ours.sign_with("server-only", &["127.0.0.1"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let error = refused(&server_only);
    assert!(matches!(error, TlsError::OwnRefused { .. }), "{error:?}");
}
