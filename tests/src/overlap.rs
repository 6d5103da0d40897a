//! For how long a leader and its successor both had effects, or believed that they lead, over many trials.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::settings::setting;

/// One trial: what remained of the former term, and its successor's beginning, both as [`crate::checker::now_ns`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// When the former term ended.
    pub ended: u64,
    /// When the successor was told.
    pub told: u64,
}

impl Trial {
    fn overlap(self) -> Duration {
        Duration::from_nanos(self.ended.saturating_sub(self.told))
    }

    fn gap(self) -> Duration {
        Duration::from_nanos(self.told.saturating_sub(self.ended))
    }
}

/// Many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trials(Vec<Trial>);

impl Trials {
    /// How many overlap, and the longest overlap.
    #[must_use]
    pub fn overlaps(&self) -> (usize, Duration) {
        let overlaps = self.0.iter().map(|trial| trial.overlap());
        (overlaps.clone().filter(|overlap| !overlap.is_zero()).count(), overlaps.max().unwrap_or_default())
    }

    /// Fails if there were not `wanted` trials, or one of them overlapped.
    ///
    /// # Errors
    /// Then.
    pub fn none(&self, wanted: usize) -> Result<()> {
        let (count, longest) = self.overlaps();
        ensure!(self.0.len() >= wanted, "{} trials instead of {wanted}", self.0.len());
        ensure!(count == 0, "{count} overlaps of {} trials, the longest {longest:?}", self.0.len());
        Ok(())
    }
}

impl Extend<Trial> for Trials {
    fn extend<I: IntoIterator<Item = Trial>>(&mut self, trials: I) {
        self.0.extend(trials);
    }
}

impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, longest) = self.overlaps();
        write!(f, "overlap: {} trials, max {} ms", self.0.len(), longest.as_millis())?;
        let gaps = self.0.iter().map(|trial| trial.gap().as_secs_f64());
        let (least, most) =
            gaps.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), gap| (least.min(gap), most.max(gap)));
        if least.is_finite() {
            write!(f, " (the former term ended {least:.2} to {most:.2} s before)")?;
        }
        Ok(())
    }
}

/// Has `trials` trials made in several lanes at once, each with so many of them, and gathers what they give.
///
/// # Errors
/// When a lane fails.
pub fn in_lanes<T: Send>(trials: usize, lane: impl Fn(usize, usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let lanes = setting("BELLWETHER_OVERLAP_LANES", 2_usize)?.clamp(1, trials.max(1));
    std::thread::scope(|scope| {
        let lane = &lane;
        let running: Vec<_> = (0..lanes)
            .map(|index| scope.spawn(move || lane(index, trials / lanes + usize::from(index < trials % lanes))))
            .collect();
        running.into_iter().map(|one| one.join().ok().context("a lane panicked")?).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_counted_and_told() {
        let mut trials = Trials::default();
        trials.extend([Trial { ended: 1_000_000_000, told: 2_500_000_000 }]);
        assert!(trials.none(1).is_ok() && trials.none(2).is_err());
        assert_eq!(trials.to_string(), "overlap: 1 trials, max 0 ms (the former term ended 1.50 to 1.50 s before)");
        trials.extend([Trial { ended: 2_007_000_000, told: 2_000_000_000 }]);
        assert_eq!(trials.overlaps(), (1, Duration::from_millis(7)));
        assert!(trials.none(2).is_err());
        assert!(trials.to_string().starts_with("overlap: 2 trials, max 7 ms"));
    }

    #[test]
    fn every_trial_is_made_by_one_lane() -> Result<()> {
        for trials in [1, 2, 5] {
            assert_eq!(in_lanes(trials, |_, count| Ok(count))?.iter().sum::<usize>(), trials);
        }
        Ok(())
    }
}
