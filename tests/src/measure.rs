//! Measuring nodes from outside: the clock that they stamp their effects with, and what they hold of memory.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The time since the machine started (`CLOCK_BOOTTIME`): one clock for all processes of the machine, never set back.
#[must_use]
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What a process holds of the machine's memory (`VmRSS`), in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} does not say what is resident"))?;
    Ok(kib * 1024)
}

/// The children of a process.
///
/// # Errors
/// When there is no such process.
pub fn children(pid: i32) -> Result<Vec<i32>> {
    let mut children = String::new();
    for thread in
        std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("there is no process {pid}"))?
    {
        // A thread may end meanwhile.
        children += &std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
    }
    Ok(children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// How much memory a process and its children have in RAM, in bytes; what they share is counted for each.
///
/// # Errors
/// When there is no such process.
pub fn resident_with_children(pid: i32) -> Result<u64> {
    // A child may end meanwhile.
    let theirs: u64 = children(pid)?.into_iter().filter_map(|child| resident(child).ok()).sum();
    Ok(resident(pid)? + theirs)
}

/// How many threads a process has, and how many files are open in it.
///
/// # Errors
/// When there is no such process.
pub fn threads_and_files(pid: i32) -> Result<(usize, usize)> {
    let count = |what: &str| {
        let path = format!("/proc/{pid}/{what}");
        Ok::<_, anyhow::Error>(std::fs::read_dir(&path).with_context(|| format!("{path} cannot be read"))?.count())
    };
    Ok((count("task")?, count("fd")?))
}

/// Bytes as megabytes, for people.
#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Prints a measurement. The test harness shows it if it is told to: `cargo test … -- --nocapture`.
#[allow(clippy::print_stdout, reason = "measurements are printed, not asserted")]
pub fn print(measurement: fmt::Arguments<'_>) {
    println!("{measurement}");
}

/// Measured times.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below or at which so many percent of them lie (nearest rank); zero if there are none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

/// As in `p50 1.52 ms, p99 4.10 ms, max 5.00 ms (n = 100)`.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms (n = {})", ms(50), ms(99), ms(100), self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut figures = Figures::default();
        assert_eq!(figures.percentile(50), Duration::ZERO);
        for ms in (1..=200).rev() {
            figures.push(Duration::from_millis(ms));
        }
        assert_eq!(figures.percentile(50), Duration::from_millis(100));
        assert_eq!(figures.percentile(99), Duration::from_millis(198));
        assert_eq!(figures.percentile(100), Duration::from_millis(200));
        assert_eq!(figures.to_string(), "p50 100.00 ms, p99 198.00 ms, max 200.00 ms (n = 200)");
    }

    #[test]
    fn this_process_is_resident() -> Result<()> {
        let bytes = resident(rustix::process::getpid().as_raw_nonzero().get())?;
        assert!(bytes > 1 << 19, "{bytes}");
        Ok(())
    }
}
