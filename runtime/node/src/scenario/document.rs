//! Scenarios as they are written, in TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_guest::grants::Origin;
use bytesize::ByteSize;
use serde::Deserialize;

/// A file of scenarios.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The component under test, relative to the file. The command line may name another.
    pub component: Option<PathBuf>,
    /// Another component for the members' tasks.
    pub worker: Option<PathBuf>,
    /// Settings of every scenario; a scenario's own come on top.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// What the guest is granted.
    #[serde(default)]
    pub grants: Grants,
    /// How much the guest may use.
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub scenario: Vec<Scenario>,
}

/// What the guest is granted: a manifest's defaults where nothing is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grants {
    pub state: Option<State>,
    pub workers: Option<bool>,
    pub logging: Option<bool>,
    /// Variables and the values that the guest sees.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Origins that requests may go to; none really leaves.
    #[serde(default)]
    pub http: Vec<String>,
}

/// How much the guest may use: a manifest's defaults where nothing is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub memory: Option<String>,
    pub callback: Option<String>,
    pub task: Option<String>,
    pub host_calls: Option<u64>,
    pub message: Option<String>,
    pub log: Option<String>,
}

impl Limits {
    /// What they mean; the error names the key.
    pub fn read(&self) -> Result<bellwether_guest::Limits, String> {
        fn size(key: &str, text: Option<&String>, default: u64) -> Result<u64, String> {
            let Some(text) = text else { return Ok(default) };
            let wrong = |_| format!("`{key}` under [limits] is {text:?}: write a size, as in `{key} = \"64KiB\"`");
            text.parse::<ByteSize>().map(|size| size.0).map_err(wrong)
        }
        fn time(key: &str, text: Option<&String>, default: Duration) -> Result<Duration, String> {
            let Some(text) = text else { return Ok(default) };
            let wrong = |_| format!("`{key}` under [limits] is {text:?}: write a duration, as in `{key} = \"500ms\"`");
            humantime::parse_duration(text).map_err(wrong)
        }
        let default = bellwether_guest::Limits::default();
        Ok(bellwether_guest::Limits {
            memory_bytes: size("memory", self.memory.as_ref(), default.memory_bytes)?,
            callback: time("callback", self.callback.as_ref(), default.callback)?,
            task: time("task", self.task.as_ref(), default.task)?,
            host_calls: self.host_calls.unwrap_or(default.host_calls),
            message_bytes: size("message", self.message.as_ref(), default.message_bytes)?,
            log_bytes: size("log", self.log.as_ref(), default.log_bytes)?,
            ..default
        })
    }
}

impl Grants {
    /// The origins; the error says which is none.
    pub fn origins(&self) -> Result<Vec<Origin>, String> {
        let read = |text: &String| {
            text.parse().map_err(|why| format!("`http` under [grants] has {text:?}, which is not an origin: {why}"))
        };
        self.http.iter().map(read).collect()
    }
}

/// Who may use the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    None,
    Leader,
    All,
}

/// A sequence of events on one node, and what the guest is to do about each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    pub name: String,
    /// The node's id.
    #[serde(default = "me")]
    pub node: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// The members that are there from the beginning.
    #[serde(default)]
    pub members: Vec<Member>,
    /// The group's state at the beginning.
    #[serde(default)]
    pub state: BTreeMap<String, String>,
    pub step: Vec<Step>,
}

fn me() -> String {
    "me".to_owned()
}

/// A member: its id, or its id and labels.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Member {
    Id(String),
    Labelled {
        id: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
}

/// One event. Exactly one of the first group of keys stands in a step.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub elect: Option<u64>,
    pub demote: Option<Demotion>,
    pub join: Option<Vec<Member>>,
    pub leave: Option<Vec<String>>,
    pub tick: Option<u32>,
    pub task: Option<Task>,
    /// Somebody else writes to the group's state; an empty list of keys stands for nothing.
    pub write: Option<BTreeMap<String, String>>,
    pub delete: Option<Vec<String>>,
    /// Another component takes over: its file, or `same`.
    pub swap: Option<String>,

    /// How members answer work during this step, instead of doing it.
    #[serde(default)]
    pub answers: BTreeMap<String, Reaction>,
    /// How requests to the outside are answered during this step, by method and address: `POST https://hooks.example/x`.
    #[serde(default)]
    pub http: BTreeMap<String, HttpReaction>,
    /// How the state answers during this step, instead of doing what it is asked for.
    pub state_fails: Option<StateFailure>,
    #[serde(default)]
    pub expect: Expect,
}

/// Why a term ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Demotion {
    Resigned,
    LeaseLost,
    SessionLost,
    Superseded,
    Stopping,
}

