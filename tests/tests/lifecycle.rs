//! The life of nodes on a real ZooKeeper: how they leave, hand over, register, take new logic, and bear an operator's hand.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Builder, Cluster, Line};
use bellwether_tests::guests::guest;
use bellwether_tests::znodes::Znodes;
use bellwether_tests::zookeeper::Server;
use serde_json::{Value, json};

const G: &str = "g";
/// So long that nothing in these tests can be the work of an expired session.
const LONG: Duration = Duration::from_secs(40);

fn probes(zookeeper: &Server, nodes: usize, toml: &str) -> Builder {
    Cluster::builder(zookeeper.address()).nodes(nodes).group(G, guest("probe"), toml)
}

fn epoch(cluster: &Cluster, node: usize) -> Result<u64> {
    cluster.node(node).group(G)?["epoch"].as_u64().context("it has no epoch")
}

fn session(cluster: &Cluster, node: usize) -> Result<String> {
    Ok(cluster.node(node).status()?["session"]["id"].as_str().context("it has no session")?.to_owned())
}

fn demoted(line: &Line) -> bool {
    line.guest("on-demoted").is_some()
}

/// The ids that the group's registry has.
fn registry(znodes: &Znodes) -> Result<BTreeSet<String>> {
    let members = znodes.below("/bellwether/g/service_registry")?;
    Ok(members.values().map(|znode| znode.json()["id"].as_str().unwrap_or("?").to_owned()).collect())
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_and_leaves_nothing_behind() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "").session_timeout(LONG).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let (node, old_epoch, old_session) = (cluster.node(leader), epoch(&cluster, leader)?, session(&cluster, leader)?);
    let mark = node.mark();
    assert_eq!(node.stop()?, 0);

    // All that it had is gone by the time that its process is: it closed its session.
    let znodes = Znodes::of(zookeeper.address());
    for path in ["nodes", "g/election", "g/service_registry"] {
        let mut left = znodes.below(&format!("/bellwether/{path}"))?;
        left.retain(|_, znode| znode.owner.as_ref() == Some(&old_session));
        ensure!(left.is_empty(), "{path} still has {:?}", left.keys());
    }
    let successor = cluster.wait_successor(G, leader)?;
    ensure!(epoch(&cluster, successor)? > old_epoch);

    // Effects first, then the guest, once, then the farewell.
    let lines = node.logged(mark, |_| true);
    let at =
        |what: &str| lines.iter().position(|line| line.what() == what).with_context(|| format!("no line of {what}"));
    let told: Vec<_> = (0..lines.len()).filter(|index| demoted(&lines[*index])).collect();
    ensure!(told.len() == 1 && at("demoting")? < told[0] && told[0] < at("demoted")?, "{}", node.report());
    ensure!(lines[told[0]].guest("on-demoted").is_some_and(|reason| reason.contains("Stopping")), "{}", node.report());
    ensure!(at("guest-ready").is_err(), "no guest is made on the way out\n{}", node.report());
    Ok(())
}

#[test]
fn a_worker_that_is_told_to_stop_finishes_its_task() -> Result<()> {
    let zookeeper = Server::start()?;
    // The node that leads is the one that is there first; the other gets a task that takes its time.
    let cluster = probes(
        &zookeeper,
        2,
        "[group.config]\non-tick = \"tell send n1 20000 sleep 1500\"\n[group.tick]\nevery = \"100ms\"\n\
         [group.limits]\ncallback = \"30s\"\n",
    )
    .session_timeout(LONG)
    .prepare()?;
    cluster.node(0).start()?;
    cluster.wait_ready()?;
    cluster.node(1).start()?;
    cluster.wait_until("a task to be under way", |c| {
        c.node(1).group(G).is_ok_and(|group| group["tasks"]["in_flight"] == 1)
    })?;
    assert_eq!(cluster.node(1).stop()?, 0);
    // Before the worker was there, its tasks were for nobody; the first one that was not is the one that was under way.
    let nobody = |answer: &str| answer.contains("UnknownMember");
    let told = cluster
        .node(0)
        .wait_log(0, "the task's answer", |line| line.guest("tell").is_some_and(|answer| !nobody(answer)))?;
    let slept = format!("{:?}", b"slept");
    ensure!(told.message().contains(&slept), "{told:?}");
    let mark = cluster.node(0).mark();
    cluster.node(0).wait_log(mark, "a task for nobody", |line| line.guest("tell").is_some_and(nobody))?;
    ensure!(registry(&Znodes::of(zookeeper.address()))?.is_empty(), "it has taken its member away");
    Ok(())
}

