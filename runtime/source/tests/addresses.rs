//! Components from a real HTTPS server with a private authority.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::time::Duration;

use bellwether_core::callback::Step;
use bellwether_core::id::GroupName;
use bellwether_source::signature::{self, PrivateKey, Trust};
use bellwether_source::store::Store;
use bellwether_source::{Digest, Limits, Options, Reference, Sources};
use support::{Reply, Server};

const COMPONENT: &[u8] = b"the component";

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn limits() -> Limits {
    Limits { bytes: 1 << 20, idle: Duration::from_millis(500), total: Duration::from_secs(20), ..Limits::default() }
}

fn options(server: &Server) -> Options {
    Options { ca: Some(server.ca.clone()), limits: limits(), trust: Trust::default() }
}

fn reference(server: &Server, path: &str) -> Reference {
    let hex = Digest::of(COMPONENT).hex();
    format!("https://localhost:{}{path}#sha256={hex}", server.address.port()).parse().unwrap()
}

fn scripted(path: &str, elsewhere: Option<&str>) -> Reply {
    let plain = "http://example.invalid/good";
    match path {
        "/good" | "/good?token=hunter2" => Reply::Bytes(COMPONENT.to_vec()),
        "/another" => Reply::Bytes(b"another component".to_vec()),
        "/torn" => Reply::Short(COMPONENT.len(), COMPONENT[..5].to_vec()),
        "/cut" => Reply::Bytes(COMPONENT[..5].to_vec()),
        "/sent" => Reply::Redirect("/good".into()),
        "/round" => Reply::Redirect("/round".into()),
        "/down" => Reply::Redirect(elsewhere.unwrap_or(plain).into()),
        "/silent" | "/silent?token=hunter2" => Reply::Silence,
        "/endless" => Reply::Endless,
        "/announced" => Reply::Short(10 << 20, Vec::new()),
        "/closed" => Reply::Status(403, String::new(), b"hunter2".to_vec()),
        "/ill" => Reply::Status(503, String::new(), Vec::new()),
        _ => Reply::Status(404, String::new(), b"nothing".to_vec()),
    }
}