/// Work for this node's own `worker`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    pub payload: String,
    #[serde(default = "somebody")]
    pub from: String,
    pub epoch: Option<u64>,
}

fn somebody() -> String {
    "leader".to_owned()
}

/// How a member answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Reaction {
    Answer(String),
    Failed(String),
    Unreachable,
    TimedOut,
    Overloaded,
    StaleEpoch(u64),
}

/// What becomes of a request to the outside.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum HttpReaction {
    Failure(HttpFailure),
    Answer(HttpAnswer),
}

/// Why there is no answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HttpFailure {
    Refused,
    TimedOut,
}

/// The answer to a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpAnswer {
    #[serde(default = "fine")]
    pub status: u16,
    #[serde(default)]
    pub body: String,
}

fn fine() -> u16 {
    200
}

/// How the state fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StateFailure {
    /// The coordinator cannot be asked; nothing is done.
    Unavailable,
    /// The answer is lost; it was done all the same.
    Lost,
}

/// What a step is to lead to. What is not mentioned is not looked at, but for `returns`, which is `ok` by default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    #[serde(default)]
    pub returns: Returns,
    /// What the guest asked of the host that has an effect, in order; `*` stands for any text.
    pub calls: Option<Vec<String>>,
    /// Lines of the log, in order; others may stand between them, and each may be longer.
    #[serde(default)]
    pub log: Vec<String>,
    /// What the group's state holds afterwards. An empty table: nothing at all.
    pub state: Option<BTreeMap<String, String>>,
    /// What the task was answered.
    pub answer: Option<String>,
    /// Whether the node leads afterwards.
    pub leads: Option<bool>,
}

/// How the callback ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Returns {
    #[default]
    Ok,
    /// With an error that contains this text.
    Error(String),
    /// By a trap whose report contains this text.
    Trap(String),
    /// Not within its budget.
    TimeOut,
}

impl Step {
    /// What happens, in a word; an error if that is not exactly one thing.
    pub fn what(&self) -> Result<&'static str, String> {
        let given: Vec<&'static str> = [
            ("elect", self.elect.is_some()),
            ("demote", self.demote.is_some()),
            ("join", self.join.is_some()),
            ("leave", self.leave.is_some()),
            ("tick", self.tick.is_some()),
            ("task", self.task.is_some()),
            ("write", self.write.is_some()),
            ("delete", self.delete.is_some()),
            ("swap", self.swap.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        match given[..] {
            [one] => Ok(one),
            [] => {
                Err("nothing happens in it: give it one of elect, demote, join, leave, tick, task, write, delete, swap"
                    .to_owned())
            }
            _ => {
                Err(format!("{} stand in it: one thing happens in a step, so make a step of each", given.join(" and ")))
            }
        }
    }
}

/// Reads a file of scenarios; the error is a whole message.
pub(super) fn read(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("cannot read the scenarios in {}: {error}\n  help: write them as runtime/node/SCENARIOS.md says, or give another path", path.display())
    })?;
    let file: File = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    file.limits.read().and(file.grants.origins().map(drop)).map_err(|why| format!("{}: {why}", path.display()))?;
    if file.scenario.is_empty() {
        return Err(format!("{}: there is no scenario in it: begin one with [[scenario]]", path.display()));
    }
    for scenario in &file.scenario {
        for (n, step) in scenario.step.iter().enumerate() {
            step.what()
                .map_err(|why| format!("{}: scenario {:?}, step {}: {why}", path.display(), scenario.name, n + 1))?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("scenarios.toml");
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        read(&path)
    }

    #[test]
    fn a_step_is_one_thing() {
        let file = |step: &str| format!("[[scenario]]\nname = \"s\"\n[[scenario.step]]\n{step}\n");
        assert!(parse(&file("tick = 1")).is_ok());
        assert!(parse(&file("")).unwrap_err().contains("step 1: nothing happens"));
        assert!(parse(&file("tick = 1\nelect = 2")).unwrap_err().contains("elect and tick stand in it"));
        assert!(parse(&file("tock = 1")).unwrap_err().contains("unknown field `tock`"));
        assert!(parse("").unwrap_err().contains("no scenario"));
        let file = |top: &str| parse(&format!("{top}\n{}", file("tick = 1")));
        assert!(file("grants = { http = [\"https://hooks.example\"] }\nlimits = { message = \"1KiB\" }").is_ok());
        assert!(file("grants = { http = [\"hooks.example\"] }").unwrap_err().contains("which is not an origin"));
        assert!(file("limits = { callback = \"soon\" }").unwrap_err().contains("`callback = \"500ms\"`"));
    }
}
