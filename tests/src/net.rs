//! A network of its own for a few hosts, from network namespaces, in which packets can be dropped on any way between two of them.
//! The test's own namespace is on it too, so that clients reach every host whatever is cut between the hosts.
//!
//! Nothing here has a name in `/run/netns`: a namespace lives as long as the processes in it, and these end with the [`Net`], or with
//! the test process in whatever way it ends. The kernel then takes interfaces and rules away.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// How often another subnet is tried.
const ATTEMPTS: u32 = 16;
/// Subnets of 256 addresses in 198.18.0.0/15, which is set aside for testing networks.
const SUBNETS: u32 = 512;
/// The test's own address in the subnet.
const OUTSIDE: u8 = 254;

/// A process that does nothing but keep a namespace alive, until its input ends.
#[derive(Debug)]
struct Holder(Child);

impl Holder {
    fn start() -> Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare does not start (package util-linux)")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != "ready" {
            let output = child.wait_with_output()?;
            bail!(
                "no network namespace can be made: {}\nThis test cuts servers off from each other, and needs root (CAP_NET_ADMIN and \
                 CAP_SYS_ADMIN) for it: run it as root",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(Self(child))
    }

    fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.0.id())]
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command, in the namespace that `enter` goes into.
fn run(enter: &[String], command: &[&str]) -> Result<String> {
    let mut words: Vec<&str> = enter.iter().map(String::as_str).collect();
    words.extend(command);
    let (program, arguments) = words.split_first().context("no command")?;
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().with_context(|| {
            format!("{program} does not start: install it (packages iproute2, iptables, util-linux)")
        })?;
    ensure!(output.status.success(), "{} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Some hosts on one network.
#[derive(Debug)]
pub struct Net {
    hosts: Vec<Holder>,
    /// Has the bridge that all are plugged into.
    _hub: Holder,
    prefix: [u8; 3],
    interface: String,
}

impl Net {
    /// Makes a network with so many hosts.
    ///
    /// # Errors
    /// When this process may not, or a tool is missing; the message says what to do.
    pub fn start(hosts: u8) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let subnet = (std::process::id().wrapping_mul(7) + number) % SUBNETS;
            let prefix = [198, if subnet < 256 { 18 } else { 19 }, (subnet % 256) as u8];
            let text = format!("{}.{}.{}.", prefix[0], prefix[1], prefix[2]);
            if run(&[], &["ip", "-4", "-o", "addr"])?.contains(&text) {
                continue;
            }
            match Self::make(hosts, prefix, format!("bw{}n{number}", std::process::id() % 10_000_000)) {
                Ok(net) => return Ok(net),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no free subnet was found")?)
    }

    fn make(hosts: u8, prefix: [u8; 3], interface: String) -> Result<Self> {
        let hub = Holder::start()?;
        let hub_pid = hub.0.id().to_string();
        let in_hub = hub.enter();
        run(&in_hub, &["ip", "link", "add", "hub", "type", "bridge"])?;
        run(&in_hub, &["ip", "link", "set", "hub", "up"])?;
        let mut net = Self { hosts: Vec::new(), _hub: hub, prefix, interface };
        let plug = |port: &str| -> Result<()> {
            run(&in_hub, &["ip", "link", "set", port, "master", "hub"])?;
            run(&in_hub, &["ip", "link", "set", port, "up"])?;
            Ok(())
        };
        let link = ["link", "add", &net.interface, "type", "veth", "peer", "name", "outside", "netns", &hub_pid];
        run(&[], &[&["ip"], &link[..]].concat())?;
        plug("outside")?;
        let address = format!("{}/24", net.at(OUTSIDE));
        run(&[], &["ip", "addr", "add", &address, "dev", &net.interface])?;
        run(&[], &["ip", "link", "set", &net.interface, "up"])?;
        for index in 0..hosts {
            let host = Holder::start()?;
            let (inside, port) = (host.enter(), format!("host{index}"));
            let link = ["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &hub_pid];
            run(&inside, &[&["ip"], &link[..]].concat())?;
            plug(&port)?;
            let address = format!("{}/24", net.at(index + 1));
            run(&inside, &["ip", "addr", "add", &address, "dev", "eth0"])?;
            run(&inside, &["ip", "link", "set", "eth0", "up"])?;
            run(&inside, &["ip", "link", "set", "lo", "up"])?;
            net.hosts.push(host);
        }
        Ok(net)
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.prefix[0], self.prefix[1], self.prefix[2], last)
    }

    /// The address of a host, from 0.
    #[must_use]
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.at(host as u8 + 1)
    }

    /// The address of the test's own namespace.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.at(OUTSIDE)
    }

    /// The command, with its arguments, that runs what follows it on a host.
    #[must_use]
    pub fn enter(&self, host: usize) -> Vec<String> {
        self.hosts[host].enter()
    }

    /// Drops whatever `from` sends to a host.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn drop_packets(&self, from: Ipv4Addr, to: usize) -> Result<()> {
        let from = from.to_string();
        run(&self.enter(to), &["iptables", "-w", "-A", "INPUT", "-s", &from, "-j", "DROP"])?;
        Ok(())
    }

    /// How many bytes a host has sent to another and knows not to have arrived, on all connections together.
    ///
    /// # Errors
    /// When `ss` fails.
    pub fn unacknowledged(&self, from: usize, to: usize) -> Result<u64> {
        let to = self.address(to).to_string();
        let connections = run(&self.enter(from), &["ss", "-Htn", "state", "established", "dst", &to])?;
        // Bytes that wait to be read, bytes that wait to be acknowledged, here, there.
        Ok(connections.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
    }

    /// Drops everything between a host and all the other hosts, both ways. Who is outside still reaches it.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn isolate(&self, host: usize) -> Result<()> {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.drop_packets(self.address(other), host)?;
            self.drop_packets(self.address(host), other)?;
        }
        Ok(())
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn heal(&self) -> Result<()> {
        for host in 0..self.hosts.len() {
            run(&self.enter(host), &["iptables", "-w", "-F", "INPUT"])?;
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // It goes with the namespaces as well, a moment later.
        let _ = run(&[], &["ip", "link", "del", &self.interface]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the host `from` gets an answer out of `to` within a second.
    fn reaches(from: &[String], to: Ipv4Addr) -> bool {
        // A port nobody listens on: a host that is reached refuses at once, one that is not says nothing.
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}/9' 2>&1");
        run(from, &["sh", "-c", &format!("{script} || true")]).is_ok_and(|said| said.contains("refused"))
    }

    #[test]
    fn hosts_are_cut_off_from_each_other_and_not_from_the_test() -> Result<()> {
        let net = Net::start(3)?;
        let host = |index| net.enter(index);
        assert!(reaches(&host(0), net.address(1)) && reaches(&[], net.address(0)));
        net.isolate(0)?;
        assert!(!reaches(&host(0), net.address(1)) && !reaches(&host(2), net.address(0)));
        assert!(reaches(&host(1), net.address(2)) && reaches(&[], net.address(0)));
        net.heal()?;
        assert!(reaches(&host(2), net.address(0)));
        net.drop_packets(net.outside(), 1)?;
        assert!(!reaches(&[], net.address(1)) && reaches(&host(0), net.address(1)));
        let interface = net.interface.clone();
        drop(net);
        assert!(!run(&[], &["ip", "link"])?.contains(&interface));
        Ok(())
    }
}
