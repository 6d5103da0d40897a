//! Whatever is wrong from the outside ends in an exit code of its own and a message that says what, where and what to do.

#![allow(clippy::print_stdout, reason = "the test harness keeps it, and shows it if the test has failed")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::{Cli, Ran};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::znodes::Znodes;
use bellwether_tests::zookeeper::{Options, Server};
use wasm_encoder::{Component, Module};

/// A folder with all that may be wrong, and a manifest.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bw-").tempdir()?;
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
        put("text.wasm", b"int main() { return 0; }\n")?;
        put("empty.wasm", b"")?;
        put("module.wasm", &Module::new().finish())?;
        put("bare.wasm", &Component::new().finish())?;
        let mut cut = std::fs::read(guest("minimal"))?;
        cut.truncate(cut.len() / 2);
        put("cut.wasm", &cut)?;
        std::fs::copy(guest("minimal"), folder.path().join("minimal.wasm"))?;
        std::fs::copy(guest("probe"), folder.path().join("probe.wasm"))?;
        put("file", b"")?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn manifest(&self, toml: &str) -> Result<PathBuf> {
        let path = self.path().join("bellwether.toml");
        std::fs::write(&path, toml)?;
        Ok(path)
    }

    fn run(&self, arguments: &[&str]) -> Result<Ran> {
        Cli::new().folder(self.path()).run(arguments.iter().copied())
    }
}

/// A manifest in which everything is right but for what is given.
fn manifest(node: &str, coordination: &str, group: &str) -> String {
    let or = |given: &str, default: &str| if given.is_empty() { default.to_owned() } else { given.to_owned() };
    format!(
        "[node]\nid = \"n\"\n{}\n[coordination]\n{}\n[[group]]\nname = \"g\"\n{}\n",
        or(node, "data_dir = \"data\""),
        or(coordination, "connect = \"memory:\""),
        or(group, "component = \"minimal.wasm\""),
    )
}

/// Checks how a call ended, and that its message has all of these words. It must not have anything that only a programmer
/// understands.
fn expect(what: &str, ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(ran.code() == Some(code), "{what}: ended with {} instead of {code}:\n{said}", ran.status);
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "{what}: these words are missing: {missing:?}\n{said}");
    for never in ["panicked", "RUST_BACKTRACE", "stack backtrace", "src/"] {
        ensure!(!said.contains(never), "{what}: has {never:?}:\n{said}");
    }
    println!("--- {what}: {code}\n{said}");
    Ok(())
}

#[test]
fn usage() -> Result<()> {
    let place = Place::new()?;
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["Usage: bellwether", "Exit codes:"]),
        (&["rum"], &["unrecognized subcommand 'rum'", "run"]),
        (&["run", "--nodes", "3"], &["unexpected argument '--nodes'"]),
        (&["dev", "--nodes", "0"], &["0 is not in 1..=64"]),
        (&["swap", "g"], &["<COMPONENT>"]),
        (&["status", "--admin", "10.0.0.1:80"], &["10.0.0.1:80", "not a loopback address"]),
        (&["run", "--log", "info,["], &["no log filter"]),
    ];
    for (arguments, words) in cases {
        expect(&format!("{arguments:?}"), &place.run(arguments)?, 2, words)?;
    }
    Ok(())
}

