//! Components that come from elsewhere: a real registry, other nodes, the store of a node that starts again.

#![allow(clippy::unwrap_used, reason = "the server is shared with tests that fail by panicking")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::Cli;
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::{guest, guest_bytes};
use bellwether_tests::net::Net;
use bellwether_tests::registry::{Registry, digest};
use bellwether_tests::zookeeper::{Options, Server};
use serde_json::Value;

#[path = "../../runtime/source/tests/support/mod.rs"]
mod support;

const PATIENCE: Duration = Duration::from_secs(60);

/// `tester:hunter2`, as HTTP wants it.
const USER: &str = "dGVzdGVyOmh1bnRlcjI=";
/// The same for the registry's list of users.
const HTPASSWD: &str = "tester:$2b$04$KxUDEn42RBl9FUo6AWHrBuswR3J7H89PMZZz2kVaFGMz2SSSM3hLu\n";

fn running(node: &Node) -> Option<String> {
    Some(format!("sha256:{}", node.group("g").ok()?["release"]["digest"].as_str()?))
}

fn swap(node: &Node, to: &str) -> Result<Value> {
    let ran = node.cli(&["swap", "g", to, "--json"])?;
    serde_json::from_str(&ran.stdout).with_context(|| format!("{}{}", ran.stdout, ran.stderr))
}

fn steps(swap: &Value) -> Vec<&str> {
    swap["steps"].as_array().into_iter().flatten().filter_map(|step| step["step"].as_str()).collect()
}

/// How the last swap of the group ended, as the history has it.
fn last(node: &Node) -> Result<Value> {
    let group = node.group("g")?;
    Ok(group["history"].as_array().and_then(|swaps| swaps.last()).context("no history")?.clone())
}

#[test]
fn a_tag_stays_what_it_was_until_the_next_swap_and_outlives_its_registry() -> Result<()> {
    let zookeeper = Server::start()?;
    let mut registry = Registry::start()?;
    let (first, second) = (guest_bytes("minimal"), guest_bytes("probe"));
    let image = registry.push("team/guest", "v1", &first, None, None)?;
    let tag = format!("oci://{}/team/guest:v1", registry.address());
    let cluster = Cluster::builder(zookeeper.address()).group("g", &tag, "").start()?;
    cluster.wait_leader("g")?;
    let node = cluster.node(0);
    assert_eq!(running(node), Some(digest(&first)));
    assert_eq!(node.group("g")?["release"]["component"], format!("{tag}@{image}"));

    let moved = registry.push("team/guest", "v1", &second, None, None)?;
    assert_eq!(running(node), Some(digest(&first)), "what runs does not follow a tag by itself");
    let report = swap(node, &tag)?;
    assert_eq!(report["outcome"], "committed", "{report}");
    assert_eq!(running(node), Some(digest(&second)));
    assert_eq!(node.group("g")?["release"]["component"], format!("{tag}@{moved}"));
    let record = last(node)?;
    assert_eq!(steps(&record)[..3], ["fetch", "verify", "compile"], "{record}");

    // Without the registry a swap says so, and the image that came before is still there by its digest.
    registry.stop();
    let report = swap(node, &tag)?;
    assert_eq!(report["outcome"], "rolled-back", "{report}");
    let record = last(node)?;
    let reason = record["reason"].as_str().context("no reason")?;
    assert!(record["step"] == "fetch" && reason.contains(&tag) && reason.contains("connection refused"), "{record}");
    let report = swap(node, &digest(&first))?;
    assert_eq!(report["outcome"], "committed", "{report}");

    let mark = node.mark();
    node.restart()?;
    cluster.wait_leader("g")?;
    assert_eq!(running(node), Some(digest(&second)), "what the tag stood for last");
    node.wait_log(mark, "the warning", |line| line.text.contains("going on with what it stood for last"))?;
    registry.resume()?;
    let report = swap(node, &tag)?;
    assert_eq!(report["reason"], "this release runs already", "{report}");
    assert_eq!(node.stop()?, 0);
    Ok(())
}

