//! A release with one fault. Where it fails and how stands in its configuration: `fault` is a place (a callback's name, `restore` or
//! `handle`) and a manner: `trap`, `error`, `loop` or `memory`. Otherwise it takes over well and traps at its first tick: what a
//! probation is for.

wit_bindgen::generate!({ world: "stateful-service", path: "../../../wit", generate_all });

use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use wasi::config::store;

struct Faulty;

/// Fails if this is the place.
fn come_to(place: &str) -> Result<(), String> {
    let fault = store::get("fault").ok().flatten().unwrap_or_else(|| "on-tick trap".to_owned());
    match fault.split_once(' ') {
        Some((at, how)) if at == place => fail(how),
        _ => Ok(()),
    }
}

fn fail(how: &str) -> Result<(), String> {
    match how {
        "trap" => panic!("a fault that shows only when the release serves"),
        "error" => Err("this release cannot".to_owned()),
        "loop" => {
            let mut spins = 0_u64;
            loop {
                spins = std::hint::black_box(spins.wrapping_add(1));
            }
        }
        "memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ => Err(format!("no such fault: {how}")),
    }
}

impl lifecycle::Guest for Faulty {
    fn on_elected(_leadership: lifecycle::Leadership) -> Result<(), String> {
        come_to("on-elected")
    }

    fn on_demoted(_reason: lifecycle::DemotionReason) -> Result<(), String> {
        come_to("on-demoted")
    }

    fn on_members_changed(_membership: lifecycle::Membership) -> Result<(), String> {
        come_to("on-members-changed")
    }
}

impl worker::Guest for Faulty {
    fn handle(_task: worker::Task) -> Result<Vec<u8>, String> {
        come_to("handle")?;
        Err("this release does no work".to_owned())
    }
}

impl ticker::Guest for Faulty {
    fn on_tick() -> Result<(), String> {
        come_to("on-tick")
    }
}

impl handover::Guest for Faulty {
    fn snapshot() -> Vec<u8> {
        Vec::new()
    }

    fn restore(_state: Vec<u8>) -> Result<(), String> {
        come_to("restore")
    }
}

export!(Faulty);
