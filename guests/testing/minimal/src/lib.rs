//! The least guest there can be.

wit_bindgen::generate!({ world: "guest", path: "../../../wit", generate_all });

use exports::bellwether::runtime::lifecycle::{DemotionReason, Guest, Leadership, Membership};

struct Minimal;

impl Guest for Minimal {
    fn on_elected(_leadership: Leadership) -> Result<(), String> {
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(_membership: Membership) -> Result<(), String> {
        Ok(())
    }
}

export!(Minimal);
