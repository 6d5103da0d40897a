//! What the leader knows of its members, over connections that break, and with whatever watches the server has.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_tests::guests::guest;
use bellwether_tests::proxy::op;
use bellwether_tests::zookeeper::{Options, Server, without_lasting_watches};

use crate::bed::Bed;

const GROUP: &str = "crew";
const ROUNDS: u64 = 3;

/// Waits until one node that is awake leads, and knows so many members.
fn knows(bed: &Bed, members: usize) -> Result<usize> {
    let what = format!("a leader that knows {members} members");
    bed.cluster.wait_for(&what, crate::bed::PATIENCE, |cluster| {
        let leader = cluster.leader(GROUP)?;
        let group = cluster.node(leader).group(GROUP).ok()?;
        (group["members"].as_array().map(Vec::len) == Some(members)).then_some(leader)
    })
}

/// Members leave and join while the leader is connected, and while it is not.
fn come_and_go(options: &Options) -> Result<()> {
    let bed = Bed::prepare_on(Server::start_with(options)?, 3, |builder| {
        // Nobody is to lose the session while it is cut off.
        builder.session_timeout(Duration::from_secs(20)).group(GROUP, guest("probe"), "")
    })?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    let leader = knows(&bed, 2)?;
    let (node, proxy) = (bed.cluster.node((leader + 1) % 3), &bed.proxies[leader]);
    let registered =
        || bed.znodes.children(&format!("/bellwether/{GROUP}/service_registry")).ok().flatten().map(|all| all.len());
    for _ in 0..ROUNDS {
        ensure!(node.stop()? == 0);
        knows(&bed, 1)?;
        node.start()?;
        knows(&bed, 2)?;
        // Nobody tells what happens now.
        proxy.refuse(true);
        proxy.reset();
        ensure!(node.stop()? == 0);
        bed.cluster.wait_until("the member's znode to go", |_| registered() == Some(1))?;
        proxy.heal();
        knows(&bed, 1)?;
        node.start()?;
        ensure!(knows(&bed, 2)? == leader, "it leads on");
    }
    // At the election, and on each connection.
    let (watches, connections) = (proxy.requests(op::ADD_WATCH), proxy.accepted());
    ensure!(watches > ROUNDS && watches <= connections, "{watches} lasting watches on {connections} connections");
    Ok(())
}

#[test]
fn members_that_come_and_go_are_known_whatever_the_connection_does() -> Result<()> {
    come_and_go(&Options::default())
}

#[test]
fn members_that_come_and_go_are_known_on_a_server_without_lasting_watches() -> Result<()> {
    come_and_go(&without_lasting_watches())
}
