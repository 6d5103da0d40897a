//! The job itself: what the leader does when it is called.

use crate::config::{BadConfig, Carry, Config};
use crate::corpus::Plan;
use crate::counts::Counts;
use crate::handover;
use crate::outside::{Level, Outside, TaskError};
use crate::progress::{FORMAT, Phase, Progress};
use crate::release::Release;
use crate::roster::Roster;
use crate::store::{Checkpoint, StoreError};
use crate::task::{Source, Task};

/// For how many rounds a member rests that could not be reached.
const REST_AWAY: u64 = 5;
/// For how many rounds a member rests that refused a task or failed at it.
const REST_FAILED: u64 = 10;
/// How often a state of affairs that lasts is logged, in ticks.
const REMIND: u64 = 50;

/// A node's part in the job.
#[derive(Debug)]
pub struct Job {
    release: Release,
    config: Config,
    roster: Roster,
    /// Our term and what we know of its checkpoint; none while we do not lead, or must (again) load it.
    leading: Option<Leading>,
    /// Ticks since something was last logged that goes on: see [`Job::remind`].
    quiet: Option<u64>,
}

#[derive(Debug)]
struct Leading {
    epoch: u64,
    /// None if the job was never begun.
    checkpoint: Option<Checkpoint>,
    /// How the corpus is cut in this pass; made when it is first needed.
    plan: Option<Plan>,
}

impl Job {
    /// A job with these settings, which does nothing yet.
    ///
    /// # Errors
    /// [`BadConfig`] if a setting is unknown or not allowed.
    pub fn new(release: Release, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self, BadConfig> {
        let config = Config::from_pairs(settings)?;
        Ok(Self { release, config, roster: Roster::default(), leading: None, quiet: None })
    }

    /// `on-elected`. A checkpoint that cannot be read just now is read at the next tick.
    pub fn elected(&mut self, outside: &mut impl Outside, epoch: u64) {
        // What was handed over is good for the rest of its term, and for no other.
        if self.leading.as_ref().is_some_and(|leading| leading.epoch == epoch) {
            outside.log(Level::Info, &format!("{} takes over: {}", self.release.version, self.summary()));
            return;
        }
        self.leading = None;
        match self.load(outside, epoch) {
            Ok(()) => outside.log(Level::Info, &format!("{} leads: {}", self.release.version, self.summary())),
            Err(StoreError::NotLeader) => {}
            Err(error) => outside.log(Level::Warn, &format!("leads, but cannot read how far the job is: {error}")),
        }
    }

    /// `on-demoted`.
    pub fn demoted(&mut self) {
        self.leading = None;
        self.quiet = None;
    }

    /// `on-members-changed`.
    pub fn members_changed(&mut self, came: impl IntoIterator<Item = String>, left: &[String]) {
        self.roster.update(came, left);
    }

    /// `snapshot`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let state = self.leading.as_ref();
        handover::encode(state.and_then(|leading| Some((leading.epoch, leading.checkpoint.as_ref()?))))
    }

