//! A scheduler of which one runs, wherever it is. `README.md` beside this says what it promises.
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({
    inline: "
        package example:scheduler;
        world scheduler {
            include bellwether:runtime/guest@0.1.0;
            export bellwether:runtime/ticker@0.1.0;
        }
    ",
    path: "../../../wit",
    generate_all,
});

mod run;

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime};

use bellwether::runtime::state::{self, Expectation};
use exports::bellwether::runtime::lifecycle::{DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::{lifecycle, ticker};
use run::{Job, Last, Stage};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

struct Scheduler;

fn setting(key: &str, default: &str) -> Result<String, String> {
    let value = store::get(key).map_err(|error| format!("the setting {key} cannot be read: {error:?}"))?;
    Ok(value.unwrap_or_else(|| default.to_owned()))
}

fn milliseconds() -> Result<u64, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
    u64::try_from(now.as_millis()).map_err(|error| error.to_string())
}

/// Does what is due of one job: at most one run.
fn attend(job: &Job) -> Result<(), String> {
    let key = format!("job/{}", job.name);
    let told = |error: state::Error| format!("job {}: {error:?}", job.name);
    let (last, expect) = match state::get(&key).map_err(told)? {
        Some(entry) => (Some(Last::parse(&entry.value)?), Expectation::Version(entry.version)),
        None => (None, Expectation::Absent),
    };
    if let Some(Last { slot, stage: Stage::Claimed }) = last {
        // Whoever claimed it is gone, or never heard that it had the claim. Whether anything was done is not known, so nothing is
        // done again: that would be twice.
        log(Level::Warn, "scheduler", &format!("{} {slot} was interrupted", job.name));
        state::put(&format!("interrupted/{}-{slot}", job.name), b"", Expectation::Anything).map_err(told)?;
        let closed = Last { slot, stage: Stage::Interrupted };
        return state::put(&key, closed.to_string().as_bytes(), expect).map(drop).map_err(told);
    }
    let slot = milliseconds()? / job.every_ms;
    if last.is_some_and(|last| slot <= last.slot) {
        return Ok(());
    }
    // The claim: of all who try, whenever and wherever, one has it, for the record's version is what this leader has read.
    let claim = Last { slot, stage: Stage::Claimed };
    let version = state::put(&key, claim.to_string().as_bytes(), expect).map_err(told)?;
    perform(job, slot)?;
    let done = Last { slot, stage: Stage::Done };
    state::put(&key, done.to_string().as_bytes(), Expectation::Version(version)).map_err(told)?;
    log(Level::Info, "scheduler", &format!("{} {slot} is done", job.name));
    Ok(())
}

/// The run itself: it takes a while, and then its effect is seen outside of the cluster, where nothing can be taken back.
fn perform(job: &Job, slot: u64) -> Result<(), String> {
    let work: u64 = setting("work_ms", "0")?.parse().map_err(|_| "the setting work_ms is no number")?;
    std::thread::sleep(Duration::from_millis(work));
    let name = format!("/ledger/{}", job.name);
    let ledger = OpenOptions::new().append(true).create(true).open(&name);
    let written = ledger.and_then(|mut ledger| ledger.write_all(format!("{slot}\n").as_bytes()));
    written.map_err(|error| format!("{name}: {error}"))
}

impl lifecycle::Guest for Scheduler {
    fn on_elected(leadership: Leadership) -> Result<(), String> {
        // A setting that makes no sense is said now, not at the first tick.
        let jobs = run::jobs(&setting("jobs", "")?)?;
        log(Level::Info, "scheduler", &format!("epoch {}, {} jobs", leadership.epoch, jobs.len()));
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(_change: Membership) -> Result<(), String> {
        Ok(())
    }
}

impl ticker::Guest for Scheduler {
    fn on_tick() -> Result<(), String> {
        run::jobs(&setting("jobs", "")?)?.iter().try_for_each(attend)
    }
}

export!(Scheduler);
