//! The manifest as it is written: what serde reads and what the JSON Schema is generated from. The doc comments here are
//! the schema's descriptions. Every field is optional to serde, so that one bad value does not hide the errors of others;
//! `super::shape` holds the text against the schema first and reports what is missing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// The manifest of one Bellwether node: who it is, where its coordinator is, and the groups that it takes part in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "bellwether.toml")]
pub(super) struct RawManifest {
    /// This node: its name, its addresses and its files.
    #[schemars(required)]
    pub node: Option<RawNode>,
    /// The coordinator: where the elections and registries are kept.
    #[schemars(required)]
    pub coordination: Option<RawCoordination>,
    /// How components come from elsewhere.
    pub sources: Option<RawSources>,
    /// What the node keeps of components.
    pub store: Option<RawStore>,
    /// Whose signatures components need.
    pub signatures: Option<RawSignatures>,
    /// What `bellwether dev` does for whoever writes the component. A node that runs by itself takes no notice of it.
    pub dev: Option<RawDev>,
    /// The groups that this node takes part in, one `[[group]]` each.
    #[schemars(required, length(min = 1, max = 1000))]
    pub group: Option<Vec<RawGroup>>,
}

/// This node: its name, its addresses and its files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    /// The node's name, unique in all of its groups: 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit.
    #[schemars(required, extend("examples" = ["node-1"]))]
    pub id: Option<String>,
    /// The address, `host:port`, that other nodes reach this one at. Port 0 takes a free port when the node starts.
    #[schemars(extend("default" = "127.0.0.1:0"))]
    pub advertise: Option<String>,
    /// The address, `host:port`, to listen on for other nodes. Default: the same as `advertise`.
    #[schemars(extend("examples" = ["0.0.0.0:7400"]))]
    pub listen: Option<String>,
    /// The folder for what the node keeps: its identity, compiled components, the admin socket. Made when missing.
    /// Default: `.bellwether/<id>` beside the manifest.
    #[schemars(extend("examples" = ["/var/lib/bellwether"]))]
    pub data_dir: Option<PathBuf>,
    /// Where the admin API listens: `unix:PATH`, or a loopback address such as `127.0.0.1:7401` (any user of the machine can
    /// then use it). Default: `unix:<data_dir>/admin.sock`.
    #[schemars(extend("examples" = ["unix:/run/bellwether/admin.sock"]))]
    pub admin: Option<String>,
    /// Whether a small process beside the node takes its znodes away at once when its process ends without closing its session,
    /// so that a successor need not wait for the session timeout.
    #[schemars(extend("default" = true))]
    pub reaper: Option<bool>,
    /// The PEM files for mutual TLS between nodes. Without it, nodes talk in plain text and trust whoever connects.
    pub tls: Option<RawTls>,
}

/// The PEM files for mutual TLS between nodes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// This node's certificate chain.
    #[schemars(required, extend("examples" = ["tls/node.pem"]))]
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    #[schemars(required, extend("examples" = ["tls/node.key"]))]
    pub key: Option<PathBuf>,
    /// The certificates of the authorities that other nodes' certificates are checked against.
    #[schemars(required, extend("examples" = ["tls/ca.pem"]))]
    pub ca: Option<PathBuf>,
}

/// How components come from elsewhere.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSources {
    /// The certificates of authorities that servers and registries are checked against, beside those that the machine trusts.
    #[schemars(extend("examples" = ["tls/registry-ca.pem"]))]
    pub ca: Option<PathBuf>,
    /// How long obtaining one component may take in all, 1s to 1h.
    #[schemars(extend("default" = "5m"))]
    pub timeout: Option<String>,
}

/// What the node keeps of components.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// How many bytes of components are kept, 1MiB to 1TiB. Those not used for longest go first; what a group runs, or can go
    /// back to, stays.
    #[schemars(extend("default" = "1GiB"))]
    pub max: Option<String>,
    /// How many bytes of compiled code are kept, 1MiB to 1TiB. Whatever is missing is compiled again.
    #[schemars(extend("default" = "1GiB"))]
    pub compiled: Option<String>,
}

