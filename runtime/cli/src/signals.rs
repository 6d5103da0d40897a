//! SIGINT and SIGTERM, and in `dev` what else a terminal may send: the first asks for a graceful stop, the second ends the process at once.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::sync::mpsc;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};
use crate::keys;
use crate::node::Shutdown;

/// Signals that ask for a stop, and the exit code of whoever they end.
type Stops = &'static [(SignalKind, i32)];

/// For a node.
pub const OF_A_NODE: Stops = &[(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)];

/// For who has a terminal to give back and a build to end: it may also hang up, and Ctrl-\ is SIGQUIT.
pub const OF_A_TERMINAL: Stops = &[
    (SignalKind::interrupt(), 130),
    (SignalKind::terminate(), 143),
    (SignalKind::hangup(), 129),
    (SignalKind::quit(), 131),
];

/// Listens from now on, on a thread of its own: however busy the node is, a second signal ends it.
pub fn listen(stops: Stops) -> Result<Shutdown, Failure> {
    let (first, stopped) = watch::channel(false);
    let (ready, started) = mpsc::sync_channel(1);
    let failed = |why: io::Error| Failure::new(Exit::Local, "cannot listen for signals").why(why);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let heard = stops.iter().filter(|(kind, _)| *kind != SignalKind::hangup() || !hangup_is_ignored());
                let heard: io::Result<Vec<_>> = heard.map(|(kind, code)| Ok((signal(*kind)?, *code))).collect();
                let mut heard = match heard {
                    Ok(heard) => heard,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                next(&mut heard).await;
                tracing::info!("stopping; a second signal ends the process at once");
                first.send_replace(true);
                let code = next(&mut heard).await;
                keys::restore();
                let _ = io::stderr().write_all(b"ended at once by a second signal\n");
                std::process::exit(code);
            });
        })
        .map_err(failed)?;
    // Only once the handlers stand may the node begin: a signal before that would kill it half made.
    match started.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(Failure::new(Exit::Local, "cannot listen for signals")),
    }
    let mut stopped = stopped;
    Ok(Box::pin(async move {
        if stopped.wait_for(|stop| *stop).await.is_err() {
            // The listening thread is gone, so nothing can be known any more; it never ends before a signal.
            std::future::pending::<()>().await;
        }
    }))
}

/// Waits for one of them, and gives its exit code.
async fn next(heard: &mut [(Signal, i32)]) -> i32 {
    poll_fn(|cx| {
        let came = heard.iter_mut().find_map(|(signal, code)| signal.poll_recv(cx).is_ready().then_some(*code));
        came.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Whether whoever started this has it ignore SIGHUP, as `nohup` does; then it goes on without a terminal.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (SignalKind::hangup().as_raw_value() - 1) & 1 == 1
}
