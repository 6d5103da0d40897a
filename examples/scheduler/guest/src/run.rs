//! Jobs, and what is kept of the last run of each.

use std::fmt;

/// Something to be done again and again.
pub struct Job {
    pub name: String,
    pub every_ms: u64,
}

/// The last run of a job. Runs are numbered by their slots: the time divided by the job's interval.
#[derive(Clone, Copy)]
pub struct Last {
    pub slot: u64,
    pub stage: Stage,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Claimed,
    Done,
    Interrupted,
}

impl Last {
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(value);
        let parsed = text.split_once(' ').and_then(|(slot, stage)| {
            let stage = match stage {
                "claimed" => Stage::Claimed,
                "done" => Stage::Done,
                "interrupted" => Stage::Interrupted,
                _ => return None,
            };
            Some(Self { slot: slot.parse().ok()?, stage })
        });
        parsed.ok_or_else(|| format!("this is no record of a run: {text:?}"))
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Claimed => "claimed",
            Stage::Done => "done",
            Stage::Interrupted => "interrupted",
        };
        write!(f, "{} {stage}", self.slot)
    }
}

/// `NAME MILLISECONDS, NAME MILLISECONDS`
pub fn jobs(text: &str) -> Result<Vec<Job>, String> {
    let job = |job: &str| {
        let (name, every) = job.trim().split_once(' ')?;
        let every_ms = every.trim().parse().ok().filter(|every| *every > 0)?;
        let fine = name.chars().all(|c| c.is_ascii_lowercase());
        fine.then(|| Job { name: name.to_owned(), every_ms })
    };
    let jobs: Option<Vec<Job>> = text.split(',').map(job).collect();
    jobs.ok_or_else(|| {
        format!("the setting jobs is {text:?}: \"name milliseconds, …\" is wanted, names in small letters")
    })
}
