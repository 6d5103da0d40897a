//! `[[group]]`.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use bellwether_core::config::{ElectionFormat, FailurePolicy, LastResort, Probation, Rate, TickConfig, Watch};
use bellwether_core::id::GroupName;
use bellwether_guest::grants::{FileMode, FolderGrant, Grants, Origin, StateGrant};
use bellwether_guest::limits::Limits;

use super::super::address;
use super::super::document::child;
use super::super::model::{Group, MAX_CONFIG, Worker};
use super::super::raw::{
    RawElectionFormat, RawEnv, RawFileMode, RawFolder, RawGrants, RawGroup, RawLastResort, RawLimits, RawOnFailure,
    RawProbation, RawSetting, RawStateGrant, RawTick, RawTickWhen, RawWatch, RawWorker,
};
use super::{Context, DAY, HOUR, MILLISECOND, sources};

/// The name that the znode of the nodes' heartbeats has, beside those of the groups.
const RESERVED: &str = "nodes";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const MAX_LABELS: usize = 32;
const MAX_LABEL_NAME: usize = 64;
const MAX_LABEL_VALUE: usize = 256;
const MAX_ENV: usize = 256;

pub(super) fn check_all(cx: &mut Context<'_>, raw: Vec<RawGroup>) -> Option<Vec<Group>> {
    let mut first: BTreeMap<GroupName, usize> = BTreeMap::new();
    let mut groups = Vec::new();
    let wanted = raw.len();
    for (n, raw) in raw.into_iter().enumerate() {
        let at = format!("group[{n}]");
        let name_key = child(&at, "name");
        let name = raw.name.as_deref().and_then(|name| {
            cx.take(
                &name_key,
                GroupName::new(name),
                "is not a group name",
                "give the group a short name, as in `name = \"indexer\"`",
            )
        });
        if let Some(name) = &name {
            if name.as_str() == RESERVED {
                cx.tell(
                    cx.problem(&name_key, format!("a group cannot be called {RESERVED:?}"))
                        .because("the znode of this name holds the nodes' heartbeats")
                        .help("choose another name"),
                );
            }
            if let Some(earlier) = first.get(name) {
                cx.tell(
                    cx.problem(&name_key, format!("there are two groups called {:?}", name.as_str()))
                        .because("this is the second")
                        .related(cx.places.value_or_parent(&format!("group[{earlier}].name")), "this is the first")
                        .help("a node takes part in a group once: rename one, or leave it out"),
                );
            } else {
                first.insert(name.clone(), n);
            }
        }
        groups.extend(check(cx, &at, name, raw));
    }
    (groups.len() == wanted).then_some(groups)
}

fn check(cx: &mut Context<'_>, at: &str, name: Option<GroupName>, raw: RawGroup) -> Option<Group> {
    let component = raw.component.and_then(|text| sources::component(cx, &child(at, "component"), &text));
    let config = config(cx, &child(at, "config"), raw.config.unwrap_or_default());
    let labels = labels(cx, &child(at, "labels"), raw.labels.unwrap_or_default());
    let worker = worker(cx, &child(at, "worker"), raw.worker.unwrap_or_default());
    let tick = tick(cx, &child(at, "tick"), raw.tick.unwrap_or_default());
    let limits = limits(cx, &child(at, "limits"), raw.limits.unwrap_or_default());
    let grants = grants(cx, &child(at, "grants"), raw.grants.unwrap_or_default());
    let on_failure = on_failure(cx, &child(at, "on_failure"), raw.on_failure.unwrap_or_default());
    let probation = probation(cx, &child(at, "probation"), raw.probation.unwrap_or_default());
    Some(Group {
        name: name?,
        component: component?,
        config,
        labels,
        watch: raw.watch.map_or_else(Watch::default, |watch| match watch {
            RawWatch::Leader => Watch::Leader,
            RawWatch::All => Watch::All,
        }),
        watch_file: raw.watch_file.unwrap_or(true),
        candidate: raw.candidate.unwrap_or(true),
        election_format: raw.election_format.map_or_else(ElectionFormat::default, |format| match format {
            RawElectionFormat::Bellwether => ElectionFormat::Bellwether,
            RawElectionFormat::Curator => ElectionFormat::Curator,
        }),
        election_path: election_path(cx, &child(at, "election_path"), raw.election_path),
        worker,
        tick,
        limits,
        grants,
        on_failure,
        probation,
    })
}