#[test]
fn a_leader_resigns_and_stays_as_a_worker() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "").session_timeout(LONG).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let (old_epoch, old_session) = (epoch(&cluster, leader)?, session(&cluster, leader)?);
    let worker = (leader + 1) % 3;
    let refused = cluster.node(worker).cli(&["resign", G])?;
    assert_eq!(refused.code(), Some(1));
    ensure!(refused.stderr.contains(&format!("ask n{leader}")), "{}", refused.stderr);

    let mark = cluster.node(leader).mark();
    cluster.node(leader).cli(&["resign", G])?.ok()?;
    let successor = cluster.wait_successor(G, leader)?;
    ensure!(epoch(&cluster, successor)? > old_epoch);
    let line = cluster.node(leader).wait_log(mark, "on-demoted", demoted)?;
    ensure!(line.message().contains("Resigned"), "{line:?}");
    cluster.wait_ready()?;
    assert_eq!(session(&cluster, leader)?, old_session);
    let others: Vec<String> = (0..3).filter(|index| *index != successor).map(|index| format!("n{index}")).collect();
    let znodes = Znodes::of(zookeeper.address());
    cluster.wait_until("the members to be those who do not lead", |_| {
        registry(&znodes).is_ok_and(|found| found.iter().eq(&others))
    })
}

#[test]
fn the_registry_and_the_status_tell_the_same() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "labels = { zone = \"{id}-zone\", rack = \"7\" }\n").start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let workers: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    cluster.wait_until("the leader to know both workers", |c| {
        c.node(leader).group(G).is_ok_and(|group| group["members"].as_array().map(Vec::len) == Some(2))
    })?;
    let statuses = cluster.nodes().iter().map(|node| node.status()).collect::<Result<Vec<Value>>>()?;
    let znodes = Znodes::of(zookeeper.address());

    // One ephemeral znode a node, by its id; one a candidate, in order; persistent parents.
    let nodes = znodes.below("/bellwether/nodes")?;
    let election = znodes.below("/bellwether/g/election")?;
    let members = znodes.below("/bellwether/g/service_registry")?;
    assert_eq!((nodes.len(), election.len(), members.len()), (3, 3, 2), "the leader is no member");
    for (index, status) in statuses.iter().enumerate() {
        let (id, owner) = (format!("n{index}"), status["session"]["id"].as_str().map(ToOwned::to_owned));
        ensure!(nodes.get(&id).is_some_and(|znode| znode.owner == owner), "{id}: {nodes:?}");
        let mine: Vec<_> = election.iter().filter(|(_, znode)| znode.owner == owner).collect();
        ensure!(mine.len() == 1 && mine[0].0.starts_with(&format!("{id}-")), "{id}: {election:?}");
        let lowest = election.keys().min_by_key(|name| name.rsplit('_').next().map(ToOwned::to_owned));
        assert_eq!(lowest == Some(mine[0].0), index == leader);

        let group = &status["groups"][0];
        assert_eq!(status["session"]["state"], "connected");
        assert_eq!(status["session"]["timeout_ms"], 2000);
        assert_eq!(group["role"], if index == leader { "leader" } else { "worker" });
        assert_eq!(group["leader"]["id"], format!("n{leader}"));
        assert_eq!(group["leader"]["epoch"], statuses[leader]["groups"][0]["epoch"]);
        assert_eq!(group["epoch"].is_null(), index != leader);
        assert_eq!(group["watch"], "leader");
        assert_eq!(group["members"].as_array().map(Vec::len), Some(if index == leader { 2 } else { 0 }));
    }
    for (name, znode) in &members {
        ensure!(name.starts_with("m_"), "{name}");
        let member = znode.json();
        let worker = workers.iter().find(|index| member["id"] == format!("n{index}")).context("a stranger")?;
        assert_eq!(member["address"], statuses[*worker]["address"]);
        assert_eq!(member["labels"], json!({ "zone": format!("n{worker}-zone"), "rack": "7" }));
        assert_eq!(znode.owner.as_deref(), statuses[*worker]["session"]["id"].as_str());
    }
    // The epoch is the transaction that claimed it.
    let claim = znodes.get("/bellwether/g/epoch")?.context("there is no epoch")?;
    assert_eq!(Some(claim.mzxid), statuses[leader]["groups"][0]["epoch"].as_i64());
    assert_eq!((claim.json()["id"].clone(), claim.owner), (json!(format!("n{leader}")), None));

    // The same, for people.
    let text = cluster.node(leader).cli(&["status"])?.ok()?;
    for word in ["leader", "connected", &zookeeper.address().to_string(), &format!("n{leader}")] {
        ensure!(text.contains(word), "{word} is missing:\n{text}");
    }
    let listed = cluster.node(leader).cli(&["members", G])?.ok()?;
    ensure!(workers.iter().all(|worker| listed.contains(&format!("zone=n{worker}-zone"))), "{listed}");
    let unknown = cluster.node(workers[0]).cli(&["members", G])?;
    ensure!(unknown.stderr.contains("only the leader knows the members"), "{unknown:?}");
    Ok(())
}

