//! The sums, in Rust. What they are is in `../README.md`; what each function is for, in `../../wit`.

wit_bindgen::generate!({ world: "stateful-service", path: "../../wit", generate_all });

mod progress;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bellwether::runtime::types::Member;
use bellwether::runtime::workers::Assignment;
use bellwether::runtime::{cluster, state, workers};
use exports::bellwether::runtime::lifecycle::{Cause, DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use progress::{MOST_JOBS, MOST_SQUARE, Progress, number};
use wasi::config::store;
use wasi::logging::logging::{self, Level};

struct Sums;

/// What an instance knows.
#[derive(Default)]
struct Known {
    leading: bool,
    progress: Option<Progress>,
    members: BTreeMap<String, usize>,
    settings: Settings,
}

#[derive(Default)]
struct Settings {
    until: u64,
    save_every: u64,
    timeout_ms: u32,
}

thread_local! {
    // An instance has one thread, and its callbacks come one at a time.
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn log(level: Level, message: &str) {
    logging::log(level, "sums", message);
}

fn setting(key: &str, default: u64, most: u64) -> Result<u64, String> {
    let text = store::get(key).map_err(|error| match error {
        store::Error::Upstream(why) => format!("the settings cannot be read: upstream: {why}"),
        store::Error::Io(why) => format!("the settings cannot be read: io: {why}"),
    })?;
    let Some(text) = text else { return Ok(default) };
    number(&text, 1, most)
        .ok_or_else(|| format!("the setting {key} is \"{text}\": a number from 1 to {most} is wanted"))
}

impl Settings {
    fn read() -> Result<Self, String> {
        Ok(Self {
            until: setting("until", MOST_JOBS, MOST_JOBS)?,
            save_every: setting("save_every", 1, MOST_JOBS)?,
            timeout_ms: u32::try_from(setting("timeout_ms", 1000, 60_000)?).map_err(|error| error.to_string())?,
        })
    }
}

fn of_state(error: &state::Error) -> String {
    match error {
        state::Error::NotLeader => "not-leader".into(),
        state::Error::Conflict(None) => "conflict: none".into(),
        state::Error::Conflict(Some(version)) => format!("conflict: {version}"),
        state::Error::BadKey(why) => format!("bad-key: {why}"),
        state::Error::TooLarge(limit) => format!("too-large: {limit}"),
        state::Error::NotGranted(why) => format!("not-granted: {why}"),
        state::Error::Unavailable(why) => format!("unavailable: {why}"),
        state::Error::Other(why) => format!("other: {why}"),
    }
}

fn of_workers(error: &workers::Error) -> String {
    match error {
        workers::Error::UnknownMember => "unknown-member".into(),
        workers::Error::Unreachable(why) => format!("unreachable: {why}"),
        workers::Error::TimedOut => "timed-out".into(),
        workers::Error::Overloaded => "overloaded".into(),
        workers::Error::StaleEpoch(epoch) => format!("stale-epoch: {epoch}"),
        workers::Error::Failed(why) => format!("failed: {why}"),
        workers::Error::TooLarge(limit) => format!("too-large: {limit}"),
        workers::Error::NotLeader => "not-leader".into(),
        workers::Error::Other(why) => format!("other: {why}"),
    }
}

fn load() -> Result<Progress, String> {
    let entry = state::get("total").map_err(|error| format!("the total cannot be read: {}", of_state(&error)))?;
    match entry {
        None => Ok(Progress::default()),
        Some(entry) => Progress::from_state(&entry.value, entry.version)
            .ok_or_else(|| "the total in the state is not of version 1".to_owned()),
    }
}

fn capacity(member: &Member) -> usize {
    let label = member.labels.iter().find(|(name, _)| name == "capacity");
    match label.map(|(_, value)| value.as_bytes()) {
        Some([digit @ b'0'..=b'9']) => usize::from(digit - b'0'),
        _ => 1,
    }
}

impl Known {
    fn tick(&mut self) -> Result<(), String> {
        let mut progress = match self.progress.take() {
            Some(progress) => progress,
            None => load()?,
        };
        let takers = self.members.iter().flat_map(|(id, capacity)| std::iter::repeat_n(id, *capacity));
        let jobs = progress.again.iter().copied().chain(progress.next..=self.settings.until);
        let given: Vec<(u64, &String)> = jobs.zip(takers).collect();
        if !given.is_empty() {
            hand_out(&mut progress, &given, self.settings.timeout_ms);
        }
        let finished = progress.next > self.settings.until && progress.again.is_empty();
        if progress.unsaved >= self.settings.save_every || (progress.unsaved > 0 && finished) {
            // Should it fail, what is there is unknown: the next tick reads it.
            let saved = state::put("total", &progress.to_state(), progress.expectation());
            let version = saved.map_err(|error| format!("the total was not saved: {}", of_state(&error)))?;
            progress.version = Some(version);
            progress.unsaved = 0;
            if finished {
                log(Level::Info, &format!("finished: {} jobs, total {}", self.settings.until, progress.total));
            }
        }
        self.progress = Some(progress);
        Ok(())
    }
}

fn hand_out(progress: &mut Progress, given: &[(u64, &String)], timeout_ms: u32) {
    let work: Vec<Assignment> = given
        .iter()
        .map(|(job, to)| Assignment { to: (*to).clone(), payload: format!("square {job}").into_bytes() })
        .collect();
    let answers = workers::scatter(&work, timeout_ms);
    progress.again.drain(..given.len().min(progress.again.len()));
    for ((job, member), answer) in given.iter().zip(answers) {
        progress.next = progress.next.max(job + 1);
        let square = answer.map_err(|error| of_workers(&error)).and_then(|answer| {
            let square = std::str::from_utf8(&answer).ok().and_then(|text| number(text, 0, MOST_SQUARE));
            square.ok_or_else(|| "not an answer".to_owned())
        });
        match square {
            Ok(square) => progress.total += square,
            Err(why) => {
                log(Level::Warn, &format!("job {job} by {member}: {why}"));
                progress.again.push(*job);
            }
        }
    }
    progress.again.sort_unstable();
    progress.unsaved += 1;
    let jobs: Vec<String> = given.iter().map(|(job, _)| job.to_string()).collect();
    log(Level::Debug, &format!("jobs {}: total {}", jobs.join(" "), progress.total));
}

impl lifecycle::Guest for Sums {
    fn on_elected(leadership: Leadership) -> Result<(), String> {
        let settings = Settings::read()?;
        let cause = match leadership.cause {
            Cause::Election => "election",
            Cause::Swap => "swap",
            Cause::Restart => "restart",
        };
        KNOWN.with_borrow_mut(|known| {
            known.settings = settings;
            known.leading = true;
            if leadership.cause != Cause::Swap {
                known.progress = None;
            }
        });
        log(Level::Info, &format!("{} leads, epoch {}, by {cause}", cluster::this().id, leadership.epoch));
        Ok(())
    }

    fn on_demoted(reason: DemotionReason) -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            known.leading = false;
            known.progress = None;
        });
        let reason = match reason {
            DemotionReason::Resigned => "resigned",
            DemotionReason::LeaseLost => "lease-lost",
            DemotionReason::SessionLost => "session-lost",
            DemotionReason::Superseded => "superseded",
            DemotionReason::Stopping => "stopping",
            DemotionReason::Failed(why) => &format!("failed: {why}"),
        };
        log(Level::Info, &format!("demoted: {reason}"));
        Ok(())
    }

    fn on_members_changed(change: Membership) -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            for member in change.joined.iter().chain(&change.changed) {
                known.members.insert(member.id.clone(), capacity(member));
            }
            for id in &change.left {
                known.members.remove(id);
            }
            let mut list: Vec<String> = known.members.iter().map(|(id, capacity)| format!("{id}*{capacity}")).collect();
            if list.is_empty() {
                list.push("none".into());
            }
            log(Level::Info, &format!("members, version {}: {}", change.version, list.join(" ")));
        });
        Ok(())
    }
}

impl ticker::Guest for Sums {
    fn on_tick() -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| if known.leading { known.tick() } else { Ok(()) })
    }
}

impl worker::Guest for Sums {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        let job = std::str::from_utf8(&task.payload).ok().and_then(|text| text.strip_prefix("square "));
        let job = job
            .and_then(|text| number(text, 0, u32::MAX.into()))
            .ok_or("not a job: \"square N\" is wanted, N from 0 to 4294967295")?;
        let term = task.epoch.map_or_else(|| "no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
        log(Level::Debug, &format!("square {job} for {}, {term}", task.sender));
        Ok((job * job).to_string().into_bytes())
    }
}

impl handover::Guest for Sums {
    fn snapshot() -> Vec<u8> {
        KNOWN.with_borrow(|known| known.progress.as_ref().map_or_else(|| b"1".to_vec(), Progress::to_handover))
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        let progress = match state.as_slice() {
            b"1" => None,
            state => Some(Progress::from_handover(state).ok_or("the state handed over is not of version 1")?),
        };
        KNOWN.with_borrow_mut(|known| known.progress = progress);
        Ok(())
    }
}

export!(Sums);
