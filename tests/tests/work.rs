//! Work from the leader's guest to workers on other nodes, and every way in which it can fail.

use std::time::Duration;

use anyhow::Result;
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::script::Script;
use bellwether_tests::zookeeper::Server;

#[test]
fn work_is_done_or_fails_with_an_error_that_a_guest_can_match_on() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    let group = format!("{}[group.worker]\nparallelism = 1\nqueue = 0\n", script.group(""));
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(3)
        .session_timeout(Duration::from_secs(20))
        .group("g", guest("probe"), &group)
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let workers: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let (one, two) = (cluster.node(workers[0]).id().to_owned(), cluster.node(workers[1]).id().to_owned());
    let order = |order: &str| script.order(&cluster, "g", order);

    let epoch = cluster.node(leader).group("g")?["epoch"].clone();
    let who = order(&format!("send {one} 5000 who"))?;
    let said: Vec<u8> = format!("{} Some({epoch})", cluster.node(leader).id()).into_bytes();
    assert_eq!(who, format!("Ok({said:?})"), "the worker knows the sender and its epoch");
    let sixteen = 16 << 20;
    assert_eq!(order(&format!("send-bytes {one} 60000 {sixteen}"))?, format!("Ok({sixteen})"));

    assert_eq!(order("send nobody 5000 who")?, "Err(Error::UnknownMember)");
    let failed = order(&format!("send {one} 5000 refuse no thanks"))?;
    assert!(failed.starts_with("Err(Error::Failed(") && failed.contains("no thanks"), "{failed}");
    let trapped = order(&format!("send {one} 5000 panic dear me"))?;
    assert!(trapped.starts_with("Err(Error::Failed(") && trapped.contains("dear me"), "{trapped}");
    assert_eq!(order(&format!("send {one} 200 loop"))?, "Err(Error::TimedOut)");
    assert_eq!(
        order(&format!("send {one} 5000 echo again"))?,
        format!("Ok({:?})", b"again"),
        "the worker is well again"
    );

    // A dead worker stays a member until its session ends; work for it fails at once, and names it.
    cluster.node(workers[1]).kill();
    let dead = order(&format!("send {two} 30000 who"))?;
    assert!(dead.starts_with("Err(Error::Unreachable(") && dead.contains(&two), "{dead}");
    Ok(())
}

#[test]
fn a_full_worker_says_so() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    let group = format!("{}[group.worker]\nparallelism = 1\nqueue = 0\n", script.group(""));
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(2)
        .ids(|index| format!("n{index}"))
        .group("g", guest("probe"), &group)
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let worker = cluster.node(1 - leader).id().to_owned();
    let answers = script.order(&cluster, "g", &format!("crowd {worker} 4 5000 sleep 300"))?;
    assert!(answers.contains("Error::Overloaded"), "{answers}");
    assert!(answers.contains("Ok("), "{answers}");
    Ok(())
}

#[test]
fn a_deposed_leader_gets_nothing_done() -> Result<()> {
    let zookeeper = Server::start()?;
    let script = Script::new()?;
    let cluster =
        Cluster::builder(zookeeper.address()).nodes(3).group("g", guest("probe"), &script.group("")).start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    let before = script.order(&cluster, "g", "put a one")?;
    assert_eq!(before, "Ok(0)");
    cluster.node(leader).cli(&["resign", "g"])?.ok()?;
    let next = cluster.wait_successor("g", leader)?;
    let epoch = |index: usize| cluster.node(index).group("g").map(|group| group["epoch"].as_u64());
    assert!(epoch(next)? > Some(0));
    // The former leader's guest was told, and is a worker again.
    let told = cluster.node(leader).logged(0, |line| line.guest("on-demoted").is_some());
    assert_eq!(told.len(), 1, "{told:?}");
    cluster.wait_until("the former leader is a worker", |cluster| {
        cluster.node(leader).role("g").as_deref() == Some("worker")
    })
}