fn election_path(cx: &mut Context<'_>, at: &str, path: Option<String>) -> Option<String> {
    let path = path?;
    match address::check_znode(&path) {
        Ok(()) => Some(path),
        Err(why) => {
            cx.tell(
                cx.problem(at, format!("`{at}` is not the absolute path of a znode: {path:?}"))
                    .because(format!("it {why}"))
                    .help("write an absolute path, as in `election_path = \"/services/indexer/leader\"`"),
            );
            None
        }
    }
}

fn config(cx: &mut Context<'_>, at: &str, raw: BTreeMap<String, RawSetting>) -> BTreeMap<String, String> {
    let config: BTreeMap<String, String> = raw
        .into_iter()
        .map(|(key, setting)| {
            let text = match setting {
                RawSetting::Text(text) => text,
                RawSetting::Boolean(yes) => yes.to_string(),
                RawSetting::Integer(number) => number.to_string(),
                // As TOML writes it, so that 2.0 does not become 2.
                RawSetting::Number(number) => toml::Value::Float(number).to_string(),
            };
            (key, text)
        })
        .collect();
    let size: usize = config.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_CONFIG {
        cx.tell(
            cx.problem(at, format!("`{at}` is too large"))
                .because(format!("names and values have {size} bytes; the most is {MAX_CONFIG}"))
                .help("put large data into a file, and grant its folder with [group.grants]"),
        );
    }
    config
}

fn labels(cx: &mut Context<'_>, at: &str, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if labels.len() > MAX_LABELS {
        cx.tell(
            cx.problem(at, format!("`{at}` has {} labels", labels.len())).because(format!("the most is {MAX_LABELS}")),
        );
    }
    for (name, value) in &labels {
        let why = if name.is_empty() {
            "its name is empty".to_owned()
        } else if name.len() > MAX_LABEL_NAME {
            format!("its name has {} bytes; the most is {MAX_LABEL_NAME}", name.len())
        } else if value.len() > MAX_LABEL_VALUE {
            format!("its value has {} bytes; the most is {MAX_LABEL_VALUE}", value.len())
        } else {
            continue;
        };
        let key = child(at, name);
        cx.tell(cx.problem(&key, format!("`{key}` is not a label")).because(why));
    }
    labels
}

fn worker(cx: &mut Context<'_>, at: &str, raw: RawWorker) -> Worker {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get).min(1024);
    Worker {
        parallelism: raw.parallelism.unwrap_or_else(|| u32::try_from(cores()).unwrap_or(1)),
        queue: raw.queue.unwrap_or(64),
        component: raw.component.and_then(|text| sources::component(cx, &child(at, "component"), &text)),
    }
}

fn tick(cx: &mut Context<'_>, at: &str, raw: RawTick) -> TickConfig {
    let every = cx.duration(&child(at, "every"), raw.every, Duration::from_secs(1), Duration::from_millis(10)..=DAY);
    TickConfig { every, always: raw.when == Some(RawTickWhen::Always) }
}

fn limits(cx: &mut Context<'_>, at: &str, raw: RawLimits) -> Limits {
    let default = Limits::default();
    Limits {
        memory_bytes: cx.size(&child(at, "memory"), raw.memory, default.memory_bytes, 64 * KIB..=4 * GIB),
        table_elements: raw.table_elements.unwrap_or(default.table_elements),
        instances: raw.instances.unwrap_or(default.instances),
        callback: cx.duration(&child(at, "callback"), raw.callback, default.callback, MILLISECOND..=HOUR),
        task: cx.duration(&child(at, "task"), raw.task, default.task, MILLISECOND..=DAY),
        host_calls: raw.host_calls.unwrap_or(default.host_calls),
        message_bytes: cx.size(&child(at, "message"), raw.message, default.message_bytes, KIB..=GIB),
        log_bytes: cx.size(&child(at, "log"), raw.log, default.log_bytes, KIB..=64 * MIB),
    }
}

/// What to write for an origin.
const ORIGIN: &str = "write a scheme, a host and, where it is not the usual one, a port, as in \"https://hooks.example\" or \"http://127.0.0.1:8080\"";