    /// `restore`.
    ///
    /// # Errors
    /// Says why the snapshot is not one to go on from.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.leading = handover::decode(snapshot)?.map(|(epoch, checkpoint)| Leading {
            epoch,
            checkpoint: Some(checkpoint),
            plan: None,
        });
        Ok(())
    }

    /// `on-tick`: takes the job one step on.
    ///
    /// # Errors
    /// For the runtime's log: why no step could be taken. The next tick tries again.
    pub fn tick(&mut self, outside: &mut impl Outside) -> Result<(), String> {
        let Some(epoch) = outside.epoch() else {
            return Ok(());
        };
        if self.leading.as_ref().is_none_or(|leading| leading.epoch != epoch) {
            self.leading = None;
            match self.load(outside, epoch) {
                Ok(()) => {}
                Err(StoreError::NotLeader) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        // Taken out, so that it is gone, to be loaded again, if a write fails.
        let Some(mut leading) = self.leading.take() else {
            return Ok(());
        };
        match self.step(outside, &mut leading) {
            Ok(()) => {
                self.leading = Some(leading);
                Ok(())
            }
            Err(Stop::Corpus(reason)) => {
                self.leading = Some(leading);
                Err(reason)
            }
            Err(Stop::NotLeader) => Ok(()),
            Err(Stop::Store(reason)) => Err(reason),
        }
    }

    fn load(&mut self, outside: &mut impl Outside, epoch: u64) -> Result<(), StoreError> {
        let checkpoint = Checkpoint::load(outside, self.release.version)?;
        self.roster.forget_chunks();
        self.leading = Some(Leading { epoch, checkpoint, plan: None });
        Ok(())
    }

    fn step(&mut self, outside: &mut impl Outside, leading: &mut Leading) -> Result<(), Stop> {
        let Some(progress) = leading.checkpoint.as_ref().map(|checkpoint| &checkpoint.progress) else {
            return self.begin(outside, leading);
        };
        if progress.state == Phase::Finished {
            return if self.wants_pass_after(progress) { self.begin(outside, leading) } else { Ok(()) };
        }
        let plan = match leading.plan.take() {
            Some(plan) => plan,
            None => self.plan(outside, progress.chunk_bytes)?,
        };
        if plan.fingerprint() != progress.corpus {
            return self.start_over(outside, leading);
        }
        if progress.complete() {
            return self.finish(outside, leading);
        }
        if self.count(outside, &plan, leading)? {
            leading.plan = Some(plan);
        }
        Ok(())
    }

    fn wants_pass_after(&self, last: &Progress) -> bool {
        let allowed = self.config.passes == 0 || last.pass < self.config.passes;
        allowed && !(self.config.hold && last.mode == self.release.starts.name())
    }

    fn plan(&self, outside: &mut impl Outside, chunk_bytes: u64) -> Result<Plan, Stop> {
        let files = outside.files(&self.config.folder).map_err(|error| Stop::Corpus(error.to_string()))?;
        Ok(Plan::new(files, chunk_bytes))
    }

    fn begin(&mut self, outside: &mut impl Outside, leading: &mut Leading) -> Result<(), Stop> {
        let plan = self.plan(outside, self.config.chunk_bytes)?;
        let last = leading.checkpoint.take();
        let pass = last.as_ref().map_or(0, |last| last.progress.pass) + 1;
        let progress = self.fresh(&plan, pass, self.release.starts.name());
        let message = format!("pass {pass} begins: {} words, {} chunks", progress.mode, progress.total);
        leading.checkpoint = Some(Checkpoint::begin(outside, progress, last.as_ref())?);
        leading.plan = Some(plan);
        self.roster.forget_chunks();
        outside.log(Level::Info, &message);
        Ok(())
    }

    /// The corpus is not the one that the pass began with, so that its chunks mean nothing any more.
    fn start_over(&mut self, outside: &mut impl Outside, leading: &mut Leading) -> Result<(), Stop> {
        let plan = self.plan(outside, self.config.chunk_bytes)?;
        let Some(current) = leading.checkpoint.take() else {
            return Ok(());
        };
        let pass = current.progress.pass;
        let progress = self.fresh(&plan, pass, &current.progress.mode);
        leading.checkpoint = Some(Checkpoint::begin(outside, progress, Some(&current))?);
        leading.plan = Some(plan);
        self.roster.forget_chunks();
        let message = format!("pass {pass} starts over: the corpus has changed, or differs from the last leader's");
        outside.log(Level::Warn, &message);
        Ok(())
    }

    fn fresh(&self, plan: &Plan, pass: u64, mode: &str) -> Progress {
        Progress {
            format: FORMAT,
            pass,
            mode: mode.to_owned(),
            done: 0,
            total: plan.total(),
            state: Phase::Counting,
            version: self.release.version.to_owned(),
            words: 0,
            chunk_bytes: self.config.chunk_bytes,
            corpus: plan.fingerprint(),
            next: 0,
            missing: Vec::new(),
            parts: Vec::new(),
            results: 0,
        }
    }

    fn finish(&mut self, outside: &mut impl Outside, leading: &mut Leading) -> Result<(), Stop> {
        let Some(current) = leading.checkpoint.take() else {
            return Ok(());
        };
        let distinct = current.counts.distinct();
        let checkpoint = current.finish(outside, self.release.version, self.config.keep)?;
        let Progress { pass, words, results, .. } = &checkpoint.progress;
        let message = format!(
            "pass {pass} is finished: {words} words, {distinct} different ones, in {results} key(s) result/{pass}/…"
        );
        leading.checkpoint = Some(checkpoint);
        outside.log(Level::Info, &message);
        Ok(())
    }

    /// One batch: hands it out, takes the answers in and writes the checkpoint. Gives whether all of it was done; if not, the
    /// reason may be that the corpus is not what it was.
    fn count(&mut self, outside: &mut impl Outside, plan: &Plan, leading: &mut Leading) -> Result<bool, Stop> {
        let Some(current) = &leading.checkpoint else {
            return Ok(false);
        };
        let mut progress = current.progress.clone();
        let pass = progress.pass;
        let batch = progress.batch(self.config.batch);
        let assigned = self.roster.assign(&batch);
        if assigned.is_empty() {
            self.remind(outside, &format!("pass {pass} waits: there are no workers"));
            return Ok(true);
        }
        let tasks = self.tasks(outside, plan, &progress.mode, &assigned)?;
        let answers = outside.scatter(tasks, self.config.timeout_ms);
        let mut counts = Counts::default();
        let mut done = Vec::new();
        let mut first_failure = None;
        for ((number, member), answer) in assigned.iter().zip(answers) {
            match answer.and_then(|text| {
                Counts::decode(&text).map_err(|error| TaskError::Failed(format!("the answer's {error}")))
            }) {
                Ok(answer) => {
                    counts.merge(answer);
                    done.push(*number);
                    self.roster.succeeded(*number);
                }
                Err(TaskError::NotLeader) => return Err(Stop::NotLeader),
                Err(error) => {
                    let rest = match error {
                        TaskError::Away(_) => REST_AWAY,
                        TaskError::Failed(_) => REST_FAILED,
                        TaskError::Overloaded | TaskError::NotLeader => 0,
                    };
                    self.roster.failed(*number, member, rest);
                    first_failure.get_or_insert_with(|| format!("{member}: {error}"));
                }
            }
        }
        let clean = first_failure.is_none();
        if let Some(first) = first_failure {
            let failures = assigned.len() - done.len();
            let message = format!("pass {pass}: {failures} of {} chunks will be done again; {first}", assigned.len());
            if done.is_empty() {
                self.remind(outside, &message);
                return Ok(false);
            }
            outside.log(Level::Warn, &message);
        }
        self.quiet = None;
        progress.settle(&batch, &done);
        self.release.version.clone_into(&mut progress.version);
        let (done, total, workers) = (progress.done, progress.total, self.roster.len());
        if let Some(current) = leading.checkpoint.take() {
            leading.checkpoint = Some(current.advance(outside, progress, counts)?);
        }
        let s = if workers == 1 { "" } else { "s" };
        outside.log(Level::Info, &format!("pass {pass}: {done} of {total} chunks, {workers} worker{s}"));
        Ok(clean)
    }

    fn tasks(
        &self,
        outside: &mut impl Outside,
        plan: &Plan,
        mode: &str,
        assigned: &[(u64, String)],
    ) -> Result<Vec<(String, Vec<u8>)>, Stop> {
        let folder = &self.config.folder;
        let task = |(number, member): &(u64, String)| {
            let chunk = plan.chunk(*number).ok_or_else(|| Stop::Corpus(format!("there is no chunk {number}")))?;
            let source = match self.config.carry {
                Carry::Range => Source::Range(chunk),
                Carry::Text => {
                    Source::Text(outside.text(folder, &chunk).map_err(|error| Stop::Corpus(error.to_string()))?)
                }
            };
            Ok((member.clone(), Task { mode: mode.to_owned(), source }.encode()))
        };
        assigned.iter().map(task).collect()
    }

    /// Logs what goes on for many ticks: the first time, and then now and again.
    fn remind(&mut self, outside: &mut impl Outside, message: &str) {
        let ticks = self.quiet.map_or(0, |ticks| ticks + 1);
        self.quiet = Some(ticks);
        if ticks.is_multiple_of(REMIND) {
            outside.log(Level::Warn, message);
        }
    }

    fn summary(&self) -> String {
        let checkpoint = self.leading.as_ref().and_then(|leading| leading.checkpoint.as_ref());
        match checkpoint.map(|checkpoint| &checkpoint.progress) {
            None => "nothing was counted yet".to_owned(),
            Some(Progress { pass, done, total, state: Phase::Counting, .. }) => {
                format!("pass {pass} goes on at {done} of {total} chunks")
            }
            Some(Progress { pass, .. }) => format!("pass {pass} is finished"),
        }
    }
}

/// Why a step was not taken.
enum Stop {
    /// Somebody else goes on.
    NotLeader,
    /// The state could not be read or written: what is in memory may not be what is written.
    Store(String),
    /// The corpus could not be read; what is in memory is as good as before.
    Corpus(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotLeader => Self::NotLeader,
            other => Self::Store(other.to_string()),
        }
    }
}