#[test]
fn manifests() -> Result<()> {
    let place = Place::new()?;
    let missing = place.run(&["run", "nowhere.toml"])?;
    expect("no manifest", &missing, 3, &["nowhere.toml", "no such file"])?;
    let none = place.run(&["run"])?;
    expect("no manifest in this folder", &none, 3, &["bellwether.toml"])?;

    let cases: [(&str, String, &[&str]); 9] = [
        (
            "a file in the place of the data folder",
            manifest("data_dir = \"file\"", "", ""),
            &["bellwether.toml:3:12", "data folder", "not a folder"],
        ),
        ("not TOML", "[node\n".to_owned(), &["bellwether.toml:1:"]),
        ("an unknown key", manifest("data_dri = \"d\"", "", ""), &["bellwether.toml:3:1", "data_dri", "data_dir"]),
        ("a bad value", manifest("", "connect = \"zk1:2181\"", ""), &["bellwether.toml:5:11", "zookeeper://"]),
        (
            "a missing component",
            manifest("", "", "component = \"nowhere.wasm\""),
            &["nowhere.wasm", "bellwether.toml:8:13"],
        ),
        (
            "a session timeout that is too short",
            manifest("", "connect = \"zookeeper://127.0.0.1:1\"\nsession_timeout = \"2s\"\ntick_time = \"2s\"", ""),
            // 2 s * 150 / 82, as the lease's arithmetic has it.
            &["bellwether.toml:6:19", "2s is too short", "`session_timeout = \"3659ms\"`", "tick_time"],
        ),
        ("no group", "[node]\nid = \"n\"\n[coordination]\nconnect = \"memory:\"\n".to_owned(), &["group"]),
        (
            "a variable that is not set",
            manifest(
                "",
                "connect = \"zookeeper://127.0.0.1:1\"\n[coordination.auth]\nscheme = \"digest\"\nuser = \"u\"\n\
                 password_env = \"BELLWETHER_TEST_NOT_SET\"",
                "",
            ),
            &["BELLWETHER_TEST_NOT_SET"],
        ),
        (
            "a folder that is not there",
            manifest(
                "",
                "",
                "component = \"minimal.wasm\"\n[group.grants]\nfolders = [{ host = \"nowhere\", guest = \"/x\" }]",
            ),
            &["nowhere", "bellwether.toml:"],
        ),
    ];
    for (what, toml, words) in cases {
        place.manifest(&toml)?;
        expect(what, &place.run(&["run"])?, 3, words)?;
        ensure!(!place.path().join("data/guid").exists(), "{what}: something was begun");
    }
    Ok(())
}

#[test]
fn components() -> Result<()> {
    let place = Place::new()?;
    let good = "component = \"minimal.wasm\"";
    let cases: [(&str, &str, &[&str]); 7] = [
        ("not wasm", "component = \"text.wasm\"", &["text.wasm", "not WebAssembly"]),
        ("an empty file", "component = \"empty.wasm\"", &["empty.wasm"]),
        ("half of a component", "component = \"cut.wasm\"", &["cut.wasm"]),
        ("a core module", "component = \"module.wasm\"", &["module.wasm", "core WebAssembly module", "wasm32-wasip2"]),
        (
            "no lifecycle",
            "component = \"bare.wasm\"",
            &["bare.wasm", "bellwether:runtime/lifecycle@0.1.0", "bellwether:runtime/guest", "it exports nothing"],
        ),
        (
            "an import that is not granted",
            "component = \"probe.wasm\"\n[group.grants]\nstate = \"none\"",
            &["probe.wasm", "bellwether:runtime/state@0.1.0", "[group.grants]"],
        ),
        (
            "a worker's component that is none",
            "component = \"minimal.wasm\"\n[group.worker]\ncomponent = \"module.wasm\"",
            &["module.wasm", "core WebAssembly module"],
        ),
    ];
    for (what, group, words) in cases {
        place.manifest(&manifest("", "", group))?;
        let ran = place.run(&["run"])?;
        expect(what, &ran, 4, words)?;
        ensure!(ran.stderr.contains("group g"), "{what}: the group is not named:\n{}", ran.stderr);
        expect(&format!("check: {what}"), &place.run(&["check"])?, 4, words)?;
    }
    place.manifest(&manifest("", "", good))?;
    expect("check: all is well", &place.run(&["check"])?, 0, &["minimal.wasm"])?;
    Ok(())
}