#[test]
fn with_watch_all_every_node_knows_the_others() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "watch = \"all\"\n").start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let workers: Vec<String> = (0..3).filter(|index| *index != leader).map(|index| format!("n{index}")).collect();
    let known = |group: &Value| -> Vec<String> {
        let members = group["members"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<_> = members.iter().filter_map(|member| Some(member["id"].as_str()?.to_owned())).collect();
        ids.sort();
        ids
    };
    cluster.wait_until("all nodes to know both workers", |c| {
        c.nodes()
            .iter()
            .all(|node| node.group(G).is_ok_and(|group| group["watch"] == "all" && known(&group) == workers))
    })?;
    let gone = (leader + 1) % 3;
    let stays = (leader + 2) % 3;
    let mark = cluster.node(stays).mark();
    assert_eq!(cluster.node(gone).stop()?, 0);
    cluster.node(stays).wait_log(mark, "a worker to hear that another left", |line| {
        line.guest("on-members-changed").is_some_and(|change| change.ends_with(&format!("left n{gone}")))
    })?;
    Ok(())
}

/// Puts another component of the same logic in the place of a file, as tools do: written aside and renamed. A section that
/// nothing reads makes it another one.
fn replace(file: &Path, component: &Path, note: &str) -> Result<()> {
    let mut bytes = std::fs::read(component)?;
    let length = u8::try_from(note.len())?;
    bytes.extend([0, length + 1, length]);
    bytes.extend(note.as_bytes());
    put(file, &bytes)
}

fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, bytes)?;
    Ok(std::fs::rename(aside, file)?)
}

#[test]
fn a_component_file_that_changes_is_swapped_in_and_a_broken_one_is_not() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = Cluster::builder(zookeeper.address())
        .group(G, "{shared}/g.wasm", "watch_file = true\n")
        .session_timeout(LONG)
        .prepare()?;
    let file = cluster.folder().join("g.wasm");
    put(&file, &std::fs::read(guest("probe"))?)?;
    let node = cluster.node(0);
    node.start()?;
    cluster.wait_ready()?;
    let (first, first_session, mark) = (node.group(G)?, session(&cluster, 0)?, node.mark());
    ensure!(first["last_swap"].is_null(), "{first:#}");
    let swapped = |what: &str, outcome: &str, reason: &str| {
        cluster.wait_for(what, Duration::from_secs(60), |c| {
            let group = c.node(0).group(G).ok()?;
            let swap = &group["last_swap"];
            let told = swap["reason"].as_str().unwrap_or_default();
            (swap["outcome"] == outcome && told.contains(reason)).then_some(group)
        })
    };

    replace(&file, &guest("probe"), "second")?;
    let second = swapped("the new file to be swapped in", "committed", "")?;
    ensure!(second["release"]["digest"] != first["release"]["digest"], "{second:#}");
    node.wait_log(mark, "the new instance to hear that it leads", |line| {
        line.guest("on-elected").is_some_and(|told| told.contains("Swap"))
    })?;

    put(&file, b"this is no component")?;
    let broken = swapped("the broken file to be refused", "rolled-back", "not WebAssembly")?;
    assert_eq!(broken["last_swap"]["step"], "read");
    assert_eq!(broken["release"], second["release"], "the old one goes on");

    let mut lacking = wasm_encoder::Component::new().finish();
    lacking.extend([0, 2, 1, b'x']);
    put(&file, &lacking)?;
    let unfit = swapped("the unfit file to be refused", "rolled-back", "bellwether:runtime/lifecycle")?;
    assert_eq!(unfit["release"], second["release"], "the old one goes on");

    replace(&file, &guest("probe"), "third")?;
    let third = swapped("the next good file", "committed", "")?;
    ensure!(third["release"]["digest"] != second["release"]["digest"], "{third:#}");
    assert_eq!((third["epoch"].clone(), session(&cluster, 0)?), (first["epoch"].clone(), first_session));
    assert_eq!(node.logged(mark, demoted).len(), 0, "leadership never ended");
    Ok(())
}

