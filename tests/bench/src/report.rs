//! The figures, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use bellwether_tests::measure::{Figures, megabytes};
use serde_json::{Value, json};

use crate::failover::Trial;
use crate::field::{Kind, Layout};
use crate::footprint::{Footprint, Many};
use crate::handover::Measured;
use crate::{callback, registry, swap, tasks};

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One kind in one round of one benchmark: what is compared, and what else there is to say.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which benchmark, and in which form.
    pub what: String,
    /// The round, from 1.
    pub round: usize,
    /// Whose figures.
    pub kind: Kind,
    /// What that is called here.
    pub name: String,
    /// The figures by name, in the order in which they are shown. Of those whose names begin with `=` ratios are shown.
    pub figures: Vec<(String, f64)>,
}

impl Row {
    /// Of a hand-over.
    #[must_use]
    pub fn handover(layout: Layout, round: usize, kind: Kind, measured: &Measured) -> Self {
        let operations = measured.times.len() as f64;
        let figures = vec![
            ("=p50 ms", ms(measured.times.percentile(50))),
            ("=p99 ms", ms(measured.times.percentile(99))),
            ("demoted p50 ms", ms(measured.demotions.percentile(50))),
            ("=CPU ms/op", ms(measured.computed) / operations),
            ("requests/op", measured.counts.requests as f64 / operations),
            ("deletion events/op", measured.counts.deletions as f64 / operations),
            ("other events/op", measured.counts.others as f64 / operations),
            ("RSS MB", megabytes(measured.resident)),
        ];
        Self::new(format!("handover {layout}"), round, kind, figures)
    }

    /// Of some fail-overs.
    #[must_use]
    pub fn failover(name: &str, round: usize, kind: Kind, timeout: Duration, trials: &[Trial]) -> Self {
        let figures_of = |of: fn(&Trial) -> Option<Duration>| {
            let mut figures = Figures::default();
            trials.iter().filter_map(of).for_each(|time| figures.push(time));
            figures
        };
        let times = figures_of(|trial| Some(trial.time));
        let (awake, overlap) = (figures_of(|trial| trial.awake), figures_of(|trial| trial.overlap));
        let of_timeout = |percent| times.percentile(percent).as_secs_f64() / timeout.as_secs_f64();
        let mut figures =
            vec![("=median T", of_timeout(50)), ("max T", of_timeout(100)), ("median ms", ms(times.percentile(50)))];
        if !awake.is_empty() {
            figures.extend([("woken p50 ms", ms(awake.percentile(50))), ("woken max ms", ms(awake.percentile(100)))]);
        }
        if !overlap.is_empty() {
            let overlaps = trials.iter().filter(|trial| trial.overlap.is_some_and(|time| !time.is_zero())).count();
            figures.extend([("overlaps", overlaps as f64), ("longest ms", ms(overlap.percentile(100)))]);
        }
        Self::new(format!("failover {name}"), round, kind, figures)
    }

    /// Of joins. A peer's figures are those of a CuratorCache, whichever election there is beside it.
    #[must_use]
    pub fn registry(members: usize, round: usize, kind: Kind, measured: &registry::Measured) -> Self {
        let figures = vec![
            ("=p50 ms", ms(measured.times.percentile(50))),
            ("=p99 ms", ms(measured.times.percentile(99))),
            ("requests/join", measured.read as f64 / measured.times.len() as f64),
            ("=500 at once ms", ms(measured.storm)),
            ("calls for 500", measured.calls as f64),
        ];
        let row = Self::new(format!("registry {members}"), round, kind, figures);
        if kind == Kind::Bellwether { row } else { Self { name: "CuratorCache".to_owned(), ..row } }
    }

    /// Of some starts.
    #[must_use]
    pub fn footprint(round: usize, kind: Kind, found: &[Footprint]) -> Self {
        let mut start = Figures::default();
        found.iter().for_each(|one| start.push(one.start));
        let most = |of: fn(&Footprint) -> u64| found.iter().map(of).max().unwrap_or_default();
        let figures = vec![
            ("=start p50 ms", ms(start.percentile(50))),
            ("=RSS MB", megabytes(most(|one| one.resident))),
            ("threads", most(|one| one.threads as u64) as f64),
        ];
        Self::new("footprint".to_owned(), round, kind, figures)
    }

    /// Of a node in so many groups.
    #[must_use]
    pub fn many(groups: usize, round: usize, found: &Many) -> Self {
        let figures = vec![
            ("start s", found.footprint.start.as_secs_f64()),
            ("RSS MB", megabytes(found.footprint.resident)),
            ("threads", found.footprint.threads as f64),
            ("heartbeats/s", found.heartbeats as f64 / found.watched.as_secs_f64()),
            ("requests/s", found.requests as f64 / found.watched.as_secs_f64()),
        ];
        Self::new(format!("footprint, {groups} groups"), round, Kind::Bellwether, figures)
    }

