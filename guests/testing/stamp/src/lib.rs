//! A guest that says when it was told of members, for the benchmarks: `NANOSECONDS JOINED`, by the wall clock, the only one that
//! guests of several processes share.

wit_bindgen::generate!({ world: "guest", path: "../../../wit", generate_all });

use std::time::SystemTime;

use exports::bellwether::runtime::lifecycle::{DemotionReason, Guest, Leadership, Membership};
use wasi::logging::logging::{Level, log};

struct Stamp;

impl Guest for Stamp {
    fn on_elected(_leadership: Leadership) -> Result<(), String> {
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(membership: Membership) -> Result<(), String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
        log(Level::Info, "members", &format!("{} {}", now.as_nanos(), membership.joined.len()));
        Ok(())
    }
}

export!(Stamp);
