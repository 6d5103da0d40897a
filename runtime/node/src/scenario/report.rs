//! What came of the scenarios, and how that compares with what was expected.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{Expect, Returns};
use super::host::shown;
use super::run::Ended;

/// What came of a file of scenarios.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// One entry for each scenario that was played, in the file's order.
    pub scenarios: Vec<ScenarioReport>,
}

/// What came of one scenario.
#[derive(Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// Its steps, up to the first that did not go as expected.
    pub steps: Vec<StepReport>,
    /// Why it could not be played.
    pub problem: Option<String>,
}

/// What came of one step.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// What happened: `elect`, `join`, `tick` …
    pub what: &'static str,
    /// What did not go as expected.
    pub problems: Vec<String>,
    /// What the guest asked of the host that has an effect.
    pub calls: Vec<String>,
    /// What it logged.
    pub log: Vec<String>,
}

impl ScenarioReport {
    /// Whether all went as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problem.is_none() && self.steps.iter().all(|step| step.problems.is_empty())
    }
}

impl TestReport {
    /// Whether all went as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.scenarios.iter().all(ScenarioReport::passed)
    }

    /// The report for a person; with `verbose`, what the guest did in each step.
    #[must_use]
    pub fn to_text(&self, verbose: bool) -> String {
        let shown: Vec<String> = self.scenarios.iter().map(|scenario| scenario.to_text(verbose)).collect();
        let passed = self.scenarios.iter().filter(|scenario| scenario.passed()).count();
        format!("{}\n{passed} passed, {} failed", shown.join("\n"), self.scenarios.len() - passed)
    }
}

impl ScenarioReport {
    fn to_text(&self, verbose: bool) -> String {
        let mut text = format!("{} {}", if self.passed() { "ok    " } else { "FAILED" }, self.name);
        for (n, step) in self.steps.iter().enumerate() {
            if !verbose && step.problems.is_empty() {
                continue;
            }
            text.push_str(&format!("\n  step {}, {}", n + 1, step.what));
            for problem in &step.problems {
                text.push_str(&format!("\n    {}", problem.replace('\n', "\n    ")));
            }
            for (what, lines) in [("call", &step.calls), ("log ", &step.log)] {
                for line in lines {
                    text.push_str(&format!("\n    {what}  {line}"));
                }
            }
        }
        if let Some(problem) = &self.problem {
            text.push_str(&format!("\n  {}", problem.replace('\n', "\n  ")));
        }
        text
    }
}

/// Whether `text` is what `pattern` says; `*` stands for any text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let (middle, last) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// What to do about a call that did not return as it should.
fn advice(ended: &Ended) -> &'static str {
    match ended {
        Ended::Ok | Ended::Impossible(_) => "",
        Ended::Error(_) => {
            "\nhelp: an error is logged and counted, and the instance goes on; from on-elected it means that this node does not want \
             to lead: it\n      resigns, and sits out for a while. Where that is meant, expect it: `returns = { error = \"…\" }`"
        }
        Ended::Trap(_) => {
            "\nhelp: a trap costs the instance and all that it had in memory; a fresh one follows, and after several in a row the leader\n      \
             resigns. Return an error instead where you can, and keep in the state what must survive. Where it is meant, expect it:\n      \
             `returns = { trap = \"…\" }`"
        }
        Ended::TimeOut => {
            "\nhelp: a callback has the time of `callback` under [limits], 5 s by default, and a task that of `task`; on a node they stand\n      \
             under [group.limits]. Do long work in pieces, one a tick, and give each call that waits a time-out"
        }
    }
}

/// How what happened differs from what was expected.
pub(super) fn compare(
    expect: &Expect,
    ended: &Ended,
    calls: &[String],
    log: &[String],
    state: &BTreeMap<String, Vec<u8>>,
    answer: Option<&[u8]>,
    leads: bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    if !expect.returns.fits(ended) {
        let how = match ended {
            Ended::Ok => "it returned without an error".to_owned(),
            Ended::Error(why) => format!("it returned the error {why:?}"),
            Ended::Trap(why) => format!("it trapped: {why}"),
            Ended::TimeOut => "it did not return in time and was stopped".to_owned(),
            Ended::Impossible(why) => format!("the step cannot be played: {why}"),
        };
        let wanted = match &expect.returns {
            Returns::Ok => "that it returns without an error".to_owned(),
            Returns::Error(part) => format!("an error with {part:?} in it"),
            Returns::Trap(part) => format!("a trap with {part:?} in its report"),
            Returns::TimeOut => "that it does not return in time".to_owned(),
        };
        problems.push(format!("expected {wanted}, but {how}{}", advice(ended)));
    }
    if let Some(wanted) = &expect.calls {
        let same = wanted.len() == calls.len() && wanted.iter().zip(calls).all(|(wanted, call)| matches(wanted, call));
        if !same {
            problems.push(format!("expected the calls {wanted:#?}, but they were {calls:#?}"));
        }
    }
    let mut lines = log.iter();
    for wanted in &expect.log {
        if !lines.any(|line| line.contains(wanted)) {
            problems.push(format!("expected {wanted:?} in the log, after what was expected before it"));
            break;
        }
    }
    if let Some(wanted) = &expect.state {
        let keys = wanted.keys().chain(state.keys()).collect::<std::collections::BTreeSet<_>>();
        for key in keys {
            let (wanted, is) = (wanted.get(key).map(String::as_bytes), state.get(key).map(Vec::as_slice));
            if wanted != is {
                let show = |value: Option<&[u8]>| value.map_or_else(|| "nothing".to_owned(), shown);
                problems.push(format!("expected the key {key} to hold {}, but it holds {}", show(wanted), show(is)));
            }
        }
    }
    if let Some(wanted) = &expect.answer
        && answer != Some(wanted.as_bytes())
    {
        let is = answer.map_or_else(|| "there is none".to_owned(), |answer| format!("it is {}", shown(answer)));
        problems.push(format!("expected the answer {wanted:?}, but {is}"));
    }
    if let Some(wanted) = expect.leads
        && wanted != leads
    {
        let not = if leads { "" } else { "not " };
        problems.push(format!(
            "expected the node {}to lead afterwards, but it does {not}lead",
            if wanted { "" } else { "not " }
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
