//! Real ZooKeeper servers for tests, from Debian's jars: alone or as an ensemble of three, on free ports, with data in a
//! directory of their own, gone when the handle (or the whole test process) is.

mod snapshot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::net::Net;

const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
const INSTALL: &str = "apt-get install -y --no-install-recommends zookeeper";
/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How often another port is tried when somebody else took the one that was free a moment ago.
const ATTEMPTS: usize = 5;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// ZooKeeper's unit of time; sessions expire at multiples of it.
    pub tick: Duration,
    /// The shortest session timeout that a client is granted.
    pub min_session_timeout: Duration,
    /// The longest.
    pub max_session_timeout: Duration,
    /// More lines for `zoo.cfg`.
    pub extra: Vec<String>,
    /// More of Java's options, such as `-Dzookeeper.digest.enabled=false`.
    pub java: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(200),
            min_session_timeout: Duration::from_millis(400),
            max_session_timeout: Duration::from_secs(60),
            extra: Vec::new(),
            java: Vec::new(),
        }
    }
}

/// A server that keeps its watches in little memory, and has none that last.
#[must_use]
pub fn without_lasting_watches() -> Options {
    let manager = "-Dzookeeper.watchManagerName=org.apache.zookeeper.server.watch.WatchManagerOptimized";
    Options { java: vec![manager.to_owned()], ..Options::default() }
}

/// One ZooKeeper server, alone or part of an [`Ensemble`]. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    folder: TempDir,
    /// The command that runs it somewhere else, see [`Net::enter`].
    enter: Vec<String>,
    java: Vec<String>,
    process: Option<Process>,
}

impl Server {
    /// Starts a server of its own and waits until it serves.
    ///
    /// # Errors
    /// When ZooKeeper or Java are not installed, or the server does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// Starts a server of its own with `options` and waits until it serves.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(options: &Options) -> Result<Self> {
        let host = Ipv4Addr::LOCALHOST;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let [port] = free_ports(host)?;
            let mut server = Self::prepare(host, port, options, "")?;
            match server.launch().and_then(|()| server.await_ready()) {
                Ok(()) => return Ok(server),
                Err(error) if server.port_was_taken() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no free port was found")?)
    }

