//! The clock on the wall jumps while nodes run: by libfaketime, for the nodes alone. The machine's own clock is not touched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::{Kind, now_ns};

use crate::bed::{Bed, PATIENCE, T, TASKS, WRITES, busy};

const DAY: i64 = 24 * 60 * 60;

/// Where Debian's package has it, on any architecture.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path().join("faketime")));
    let mut libraries =
        folders.chain([PathBuf::from("/usr/lib/faketime")]).map(|folder| folder.join("libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).context(
        "libfaketimeMT.so.1 is missing: it makes a process see another time of day. Install it: \
         apt-get install -y --no-install-recommends libfaketime",
    )
}

/// Written aside and renamed, for a node may read it at any time.
fn set(file: &Path, offset: i64) -> Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, format!("{offset:+}s\n"))?;
    Ok(std::fs::rename(aside, file)?)
}

/// By how many seconds the node's log is ahead of the wall.
fn ahead(bed: &Bed, node: usize) -> Option<i64> {
    let lines = bed.cluster.node(node).log();
    let stamp = lines.iter().rev().find_map(|line| line.json["timestamp"].as_str().map(ToOwned::to_owned))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(seconds(&stamp)? - i64::try_from(now).ok()?)
}

/// The seconds since 1970 of `2026-11-24T00:09:23.5Z`.
fn seconds(stamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Years that begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some(days * DAY + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?)
}

#[test]
fn stamps_are_read() {
    assert_eq!(seconds("1970-01-01T00:00:01.000Z"), Some(1));
    assert_eq!(seconds("2024-03-01T00:00:00Z"), Some(1_709_251_200));
    assert_eq!(seconds("2026-11-24T00:09:23Z"), Some(1_795_478_963));
}

#[test]
fn a_day_forth_and_a_day_back_on_the_wall_change_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("offset");
    set(&file, 0)?;
    let enter: Vec<String> = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library()?.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        // It looks at the file again after a second, and leaves the clocks alone that no clock on a wall moves: what jumps here is
        // what jumps when somebody sets the time.
        "FAKETIME_CACHE_DURATION=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ]
    .into();
    let mut bed = Bed::prepare(3, |builder| busy(builder.wrapper(move |_| enter.clone())))?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    let leader = bed.rest()?;
    bed.work()?;
    let (epoch, session) = (bed.epoch(leader)?, bed.session(leader)?["id"].clone());
    let marks: Vec<usize> = bed.cluster.nodes().iter().map(|node| node.mark()).collect();
    for offset in [DAY, -DAY, 0] {
        set(&file, offset)?;
        let near = |ahead: i64| (ahead - offset).abs() < 60;
        bed.cluster.wait_for("the nodes to see another time of day", PATIENCE, |_| {
            (0..3).all(|node| ahead(&bed, node).is_some_and(near)).then_some(())
        })?;
        // Longer than a session: what had run out by the new time, or had been put off by a day, would show by now.
        let until = Instant::now() + T * 2;
        while Instant::now() < until {
            bed.work()?;
        }
        ensure!(
            (bed.epoch(leader)?, bed.session(leader)?["id"].clone()) == (epoch, session.clone()),
            "at {offset:+} s"
        );
        // The nodes' own clock is the kernel's, and the same as this process has.
        let last = bed.history.effects().last().context("no effects")?.at;
        let old = Duration::from_nanos(now_ns().abs_diff(last));
        ensure!(old < T * 2, "at {offset:+} s the last effect is {old:?} away: the nodes' clock has jumped too");
    }
    let demoted = |kind: &Kind| matches!(kind, Kind::DemotedEntered | Kind::Stopped);
    ensure!(!bed.history.effects().iter().any(|effect| demoted(&effect.kind)), "somebody was demoted");
    let mut told = 0;
    for (node, mark) in bed.cluster.nodes().iter().zip(marks) {
        for line in node.logged(mark, |line| line.group() == TASKS && line.guest("tell").is_some()) {
            told += 1;
            ensure!(!line.text.contains("TimedOut"), "a deadline has come early: {}", line.text);
        }
        let ended = node.logged(mark, |line| matches!(line.what(), "demoted" | "session-lost" | "disconnected"));
        ensure!(ended.is_empty(), "{ended:?}");
    }
    ensure!(told > 3 * 10, "only {told} rounds of tasks: the ticks of {TASKS} have stopped");
    let writes = bed.history.effects().iter().filter(|effect| effect.group == WRITES).count();
    println!("a day forth, a day back: {told} rounds of tasks, {writes} effects in {WRITES}");
    bed.conclude().map(drop)
}
