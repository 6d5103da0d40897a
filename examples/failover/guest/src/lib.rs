//! A controller that has a standby take over when the primary fails. `README.md` beside this says what it promises.
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({
    inline: "
        package example:failover;
        world failover {
            include bellwether:runtime/guest@0.1.0;
            export bellwether:runtime/ticker@0.1.0;
        }
    ",
    path: "../../../wit",
    generate_all,
});

use std::cell::RefCell;
use std::time::Duration;

use bellwether::runtime::state::{self, Expectation};
use exports::bellwether::runtime::lifecycle::{DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::{lifecycle, ticker};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

const KEY: &str = "primary";
const PATIENCE: Duration = Duration::from_millis(500);

struct Failover;

#[derive(Default)]
struct Known {
    epoch: u64,
    /// How often in a row the primary has failed.
    failures: u32,
}

thread_local! {
    // An instance has one thread, and its callbacks come one at a time.
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What the state holds: `CHANGE SERVER called`, or `CHANGE SERVER calling` while it is not known whether the hook has heard.
struct Primary {
    change: u64,
    server: String,
    called: bool,
}

impl Primary {
    fn parse(value: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(value);
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            [change, server, called @ ("called" | "calling")] => {
                let change = change.parse().map_err(|_| format!("the state holds {text:?}"))?;
                Ok(Self { change, server: server.to_owned(), called: called == "called" })
            }
            _ => Err(format!("the state holds {text:?}")),
        }
    }

    fn write(&self) -> Vec<u8> {
        format!("{} {} {}", self.change, self.server, if self.called { "called" } else { "calling" }).into_bytes()
    }
}

fn setting(key: &str) -> Result<String, String> {
    let value = store::get(key).map_err(|error| format!("the setting {key} cannot be read: {error:?}"))?;
    value.ok_or_else(|| format!("the setting {key} is missing"))
}

fn save(primary: &Primary, expect: Expectation) -> Result<u32, String> {
    state::put(KEY, &primary.write(), expect).map_err(|error| format!("the primary was not written down: {error:?}"))
}

/// Tells the hook who is primary. It may hear the same change twice, and knows it by its number; it refuses an epoch lower than the
/// highest it has seen, so that a leader of old cannot undo what its successor did.
fn call(primary: &Primary, epoch: u64) -> Result<(), String> {
    let (epoch, change) = (epoch.to_string(), primary.change.to_string());
    let headers = [("bellwether-epoch", epoch.as_str()), ("idempotency-key", change.as_str())];
    let answer = request::send("POST", &setting("hook")?, &headers, primary.server.as_bytes(), PATIENCE)?;
    if answer.status == 200 {
        return Ok(());
    }
    Err(format!("the hook answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

fn is_well(server: &str) -> bool {
    request::send("GET", &format!("{server}/health"), &[], b"", PATIENCE).is_ok_and(|answer| answer.status == 200)
}

impl Known {
    fn watch(&mut self) -> Result<(), String> {
        let servers = setting("servers")?;
        let servers: Vec<&str> = servers.split(' ').collect();
        let first =
            servers.first().copied().filter(|server| !server.is_empty()).ok_or("the setting servers is empty")?;
        let held = state::get(KEY).map_err(|error| format!("the primary cannot be read: {error:?}"))?;
        let (primary, expect) = match held {
            Some(entry) => (Primary::parse(&entry.value)?, Expectation::Version(entry.version)),
            None => (Primary { change: 1, server: first.to_owned(), called: false }, Expectation::Absent),
        };
        if !primary.called {
            // Written down first: if this leader dies after the call, its successor makes the same one again.
            let version = match expect {
                Expectation::Absent => save(&primary, Expectation::Absent)?,
                Expectation::Version(version) => version,
                Expectation::Anything => return Err("an entry without a version".to_owned()),
            };
            call(&primary, self.epoch)?;
            log(Level::Info, "failover", &format!("change {}: {} is primary", primary.change, primary.server));
            return save(&Primary { called: true, ..primary }, Expectation::Version(version)).map(drop);
        }
        if is_well(&primary.server) {
            self.failures = 0;
            return Ok(());
        }
        self.failures += 1;
        let patience: u32 = setting("failures")?.parse().map_err(|_| "the setting failures is no number")?;
        log(Level::Warn, "failover", &format!("{} does not answer, {} of {patience}", primary.server, self.failures));
        if self.failures < patience {
            return Ok(());
        }
        let standby = servers.iter().find(|server| **server != primary.server && is_well(server));
        let standby = standby.ok_or("the primary has failed, and no standby is well")?;
        self.failures = 0;
        // The call follows at the next tick, from what is written here.
        let next = Primary { change: primary.change + 1, server: (*standby).to_owned(), called: false };
        save(&next, expect).map(drop)
    }
}

impl lifecycle::Guest for Failover {
    fn on_elected(leadership: Leadership) -> Result<(), String> {
        setting("hook")?;
        KNOWN.with_borrow_mut(|known| *known = Known { epoch: leadership.epoch, failures: 0 });
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(_change: Membership) -> Result<(), String> {
        Ok(())
    }
}

impl ticker::Guest for Failover {
    fn on_tick() -> Result<(), String> {
        KNOWN.with_borrow_mut(Known::watch)
    }
}

export!(Failover);