    /// Starts a server of its own on a host of `net`, and waits until it serves.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_on(net: &Net, host: usize, options: &Options) -> Result<Self> {
        let mut server = Self::prepare(net.address(host), 2181, options, "")?;
        server.enter = net.enter(host);
        server.launch()?;
        server.await_ready()?;
        Ok(server)
    }

    fn prepare(host: Ipv4Addr, port: u16, options: &Options, ensemble: &str) -> Result<Self> {
        for jar in JARS {
            ensure!(
                Path::new(jar).exists(),
                "{jar} is missing: a real ZooKeeper is needed here. Install it: {INSTALL}"
            );
        }
        let folder = TempDir::with_prefix("bellwether-zookeeper-")?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let data = data.display();
        let mut config = format!(
            "tickTime={}\ninitLimit=50\nsyncLimit=10\ndataDir={data}\ndataLogDir={data}\nclientPort={port}\n\
             clientPortAddress={host}\nminSessionTimeout={}\nmaxSessionTimeout={}\nmaxClientCnxns=0\n{ensemble}",
            options.tick.as_millis(),
            options.min_session_timeout.as_millis(),
            options.max_session_timeout.as_millis(),
        );
        for line in &options.extra {
            writeln!(config, "{line}")?;
        }
        std::fs::write(folder.path().join("zoo.cfg"), config)?;
        let address = SocketAddr::new(IpAddr::V4(host), port);
        Ok(Self { address, folder, enter: Vec::new(), java: options.java.clone(), process: None })
    }

    fn launch(&mut self) -> Result<()> {
        self.process =
            Some(Process::spawn(&self.enter, &self.java, &self.folder.path().join("zoo.cfg"), &self.log_path())?);
        Ok(())
    }

    /// Waits until the server says that it serves.
    fn await_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if self.role().is_some() {
                return Ok(());
            }
            if !self.process.as_mut().is_some_and(Process::runs) {
                bail!("ZooKeeper at {} ended while starting. Its log:\n{}", self.address, self.log());
            }
            if Instant::now() > deadline {
                bail!("ZooKeeper at {} did not serve within {START:?}. Its log:\n{}", self.address, self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `standalone`, `leader`, `follower` or `observer`; none while the server does not serve.
    #[must_use]
    pub fn role(&self) -> Option<String> {
        let answer = self.four_letter("srvr").ok()?;
        Some(answer.lines().find_map(|line| line.strip_prefix("Mode: "))?.to_owned())
    }

    /// Sends one of ZooKeeper's four-letter commands (`srvr`, `wchs`, `cons`, …) and returns the answer.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer in time.
    pub fn four_letter(&self, command: &str) -> Result<String> {
        // An early probe can hang its socket for good, so the time-out is short and callers ask again.
        let patience = Duration::from_millis(if command == "srvr" { 300 } else { 3000 });
        let mut stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(command.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("ZooKeeper did not answer {command:?}"))?;
        Ok(answer)
    }

    /// What the server counts (`zk_watch_count`, `zk_num_alive_connections`, …).
    ///
    /// # Errors
    /// As [`Server::four_letter`].
    pub fn mntr(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.four_letter("mntr")?;
        let pairs = answer.lines().filter_map(|line| line.split_once('\t'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// Stops the process where it stands (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // The signal is on its way only: a thread that has not seen it yet may still answer.
        let pid = self.process.as_ref().context("there is no process")?.java;
        let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
        let deadline = Instant::now() + START;
        while !all_stopped(&tasks)? {
            ensure!(Instant::now() < deadline, "ZooKeeper does not stop where it stands");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("this ZooKeeper was killed and not started again")?;
        Ok(kill_process(process.java, signal)?)
    }

    /// Kills the process (SIGKILL), as a crash would, and waits until it is gone. The data stay.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again, with its old data and address, and waits until it serves; kills it first if it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        for _ in 0..ATTEMPTS {
            self.launch()?;
            match self.await_ready() {
                Err(_) if self.port_was_taken() => {
                    // An outgoing connection of another process may hold the port for a moment.
                    self.kill();
                    std::thread::sleep(Duration::from_millis(200));
                }
                result => return result,
            }
        }
        bail!("somebody else took {} while ZooKeeper was down", self.address)
    }

    /// Stops the server, has it number the next sequential child of `path` with `counter`, and starts it again: as after billions of
    /// children. It must run alone, without digests (`-Dzookeeper.digest.enabled=false`).
    ///
    /// # Errors
    /// When there is no such znode, or the server does not come up.
    pub fn set_counter(&mut self, path: &str, counter: i32) -> Result<()> {
        // As it starts it writes a snapshot of everything. What follows in the log is carried out on it once more, which never sets
        // a counter back.
        self.restart()?;
        self.kill();
        let zxid = |path: &Path| i64::from_str_radix(path.file_name()?.to_str()?.strip_prefix("snapshot.")?, 16).ok();
        let folder = self.folder.path().join("data/version-2");
        let files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let newest = files.into_iter().filter(|path| zxid(path).is_some()).max_by_key(|path| zxid(path));
        let newest = newest.with_context(|| format!("no snapshot in {}", folder.display()))?;
        let mut bytes = std::fs::read(&newest)?;
        snapshot::set_counter(&mut bytes, path, counter).with_context(|| newest.display().to_string())?;
        std::fs::write(&newest, bytes)?;
        self.restart()
    }

    /// The lines of its configuration.
    fn config(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("zoo.cfg"))?)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log.txt")
    }

    /// What the server has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn port_was_taken(&self) -> bool {
        let log = self.log();
        log.contains("Address already in use") || log.contains("BindException")
    }
}

/// Three servers on 127.0.0.1, 127.0.0.2 and 127.0.0.3.
#[derive(Debug)]
pub struct Ensemble {
    servers: Vec<Server>,
}

impl Ensemble {
    /// Starts three servers and waits until they have elected their leader.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// Starts three servers with `options` and waits until they have elected their leader.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(options: &Options) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut ensemble = Self::prepare(options)?;
            match ensemble.launch() {
                Ok(()) => return Ok(ensemble),
                Err(error) if ensemble.servers.iter().any(Server::port_was_taken) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no free ports were found")?)
    }

    fn prepare(options: &Options) -> Result<Self> {
        let mut places = Vec::new();
        for id in 1..=3 {
            let host = Ipv4Addr::new(127, 0, 0, id);
            places.push((host, free_ports(host)?));
        }
        Self::place(&places, options)
    }

    /// Servers at these addresses, with the ports for clients, for followers and for elections.
    fn place(places: &[(Ipv4Addr, [u16; 3])], options: &Options) -> Result<Self> {
        let mut quorum = String::new();
        for (id, (host, [_, peer, election])) in (1..).zip(places) {
            writeln!(quorum, "server.{id}={host}:{peer}:{election}")?;
        }
        let mut servers = Vec::new();
        for (id, (host, [client, ..])) in (1..).zip(places) {
            let server = Server::prepare(*host, *client, options, &quorum)?;
            std::fs::write(server.folder.path().join("data/myid"), format!("{id}"))?;
            servers.push(server);
        }
        Ok(Self { servers })
    }

