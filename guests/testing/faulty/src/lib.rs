//! A release that takes over well and fails at its first tick: what a probation is for.

wit_bindgen::generate!({ world: "stateful-service", path: "../../../wit", generate_all });

use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};

struct Faulty;

impl lifecycle::Guest for Faulty {
    fn on_elected(_leadership: lifecycle::Leadership) -> Result<(), String> {
        Ok(())
    }

    fn on_demoted(_reason: lifecycle::DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(_membership: lifecycle::Membership) -> Result<(), String> {
        Ok(())
    }
}

impl worker::Guest for Faulty {
    fn handle(_task: worker::Task) -> Result<Vec<u8>, String> {
        Err("this release does no work".to_owned())
    }
}

impl ticker::Guest for Faulty {
    fn on_tick() -> Result<(), String> {
        panic!("a fault that shows only when the release serves")
    }
}

impl handover::Guest for Faulty {
    fn snapshot() -> Vec<u8> {
        Vec::new()
    }

    fn restore(_state: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}

export!(Faulty);