#[test]
fn a_swap_to_what_runs_already_does_nothing() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 1, "").start()?;
    cluster.wait_ready()?;
    let node = cluster.node(0);
    let probe = guest("probe").display().to_string();
    let (before, mark) = (node.group(G)?, node.mark());
    let report = node.cli(&["swap", G, &probe, "--json"])?.json()?;
    assert_eq!(report["outcome"], "committed");
    assert_eq!(report["release"], report["from"]);
    assert_eq!(report["reason"], "this release runs already");
    let after = node.group(G)?;
    assert_eq!((&after["release"], &after["epoch"]), (&before["release"], &before["epoch"]));
    let heard = node.logged(mark, |line| line.guest("on-elected").or(line.guest("on-demoted")).is_some());
    assert_eq!(heard.len(), 0, "the guest heard nothing: {heard:?}");

    // One that cannot be used is rolled back, told of, and makes no difference.
    let broken = node.cli(&["swap", G, &node.manifest().display().to_string()])?;
    assert_eq!(broken.code(), Some(1));
    ensure!(broken.stderr.contains("not WebAssembly"), "{}", broken.stderr);
    assert_eq!(node.group(G)?["release"], before["release"]);
    Ok(())
}

#[test]
fn a_member_that_an_operator_deletes_comes_back() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 2, "").session_timeout(LONG).start()?;
    cluster.wait_ready()?;
    let worker = 1 - cluster.wait_leader(G)?;
    let znodes = Znodes::of(zookeeper.address());
    let id = format!("n{worker}");
    let members = znodes.below("/bellwether/g/service_registry")?;
    let (name, _) = members.first_key_value().context("there is no member")?;
    znodes.delete(&format!("/bellwether/g/service_registry/{name}"))?;
    cluster.wait_until("the member to be there again", |_| registry(&znodes).is_ok_and(|ids| ids == set(&[&id])))?;
    cluster.wait_until("the leader to know it", |c| {
        c.node(1 - worker).group(G).is_ok_and(|group| group["members"][0]["id"] == id.as_str())
    })
}

#[test]
fn a_leader_whose_znode_is_deleted_is_demoted_and_joins_again() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "").session_timeout(LONG).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let (old_epoch, old_session, mark) =
        (epoch(&cluster, leader)?, session(&cluster, leader)?, cluster.node(leader).mark());
    let znodes = Znodes::of(zookeeper.address());
    let election = znodes.below("/bellwether/g/election")?;
    let (name, _) =
        election.iter().find(|(_, znode)| znode.owner.as_ref() == Some(&old_session)).context("its znode")?;
    znodes.delete(&format!("/bellwether/g/election/{name}"))?;

    let line = cluster.node(leader).wait_log(mark, "on-demoted", demoted)?;
    ensure!(line.message().contains("Superseded"), "{line:?}");
    let successor = cluster.wait_successor(G, leader)?;
    ensure!(epoch(&cluster, successor)? > old_epoch);
    cluster.wait_ready()?;
    assert_eq!(session(&cluster, leader)?, old_session);
    let again = znodes.below("/bellwether/g/election")?;
    ensure!(again.len() == 3 && !again.contains_key(name), "{again:?}");
    Ok(())
}

#[test]
fn zookeeper_is_away_for_less_than_the_lease() -> Result<()> {
    let mut zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 2, "").session_timeout(LONG).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let before = [(0, session(&cluster, 0)?), (1, session(&cluster, 1)?)];
    let (old_epoch, mark) = (epoch(&cluster, leader)?, cluster.node(leader).mark());
    zookeeper.kill();
    for node in cluster.nodes() {
        node.wait_log(0, "a disconnect", |line| line.what() == "disconnected")?;
    }
    assert_eq!(cluster.leader(G), Some(leader), "it goes on leading by its lease");
    zookeeper.restart()?;
    for node in cluster.nodes() {
        node.wait_log(0, "a reconnect", |line| line.what() == "reconnected")?;
    }
    cluster.wait_ready()?;
    assert_eq!((cluster.wait_leader(G)?, epoch(&cluster, leader)?), (leader, old_epoch));
    for (index, session_before) in before {
        assert_eq!(session(&cluster, index)?, session_before);
    }
    assert_eq!(cluster.node(leader).logged(mark, |line| line.what() == "demoting" || demoted(line)).len(), 0);
    // Its writes still count: the state's fence held.
    let znodes = Znodes::of(zookeeper.address());
    assert_eq!(znodes.get("/bellwether/g/epoch")?.map(|znode| znode.mzxid), i64::try_from(old_epoch).ok());
    Ok(())
}