#[test]
fn a_registry_is_shown_what_docker_knows_of_it_and_nobody_else_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users");
    std::fs::write(&users, HTPASSWD)?;
    let auth = format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", users.display());
    let registry = Registry::start_with(&auth)?;
    let component = guest_bytes("minimal");
    registry.push("guest", "v1", &component, None, Some(USER))?;
    let (host, image) = (registry.address().to_string(), format!("oci://{}/guest:v1", registry.address()));
    let docker = folder.path().join("docker");
    std::fs::create_dir(&docker)?;
    let helper = folder.path().join("docker-credential-bw");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let check = |config: &str| {
        std::fs::write(docker.join("config.json"), config)?;
        Cli::new().env("DOCKER_CONFIG", &docker).env("PATH", &path).run(["check", &image, "--json"])
    };
    let write = |script: &str| -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&helper, script)?;
        Ok(std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755))?)
    };
    let helped = format!(r#"{{"credHelpers":{{"{host}":"bw"}}}}"#);

    for config in [format!(r#"{{"auths":{{"{host}":{{"auth":"{USER}"}}}}}}"#), helped.clone()] {
        write(&format!(
            "#!/bin/sh\nread -r server\n[ \"$server\" = {host} ] && echo '{{\"Username\":\"tester\",\"Secret\":\"hunter2\"}}'\n"
        ))?;
        let found = check(&config)?.json()?;
        assert_eq!(found["components"][0]["description"]["digest"], digest(&component)["sha256:".len()..]);
    }
    for (config, script, why) in [
        ("{}", "", "run `docker login"),
        (&format!(r#"{{"auths":{{"{host}":{{"auth":"dGVzdGVyOndyb25n"}}}}}}"#), "", "does not let this node read it"),
        (&helped, "#!/bin/sh\nread -r server\necho hunter2; echo hunter2 >&2; exit 1\n", "docker-credential-bw failed"),
        (&helped, "#!/bin/sh\nread -r server\necho hunter2\n", "cannot be read"),
        (
            &helped,
            "#!/bin/sh\nread -r server\necho 'credentials not found in native keychain'; exit 1\n",
            "run `docker login",
        ),
    ] {
        write(script)?;
        let ran = check(config)?;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code(), Some(4), "{said}");
        assert!(said.contains(why) && !said.contains("hunter2") && !said.contains("dGVzdGVy"), "{why}: {said}");
    }
    Ok(())
}

#[test]
fn a_node_that_lacks_a_component_takes_it_from_another() -> Result<()> {
    let zookeeper = Server::start()?;
    let component = digest(&guest_bytes("minimal"));
    let builder = Cluster::builder(zookeeper.address()).nodes(2).group("g", guest("minimal"), "");
    let cluster = builder.prepare()?;
    let (holder, lacking) = (cluster.node(0), cluster.node(1));
    let manifest = std::fs::read_to_string(lacking.manifest())?;
    let named = manifest.replace(&format!("{:?}", guest("minimal").display().to_string()), &format!("{component:?}"));
    ensure!(named != manifest, "the manifest names no component:\n{manifest}");
    std::fs::write(lacking.manifest(), named)?;
    holder.start()?;
    cluster.wait_until("the first leads", |cluster| cluster.node(0).role("g").as_deref() == Some("leader"))?;
    lacking.start()?;
    cluster.wait_for("the second runs it", PATIENCE, |cluster| {
        (running(cluster.node(1)).as_ref() == Some(&component)).then_some(())
    })?;
    let from = format!("node {}", holder.id());
    lacking.wait_log(0, "where it came from", |line| {
        line.text.contains("obtained a component")
            && line.json.pointer("/fields/from").and_then(Value::as_str) == Some(from.as_str())
    })?;

    // The release before is given too: the other can go back to it.
    for to in ["probe", "minimal"] {
        assert_eq!(swap(holder, &guest(to).display().to_string())?["outcome"], "committed");
    }
    assert_eq!(swap(lacking, &digest(&guest_bytes("probe")))?["outcome"], "committed");
    // What merely lies in its store is not.
    let lying = b"no group runs this";
    let absent = digest(lying);
    std::fs::write(holder.folder().join("data/store/sha256").join(&absent["sha256:".len()..]), lying)?;
    let report = swap(lacking, &absent)?;
    let reason = report["reason"].as_str().unwrap_or_default().to_owned();
    assert!(report["step"] == "fetch" && reason.contains(&absent) && reason.contains(&from), "{report}");
    assert!(reason.contains("this node's store: it is not there") && reason.contains("does not hold"), "{reason}");

    let checked = Cli::new().run(["check", &lacking.manifest().display().to_string()])?.ok()?;
    assert!(checked.contains(&component), "{checked}");

    // From now on it needs nobody.
    holder.kill();
    lacking.restart()?;
    cluster.wait_for("it leads alone", PATIENCE, |cluster| {
        (cluster.node(1).role("g").as_deref() == Some("leader")).then_some(())
    })?;
    assert_eq!(running(lacking), Some(component));
    Ok(())
}

#[test]
fn a_component_that_the_leader_lacks_is_found_at_another_node() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = Cluster::builder(zookeeper.address()).nodes(3).group("g", guest("minimal"), "").start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let others: Vec<&Node> =
        cluster.nodes().iter().enumerate().filter(|(index, _)| *index != leader).map(|(_, node)| node).collect();
    let [holder, lacking] = others[..] else { anyhow::bail!("there are {} workers", others.len()) };
    assert_eq!(swap(holder, &guest("probe").display().to_string())?["outcome"], "committed");
    // Workers are told of nobody (`watch = "leader"`): it asks the leader, and then who is in the group.
    assert_eq!(swap(lacking, &digest(&guest_bytes("probe")))?["outcome"], "committed");
    let from = format!("node {}", holder.id());
    lacking.wait_log(0, "where it came from", |line| {
        line.text.contains("obtained a component")
            && line.json.pointer("/fields/from").and_then(Value::as_str) == Some(from.as_str())
    })?;
    // What nobody has: each of the others was asked.
    let report = swap(lacking, &digest(b"nobody has this"))?;
    let reason = report["reason"].as_str().context("no reason")?;
    for node in [holder, cluster.node(leader)] {
        assert!(reason.contains(&format!("node {}: ", node.id())), "{} was not asked: {reason}", node.id());
    }
    Ok(())
}

#[test]
fn an_address_is_taken_at_its_digest_and_its_server_by_its_authority() -> Result<()> {
    let zookeeper = Server::start()?;
    let component = guest_bytes("minimal");
    let served = component.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = runtime.block_on(support::Server::start(true, move |request| match request.path.as_str() {
        "/minimal.wasm" => support::Reply::Bytes(served.clone()),
        "/torn.wasm" => support::Reply::Short(served.len(), served[..99].to_vec()),
        _ => support::Reply::Status(404, String::new(), Vec::new()),
    }));
    let named = |name: &str, component: &[u8]| {
        let hex = digest(component)["sha256:".len()..].to_owned();
        format!("https://localhost:{}/{name}#sha256={hex}", server.address.port())
    };
    let trust = format!("\n[sources]\nca = {:?}\n", server.ca.display().to_string());
    let cluster = Cluster::builder(zookeeper.address())
        .coordination(&trust)
        .group("g", named("minimal.wasm", &component), "")
        .start()?;
    cluster.wait_leader("g")?;
    let node = cluster.node(0);
    assert_eq!(running(node), Some(digest(&component)));
    let probe = guest_bytes("probe");
    for (name, why) in
        [("minimal.wasm", "replaced, cut short or tampered with"), ("torn.wasm", "broke off"), ("x", "404")]
    {
        let report = swap(node, &named(name, &probe))?;
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(report["step"] == "fetch" && reason.contains(why), "{name}: {report}");
    }
    assert_eq!(running(node), Some(digest(&component)));
    // Whoever does not know the authority does not take it from there.
    let checked = Cli::new().run(["check", &named("minimal.wasm", &component)])?;
    assert!(checked.code() == Some(4) && checked.stdout.contains("[sources] ca"), "{}", checked.stdout);
    // The server is gone, the component is not.
    drop(runtime);
    node.restart()?;
    cluster.wait_leader("g")?;
    assert_eq!(running(node), Some(digest(&component)));
    Ok(())
}

#[test]
fn components_are_not_given_to_whoever_reaches_the_port() -> Result<()> {
    let net = Net::start(2)?;
    let zookeeper = Server::start_on(&net, 0, &Options::default())?;
    let hosts: Vec<String> = (0..2).map(|host| net.address(host).to_string()).collect();
    let enter: Vec<Vec<String>> = (0..2).map(|host| net.enter(host)).collect();
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(2)
        .wrapper(move |index| enter[index].clone())
        .node("advertise = \"ADDRESS:0\"\n")
        .group("g", guest("minimal"), "")
        .prepare()?;
    for (node, host) in cluster.nodes().iter().zip(hosts) {
        let manifest = std::fs::read_to_string(node.manifest())?.replace("ADDRESS", &host);
        std::fs::write(node.manifest(), manifest)?;
        node.start()?;
    }
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    assert_eq!(swap(cluster.node(leader), &guest("probe").display().to_string())?["outcome"], "committed");
    let report = swap(cluster.node(1 - leader), &digest(&guest_bytes("probe")))?;
    let reason = report["reason"].as_str().unwrap_or_default();
    assert!(report["step"] == "fetch" && reason.contains("show a certificate"), "{report}");
    Ok(())
}

#[test]
fn a_component_that_nobody_vouches_for_is_refused_before_it_is_compiled() -> Result<()> {
    let zookeeper = Server::start()?;
    let registry = Registry::start()?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let keygen = |name: &str| Cli::new().run(["keygen", name, "--out", &at(&format!("{name}.key"))])?.ok();
    let (public, _) = (keygen("release")?, keygen("stranger")?);
    let again = Cli::new().run(["keygen", "release", "--out", &at("release.key")])?;
    assert!(again.code() == Some(6) && again.stderr.contains("never overwritten"), "{}", again.stderr);
    let sign = |key: &str, file: &str| Cli::new().run(["sign", "--key", &at(&format!("{key}.key")), file])?.ok();

    let (good, next) = (at("good.wasm"), at("next.wasm"));
    std::fs::write(&good, guest_bytes("minimal"))?;
    std::fs::write(&next, guest_bytes("probe"))?;
    let trust = format!("\n[signatures]\nrequired = true\nkeys = [{:?}]\n", public.trim());
    let cluster = Cluster::builder(zookeeper.address()).coordination(&trust).group("g", &good, "").prepare()?;
    let node = cluster.node(0);
    node.start()?;
    assert_eq!(node.wait_exit()?, 4, "an unsigned component");
    assert!(node.log().iter().any(|line| line.text.contains("is not signed")), "{}", node.report());
    let checked = Cli::new().run(["check", &node.manifest().display().to_string()])?;
    assert!(checked.code() == Some(4) && checked.stdout.contains("is not signed"), "{}", checked.stdout);

    sign("release", &good)?;
    node.start()?;
    cluster.wait_leader("g")?;
    let compiled = || std::fs::read_dir(node.folder().join("data/compiled")).map_or(0, |entries| entries.count());
    let before = compiled();
    let refused = |to: &str, why: &str| -> Result<()> {
        let report = swap(node, to)?;
        let record = last(node)?;
        for told in [&report, &record] {
            assert_eq!(told["step"], "verify", "{told}");
            assert!(told["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{told}");
        }
        assert_eq!((compiled(), running(node)), (before, Some(digest(&guest_bytes("minimal")))));
        Ok(())
    };
    refused(&next, "is not signed")?;
    sign("stranger", &next)?;
    refused(&next, "does not know")?;
    // The signature of another component, in the right place.
    std::fs::copy(at("good.wasm.sig"), at("next.wasm.sig"))?;
    refused(&next, "\"release\" is not one over")?;
    std::fs::remove_file(at("next.wasm.sig"))?;

    let bytes = guest_bytes("probe");
    registry.push("guest", "bare", &bytes, None, None)?;
    refused(&format!("oci://{}/guest:bare", registry.address()), "is not signed")?;
    sign("release", &next)?;
    let signature = std::fs::read_to_string(at("next.wasm.sig"))?;
    registry.push("guest", "signed", &bytes, Some(&signature), None)?;
    let report = swap(node, &format!("oci://{}/guest:signed", registry.address()))?;
    assert_eq!(report["outcome"], "committed", "{report}");

    let manifest = node.manifest().display().to_string();
    let store = |what: &str| Cli::new().run(["store", what, &manifest, "--json"]);
    let listed = store("ls")?.json()?;
    let entries = listed["components"].as_array().context("a list")?;
    assert_eq!(entries.len(), 2, "{listed}");
    assert!(entries.iter().all(|entry| entry["needed"] == true && entry["signed_by"][0].is_string()), "{listed}");
    assert_eq!(store("gc")?.json()?["removed"], serde_json::json!([]), "all of it is needed");
    assert_eq!(store("verify")?.json()?["damaged"], serde_json::json!([]));
    let hex = digest(&bytes)["sha256:".len()..].to_owned();
    std::fs::write(node.folder().join("data/store/sha256").join(&hex), b"damaged")?;
    let verified = store("verify")?;
    assert!(verified.code() == Some(1) && verified.stdout.contains(&hex), "{}", verified.stdout);
    assert_eq!(node.stop()?, 0);
    Ok(())
}
