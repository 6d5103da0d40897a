//! Single keys from a terminal, as they are pressed, for `bellwether dev`.

use std::io::{self, IsTerminal, Read};
use std::sync::{Mutex, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};
use crate::node::Order;

const HELP: &str = "keys: k kills the leader, r has it resign, a adds a node, d removes one, b builds and swaps, q quits, h shows this";

/// Keys that were pressed and not carried out yet; more are lost.
const WAITING: usize = 16;

/// How the terminal was set before; none if it is set so now. Of the process, for there is one standard input, and a second signal ends
/// the process from another thread.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal gives single keys until this is dropped, be it by a panic.
pub struct Keys {
    orders: Option<mpsc::Receiver<Order>>,
}

impl Keys {
    /// What the keys ask for; once.
    pub fn orders(&mut self) -> Option<mpsc::Receiver<Order>> {
        self.orders.take()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        restore();
    }
}

/// Sets the terminal as it was. A program that ends without a word to this has to call it.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Takes keys from now on, if there is a terminal and this process is in its foreground: reading it from behind would stop the process.
pub fn listen() -> Result<Option<Keys>, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
        return Ok(None);
    }
    let failed =
        |error: io::Error| Failure::new(Exit::Local, "the terminal cannot be set to give single keys").why(error);
    let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
    let (sender, orders) = mpsc::channel(WAITING);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
    // From here on, whatever happens sets it back.
    let keys = Keys { orders: Some(orders) };
    set(&before).map_err(failed)?;
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).map_err(failed)?;
    tokio::spawn(async move {
        // A shell that had stopped us sets the terminal to its own liking.
        while continued.recv().await.is_some() {
            if BEFORE.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                let _ = set(&before);
            }
        }
    });
    // It waits in a read, and ends with the process.
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || read(&sender)).map_err(failed)?;
    tracing::info!("{HELP}");
    Ok(Some(keys))
}

/// Single keys, not shown. Signals (Ctrl-C, Ctrl-Z) and line ends in what is written stay as they are.
fn set(before: &Termios) -> io::Result<()> {
    let mut single = before.clone();
    single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    Ok(tcsetattr(io::stdin(), OptionalActions::Now, &single)?)
}

fn read(orders: &mpsc::Sender<Order>) {
    let mut key = [0];
    while let Ok(1) = io::stdin().lock().read(&mut key) {
        match order(key[0]) {
            Some(order) => {
                if let Err(mpsc::error::TrySendError::Closed(_)) = orders.try_send(order) {
                    return;
                }
            }
            None if key[0].is_ascii_graphic() => tracing::info!("{HELP}"),
            None => {}
        }
    }
}

fn order(key: u8) -> Option<Order> {
    Some(match key {
        b'k' => Order::Kill,
        b'r' => Order::Resign,
        b'a' => Order::Add,
        b'd' => Order::Remove,
        b'b' => Order::Build,
        b'q' => Order::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_each_key() {
        for key in 0..=u8::MAX {
            if order(key).is_some() {
                assert!(HELP.contains(&format!(" {} ", char::from(key))), "{}", char::from(key));
            }
        }
    }
}