/// Whose signatures components need.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSignatures {
    /// Whether a component without a good signature is refused.
    #[schemars(extend("default" = false))]
    pub required: Option<bool>,
    /// The public keys that count, as `bellwether keygen` writes them: `<name>:ed25519:<base64>`.
    #[schemars(length(max = 64), extend("default" = [], "examples" = [["release:ed25519:xmRzEnSMS+zFbNGQWdcyBfmIWrFcUTiEvsPuGwI1vqM="]]))]
    pub keys: Option<Vec<String>>,
}

/// What `bellwether dev` does for whoever writes the component. A node that runs by itself takes no notice of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDev {
    /// The command that builds the component, run by `sh` in the manifest's folder: at start, and whenever what `watch` names has changed.
    #[schemars(extend("examples" = ["cargo build --release --target wasm32-wasip2"]))]
    pub build: Option<String>,
    /// The files and folders that the component is built from. Hidden files do not count.
    #[schemars(length(min = 1, max = 64), extend("default" = ["src"]))]
    pub watch: Option<Vec<PathBuf>>,
    /// How many nodes `bellwether dev` starts with, 1 to 64.
    #[schemars(range(min = 1, max = 64), extend("default" = 3))]
    pub nodes: Option<u16>,
}

/// The coordinator: where the elections and registries are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCoordination {
    /// `zookeeper://host:port,host:port/chroot` (port 2181 and no chroot by default), or `memory:` for the coordinator inside
    /// this process.
    #[schemars(required, extend("examples" = ["zookeeper://zk1:2181,zk2:2181,zk3:2181"]))]
    pub connect: Option<String>,
    /// The znode, below the chroot, that everything is kept under.
    #[schemars(extend("default" = "/bellwether"))]
    pub root: Option<String>,
    /// The session timeout that is asked for, 100ms to 1h. The server may grant another.
    #[schemars(extend("default" = "6s"))]
    pub session_timeout: Option<String>,
    /// The ensemble's `tickTime`, 10ms to 1m. It bounds how early a server may take a session for expired.
    #[schemars(extend("default" = "2s"))]
    pub tick_time: Option<String>,
    /// The identity that this node shows to ZooKeeper. The password is never written in the manifest itself: exactly one of
    /// `password_env` and `password_file` names where it is.
    pub auth: Option<RawAuth>,
}

/// How a node proves its identity to ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawScheme {
    /// A user and a password.
    Digest,
}

/// The identity that this node shows to ZooKeeper. The password is never written in the manifest itself: exactly one of
/// `password_env` and `password_file` names where it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["password_env"] }, { "required": ["password_file"] }]))]
pub(super) struct RawAuth {
    /// ZooKeeper's authentication scheme.
    #[schemars(required, extend("examples" = ["digest"]))]
    pub scheme: Option<RawScheme>,
    /// The user.
    #[schemars(required, extend("examples" = ["bellwether"]))]
    pub user: Option<String>,
    /// The environment variable that holds the password.
    #[schemars(extend("examples" = ["ZK_PASSWORD"]))]
    pub password_env: Option<String>,
    /// The file that holds the password. One line break at its end is not part of the password.
    #[schemars(extend("examples" = ["zk-password"]))]
    pub password_file: Option<PathBuf>,
}

