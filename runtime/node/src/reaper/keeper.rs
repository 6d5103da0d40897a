//! The node's side: starts the reaper, and tells it what the session owns.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellwether_coordination::estate::{Change, Estate, Holdings, News};
use bellwether_coordination::zookeeper::ZookeeperConfig;
use bellwether_core::id::NodeId;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Line, ReaperProgram, Servers};

/// The shortest and the longest pause before a reaper that has ended is replaced.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A reaper that has lived so long was no failure of the last start.
const SETTLED: Duration = Duration::from_secs(60);
/// How long a reaper that has nothing to do may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The node's end of the pipe, once more: it is closed by the kernel when no thread of this process can run any more, and by nothing
/// before, whatever becomes of the task that writes to it. That of a former reaper is closed when another one takes its place.
static LIFELINE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Keeps a reaper beside this process.
pub(crate) struct Keeper {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Keeper {
    /// Starts a reaper, and another one whenever it ends.
    pub fn start(program: ReaperProgram, id: NodeId, zookeeper: &ZookeeperConfig, estate: Estate) -> Self {
        let node = Line::Node { id: id.clone(), zookeeper: Servers::from(zookeeper) };
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move { keep(program, id, node, estate, &mut stopped).await });
        Self { task, stop }
    }

    /// The node is about to end. A reaper that has nothing to do ends first; one that has, because the session could not be
    /// closed, begins when this process is dead.
    pub async fn finish(self) {
        // Nobody hears it if the task has failed; then there is nothing to wait for either.
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FAREWELL, self.task).await.is_err() {
            abort.abort();
        }
    }
}

async fn keep(program: ReaperProgram, id: NodeId, node: Line, estate: Estate, stop: &mut oneshot::Receiver<()>) {
    let mut pause = PAUSES.0;
    let mut again = false;
    loop {
        let started = Instant::now();
        let told = || {
            if again {
                tracing::info!(node = %id, what = "reaper-back", "there is a reaper again");
            }
        };
        let why = match spawn(&program) {
            Ok((child, pipe)) => match serve(child, pipe, &node, &estate, told, stop).await {
                Ok(()) => return,
                Err(why) => why,
            },
            Err(error) => format!("it cannot be started: {error}"),
        };
        again = true;
        if started.elapsed() > SETTLED {
            pause = PAUSES.0;
        }
        tracing::warn!(
            node = %id, what = "reaper-ended",
            "the reaper is gone ({why}); until there is another one, a crash of this node is noticed when its session times out"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut *stop => return,
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn spawn(program: &ReaperProgram) -> std::io::Result<(Child, ChildStdin)> {
    let mut child = Command::new(&program.program)
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Not a signal to the terminal's foreground group, nor the end of that terminal, shall reach it.
        .process_group(0)
        .spawn()?;
    let Some(pipe) = child.stdin.take() else { return Err(std::io::Error::other("it has no standard input")) };
    *LIFELINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(pipe.as_fd().try_clone_to_owned()?);
    Ok((child, pipe))
}

/// Tells all there is to tell, until the node ends; `caught_up` once it has been told for the first time. An error is how the reaper has
/// ended before.
async fn serve(
    mut child: Child,
    mut pipe: ChildStdin,
    node: &Line,
    estate: &Estate,
    caught_up: impl FnOnce(),
    stop: &mut oneshot::Receiver<()>,
) -> Result<(), String> {
    let mut caught_up = Some(caught_up);
    let mut lines = vec![node.clone()];
    let mut last = false;
    estate.start_over();
    loop {
        lines.extend(news(estate.news()));
        if last && estate.is_empty() {
            lines.push(Line::Farewell);
        }
        let mut text = Vec::new();
        for line in lines.drain(..) {
            serde_json::to_writer(&mut text, &line).map_err(|error| error.to_string())?;
            text.push(b'\n');
        }
        // A reaper that does not read holds up this task and nothing else.
        tokio::select! {
            written = pipe.write_all(&text) => written.map_err(|error| format!("the pipe to it is broken: {error}"))?,
            ended = child.wait() => return Err(how(ended)),
        }
        if let Some(caught_up) = caught_up.take() {
            caught_up();
        }
        if last {
            if estate.is_empty() {
                // Nothing is lost if it ends later.
                let _ = child.wait().await;
            }
            return Ok(());
        }
        tokio::select! {
            () = estate.changed() => {}
            _ = &mut *stop => last = true,
            ended = child.wait() => return Err(how(ended)),
        }
    }
}

fn how(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn news(news: News) -> Vec<Line> {
    match news {
        News::Everything(None) => vec![Line::Ended],
        News::Everything(Some(Holdings { session, timeout, znodes })) => {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let begin = Line::Session { id: session.0, timeout_ms };
            std::iter::once(begin).chain(znodes.into_iter().map(Line::Owns)).collect()
        }
        News::Changes(changes) => changes
            .into_iter()
            .map(|change| match change {
                Change::Owns(path) => Line::Owns(path),
                Change::Released(path) => Line::Released(path),
            })
            .collect(),
    }
}
