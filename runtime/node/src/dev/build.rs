//! Runs the command that builds the component. What it says goes to the log, line by line, with the target `build`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use crate::manifest::Build;

/// How long the last lines are waited for: what the build has left running may hold the pipes open.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Ends all processes of a build when dropped, if it holds their group.
struct Processes(Option<Pid>);

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // There may be none any more.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs the build to its end, in the folder of the manifest `manifest`; dropped before, or when it fails, its processes are killed.
pub(super) async fn run(build: &Build, manifest: &Path) -> Result<(), String> {
    tracing::info!("building: {}", build.command);
    let began = Instant::now();
    let mut child = Command::new("/bin/sh")
        .args(["-c", &build.command])
        .current_dir(manifest.parent().unwrap_or(manifest))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Of their own, so that all of them can be ended, and an interrupt from the terminal is ours to handle.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("/bin/sh does not start: {error}"))?;
    let mut processes = Processes(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw));
    let said = futures::future::join(lines(child.stdout.take()), lines(child.stderr.take()));
    tokio::pin!(said);
    let mut done = false;
    let status = loop {
        tokio::select! {
            _ = &mut said, if !done => done = true,
            status = child.wait() => break status.map_err(|error| format!("its end is not known: {error}"))?,
        }
    };
    if status.success() {
        // What it has left running on purpose may stay.
        processes.0 = None;
    }
    // What a build that failed has left is of no use to anybody.
    drop(processes);
    if !done {
        let _ = tokio::time::timeout(LAST_LINES, said).await;
    }
    if !status.success() {
        return Err(status.to_string());
    }
    tracing::info!("built in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn lines(from: Option<impl AsyncRead + Unpin>) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // An error ends it as the end does.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            tracing::info!(target: "build", "{text}");
        }
        line.clear();
    }
}
