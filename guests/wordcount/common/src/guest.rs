//! The guest around the [`Job`]: the contract's exports call it, and the contract's imports are its [`Outside`].

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::config::Config;
use crate::corpus::{self, Chunk, CorpusError};
use crate::job::Job;
use crate::outside::{Entry, Expect, Level, Outside, StateError, TaskError};
use crate::release::Release;
use crate::task;

/// What wit-bindgen makes of the contract.
#[expect(missing_docs, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        world: "bellwether:runtime/stateful-service",
        path: "../../../wit",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "wordcount_common::guest::bindings",
    });
}

use bindings::bellwether::runtime::{cluster, state, workers};
use bindings::exports::bellwether::runtime::lifecycle::{DemotionReason, Leadership, Membership};
use bindings::exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use bindings::wasi::config::store;
use bindings::wasi::logging::logging;

/// Which version a component is.
pub trait Version {
    /// The version.
    const RELEASE: Release;
}

/// A component that is this version of the job.
pub struct Guest<V: Version>(PhantomData<V>);

thread_local! {
    /// The job of this instance. Callbacks never overlap, so it is never borrowed twice.
    static JOB: RefCell<Option<Job>> = const { RefCell::new(None) };
    /// The settings of this instance, read once: a component's configuration does not change while it lives.
    static CONFIG: RefCell<Option<Config>> = const { RefCell::new(None) };
}

fn settings() -> Result<Vec<(String, String)>, String> {
    store::get_all().map_err(|error| format!("the configuration cannot be read: {error:?}"))
}

fn with_job<V: Version, T>(call: impl FnOnce(&mut Job) -> Result<T, String>) -> Result<T, String> {
    JOB.with_borrow_mut(|job| {
        let job = match job {
            Some(job) => job,
            None => job.insert(Job::new(V::RELEASE, settings()?).map_err(|error| error.to_string())?),
        };
        call(job)
    })
}

fn folder() -> Result<String, String> {
    CONFIG.with_borrow_mut(|config| {
        let config = match config {
            Some(config) => config,
            None => config.insert(Config::from_pairs(settings()?).map_err(|error| error.to_string())?),
        };
        Ok(config.folder.clone())
    })
}

impl<V: Version> lifecycle::Guest for Guest<V> {
    fn on_elected(leadership: Leadership) -> Result<(), String> {
        with_job::<V, _>(|job| {
            job.elected(&mut Imports, leadership.epoch);
            Ok(())
        })
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        with_job::<V, _>(|job| {
            job.demoted();
            Ok(())
        })
    }

    fn on_members_changed(membership: Membership) -> Result<(), String> {
        with_job::<V, _>(|job| {
            let came = membership.joined.into_iter().chain(membership.changed).map(|member| member.id);
            job.members_changed(came, &membership.left);
            Ok(())
        })
    }
}

impl<V: Version> ticker::Guest for Guest<V> {
    fn on_tick() -> Result<(), String> {
        with_job::<V, _>(|job| job.tick(&mut Imports))
    }
}

impl<V: Version> handover::Guest for Guest<V> {
    fn snapshot() -> Vec<u8> {
        // A job that was never made has nothing to hand over.
        with_job::<V, _>(|job| Ok(job.snapshot())).unwrap_or_else(|_| crate::handover::encode(None))
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        with_job::<V, _>(|job| job.restore(&state))
    }
}

impl<V: Version> worker::Guest for Guest<V> {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        let folder = folder()?;
        task::perform(&task.payload, &V::RELEASE, |chunk| corpus::text(&folder, chunk))
    }
}

/// The contract's imports.
struct Imports;

impl Outside for Imports {
    fn get(&mut self, key: &str) -> Result<Option<Entry>, StateError> {
        let entry = state::get(key).map_err(state_error)?;
        Ok(entry.map(|entry| Entry { value: entry.value, version: entry.version }))
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<u32, StateError> {
        let expect = match expect {
            Expect::Anything => state::Expectation::Anything,
            Expect::Absent => state::Expectation::Absent,
            Expect::Version(version) => state::Expectation::Version(version),
        };
        state::put(key, value, expect).map_err(state_error)
    }

    fn delete(&mut self, key: &str) -> Result<(), StateError> {
        state::delete(key, state::Expectation::Anything).map_err(state_error)
    }

    fn list(&mut self, prefix: &str) -> Result<Vec<String>, StateError> {
        state::list(prefix).map_err(state_error)
    }

    fn scatter(&mut self, tasks: Vec<(String, Vec<u8>)>, timeout_ms: u32) -> Vec<Result<Vec<u8>, TaskError>> {
        let assignments: Vec<_> = tasks.into_iter().map(|(to, payload)| workers::Assignment { to, payload }).collect();
        let answers = workers::scatter(&assignments, timeout_ms);
        answers.into_iter().map(|answer| answer.map_err(task_error)).collect()
    }

    fn epoch(&mut self) -> Option<u64> {
        cluster::epoch()
    }

    fn files(&mut self, folder: &str) -> Result<Vec<(String, u64)>, CorpusError> {
        corpus::files(folder)
    }

    fn text(&mut self, folder: &str, chunk: &Chunk) -> Result<Vec<u8>, CorpusError> {
        corpus::text(folder, chunk)
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
        };
        logging::log(level, "wordcount", message);
    }
}

fn state_error(error: state::Error) -> StateError {
    use state::Error;
    match error {
        Error::NotLeader => StateError::NotLeader,
        Error::Conflict(version) => StateError::Conflict(version),
        Error::BadKey(why) => StateError::Failed(format!("bad key: {why}")),
        Error::TooLarge(limit) => StateError::Failed(format!("the value is larger than {limit} bytes")),
        Error::NotGranted(what) => StateError::Failed(format!("not granted: {what}")),
        Error::Unavailable(why) => StateError::Failed(format!("unavailable: {why}")),
        Error::Other(why) => StateError::Failed(why),
    }
}

fn task_error(error: workers::Error) -> TaskError {
    use workers::Error;
    match error {
        Error::NotLeader => TaskError::NotLeader,
        Error::UnknownMember => TaskError::Away("no such member".to_owned()),
        Error::Unreachable(how) => TaskError::Away(format!("unreachable: {how}")),
        Error::TimedOut => TaskError::Away("no answer in time".to_owned()),
        Error::Overloaded => TaskError::Overloaded,
        Error::StaleEpoch(epoch) => TaskError::Failed(format!("it has seen the newer epoch {epoch}")),
        Error::Failed(why) | Error::Other(why) => TaskError::Failed(why),
        Error::TooLarge(limit) => TaskError::Failed(format!("more than {limit} bytes")),
    }
}
