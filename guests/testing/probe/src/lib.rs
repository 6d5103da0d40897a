//! A guest that does what it is told, well or badly.
//!
//! What it does in a callback stands in its configuration under the callback's name (`on-elected`, `on-tick`, …); what it does
//! for a task is the task's payload. An order is a verb and its argument: see [`act`]. It counts its callbacks and carries the
//! count over a swap.

mod load;
mod numbered;
mod orders;
mod script;

wit_bindgen::generate!({ world: "everything", path: "../../../wit", generate_all });

use std::sync::Mutex;

use bellwether::runtime::state;
use exports::bellwether::runtime::{handover, lifecycle, observer, ticker, worker};
use load::{Tally, tally};
use orders::act;
use wasi::config::store;
use wasi::logging::logging::{Level, log};

struct Probe;

/// How many callbacks this instance, and those it took over from, have had.
static CALLBACKS: Mutex<u64> = Mutex::new(0);

fn callbacks() -> std::sync::MutexGuard<'static, u64> {
    CALLBACKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Notes a callback and carries out what the configuration orders for it.
fn called(name: &str, what: &str) -> Result<(), String> {
    *callbacks() += 1;
    log(Level::Info, name, what);
    match store::get(name) {
        Ok(Some(order)) => act(&order).map(drop),
        _ => Ok(()),
    }
}

fn ids(members: &[lifecycle::Member]) -> String {
    members.iter().map(|m| format!("{}@{}", m.id, m.address)).collect::<Vec<_>>().join(",")
}

impl lifecycle::Guest for Probe {
    fn on_elected(leadership: lifecycle::Leadership) -> Result<(), String> {
        called("on-elected", &format!("epoch {} by {:?}", leadership.epoch, leadership.cause))
    }

    fn on_demoted(reason: lifecycle::DemotionReason) -> Result<(), String> {
        called("on-demoted", &format!("{reason:?}"))
    }

    fn on_members_changed(change: lifecycle::Membership) -> Result<(), String> {
        let (joined, changed) = (ids(&change.joined), ids(&change.changed));
        let left = change.left.join(",");
        called("on-members-changed", &format!("v{} joined {joined} changed {changed} left {left}", change.version))
    }
}

impl ticker::Guest for Probe {
    fn on_tick() -> Result<(), String> {
        called("on-tick", "")
    }
}

impl observer::Guest for Probe {
    fn on_state_changed(change: observer::Change) -> Result<(), String> {
        let held = match &change.entry {
            Some(state::Entry { value, version }) => format!("{}#{version}", String::from_utf8_lossy(value)),
            None => "nothing".to_owned(),
        };
        called("on-state-changed", &format!("{} holds {held}", change.key))
    }
}

impl handover::Guest for Probe {
    fn snapshot() -> Vec<u8> {
        if let Ok(Some(order)) = store::get("snapshot") {
            return act(&order).unwrap_or_else(String::into_bytes);
        }
        let tally = *tally();
        let load = if tally.batches > 0 { format!(" {}", tally.words()) } else { String::new() };
        format!("1 {}{load}", callbacks()).into_bytes()
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        if let Ok(Some(order)) = store::get("restore") {
            act(&order)?;
        }
        let text = String::from_utf8_lossy(&state);
        let mut words = text.split(' ');
        let count = words.next().filter(|version| *version == "1").and_then(|_| words.next()?.parse().ok());
        *callbacks() = count.ok_or_else(|| format!("this is not a state of mine: {text:?}"))?;
        if let Some(load) = Tally::parse(words) {
            *tally() = load;
        }
        Ok(())
    }
}

impl worker::Guest for Probe {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        match std::str::from_utf8(&task.payload) {
            Ok("who") => Ok(format!("{} {:?}", task.sender, task.epoch).into_bytes()),
            Ok(order) => act(order),
            Err(_) => Ok(task.payload),
        }
    }
}

export!(Probe);
