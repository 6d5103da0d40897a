//! Registries that misbehave, and those that want to know who asks. A real one is in the black-box tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::id::GroupName;
use bellwether_source::store::Store;
use bellwether_source::{Digest, Limits, Options, Reference, Sources};
use support::{Reply, Server};

const COMPONENT: &[u8] = b"the component";

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn manifest(media_type: &str, component: &[u8], size: usize) -> Vec<u8> {
    let digest = Digest::of(component);
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{digest}","size":2}},
            "layers":[{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}]}}"#
    )
    .into_bytes()
}

fn index(manifest: &[u8]) -> Vec<u8> {
    let digest = Digest::of(manifest);
    let other = Digest::of(b"other");
    format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"m","digest":"{other}","size":1,"platform":{{"architecture":"amd64","os":"linux"}}}},
            {{"mediaType":"m","digest":"{digest}","size":1,"platform":{{"architecture":"wasm","os":"wasip1"}}}}]}}"#
    )
    .into_bytes()
}

fn image(server: &Server, version: &str) -> Reference {
    format!("oci://127.0.0.1:{}/team/guest{version}", server.address.port()).parse().unwrap()
}

fn sources(store: Option<Store>) -> Sources {
    let limits = Limits { bytes: 1 << 20, idle: Duration::from_millis(500), ..Limits::default() };
    Sources::new(store, Options { limits, ..Options::default() }).unwrap()
}

#[tokio::test]
async fn images_of_all_kinds() {
    let good = manifest("application/wasm", COMPONENT, COMPONENT.len());
    let by_digest = Digest::of(&good);
    let server = Server::start(false, move |request| {
        let good = good.clone();
        let version = request.path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/blobs/") {
            return match version {
                digest if digest == Digest::of(COMPONENT).to_string() => Reply::Bytes(COMPONENT.to_vec()),
                digest if digest == Digest::of(b"short").to_string() => Reply::Bytes(b"sho".to_vec()),
                digest if digest == Digest::of(b"wrong").to_string() => Reply::Bytes(b"WRONG".to_vec()),
                _ => Reply::Endless,
            };
        }
        match version {
            "good" => Reply::Bytes(good),
            digest if digest == Digest::of(&good).to_string() => Reply::Bytes(good),
            "index" => Reply::Bytes(index(&good)),
            "tar" => Reply::Bytes(manifest("application/vnd.oci.image.layer.v1.tar", COMPONENT, 3)),
            "large" => Reply::Bytes(manifest("application/wasm", COMPONENT, 2 << 20)),
            "endless" => Reply::Bytes(manifest("application/wasm", b"endless", 7)),
            "short" => Reply::Bytes(manifest("application/wasm", b"short", 5)),
            "wrong" => Reply::Bytes(manifest("application/wasm", b"wrong", 5)),
            "vast" => Reply::Endless,
            "odd" => Reply::Bytes(b"<html>".to_vec()),
            "empty" => Reply::Bytes(b"{\"schemaVersion\":2}".to_vec()),
            _ => Reply::Status(404, String::new(), Vec::new()),
        }
    })
    .await;
    for version in [":good", ":index", &format!("@{by_digest}"), &format!(":moved@{by_digest}")] {
        let artifact = sources(None).obtain(&image(&server, version), None, &group()).await;
        let artifact = artifact.unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(&artifact.bytes[..], COMPONENT, "{version}");
        let Reference::Image(resolved) = &artifact.resolved else { panic!("{}", artifact.resolved) };
        assert_eq!(resolved.digest().is_some_and(|digest| digest == by_digest), version != ":index", "{resolved}");
    }
    let other = Digest::of(b"other");
    for (version, why) in [
        (":tar", "no layer of the media type \"application/wasm\""),
        (":empty", "no layer of the media type"),
        (":large", "has 2097152 bytes"),
        (":endless", "larger than 7 bytes"),
        (":short", "3 bytes came, of 5"),
        (":wrong", "its blob is damaged"),
        (":vast", "its manifest: it is larger than"),
        (":odd", "its manifest cannot be read"),
        (":absent", "nothing is there"),
        (&format!("@{other}"), "nothing is there"),
    ] {
        let error = sources(None).obtain(&image(&server, version), None, &group()).await.expect_err(version);
        assert!(error.to_string().contains(why), "{version}: {error}");
        assert!(error.to_string().contains("the registry 127.0.0.1:"), "{version}: {error}");
    }
    let moved = sources(None).obtain(&image(&server, ":good"), Some(&other), &group()).await.unwrap_err();
    assert!(moved.to_string().contains("its tag has moved"), "{moved}");
}

