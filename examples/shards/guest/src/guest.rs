//! The guest: on the leader it keeps the assignment, on every node it follows it.

wit_bindgen::generate!({
    inline: "
        package example:shards;
        world shards {
            include bellwether:runtime/guest@0.1.0;
            export bellwether:runtime/ticker@0.1.0;
            export bellwether:runtime/observer@0.1.0;
        }
    ",
    path: "../../../wit",
    generate_all,
});

use std::cell::RefCell;
use std::collections::BTreeSet;

use bellwether::runtime::cluster;
use bellwether::runtime::state::{self, Expectation};
use exports::bellwether::runtime::lifecycle::{DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::observer::Change;
use exports::bellwether::runtime::{lifecycle, observer, ticker};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

use crate::assign;

const KEY: &str = "assignment";

struct Shards;

#[derive(Default)]
struct Known {
    leading: bool,
    members: BTreeSet<String>,
    /// Ticks until the assignment is looked at, if it may not be what it should be.
    due: Option<u32>,
    watching: bool,
    serves: BTreeSet<usize>,
}

thread_local! {
    // An instance has one thread, and its callbacks come one at a time.
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn number(key: &str) -> Result<u32, String> {
    let value = store::get(key).map_err(|error| format!("the setting {key} cannot be read: {error:?}"))?;
    let value = value.and_then(|value| value.parse().ok()).filter(|value| (1..=10_000).contains(value));
    value.ok_or_else(|| format!("the setting {key} is not a number from 1 to 10000"))
}

impl Known {
    /// Writes what should be, if that is not what is. What fails is tried again at the next tick, from what is there then.
    fn settle(&mut self) -> Result<(), String> {
        let told = |error: state::Error| format!("the assignment: {error:?}");
        let (before, expect) = match state::get(KEY).map_err(told)? {
            Some(entry) => {
                (assign::parse(&String::from_utf8_lossy(&entry.value))?, Expectation::Version(entry.version))
            }
            None => (vec![None; number("shards")? as usize], Expectation::Absent),
        };
        let members: Vec<String> = self.members.iter().cloned().collect();
        // With nobody there for a moment, nothing would be gained by taking everything away.
        let after = if members.is_empty() { before.clone() } else { assign::rebalance(&before, &members) };
        if after != before {
            state::put(KEY, assign::write(&after).as_bytes(), expect).map_err(told)?;
            let moved = before.iter().zip(&after).filter(|(before, after)| before.is_some() && before != after).count();
            log(Level::Info, "shards", &format!("{} members, {moved} of {} shards moved", members.len(), after.len()));
        }
        self.due = None;
        Ok(())
    }

    fn follow(&mut self, assignment: &[u8]) -> Result<(), String> {
        let owners = assign::parse(&String::from_utf8_lossy(assignment))?;
        let this = cluster::this().id;
        let mine = owners.iter().enumerate().filter(|(_, owner)| owner.as_ref() == Some(&this)).map(|(shard, _)| shard);
        let mine: BTreeSet<usize> = mine.collect();
        if mine != self.serves {
            let numbers: Vec<String> = mine.iter().map(ToString::to_string).collect();
            log(Level::Info, "serves", &numbers.join(" "));
            self.serves = mine;
        }
        Ok(())
    }
}

impl lifecycle::Guest for Shards {
    fn on_elected(_leadership: Leadership) -> Result<(), String> {
        let quiet = number("quiet_ticks")?;
        KNOWN.with_borrow_mut(|known| (known.leading, known.due) = (true, Some(quiet)));
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| known.leading = false);
        Ok(())
    }

    fn on_members_changed(change: Membership) -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            known.members.extend(change.joined.into_iter().map(|member| member.id));
            for id in &change.left {
                known.members.remove(id);
            }
            // Who has just gone may be back in a moment, and who has just come may not be the last.
            known.due = Some(number("quiet_ticks")?);
            Ok(())
        })
    }
}

impl ticker::Guest for Shards {
    fn on_tick() -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            if !known.watching {
                state::watch(KEY).map_err(|error| format!("the assignment cannot be watched: {error:?}"))?;
                known.watching = true;
            }
            match known.due {
                Some(0) if known.leading => known.settle(),
                Some(ticks) => {
                    known.due = Some(ticks.saturating_sub(1));
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }
}

impl observer::Guest for Shards {
    fn on_state_changed(change: Change) -> Result<(), String> {
        let Some(entry) = change.entry else { return Ok(()) };
        KNOWN.with_borrow_mut(|known| known.follow(&entry.value))
    }
}

export!(Shards);