/// A group that this node takes part in, and the component that says what its leader and its workers do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    /// The group's name: 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit; not `nodes`.
    #[schemars(required, extend("examples" = ["indexer"]))]
    pub name: Option<String>,
    /// The WebAssembly component: a path, `https://host/x.wasm#sha256=<hex>`, `oci://registry/repository:tag`,
    /// `oci://registry/repository@sha256:<hex>`, or `sha256:<hex>` for what the node's store or another node has.
    #[schemars(required, extend("examples" = ["indexer.wasm"]))]
    pub component: Option<String>,
    /// Settings that the guest reads through `wasi:config/store`. Numbers and booleans become strings.
    #[schemars(extend("default" = {}, "examples" = [{ "level": "debug" }]))]
    pub config: Option<BTreeMap<String, RawSetting>>,
    /// What this node's entry in the group's registry says of it. At most 32 labels; names up to 64 and values up to 256 bytes.
    #[schemars(extend("default" = {}, "examples" = [{ "zone": "a" }]))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Who is told of changes of the membership.
    #[schemars(extend("default" = "leader"))]
    pub watch: Option<RawWatch>,
    /// Whether this node swaps to the component's new contents when the file changes.
    #[schemars(extend("default" = true))]
    pub watch_file: Option<bool>,
    /// Whether this node stands for election. With `false` it is always a worker.
    #[schemars(extend("default" = true))]
    pub candidate: Option<bool>,
    /// How the candidates' znodes are named. `"curator"` shares the election with Curator's `LeaderLatch`.
    #[schemars(extend("default" = "bellwether"))]
    pub election_format: Option<RawElectionFormat>,
    /// The znode, below the chroot, that the candidates' znodes lie in. Default: `election` in the group's own.
    #[schemars(extend("examples" = ["/services/indexer/leader"]))]
    pub election_path: Option<String>,
    /// How this node does the tasks that the leader sends.
    pub worker: Option<RawWorker>,
    /// When `ticker.on-tick` is called, if the component exports it.
    pub tick: Option<RawTick>,
    /// How much the guest may use.
    pub limits: Option<RawLimits>,
    /// What the guest may reach outside of its sandbox.
    pub grants: Option<RawGrants>,
    /// What happens when the guest fails.
    pub on_failure: Option<RawOnFailure>,
    /// How a new release proves itself after a swap.
    pub probation: Option<RawProbation>,
}

/// A setting of `[group.config]`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawSetting {
    /// Text.
    Text(String),
    /// A boolean.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
}

/// Who is told of changes of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawWatch {
    /// Only the leader.
    Leader,
    /// Every node, which makes the group peer to peer.
    All,
}

/// How the candidates' znodes are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawElectionFormat {
    /// `<node-id>-<guid>-n_<seq>`.
    Bellwether,
    /// `_c_<uuid>-latch-<seq>`, as Curator's `LeaderLatch` names them.
    Curator,
}

/// How this node does the tasks that the leader sends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorker {
    /// How many tasks run at once, 1 to 1024. Default: the number of cores.
    #[schemars(range(min = 1, max = 1024), extend("examples" = [4]))]
    pub parallelism: Option<u32>,
    /// How many more tasks may wait, 0 to 65536; further ones are refused as `overloaded`.
    #[schemars(range(min = 0, max = 65536), extend("default" = 64))]
    pub queue: Option<u32>,
    /// Another component for the tasks, named as the group's is. Default: the group's component.
    #[schemars(extend("examples" = ["indexer-worker.wasm"]))]
    pub component: Option<String>,
}

/// When `ticker.on-tick` is called, if the component exports it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTick {
    /// The time between two ticks, 10ms to 1day.
    #[schemars(extend("default" = "1s"))]
    pub every: Option<String>,
    /// Whether a node that does not lead ticks too.
    #[schemars(extend("default" = "leader"))]
    pub when: Option<RawTickWhen>,
}

/// Whether a node that does not lead ticks too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawTickWhen {
    /// While this node leads.
    Leader,
    /// Always.
    Always,
}

/// How much the guest may use. Each limit holds for one instance unless it says otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Linear memory, 64KiB to 4GiB, all memories of an instance together.
    #[schemars(extend("default" = "64MiB"))]
    pub memory: Option<String>,
    /// Elements of one table.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 100_000))]
    pub table_elements: Option<u64>,
    /// Core instances, memories and tables within one component instance, each.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 64))]
    pub instances: Option<u32>,
    /// The time budget of one lifecycle callback, 1ms to 1h.
    #[schemars(extend("default" = "5s"))]
    pub callback: Option<String>,
    /// The time budget of one task, 1ms to 1day, where the sender's deadline is not shorter.
    #[schemars(extend("default" = "30s"))]
    pub task: Option<String>,
    /// Calls from the guest to the host within one callback or task.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64), extend("default" = 100_000))]
    pub host_calls: Option<u64>,
    /// Bytes that one call between guest and host may copy, 1KiB to 1GiB: payloads, snapshots, values.
    #[schemars(extend("default" = "64MiB"))]
    pub message: Option<String>,
    /// Bytes of log within one callback or task, 1KiB to 64MiB; the rest is counted and dropped.
    #[schemars(extend("default" = "64KiB"))]
    pub log: Option<String>,
}