#[tokio::test]
async fn a_token_is_asked_for_where_that_is_safe() {
    let port = Arc::new(Mutex::new(String::new()));
    let realm = port.clone();
    let server = Server::start(false, move |request| {
        let path = request.path.as_str();
        if let Some(query) = path.strip_prefix("/token?") {
            let wanted = query.contains("scope=repository%3Ateam%2Fguest%3Apull") && query.contains("service=here");
            return if wanted {
                Reply::Bytes(b"{\"token\":\"hunter2\"}".to_vec())
            } else {
                Reply::Bytes(b"{}".to_vec())
            };
        }
        if request.authorization.as_deref() == Some("Bearer hunter2") {
            let good = manifest("application/wasm", COMPONENT, COMPONENT.len());
            let blob = path.contains("/blobs/");
            return if blob { Reply::Bytes(COMPONENT.to_vec()) } else { Reply::Bytes(good) };
        }
        let challenge = match path.rsplit('/').next() {
            Some("far") => "Bearer realm=\"http://auth.example.invalid/token\",service=\"here\"".to_owned(),
            Some("basic") => "Basic realm=\"here\"".to_owned(),
            Some("odd") => "Negotiate".to_owned(),
            Some("mean") => format!("Bearer realm=\"{}/token\",service=\"other\"", realm.lock().unwrap()),
            _ => format!("Bearer realm=\"{}/token\",service=\"here\"", realm.lock().unwrap()),
        };
        Reply::Status(401, format!("www-authenticate: {challenge}\r\n"), Vec::new())
    })
    .await;
    *port.lock().unwrap() = format!("http://{}", server.address);
    let artifact = sources(None).obtain(&image(&server, ":v1"), None, &group()).await.unwrap();
    assert_eq!(&artifact.bytes[..], COMPONENT);
    for (tag, why) in [
        (":far", "which is not encrypted"),
        (":basic", "run `docker login 127.0.0.1"),
        (":odd", "of a kind that this node does not know"),
        (":mean", "there is none in the answer"),
    ] {
        let error = sources(None).obtain(&image(&server, tag), None, &group()).await.expect_err(tag).to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{tag}: {error}");
    }
}

#[tokio::test]
async fn what_a_tag_stood_for_last_is_for_nodes_that_start() {
    let moved = Arc::new(Mutex::new(Some(COMPONENT)));
    let now = moved.clone();
    let server = Server::start(false, move |request| match *now.lock().unwrap() {
        None => Reply::Status(503, String::new(), Vec::new()),
        Some(component) if request.path.contains("/blobs/") => Reply::Bytes(component.to_vec()),
        Some(component) => Reply::Bytes(manifest("application/wasm", component, component.len())),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path(), 1 << 20).unwrap();
    let tag = image(&server, ":v1");
    let first = sources(Some(open())).obtain(&tag, None, &group()).await.unwrap();
    *moved.lock().unwrap() = None;
    let again = sources(Some(open()));
    let error = again.obtain(&tag, None, &group()).await.unwrap_err().to_string();
    assert!(error.contains("try again later"), "{error}");
    let last = again.obtain_or_last(&tag, &group()).await.unwrap();
    assert_eq!((last.digest, last.resolved, last.from.as_str()), (first.digest, first.resolved, "store"));
    *moved.lock().unwrap() = Some(b"moved");
    assert_eq!(again.obtain_or_last(&tag, &group()).await.unwrap().digest, Digest::of(b"moved"));
}
