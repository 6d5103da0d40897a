//! One process of `bellwether run`, which does not outlive the test.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli;

/// A shell that first leaves a watcher behind and then becomes the program, so that the program is our own child. The watcher
/// kills it if its input ends without a word: when the test process ends, in whatever way.
pub(crate) const SUPERVISE: &str = r#"exec 3<&0
{ read -r word <&3 || kill -9 $$; } </dev/null >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-"#;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    watcher: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`, a name and its arguments; what it writes goes to the end of `log`.
    pub fn spawn(program: &[String], env: &[(String, String)], folder: &Path, log: &Path) -> Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISE, "sh"]).args(program).current_dir(folder);
        for name in ["BELLWETHER_ADMIN", "BELLWETHER_LOG"] {
            command.env_remove(name);
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("sh does not start")?;
        let pid = Pid::from_child(&child);
        let watcher = child.stdin.take();
        Ok(Self { child, pid, watcher })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal. The process has not been waited for, so its id is still its own.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// Whether it has ended, and how; waits at most so long.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let ended = cli::wait(&mut self.child, patience)?;
        if ended.is_some() {
            self.dismiss();
        }
        Ok(ended)
    }

    /// Tells the watcher that there is nothing left to watch, so that it never kills a stranger with the same id.
    fn dismiss(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            // If it is gone already, all the better.
            let _ = watcher.write_all(b"done\n");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.dismiss();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
