//! The group's fenced state, through a real guest on real nodes and a real ZooKeeper.

use anyhow::Result;
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::script::{Script, answer};
use bellwether_tests::zookeeper::Server;

#[test]
fn a_leader_reads_writes_lists_and_compares() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    let cluster =
        Cluster::builder(zookeeper.address()).nodes(2).group("g", guest("probe"), &script.group("")).start()?;
    cluster.wait_ready()?;
    cluster.wait_leader("g")?;
    let big = 1_000_001;
    for (order, expected) in [
        ("get a", "Ok(None)".to_owned()),
        ("put a one", "Ok(0)".to_owned()),
        ("put a two", "Ok(1)".to_owned()),
        ("get a", "Ok(Some((\"two\", 1)))".to_owned()),
        ("put-at a 1 three", "Ok(2)".to_owned()),
        ("put-at a 1 four", "Err(Error::Conflict(Some(2)))".to_owned()),
        ("put-at b 0 x", "Err(Error::Conflict(None))".to_owned()),
        ("put-new a x", "Err(Error::Conflict(Some(2)))".to_owned()),
        ("put-new dir/k x", "Ok(0)".to_owned()),
        ("list ", "Ok([\"a\", \"dir/k\"])".to_owned()),
        ("list dir/", "Ok([\"dir/k\"])".to_owned()),
        ("delete dir/k", "Ok(())".to_owned()),
        ("delete dir/k", "Ok(())".to_owned()),
        ("put-bytes big 1000000", "Ok(0)".to_owned()),
        (&format!("put-bytes big {big}"), "Err(Error::TooLarge(1000000))".to_owned()),
    ] {
        assert_eq!(script.order(&cluster, "g", order)?, expected, "{order}");
    }
    let key = "k".repeat(201);
    let refused = script.order(&cluster, "g", &format!("put {key} x"))?;
    assert!(refused.starts_with("Err(Error::BadKey("), "{refused}");
    // An operator reads the same, on any node.
    for node in cluster.nodes() {
        assert_eq!(node.state("g", "a")?.as_deref(), Some("three"));
    }
    Ok(())
}

#[test]
fn a_worker_may_not_write() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    let cluster =
        Cluster::builder(zookeeper.address()).nodes(2).group("g", guest("probe"), &script.group("")).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let worker = cluster.node(1 - leader).id().to_owned();
    assert_eq!(script.order(&cluster, "g", "put a one")?, "Ok(0)");
    // The order is carried out by the instance that does tasks, there.
    let written = script.order(&cluster, "g", &format!("send {worker} 5000 put a two"))?;
    assert_eq!(answer(&written), "Err(Error::NotLeader)");
    let read = script.order(&cluster, "g", &format!("send {worker} 5000 get a"))?;
    assert_eq!(answer(&read), "Ok(Some((\"one\", 0)))", "state = \"all\" lets workers read");
    assert_eq!(script.order(&cluster, "g", "get a")?, "Ok(Some((\"one\", 0)))");
    Ok(())
}

#[test]
fn observers_hear_of_keys_on_the_leader_and_on_workers() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    // With `watch = "all"` every node hears of members, and takes that as the sign to watch.
    let group = format!("watch = \"all\"\n{}", script.group("\"on-members-changed\" = \"watch seen\","));
    let cluster = Cluster::builder(zookeeper.address()).nodes(3).group("g", guest("probe"), &group).start()?;
    cluster.wait_ready()?;
    cluster.wait_leader("g")?;
    let everyone_hears = |what: &str| {
        cluster.wait_until(&format!("every node hears that {what}"), |cluster| {
            cluster.nodes().iter().all(|node| {
                !node.logged(0, |line| line.guest("on-state-changed").is_some_and(|text| text == what)).is_empty()
            })
        })
    };
    everyone_hears("seen holds nothing")?;
    script.order(&cluster, "g", "put seen one")?;
    everyone_hears("seen holds one#0")?;
    script.order(&cluster, "g", "put seen two")?;
    everyone_hears("seen holds two#1")?;
    script.order(&cluster, "g", "delete seen")?;
    script.order(&cluster, "g", "put seen three")?;
    everyone_hears("seen holds three#0")
}