#[test]
fn what_is_taken_or_not_allowed_on_this_machine() -> Result<()> {
    let place = Place::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.to_string();
    let cases: [(&str, String, &[&str]); 5] = [
        (
            "the peers' port is taken",
            format!("data_dir = \"data\"\nadvertise = \"{port}\""),
            &[&port, "the address is in use", "`listen`"],
        ),
        (
            "the admin port is taken",
            format!("data_dir = \"data\"\nadmin = \"{port}\""),
            &[&port, "another process serves there", "`node.admin`"],
        ),
        (
            "an address of another machine",
            "data_dir = \"data\"\nadvertise = \"n:1\"\nlisten = \"192.0.2.1:7400\"".to_owned(),
            &["192.0.2.1:7400", "no network interface", "`listen`"],
        ),
        (
            // Where not even root may make anything.
            "a data folder that cannot be made",
            "data_dir = \"/sys/bellwether\"".to_owned(),
            &["/sys/bellwether", "cannot be used", "node.data_dir"],
        ),
        (
            "a file above the data folder",
            "data_dir = \"file/data\"".to_owned(),
            &["file/data", "cannot be used", "node.data_dir"],
        ),
    ];
    for (what, node, words) in cases {
        place.manifest(&manifest(&node, "", ""))?;
        expect(what, &place.run(&["run"])?, 6, words)?;
    }
    Ok(())
}

#[test]
fn a_node_that_cannot_serve_its_admin_api_leaves_nothing_behind() -> Result<()> {
    let zookeeper = Server::start()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let cluster = Cluster::builder(zookeeper.address())
        .session_timeout(std::time::Duration::from_secs(30))
        .node(&format!("admin = \"{}\"\n", taken.local_addr()?))
        .group("g", guest("minimal"), "")
        .start()?;
    assert_eq!(cluster.node(0).wait_exit()?, 6);
    let znodes = Znodes::of(zookeeper.address());
    // Without a farewell they would stay for as long as the session.
    for path in ["nodes", "g/election", "g/service_registry"] {
        let left = znodes.children(&format!("/bellwether/{path}"))?.unwrap_or_default();
        ensure!(left.is_empty(), "{path} has {left:?}");
    }
    Ok(())
}

#[test]
fn no_node_answers() -> Result<()> {
    let place = Place::new()?;
    let verbs: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["members", "g"],
        &["swap", "g", "minimal.wasm"],
        &["resign", "g"],
        &["state", "list", "g"],
    ];
    for verb in verbs {
        let admin = format!("unix:{}", place.path().join("nowhere.sock").display());
        let ran = place.run(&[&["--admin", &admin], verb].concat())?;
        expect(&format!("{verb:?}, no socket"), &ran, 7, &["no node answers at", "nowhere.sock", "bellwether run"])?;
        let ran = place.run(verb)?;
        expect(&format!("{verb:?}, nothing named"), &ran, 7, &["no node to ask", "--admin"])?;
    }
    // A node that crashed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(place.path().join("dead.sock"))?);
    let admin = format!("unix:{}", place.path().join("dead.sock").display());
    let ran = place.run(&["status", "--admin", &admin])?;
    expect("nobody listens", &ran, 7, &["dead.sock", "nobody listens there"])?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let ran = place.run(&["status", "--admin", &closed])?;
    expect("nobody listens on the port", &ran, 7, &[&closed, "nobody listens there"])?;
    Ok(())
}

#[test]
fn zookeeper_is_not_there() -> Result<()> {
    // Bound and not listening: whoever connects is refused, and nobody else takes the port.
    let closed = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&closed, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = std::net::SocketAddr::try_from(rustix::net::getsockname(&closed)?)?;

    let cluster = Cluster::builder(address).group("g", guest("minimal"), "").start()?;
    let node = cluster.node(0);
    let waiting = node.wait_log(0, "waiting", |line| line.what() == "waiting")?;
    ensure!(waiting.level() == "WARN", "{waiting:?}");
    ensure!(waiting.message().contains("cannot reach ZooKeeper"), "{waiting:?}");
    ensure!(waiting.message().contains(&address.to_string()), "{waiting:?}");
    ensure!(waiting.message().contains("refused"), "{waiting:?}");

    let status = node.cli(&["status"])?;
    expect("status", &status, 0, &["connecting", "cannot reach ZooKeeper", &address.to_string()])?;
    let json = node.status()?;
    ensure!(json["session"]["state"] == "connecting" && json["groups"][0]["role"] == "starting", "{json:#}");
    let (code, body) = node.http("GET", "/readyz", "")?;
    ensure!(code == 503 && body.contains("starting"), "{code} {body}");
    let (code, _) = node.http("GET", "/healthz", "")?;
    ensure!(code == 200, "{code}");

    expect("state list", &node.cli(&["state", "list", "g"])?, 5, &[])?;
    expect("resign", &node.cli(&["resign", "g"])?, 1, &["does not lead"])?;
    expect("an unknown group", &node.cli(&["resign", "h"])?, 1, &["\"h\"", "it has g"])?;
    ensure!(node.runs(), "it keeps trying");
    assert_eq!(node.stop()?, 0, "a node that waits can be stopped");
    Ok(())
}

