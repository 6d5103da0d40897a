//! SIGINT and SIGTERM: the first asks for a graceful stop, the second ends the process at once.

use std::io::Write as _;
use std::sync::mpsc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};
use crate::keys;
use crate::node::Shutdown;

/// Listens from now on, on a thread of its own: however busy the node is, a second signal ends it.
pub fn listen() -> Result<Shutdown, Failure> {
    let (first, stopped) = watch::channel(false);
    let (ready, started) = mpsc::sync_channel(1);
    let failed = |why: std::io::Error| Failure::new(Exit::Local, "cannot listen for signals").why(why);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let both = signal(SignalKind::interrupt())
                    .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
                let (mut interrupt, mut terminate) = match both {
                    Ok(both) => both,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                let mut next = async || {
                    tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = terminate.recv() => 143,
                    }
                };
                next().await;
                tracing::info!("stopping; a second signal ends the process at once");
                first.send_replace(true);
                let code = next().await;
                keys::restore();
                let _ = std::io::stderr().write_all(b"ended at once by a second signal\n");
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