#[test]
fn zookeeper_is_away_for_longer_than_the_lease() -> Result<()> {
    let mut zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 3, "").start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(G)?;
    let (old_epoch, mark) = (epoch(&cluster, leader)?, cluster.node(leader).mark());
    let marks: Vec<usize> = cluster.nodes().iter().map(|node| node.mark()).collect();
    zookeeper.kill();
    let line = cluster.node(leader).wait_log(mark, "on-demoted", demoted)?;
    ensure!(line.message().contains("LeaseLost"), "{line:?}");
    cluster.node(leader).wait_log(mark, "demoted", |line| line.tells(G, "demoted"))?;
    assert!(cluster.leaders(G).is_empty(), "nobody leads without ZooKeeper");
    zookeeper.restart()?;
    cluster.wait_ready()?;
    let again = cluster.wait_leader(G)?;
    ensure!(epoch(&cluster, again)? > old_epoch);
    let elected: Vec<u64> = (cluster.nodes().iter().zip(marks))
        .flat_map(|(node, mark)| node.logged(mark, |line| line.tells(G, "elected")))
        .filter_map(|line| line.epoch())
        .collect();
    ensure!(!elected.is_empty() && elected.iter().all(|epoch| *epoch > old_epoch), "{elected:?} after {old_epoch}");
    let election = Znodes::of(zookeeper.address()).children("/bellwether/g/election")?.unwrap_or_default();
    assert_eq!(election.len(), 3, "no ghosts: {election:?}");
    Ok(())
}

#[test]
fn zookeeper_comes_after_the_nodes() -> Result<()> {
    let mut zookeeper = Server::start()?;
    zookeeper.kill();
    let cluster = probes(&zookeeper, 2, "").start()?;
    for node in cluster.nodes() {
        node.wait_log(0, "that it waits", |line| line.what() == "waiting" && line.level() == "WARN")?;
        ensure!(!node.is_ready());
    }
    zookeeper.restart()?;
    cluster.wait_ready()?;
    for node in cluster.nodes() {
        let said = node.logged(0, |line| line.what() == "waiting").len();
        ensure!(said < 20, "{said} times is too often to say it\n{}", node.report());
    }
    Ok(())
}

#[test]
fn two_processes_with_one_node_id() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 2, "").ids(|_| "same".to_owned()).prepare()?;
    let (first, second) = (cluster.node(0), cluster.node(1));
    first.start()?;
    cluster.wait_ready()?;
    let (old_epoch, mark) = (epoch(&cluster, 0)?, first.mark());
    second.start()?;
    let line = second.wait_log(0, "that the id is taken", |line| line.what() == "duplicate-node-id")?;
    let address = first.status()?["address"].as_str().context("no address")?.to_owned();
    ensure!(
        line.level() == "ERROR" && line.message().contains("\"same\"") && line.message().contains(&address),
        "{line:?}"
    );

    // No harm: the first goes on, the second stands nowhere, and says why.
    ensure!(!second.is_ready());
    let status = second.status()?;
    assert_eq!(status["groups"][0]["role"], "starting");
    ensure!(status["session"]["last_error"].as_str().is_some_and(|why| why.contains(&address)), "{status:#}");
    let znodes = Znodes::of(zookeeper.address());
    assert_eq!(znodes.children("/bellwether/g/election")?.map(|all| all.len()), Some(1));
    assert_eq!(registry(&znodes)?, set(&[]));
    assert_eq!(epoch(&cluster, 0)?, old_epoch);
    assert_eq!(first.logged(mark, demoted).len(), 0);

    // Once the first has gone, the id is free.
    assert_eq!(first.stop()?, 0);
    cluster.wait_until("the second to lead", |c| c.node(1).role(G).as_deref() == Some("leader"))?;
    ensure!(epoch(&cluster, 1)? > old_epoch);
    Ok(())
}

#[test]
fn two_processes_with_one_data_folder() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = probes(&zookeeper, 2, "").node("data_dir = \"{shared}/data\"\n").prepare()?;
    cluster.node(0).start()?;
    cluster.wait_ready()?;
    let old_epoch = epoch(&cluster, 0)?;
    cluster.node(1).start()?;
    assert_eq!(cluster.node(1).wait_exit()?, 6);
    let report = cluster.node(1).report();
    ensure!(report.contains("in use by another bellwether process") && report.contains("data_dir"), "{report}");
    assert_eq!(epoch(&cluster, 0)?, old_epoch);
    // A killed process holds nothing.
    cluster.node(0).kill();
    cluster.node(1).start()?;
    cluster.wait_until("the other to lead", |c| c.node(1).role(G).as_deref() == Some("leader"))
}