/// What the guest may reach outside of its sandbox.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGrants {
    /// Folders of the host that the guest sees.
    #[schemars(length(max = 64), extend("default" = [], "examples" = [[{ "guest": "/data", "host": "data" }]]))]
    pub folders: Option<Vec<RawFolder>>,
    /// Environment variables that the guest sees: a list of names takes their values from the node's own environment, a
    /// table gives the values. At most 256.
    #[schemars(extend("default" = [], "examples" = [["HOME"]]))]
    pub env: Option<RawEnv>,
    /// Addresses, `host:port`, that the guest may open TCP connections to. At most 256.
    #[schemars(length(max = 256), extend("default" = [], "examples" = [["db.example:5432"]]))]
    pub connect: Option<Vec<String>>,
    /// Origins, `https://host` or `https://host:port`, that the guest may send HTTP requests to, by `wasi:http`. At most 256.
    #[schemars(length(max = 256), extend("default" = [], "examples" = [["https://hooks.example"]]))]
    pub http: Option<Vec<String>>,
    /// Who may use the group's state.
    #[schemars(extend("default" = "leader"))]
    pub state: Option<RawStateGrant>,
    /// Whether the guest may send tasks to members.
    #[schemars(extend("default" = true))]
    pub workers: Option<bool>,
    /// Whether what the guest prints or logs goes to the node's log.
    #[schemars(extend("default" = true))]
    pub logging: Option<bool>,
}

/// Who may use the group's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawStateGrant {
    /// Nobody.
    None,
    /// The leader reads, writes and watches.
    Leader,
    /// The leader as before; workers read and watch.
    All,
}

/// What the guest may do in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawFileMode {
    /// Files can be read.
    Read,
    /// Files can be read, made, changed and deleted.
    Write,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFolder {
    /// The folder on the host. It must exist.
    #[schemars(required, extend("examples" = ["data"]))]
    pub host: Option<PathBuf>,
    /// Where the guest sees it: an absolute path.
    #[schemars(required, extend("examples" = ["/data"]))]
    pub guest: Option<String>,
    /// What the guest may do there.
    #[schemars(extend("default" = "read"))]
    pub mode: Option<RawFileMode>,
}

/// Environment variables that the guest sees.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawEnv {
    /// Names; the values come from the node's own environment.
    Names(Vec<String>),
    /// Names and values.
    Values(BTreeMap<String, String>),
}

/// What happens when the guest fails.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOnFailure {
    /// How often in a row the guest is started anew before the last resort, 0 to 1000.
    #[schemars(range(min = 0, max = 1000), extend("default" = 3))]
    pub restarts: Option<u32>,
    /// The last resort, when starting the guest anew did not help.
    #[schemars(extend("default" = "resign"))]
    pub then: Option<RawLastResort>,
    /// The pause before the first new start, 1ms to 1h. It doubles with each failure in a row.
    #[schemars(extend("default" = "100ms"))]
    pub backoff: Option<String>,
    /// The longest pause, 1ms to 1h; not shorter than `backoff`.
    #[schemars(extend("default" = "10s"))]
    pub backoff_max: Option<String>,
    /// How long a leader that resigned because its guest failed does not stand again, 1ms to 1day.
    #[schemars(extend("default" = "30s"))]
    pub sit_out: Option<String>,
}

/// The last resort, when starting the guest anew did not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawLastResort {
    /// Go on starting it anew.
    Restart,
    /// Go back to the release before, if there was one since the node started; otherwise as `resign`.
    Rollback,
    /// Give leadership up, and stay out of the election for `sit_out`.
    Resign,
    /// Leave the group.
    Stop,
}

/// How a new release proves itself after a swap.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProbation {
    /// How long a new release is on probation, 0s to 1day; 0s for no probation.
    #[schemars(extend("default" = "10s"))]
    pub lasts: Option<String>,
    /// How many callbacks may fail in that time, 0 to 1000; one more takes the node back to the release before.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub failures: Option<u32>,
    /// Which part of the tasks, and of the callbacks, may fail in that time, 0.0 to 1.0; more takes the node back as well. At 1.0 all of
    /// them may.
    #[schemars(extend("minimum" = 0.0, "maximum" = 1.0, "default" = 0.5))]
    pub error_rate: Option<f64>,
    /// How many tasks, or callbacks, must have ended before their `error_rate` counts, 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 20))]
    pub at_least: Option<u32>,
}