fn grants(cx: &mut Context<'_>, at: &str, raw: RawGrants) -> Grants {
    let default = Grants::default();
    let connect = child(at, "connect");
    let http = child(at, "http");
    Grants {
        folders: folders(cx, &child(at, "folders"), raw.folders.unwrap_or_default()),
        env: raw.env.map_or(default.env, |raw| env(cx, &child(at, "env"), raw)),
        connect: raw
            .connect
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .filter_map(|(n, text)| cx.address(&format!("{connect}[{n}]"), &text, false))
            .map(|address| address.to_string())
            .collect(),
        http: raw
            .http
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .filter_map(|(n, text)| {
                cx.take(&format!("{http}[{n}]"), text.parse::<Origin>(), "is not an origin", ORIGIN)
            })
            .collect(),
        state: raw.state.map_or(default.state, |state| match state {
            RawStateGrant::None => StateGrant::None,
            RawStateGrant::Leader => StateGrant::Leader,
            RawStateGrant::All => StateGrant::All,
        }),
        workers: raw.workers.unwrap_or(default.workers),
        logging: raw.logging.unwrap_or(default.logging),
    }
}

fn folders(cx: &mut Context<'_>, at: &str, raw: Vec<RawFolder>) -> Vec<FolderGrant> {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut folders = Vec::new();
    for (n, raw) in raw.into_iter().enumerate() {
        let at_this = format!("{at}[{n}]");
        let host = raw.host.and_then(|path| folder(cx, &child(&at_this, "host"), path));
        let key = child(&at_this, "guest");
        let guest = raw.guest.and_then(|guest| {
            let result = check_guest_path(&guest).map(|()| guest);
            cx.take(&key, result, "is not a path of the guest", "write an absolute path, as in `guest = \"/data\"`")
        });
        if let Some(guest) = &guest {
            if let Some(earlier) = first.get(guest) {
                cx.tell(
                    cx.problem(&key, format!("two folders are granted as {guest:?}"))
                        .because("this is the second")
                        .related(cx.places.value_or_parent(&format!("{at}[{earlier}].guest")), "this is the first")
                        .help("give each folder a path of its own"),
                );
            } else {
                first.insert(guest.clone(), n);
            }
        }
        let mode = match raw.mode {
            None | Some(RawFileMode::Read) => FileMode::Read,
            Some(RawFileMode::Write) => FileMode::Write,
        };
        folders.extend(host.zip(guest).map(|(host, guest)| FolderGrant { host, guest, mode }));
    }
    folders
}

fn folder(cx: &mut Context<'_>, key: &str, path: PathBuf) -> Option<PathBuf> {
    let full = cx.path(key, &path)?;
    let reason = match std::fs::metadata(&full) {
        Ok(found) if found.is_dir() => return Some(full),
        Ok(_) => "this is a file; its folder can be granted".to_owned(),
        Err(error) => super::because(&error),
    };
    cx.tell_path(key, &path, &full, "the folder cannot be granted", reason);
    None
}

fn check_guest_path(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("it does not begin with `/`") };
    if path.len() > 1024 {
        return Err("it is longer than 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    // "/" itself is fine: the guest's root.
    if !rest.is_empty() && rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it has an empty part, `.` or `..`");
    }
    Ok(())
}

fn env(cx: &mut Context<'_>, at: &str, raw: RawEnv) -> BTreeMap<String, String> {
    let number = match &raw {
        RawEnv::Names(names) => names.len(),
        RawEnv::Values(values) => values.len(),
    };
    if number > MAX_ENV {
        cx.tell(cx.problem(at, format!("`{at}` grants {number} variables")).because(format!("the most is {MAX_ENV}")));
        return BTreeMap::new();
    }
    match raw {
        RawEnv::Values(values) => {
            for (name, value) in &values {
                let why = match check_variable(name) {
                    Err(why) => why,
                    Ok(()) if value.contains('\0') => "its value has a NUL character",
                    Ok(()) => continue,
                };
                let key = child(at, name);
                cx.tell(cx.problem(&key, format!("`{key}` is not an environment variable")).because(why));
            }
            values
        }
        RawEnv::Names(names) => {
            names.into_iter().enumerate().filter_map(|(n, name)| inherited(cx, &format!("{at}[{n}]"), name)).collect()
        }
    }
}

