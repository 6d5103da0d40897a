//! A guest for the benchmarks. It says when it was told of members, `NANOSECONDS JOINED`, by the wall clock, the only one that guests
//! of several processes share; it answers tasks with their payload; it carries a state over swaps, `state-bytes` of its
//! configuration; and as the leader it runs [`errands`].

mod errands;

wit_bindgen::generate!({ world: "stateful-service", path: "../../../wit", generate_all });

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

struct Stamp;

/// What swaps carry over; made when it is asked for first.
static STATE: Mutex<Option<Vec<u8>>> = Mutex::new(None);

impl lifecycle::Guest for Stamp {
    fn on_elected(_leadership: lifecycle::Leadership) -> Result<(), String> {
        Ok(())
    }

    fn on_demoted(_reason: lifecycle::DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(membership: lifecycle::Membership) -> Result<(), String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
        log(Level::Info, "members", &format!("{} {}", now.as_nanos(), membership.joined.len()));
        Ok(())
    }
}

impl worker::Guest for Stamp {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        Ok(task.payload)
    }
}

impl ticker::Guest for Stamp {
    fn on_tick() -> Result<(), String> {
        errands::next()
    }
}

impl handover::Guest for Stamp {
    fn snapshot() -> Vec<u8> {
        let bytes = store::get("state-bytes").ok().flatten().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        state.get_or_insert_with(|| vec![7; bytes]).clone()
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok(())
    }
}

export!(Stamp);
