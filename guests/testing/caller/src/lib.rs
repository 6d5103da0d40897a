//! A guest that sends HTTP requests as it is told: `METHOD URL [BODY]`, in tasks, and at each tick by the setting `on-tick`. The
//! answer is the status and the body. `each ORDER` has every member do it, in a task; `hold ORDER` asks for more than it should
//! (`hold.rs`).
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({ world: "stateful-service", path: "../../../wit", generate_all });

mod hold;

use std::time::Duration;

use bellwether::runtime::{cluster, workers};
use exports::bellwether::runtime::{handover, lifecycle, ticker, worker};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

struct Caller;

fn act(order: &str) -> Result<String, String> {
    if let Some(order) = order.strip_prefix("each ") {
        let assignment = |to: cluster::Member| workers::Assignment { to: to.id, payload: order.as_bytes().to_vec() };
        let answers = workers::scatter(&cluster::members().into_iter().map(assignment).collect::<Vec<_>>(), 2_000);
        return Ok(answers
            .iter()
            .map(|answer| format!("{:?}; ", answer.as_ref().map(|it| String::from_utf8_lossy(it))))
            .collect());
    }
    if let Some(order) = order.strip_prefix("hold ") {
        return hold::act(order);
    }
    let mut words = order.splitn(3, ' ');
    let (Some(method), Some(url)) = (words.next(), words.next()) else {
        return Err(format!("not an order: {order:?}"));
    };
    // `x*N`: the letter x, N times.
    let body = words.next().unwrap_or_default();
    let body = match body.split_once('*').map(|(letter, times)| (letter, times.parse())) {
        Some((letter, Ok(times))) => letter.repeat(times),
        _ => body.to_owned(),
    };
    let answer = request::send(method, url, &[("x-asked-by", "caller")], body.as_bytes(), Duration::from_secs(60))?;
    Ok(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

fn ordered(place: &str) -> Result<(), String> {
    let Ok(Some(order)) = store::get(place) else { return Ok(()) };
    match act(&order) {
        Ok(answer) => log(Level::Info, place, &answer),
        Err(why) => log(Level::Info, place, &format!("failed: {why}")),
    }
    Ok(())
}

impl lifecycle::Guest for Caller {
    fn on_elected(_leadership: lifecycle::Leadership) -> Result<(), String> {
        ordered("on-elected")
    }

    fn on_demoted(_reason: lifecycle::DemotionReason) -> Result<(), String> {
        ordered("on-demoted")
    }

    fn on_members_changed(_membership: lifecycle::Membership) -> Result<(), String> {
        Ok(())
    }
}

impl ticker::Guest for Caller {
    fn on_tick() -> Result<(), String> {
        ordered("on-tick")
    }
}

impl worker::Guest for Caller {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        let order = String::from_utf8(task.payload).map_err(|error| error.to_string())?;
        act(&order).map(String::into_bytes)
    }
}

impl handover::Guest for Caller {
    fn snapshot() -> Vec<u8> {
        Vec::new()
    }

    fn restore(_state: Vec<u8>) -> Result<(), String> {
        ordered("restore")
    }
}

export!(Caller);