    /// Starts three servers, each on its own host of `net`, and waits until they have elected their leader.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_on(net: &Net, options: &Options) -> Result<Self> {
        // Whoever has a network of their own has all ports to themselves.
        let places: Vec<_> = (0..3).map(|host| (net.address(host), [2181, 2888, 3888])).collect();
        let mut ensemble = Self::place(&places, options)?;
        for (host, server) in ensemble.servers.iter_mut().enumerate() {
            server.enter = net.enter(host);
        }
        ensemble.launch()?;
        Ok(ensemble)
    }

    fn launch(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Server::launch)?;
        self.servers.iter_mut().try_for_each(Server::await_ready)
    }

    /// All addresses, `host:port`, separated by commas.
    #[must_use]
    pub fn connect_string(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().map(|server| server.address.to_string()).collect();
        addresses.join(",")
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The servers, to kill and restart several at once.
    pub fn servers_mut(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// One of the servers, from 0.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn server(&mut self, index: usize) -> &mut Server {
        &mut self.servers[index]
    }

    /// Where its followers connect to a server while it leads.
    ///
    /// # Errors
    /// When its configuration does not say so.
    pub fn quorum_address(&self, server: usize) -> Result<SocketAddr> {
        let config = self.servers[server].config()?;
        let line = config.lines().find_map(|line| line.strip_prefix(&format!("server.{}=", server + 1)));
        let address = line.and_then(|line| line.rsplit_once(':')).context("the server is not in its configuration")?.0;
        Ok(address.parse()?)
    }

    /// Starts a server again, which from now on follows `leader` by another port of that server's address: that of a relay.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn follow_by(&mut self, follower: usize, leader: usize, relay: SocketAddr) -> Result<()> {
        let direct = format!("server.{}={}:", leader + 1, self.quorum_address(leader)?);
        let config = self.servers[follower].config()?;
        ensure!(config.contains(&direct), "{direct} is not in the configuration");
        let config = config.replace(&direct, &format!("server.{}={relay}:", leader + 1));
        self.servers[follower].kill();
        std::fs::write(self.servers[follower].folder.path().join("zoo.cfg"), config)?;
        self.servers[follower].restart()
    }

    /// Which server leads, from 0, if there is a quorum.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.role().as_deref() == Some("leader"))
    }
}

/// Ports that nobody uses at the moment, all different.
fn free_ports<const N: usize>(host: Ipv4Addr) -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((host, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A shell that has started Java and kills it as soon as its own standard input ends: when this value is dropped, and also
/// when the test process ends in whatever way, so that no server outlives its test.
#[derive(Debug)]
struct Process {
    shell: Child,
    java: Pid,
}

const SUPERVISE: &str = r#"log=$1; shift
exec 3<&0
"$@" </dev/null >"$log" 2>&1 3<&- &
echo $!
exec >/dev/null
cat <&3 >/dev/null
kill -9 $! 2>/dev/null
wait"#;

impl Process {
    fn spawn(enter: &[String], options: &[String], config: &Path, log: &Path) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SUPERVISE, "sh"])
            .arg(log)
            .args(enter)
            .args(["java", "-Xms16m", "-Xmx256m", "-Xss256k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true", "-Dzookeeper.admin.enableServer=false"])
            .args(["-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.4lw.commands.whitelist=*"])
            .args(["-Dzookeeper.jmx.log4j.disable=true", "-Dzookeeper.forceSync=no"])
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &JARS.join(":")])
            .args(options)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("sh could not be started")?;
        let mut line = String::new();
        let stdout = shell.stdout.take().context("the shell has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let java = line.trim().parse().ok().and_then(Pid::from_raw);
        let java = java.with_context(|| format!("the shell said {line:?} instead of a process id"))?;
        Ok(Self { shell, java })
    }

    /// Whether Java still runs (the shell keeps its id from being used again until it is told to end).
    fn runs(&mut self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.java.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // The shell kills Java and waits for it; there is nothing to do about an error here.
        let _ = self.shell.wait();
    }
}

/// Whether every thread of a process has been stopped by a signal.
fn all_stopped(tasks: &str) -> Result<bool> {
    for task in std::fs::read_dir(tasks)? {
        // A thread that has ended meanwhile does nothing more either.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        // The state stands behind the name, which is in brackets and may hold anything.
        if !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_serves_pauses_dies_and_comes_back() -> Result<()> {
        let mut server = Server::start()?;
        assert_eq!(server.role().as_deref(), Some("standalone"));
        assert_eq!(server.mntr()?["zk_server_state"], "standalone");
        server.pause()?;
        assert_eq!(server.role(), None);
        server.resume()?;
        let address = server.address();
        server.kill();
        assert!(server.four_letter("srvr").is_err());
        assert!(server.pause().is_err());
        server.restart()?;
        assert_eq!(server.address(), address);
        assert!(server.four_letter("wchs")?.contains("watches"));
        Ok(())
    }

    #[test]
    fn an_ensemble_survives_its_leader() -> Result<()> {
        let mut ensemble = Ensemble::start()?;
        assert_eq!(ensemble.connect_string().split(',').count(), 3);
        let first = ensemble.leader().context("no leader")?;
        ensemble.server(first).kill();
        let deadline = Instant::now() + START;
        while ensemble.leader().is_none() {
            ensure!(Instant::now() < deadline, "no new leader within {START:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_ne!(ensemble.leader(), Some(first));
        Ok(())
    }
}