/// A variable of the node's own environment.
fn inherited(cx: &mut Context<'_>, key: &str, name: String) -> Option<(String, String)> {
    if let Err(why) = check_variable(&name) {
        let mut problem = cx.problem(key, format!("`{key}` is not the name of an environment variable")).because(why);
        if let Some((name, _)) = name.split_once('=').filter(|(name, _)| check_variable(name).is_ok()) {
            problem = problem.help(format!("to give a value, make `env` a table: `env = {{ {name} = \"…\" }}`"));
        }
        cx.tell(problem);
        return None;
    }
    // A text that does not look like a name may be a value, and is not repeated.
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let shown = if plain { name.clone() } else { "…".to_owned() };
    let message = match (cx.environment)(&name).map(std::ffi::OsString::into_string) {
        Some(Ok(value)) => return Some((name, value)),
        Some(Err(_)) => format!("the environment variable `{shown}` is not valid UTF-8"),
        None => format!("the environment variable `{shown}` is not set"),
    };
    let name = if plain { name } else { "NAME".to_owned() };
    cx.tell(
        cx.problem(key, message)
            .because("the guest shall see its value")
            .help(format!("set it where bellwether starts, or give the value here: `env = {{ {name} = \"…\" }}`")),
    );
    None
}

fn check_variable(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("its name is empty")
    } else if name.contains('=') {
        Err("its name has `=`")
    } else if name.contains('\0') {
        Err("its name has a NUL character")
    } else {
        Ok(())
    }
}

fn probation(cx: &mut Context<'_>, at: &str, raw: RawProbation) -> Probation {
    let default = Probation::default();
    Probation {
        lasts: cx.duration(&child(at, "lasts"), raw.lasts, default.lasts, Duration::ZERO..=DAY),
        failures: raw.failures.unwrap_or(default.failures),
        error_rate: error_rate(cx, &child(at, "error_rate"), raw.error_rate).unwrap_or(default.error_rate),
        at_least: raw.at_least.unwrap_or(default.at_least),
    }
}

fn error_rate(cx: &mut Context<'_>, at: &str, raw: Option<f64>) -> Option<Rate> {
    let fraction = raw?;
    let rate = Rate::new(fraction);
    if rate.is_none() {
        cx.tell(
            cx.problem(at, format!("`{at}` must be 0.0 to 1.0, not {}", toml::Value::Float(fraction)))
                .because("this is not a part of a whole")
                .help("write a fraction: half of the tasks is `error_rate = 0.5`; at 1.0 all of them may fail"),
        );
    }
    rate
}

fn on_failure(cx: &mut Context<'_>, at: &str, raw: RawOnFailure) -> FailurePolicy {
    let default = FailurePolicy::default();
    let backoff_key = child(at, "backoff");
    let backoff = cx.duration(&backoff_key, raw.backoff, default.backoff, MILLISECOND..=HOUR);
    let max_key = child(at, "backoff_max");
    let backoff_max = cx.duration(&max_key, raw.backoff_max, default.backoff_max, MILLISECOND..=HOUR);
    if backoff_max < backoff {
        let is = if cx.written(&max_key) { "" } else { " (its default)" };
        cx.tell(
            cx.problem(&max_key, format!("`{max_key}`{is} is shorter than `backoff`"))
                .because(format!("the longest pause is {}", super::shown(backoff_max)))
                .related(
                    cx.places.value_or_parent(&backoff_key),
                    format!("the first pause is {}", super::shown(backoff)),
                )
                .help("make `backoff_max` at least as long as `backoff`"),
        );
    }
    FailurePolicy {
        restarts: raw.restarts.unwrap_or(default.restarts),
        then: raw.then.map_or(default.then, |then| match then {
            RawLastResort::Restart => LastResort::Restart,
            RawLastResort::Rollback => LastResort::Rollback,
            RawLastResort::Resign => LastResort::Resign,
            RawLastResort::Stop => LastResort::Stop,
        }),
        backoff,
        backoff_max,
        sit_out: cx.duration(&child(at, "sit_out"), raw.sit_out, default.sit_out, MILLISECOND..=DAY),
    }
}
