//! Following a rollout to its end.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bellwether_core::id::NodeId;
use bellwether_core::release::{Document, Outcome, Phase, Staging};
use bellwether_node::admin::{ErrorKind, RolloutStatus};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::client::{CallError, Client, Path};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::render::rollout::{ended, one_line};

/// How often the node is asked.
const EVERY: Duration = Duration::from_millis(250);

/// For how long the node may not know, or not answer: a change of leaders, a lost connection to the coordinator.
const AWAY: Duration = Duration::from_secs(60);

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// To people: a bar on a terminal, lines elsewhere.
    People,
    /// One JSON object a line.
    Json,
}

/// What is wished for: ending that way is no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That the release runs everywhere.
    Done,
    /// That everything is back.
    Aborted,
}

fn going_back(status: &RolloutStatus) -> bool {
    status.document.rollout.as_ref().is_some_and(|rollout| matches!(rollout.phase, Phase::Back { .. }))
}

/// How a node stands, in one word for programs and in words for people.
fn standing(status: &RolloutStatus, number: u64) -> BTreeMap<NodeId, (&'static str, String)> {
    let back = going_back(status);
    let admitted =
        |node: &NodeId| status.document.rollout.as_ref().is_some_and(|rollout| rollout.admitted.contains(node));
    let nodes = status.nodes.iter().filter_map(|node| {
        let report = node.report.as_ref()?;
        let standing = match &report.state {
            Staging::Failed { number: failed, reason } if *failed == number => {
                ("failed", format!("failed: {}", one_line(reason)))
            }
            Staging::Settled if back && report.running == node.target => {
                // Who was never admitted has nowhere to come back from.
                admitted(&node.node).then(|| ("back", "is back".to_owned()))?
            }
            Staging::Settled if report.running == Some(number) => ("settled", format!("runs release {number}")),
            Staging::Proving if report.running == Some(number) => ("proving", "is on probation".to_owned()),
            _ if node.target == Some(number) => ("staging", "prepares it".to_owned()),
            _ if back && admitted(&node.node) => ("going-back", "goes back".to_owned()),
            _ => return None,
        };
        Some((node.node.clone(), standing))
    });
    nodes.collect()
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Phase { number: u64, phase: &'static str, reason: Option<&'a str> },
    Node { number: u64, node: &'a NodeId, state: &'static str, message: &'a str },
    Ended { number: u64, outcome: &'a Outcome },
}

struct Teller {
    show: Show,
    bar: Option<ProgressBar>,
    number: u64,
    phase: Option<&'static str>,
    told: BTreeMap<NodeId, (&'static str, String)>,
}

impl Teller {
    fn new(show: Show, number: u64) -> Result<Self, Failure> {
        let bar = (show == Show::People && std::io::stderr().is_terminal()).then(ProgressBar::no_length);
        if let Some(bar) = &bar {
            let style =
                ProgressStyle::with_template("{spinner} {prefix} [{bar:30}] {pos}/{len} nodes, {elapsed}: {msg}")
                    .map_err(|error| Failure::new(Exit::Failed, "the progress cannot be shown").why(error))?;
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(format!("release {number}"));
            bar.enable_steady_tick(Duration::from_millis(125));
        }
        Ok(Self { show, bar, number, phase: None, told: BTreeMap::new() })
    }

    fn say(&self, event: &Event<'_>, text: &str) -> Result<(), Failure> {
        match (&self.bar, self.show) {
            (_, Show::Json) => output::json_line(event),
            (Some(bar), Show::People) => {
                bar.println(output::clean(text));
                Ok(())
            }
            (None, Show::People) => output::text(&output::clean(text)),
        }
    }

    fn tell(&mut self, status: &RolloutStatus) -> Result<(), Failure> {
        let number = self.number;
        let rollout = status.document.rollout.as_ref().filter(|rollout| rollout.to.number == number);
        if let Some(rollout) = rollout
            && self.phase != Some(rollout.phase.name())
        {
            let phase = rollout.phase.name();
            self.phase = Some(phase);
            let reason = match &rollout.phase {
                Phase::Back { reason } | Phase::Halted { reason } => Some(reason.as_str()),
                Phase::Running | Phase::Paused => None,
            };
            let why = reason.map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
            self.say(&Event::Phase { number, phase, reason }, &format!("release {number} is {phase}{why}"))?;
        }
        let standing = standing(status, number);
        for (node, now) in &standing {
            if self.told.get(node) != Some(now) {
                let (state, message) = now;
                self.say(&Event::Node { number, node, state, message }, &format!("{node} {message}"))?;
            }
        }
        self.told.extend(standing);
        if let Some(bar) = &self.bar {
            let back = going_back(status);
            let all = match rollout {
                Some(rollout) if back => rollout.admitted.len(),
                _ => status.nodes.len(),
            };
            bar.set_length(all as u64);
            let wanted = if back { "back" } else { "settled" };
            let there = self.told.values().filter(|(state, _)| *state == wanted).count();
            bar.set_position(there as u64);
            bar.set_message(self.phase.unwrap_or("beginning"));
        }
        Ok(())
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How the rollout of a release has ended, if it has.
fn outcome(document: &Document, number: u64) -> Option<&Outcome> {
    document.history.iter().rev().find(|past| past.release.number == number).map(|past| &past.outcome)
}

/// Follows the rollout of a release until it has ended or needs somebody, and tells how it goes.
pub async fn follow(client: &Client, call: &Path, number: u64, show: Show, wish: Wish) -> Result<(), Failure> {
    let mut teller = Teller::new(show, number)?;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut away: Option<Instant> = None;
    loop {
        every.tick().await;
        let status: RolloutStatus = match client.get(&call.then("rollout")).await {
            Ok(status) => status,
            Err(error) if passes(&error) && away.get_or_insert_with(Instant::now).elapsed() < AWAY => continue,
            Err(error) => {
                let failure: Failure = error.into();
                return Err(
                    failure.help("the rollout goes on without this: `bellwether rollout status` on any node tells")
                );
            }
        };
        away = None;
        teller.tell(&status)?;
        if let Some(outcome) = outcome(&status.document, number) {
            let text = ended(number, outcome);
            teller.say(&Event::Ended { number, outcome }, &text)?;
            return verdict(number, outcome, wish);
        }
        match &status.document.rollout {
            Some(rollout) if rollout.to.number == number => {
                if let Phase::Halted { reason } = &rollout.phase {
                    return Err(Failure::new(
                        Exit::WentBack,
                        format!("release {number} is halted: {}", one_line(reason)),
                    )
                    .help("`bellwether rollout abort` takes every node back to the release before"));
                }
            }
            _ => {
                let what = format!("release {number} is neither on its way nor in the group's history any more");
                return Err(Failure::new(Exit::Failed, what));
            }
        }
    }
}

/// Whether an error may be over soon.
fn passes(error: &CallError) -> bool {
    match error {
        CallError::Refused(body) => {
            matches!(body.kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Busy)
        }
        CallError::Broken(_) => false,
    }
}

fn verdict(number: u64, outcome: &Outcome, wish: Wish) -> Result<(), Failure> {
    match (outcome, wish) {
        (Outcome::Done, Wish::Done) | (Outcome::Aborted { .. }, Wish::Aborted) => Ok(()),
        (Outcome::Done, Wish::Aborted) => Err(Failure::new(
            Exit::Failed,
            format!("release {number} was rolled out to its end before it could be aborted"),
        )),
        (Outcome::Failed { .. }, _) => Err(Failure::new(Exit::WentBack, ended(number, outcome))),
        (Outcome::Aborted { .. }, Wish::Done) => Err(Failure::new(Exit::Aborted, ended(number, outcome))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_exit_code() {
        let failed = Outcome::Failed { reason: "n1: trapped".to_owned() };
        let aborted = Outcome::Aborted { by: "ada".to_owned() };
        let exit = |outcome: &Outcome, wish| verdict(7, outcome, wish).err().map_or(Exit::Ok, |failure| failure.exit);
        assert_eq!(exit(&Outcome::Done, Wish::Done), Exit::Ok);
        assert_eq!(exit(&failed, Wish::Done), Exit::WentBack);
        assert_eq!(exit(&aborted, Wish::Done), Exit::Aborted);
        assert_eq!(exit(&aborted, Wish::Aborted), Exit::Ok);
        assert_eq!(exit(&failed, Wish::Aborted), Exit::WentBack);
        assert_eq!(exit(&Outcome::Done, Wish::Aborted), Exit::Failed);
    }
}
