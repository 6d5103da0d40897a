//! The life of nodes on a real ZooKeeper.

use anyhow::Result;
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper::Server;

#[test]
fn sigterm() -> Result<()> {
    let zookeeper = Server::start()?;
    let cluster = Cluster::builder(zookeeper.address()).nodes(3).group("g", guest("probe"), "").start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader("g")?;
    cluster.node(leader).kill();
    let next = cluster.wait_successor("g", leader)?;
    cluster.node(leader).start()?;
    cluster.wait_ready()?;
    println!("{}", cluster.node(next).cli(&["status"])?.ok()?);
    println!("{:#}", cluster.node(next).status()?);
    assert_eq!(cluster.node(next).stop()?, 0);
    anyhow::ensure!(false);
    Ok(())
}