#[tokio::test]
async fn what_an_address_can_do_to_a_node() {
    let server = Server::start(true, |request| scripted(&request.path, None)).await;
    let sources = Sources::new(None, options(&server)).unwrap();
    let obtain = async |path: &str| sources.obtain(&reference(&server, path), None, &group()).await;
    for path in ["/good", "/sent", "/good?token=hunter2"] {
        let artifact = obtain(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!((artifact.digest, &artifact.bytes[..]), (Digest::of(COMPONENT), COMPONENT), "{path}");
    }
    for (path, why) in [
        ("/another", "replaced, cut short or tampered with"),
        ("/cut", "replaced, cut short or tampered with"),
        ("/torn", "broke off"),
        ("/round", "more than 5 times"),
        ("/down", "not encrypted"),
        ("/silent", "fallen silent"),
        ("/silent?token=hunter2", "fallen silent"),
        ("/endless", "larger than 1048576 bytes"),
        ("/announced", "larger than 1048576 bytes"),
        ("/closed", "status 403"),
        ("/ill", "try again later"),
        ("/nowhere", "nothing is there"),
    ] {
        let error = obtain(path).await.expect_err(path);
        let shown = error.to_string();
        assert_eq!(error.step, Step::Fetch, "{shown}");
        assert!(shown.contains(why) && shown.contains("https://localhost"), "{path}: {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains('\n'), "{path}: {shown}");
        let places: Vec<&str> = error.attempts.iter().map(|attempt| attempt.place.as_str()).collect();
        assert_eq!(places, ["localhost", "other nodes"], "{path}");
    }
}

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let server = Server::start(true, |_| Reply::Bytes(COMPONENT.to_vec())).await;
    let strange = Server::start(true, |_| Reply::Bytes(COMPONENT.to_vec())).await;
    let error = |options| async {
        let sources = Sources::new(None, options).unwrap();
        sources.obtain(&reference(&server, "/good"), None, &group()).await.unwrap_err().to_string()
    };
    let untold = error(Options { limits: limits(), ..Options::default() }).await;
    assert!(untold.contains("not signed by any authority") && untold.contains("[sources] ca"), "{untold}");
    let wrong = error(options(&strange)).await;
    assert!(wrong.contains("not signed by any authority"), "{wrong}");
    assert_eq!(server.paths(), Vec::<String>::new(), "nothing was asked of it");
    // Nobody listens.
    let gone = Server::start(true, |_| Reply::Silence).await.address.port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().port();
    drop(listener);
    assert_ne!(gone, free);
    let nobody: Reference =
        format!("https://localhost:{free}/x#sha256={}", Digest::of(COMPONENT).hex()).parse().unwrap();
    let sources = Sources::new(None, options(&server)).unwrap();
    let error = sources.obtain(&nobody, None, &group()).await.unwrap_err().to_string();
    assert!(error.contains("connection refused"), "{error}");
}

#[tokio::test]
async fn all_of_it_together_takes_no_longer_than_it_may() {
    let server = Server::start(true, |_| Reply::Silence).await;
    let limits = Limits { idle: Duration::from_secs(3600), total: Duration::from_millis(300), ..limits() };
    let sources = Sources::new(None, Options { limits, ..options(&server) }).unwrap();
    let error = sources.obtain(&reference(&server, "/x"), None, &group()).await.unwrap_err().to_string();
    assert!(error.contains("has not come within 300ms"), "{error}");
}

#[tokio::test]
async fn what_was_fetched_once_is_kept() {
    let server = Server::start(true, |request| scripted(&request.path, None)).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store"), 1 << 20).unwrap();
    let sources = Sources::new(Some(store), options(&server)).unwrap();
    let good = reference(&server, "/good");
    assert_eq!(sources.obtain(&good, None, &group()).await.unwrap().from, "source");
    let asked = server.paths();
    assert_eq!(asked, ["/good", "/good.sig"]);
    assert_eq!(sources.obtain(&good, None, &group()).await.unwrap().from, "store");
    let digest: Reference = Digest::of(COMPONENT).to_string().parse().unwrap();
    assert_eq!(sources.obtain(&digest, None, &group()).await.unwrap().from, "store");
    assert_eq!(server.paths(), asked, "nobody was asked again");
    let other = Digest::of(b"other");
    let error = sources.obtain(&good, Some(&other), &group()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{other} is wanted")), "{error}");
}

#[tokio::test]
async fn signatures_beside_addresses_and_files_and_in_the_store() {
    let (key, stranger) = (PrivateKey::generate("release").unwrap(), PrivateKey::generate("stranger").unwrap());
    let digest = Digest::of(COMPONENT);
    let good = signature::write(&[key.sign(&digest)]).into_bytes();
    let strange = signature::write(&[stranger.sign(&digest)]).into_bytes();
    let of_another = signature::write(&[key.sign(&Digest::of(b"another"))]).into_bytes();
    let texts = [good.clone(), strange.clone(), of_another.clone()];
    let server = Server::start(true, move |request| match request.path.as_str() {
        "/signed.sig" => Reply::Bytes(texts[0].clone()),
        "/strange.sig" => Reply::Bytes(texts[1].clone()),
        "/wrong.sig" => Reply::Bytes(texts[2].clone()),
        "/odd.sig" => Reply::Bytes(b"no signature".to_vec()),
        "/large.sig" => Reply::Endless,
        path if path.ends_with(".sig") => Reply::Status(404, String::new(), Vec::new()),
        _ => Reply::Bytes(COMPONENT.to_vec()),
    })
    .await;
    let trusting = |required| Options { trust: Trust::new(required, [key.public()]), ..options(&server) };
    let sources = |required| Sources::new(None, trusting(required)).unwrap();
    let obtain = async |required, path: &str| {
        let result = sources(required).obtain(&reference(&server, path), None, &group()).await;
        result.map(|artifact| artifact.signer).map_err(|error| (error.step, error.to_string()))
    };
    assert_eq!(obtain(true, "/signed").await, Ok(Some("release".into())));
    assert_eq!(obtain(false, "/signed").await, Ok(Some("release".into())));
    for (path, why) in [
        ("/unsigned", "is not signed"),
        ("/strange", "does not know"),
        ("/wrong", "not one over"),
        ("/odd", "is not signed"),
        ("/large", "is not signed"),
    ] {
        let (step, reason) = obtain(true, path).await.unwrap_err();
        assert_eq!(step, Step::Verify, "{path}: {reason}");
        assert!(reason.contains(why), "{path}: {reason}");
        assert_eq!(obtain(false, path).await.is_ok(), path != "/wrong", "{path}");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, COMPONENT).unwrap();
    let store = Store::open(&folder.path().join("store"), 1 << 20).unwrap();
    let lenient = Sources::new(Some(store.clone()), options(&server)).unwrap();
    let strict = Sources::new(Some(store.clone()), trusting(true)).unwrap();
    let (named, by_digest) = (Reference::File(file.clone()), Reference::Digest(digest));
    lenient.obtain(&named, None, &group()).await.unwrap();
    // That it is in the store says nothing about who vouches for it.
    for reference in [&named, &by_digest] {
        assert_eq!(strict.obtain(reference, None, &group()).await.unwrap_err().step, Step::Verify);
    }
    std::fs::write(folder.path().join("x.wasm.sig"), &good).unwrap();
    strict.obtain(&named, None, &group()).await.unwrap();
    assert_eq!(strict.obtain(&by_digest, None, &group()).await.unwrap().signer.as_deref(), Some("release"));
}