    /// Of tasks of one size.
    #[must_use]
    pub fn tasks(bytes: usize, round: usize, kind: Kind, measured: &tasks::Measured) -> Self {
        let (p50, p99) = measured.latency;
        let rates: Vec<_> =
            measured.rates.iter().map(|(workers, rate)| (format!("=pieces/s, {workers} workers"), *rate)).collect();
        let mut figures = vec![("=p50 µs", ms(p50) * 1e3), ("=p99 µs", ms(p99) * 1e3)];
        figures.extend(rates.iter().map(|(name, rate)| (name.as_str(), *rate)));
        let size = if bytes < 1024 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) };
        Self::new(format!("tasks {size}"), round, kind, figures)
    }

    /// Of swaps.
    #[must_use]
    pub fn swap(what: swap::Swapped, round: usize, measured: &swap::Measured) -> Self {
        let [quiet, swapping] = &measured.callers;
        let figures = vec![
            ("pause p50 ms", ms(measured.pauses.percentile(50))),
            ("pause p99 ms", ms(measured.pauses.percentile(99))),
            ("callers' p99 ms", ms(quiet.percentile(99))),
            ("during swaps ms", ms(swapping.percentile(99))),
            ("calls", (quiet.len() + swapping.len()) as f64),
            ("failed", measured.failed.values().sum::<usize>() as f64),
        ];
        Self::new(format!("swap {what}"), round, Kind::Bellwether, figures)
    }

    /// Of a compilation beside callers.
    #[must_use]
    pub fn compile(round: usize, measured: &swap::Compiling) -> Self {
        let [quiet, compiling] = measured.callers.each_ref().map(|figures| figures.percentile(99));
        let figures = vec![
            ("compile s", measured.took.as_secs_f64()),
            ("callers' p50 ms", ms(measured.callers[0].percentile(50))),
            ("while compiling ms", ms(measured.callers[1].percentile(50))),
            ("callers' p99 ms", ms(quiet)),
            ("while compiling ms", ms(compiling)),
            ("p99 with/without", compiling.as_secs_f64() / quiet.as_secs_f64()),
            ("failed", measured.failed.values().sum::<usize>() as f64),
        ];
        Self::new("swap, compiling".to_owned(), round, Kind::Bellwether, figures)
    }

    /// Of calls into a guest.
    #[must_use]
    pub fn callback(how: &str, round: usize, measured: &[callback::Measured]) -> Self {
        let figures: Vec<_> = measured
            .iter()
            .map(|one| (format!("{} members µs", one.members), one.median().as_secs_f64() * 1e6))
            .collect();
        let figures = figures.iter().map(|(name, figure)| (name.as_str(), *figure)).collect();
        Self::new(format!("callback {how}"), round, Kind::Bellwether, figures)
    }

    fn new(what: String, round: usize, kind: Kind, figures: Vec<(&str, f64)>) -> Self {
        let figures = figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
        Self { what, round, kind, name: kind.to_string(), figures }
    }

    /// As one line.
    #[must_use]
    pub fn line(&self) -> String {
        let figures: Vec<String> =
            self.figures.iter().map(|(name, figure)| format!("{} {figure:.2}", name.trim_start_matches('='))).collect();
        format!("{:<16} round {} {:<14} {}", self.what, self.round, self.name, figures.join(", "))
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures: serde_json::Map<_, _> = self
            .figures
            .iter()
            .map(|(name, figure)| (name.trim_start_matches('=').to_owned(), json!(figure)))
            .collect();
        json!({ "benchmark": self.what, "round": self.round, "kind": self.name, "figures": figures })
    }
}

/// The median of each figure over the rounds, and our ratio to each peer, round by round: one Markdown table a benchmark.
#[must_use]
pub fn summary(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut benchmarks: Vec<&str> = Vec::new();
    for row in rows {
        if !benchmarks.contains(&row.what.as_str()) {
            benchmarks.push(&row.what);
        }
    }
    for what in benchmarks {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.what == what).collect();
        let mut kinds: Vec<(Kind, &str)> = Vec::new();
        for row in &rows {
            if !kinds.contains(&(row.kind, &row.name)) {
                kinds.push((row.kind, &row.name));
            }
        }
        let of = |kind: Kind| rows.iter().filter(move |row| row.kind == kind);
        let names: Vec<&str> = rows[0].figures.iter().map(|(name, _)| name.as_str()).collect();
        let shown: Vec<&str> = names.iter().map(|name| name.trim_start_matches('=')).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n**{what}**, median of {} rounds\n", of(kinds[0].0).count());
        let _ = writeln!(text, "| | {} |\n|---|{}", shown.join(" | "), "---|".repeat(shown.len()));
        for (kind, name) in &kinds {
            let figures = (0..names.len()).map(|at| {
                let mut values: Vec<f64> = of(*kind).map(|row| row.figures[at].1).collect();
                values.sort_by(f64::total_cmp);
                format!("{:.2}", values[values.len() / 2])
            });
            let _ = writeln!(text, "| {name} | {} |", figures.collect::<Vec<_>>().join(" | "));
        }
        for (other, peer) in kinds.iter().filter(|(kind, _)| *kind != Kind::Bellwether) {
            let ratios = names.iter().enumerate().map(|(at, name)| {
                if !name.starts_with('=') {
                    return String::new();
                }
                let pairs = of(Kind::Bellwether).zip(of(*other));
                let ratios = pairs.map(|(own, other)| format!("{:.2}", own.figures[at].1 / other.figures[at].1));
                ratios.collect::<Vec<_>>().join(", ")
            });
            let _ = writeln!(text, "| ratio to {peer}, by round | {} |", ratios.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bellwether_tests::peers_tools::Recipe;

    use super::*;

    #[test]
    fn ratios_are_told_round_by_round() {
        let row = |round, kind, figure| Row::new("x".into(), round, kind, vec![("=a", figure), ("b", 1.0)]);
        let other = Kind::Other(Recipe::Kazoo);
        let rows = [
            row(1, Kind::Bellwether, 1.0),
            row(1, other, 2.0),
            row(2, Kind::Bellwether, 3.0),
            row(2, other, 3.0),
            row(3, Kind::Bellwether, 2.0),
            row(3, other, 8.0),
        ];
        let text = summary(&rows);
        assert!(text.contains("| Bellwether | 2.00 | 1.00 |"), "{text}");
        assert!(text.contains("| Kazoo | 3.00 | 1.00 |"), "{text}");
        assert!(text.contains("| ratio to Kazoo, by round | 0.50, 1.00, 0.25 |  |"), "{text}");
    }
}