#[test]
fn a_chroot_that_is_not_there_is_made() -> Result<()> {
    let zookeeper = Server::start()?;
    let connect = format!("{}/no/such/chroot", zookeeper.address());
    let cluster = Cluster::builder(connect).group("g", guest("minimal"), "").start()?;
    cluster.wait_ready()?;
    let znodes = Znodes::of(zookeeper.address());
    assert!(znodes.get("/no/such/chroot/bellwether/nodes/n0")?.is_some());
    assert_eq!(znodes.children("/")?.unwrap_or_default(), ["no", "zookeeper"]);
    Ok(())
}

#[test]
fn credentials() -> Result<()> {
    let zookeeper = Server::start()?;
    let owner = Znodes::of(zookeeper.address()).with_credentials("owner:secret-of-owner");
    owner.create_private("/bellwether", b"")?;
    owner.create_private("/private", b"")?;
    let auth = |user: &str| {
        format!(
            "[coordination.auth]\nscheme = \"digest\"\nuser = {user:?}\npassword_env = \"BELLWETHER_TEST_PASSWORD\"\n"
        )
    };
    let cases = [
        ("another user", "", auth("joe"), vec!["NoAuth", "/bellwether", "\"joe\""]),
        ("a wrong password", "", auth("owner"), vec!["NoAuth", "/bellwether", "\"owner\""]),
        ("nobody in particular", "", String::new(), vec!["NoAuth", "/bellwether", "no user is configured"]),
        ("a chroot that may not be made", "/private/x", auth("joe"), vec!["/private/x", "\"joe\"", "CREATE"]),
    ];
    for (what, chroot, auth, words) in cases {
        let cluster = Cluster::builder(format!("{}{chroot}", zookeeper.address()))
            .coordination(&auth)
            .env("BELLWETHER_TEST_PASSWORD", "wrong-password")
            .group("g", guest("minimal"), "")
            .start()?;
        let code = cluster.node(0).wait_exit()?;
        let said = cluster.node(0).log().iter().map(|line| line.text.clone()).collect::<Vec<_>>().join("\n");
        ensure!(code == 5, "{what}: ended with {code}:\n{said}");
        // The last message is for a person, and not JSON.
        let message = said.split_once("error:").map(|(_, message)| message).context("no error was reported")?;
        for word in words {
            ensure!(message.contains(word), "{what}: {word:?} is missing:\n{said}");
        }
        ensure!(!said.contains("wrong-password"), "{what}: the password is shown:\n{said}");
        println!("--- {what}: {message}");
    }
    // And with the right ones all is well.
    let cluster = Cluster::builder(zookeeper.address())
        .coordination(&auth("owner"))
        .env("BELLWETHER_TEST_PASSWORD", "secret-of-owner")
        .group("g", guest("minimal"), "")
        .start()?;
    cluster.wait_ready()
}

#[test]
fn a_server_that_grants_too_short_a_session_is_refused() -> Result<()> {
    let options = Options { max_session_timeout: std::time::Duration::from_secs(2), ..Options::default() };
    let zookeeper = Server::start_with(&options)?;
    let cluster = Cluster::builder(zookeeper.address())
        .session_timeout(std::time::Duration::from_secs(10))
        .tick_time(std::time::Duration::from_secs(2))
        .group("g", guest("minimal"), "")
        .start()?;
    assert_eq!(cluster.node(0).wait_exit()?, 5);
    let said = cluster.node(0).report();
    for word in ["the server granted a session", "2s", "3.659s"] {
        ensure!(said.contains(word), "{word:?} is missing:\n{said}");
    }
    Ok(())
}
