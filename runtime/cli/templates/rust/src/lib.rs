//! What a node of the group does: the leader hands out one job at each tick, to one member after the other, and writes down how far
//! it is; the members do the jobs. What each function is for is told in `wit/deps/bellwether-runtime`.

wit_bindgen::generate!({ world: "guest", path: "wit", generate_all });

use std::cell::RefCell;

use bellwether::runtime::{cluster, state, workers};
use exports::bellwether::runtime::lifecycle::{Cause, DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use wasi::logging::logging::{Level, log};

const GREETING: &str = "hello";

struct Guest;

/// How far the jobs are: what the key `next` of the group's state holds, and its version; none if there is no such key yet.
#[derive(Clone, Copy)]
struct Progress {
    next: u64,
    version: Option<u32>,
}

/// What an instance knows. It has one thread, and its callbacks come one at a time.
#[derive(Default)]
struct Known {
    members: Vec<String>,
    turn: usize,
    progress: Option<Progress>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn load() -> Result<Progress, String> {
    let entry = state::get("next").map_err(|error| format!("the progress cannot be read: {error}"))?;
    let Some(entry) = entry else { return Ok(Progress { next: 1, version: None }) };
    let next = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    Ok(Progress { next: next.ok_or("the key `next` holds no number")?, version: Some(entry.version) })
}

/// Writes the progress down; gives its new version. It is refused if another leader has written in between.
fn save(next: u64, last: Option<u32>) -> Result<u32, String> {
    let expect = last.map_or(state::Expectation::Absent, state::Expectation::Version);
    state::put("next", next.to_string().as_bytes(), expect)
        .map_err(|error| format!("the progress was not written down: {error}"))
}

impl ticker::Guest for Guest {
    fn on_tick() -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            if known.members.is_empty() {
                return Ok(());
            }
            // Taken out: should something fail, the next tick reads what is there.
            let Progress { next: job, version } = known.progress.take().map_or_else(load, Ok)?;
            let member = &known.members[known.turn % known.members.len()];
            known.turn += 1;
            match workers::send(member, job.to_string().as_bytes(), 1000) {
                Ok(answer) => {
                    log(Level::Info, "", &format!("job {job}: {}", String::from_utf8_lossy(&answer)));
                    let version = save(job + 1, version)?;
                    known.progress = Some(Progress { next: job + 1, version: Some(version) });
                }
                Err(error) => {
                    // It may have been done or not, so jobs must bear to be done twice.
                    log(Level::Warn, "", &format!("job {job} by {member} came to nothing: {error}"));
                    known.progress = Some(Progress { next: job, version });
                }
            }
            Ok(())
        })
    }
}

impl worker::Guest for Guest {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        let job = String::from_utf8(task.payload).ok().and_then(|text| text.parse::<u64>().ok());
        job.ok_or("not a job: a number is wanted")?;
        Ok(format!("{GREETING} from {}", cluster::this().id).into_bytes())
    }
}

impl lifecycle::Guest for Guest {
    fn on_elected(leadership: Leadership) -> Result<(), String> {
        log(Level::Info, "", &format!("leads, epoch {}", leadership.epoch));
        if leadership.cause != Cause::Swap {
            KNOWN.with_borrow_mut(|known| known.progress = None);
        }
        Ok(())
    }

    fn on_demoted(reason: DemotionReason) -> Result<(), String> {
        log(Level::Info, "", &format!("leads no more: {reason:?}"));
        Ok(())
    }

    fn on_members_changed(change: Membership) -> Result<(), String> {
        KNOWN.with_borrow_mut(|known| {
            known.members.retain(|id| !change.left.contains(id));
            known.members.extend(change.joined.into_iter().map(|member| member.id));
        });
        Ok(())
    }
}

impl handover::Guest for Guest {
    // Begins with the version of this format, so that later releases can tell it from theirs.
    fn snapshot() -> Vec<u8> {
        let progress = KNOWN.with_borrow(|known| known.progress);
        let text = match progress {
            None => "1".to_owned(),
            Some(Progress { next, version: None }) => format!("1 {next}"),
            Some(Progress { next, version: Some(version) }) => format!("1 {next} {version}"),
        };
        text.into_bytes()
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        let text = String::from_utf8(state).map_err(|error| error.to_string())?;
        let progress = match *text.split(' ').collect::<Vec<_>>() {
            ["1"] => None,
            ["1", next] => Some((next.parse().ok(), None)),
            ["1", next, version] => Some((next.parse().ok(), version.parse().ok())),
            _ => return Err(format!("not a state of version 1: {text}")),
        };
        KNOWN.with_borrow_mut(|known| {
            known.progress = progress.and_then(|(next, version)| Some(Progress { next: next?, version }));
        });
        Ok(())
    }
}

export!(Guest);
