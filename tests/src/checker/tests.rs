use serde_json::json;

use super::*;

fn effect(node: &str, epoch: u64, at: u64, kind: Kind) -> Effect {
    Effect { node: node.into(), group: "g".into(), epoch, at, instance: 1, kind }
}

fn write(node: &str, epoch: u64, at: u64, version: u64) -> Effect {
    effect(node, epoch, at, Kind::Write("k".into(), Some(version)))
}

/// `a` leads with epoch 1 from 10 to 20, `b` with epoch 2 from 30 on; each writes and hands out a task.
fn good() -> History {
    let mut history = History::default();
    history.extend([
        effect("a", 1, 10, Kind::ElectedEntered),
        effect("a", 1, 11, Kind::ElectedLeft),
        write("a", 1, 12, 0),
        effect("w", 1, 13, Kind::Task),
        effect("a", 1, 19, Kind::DemotedEntered),
        effect("a", 1, 20, Kind::DemotedLeft),
        effect("b", 2, 30, Kind::ElectedEntered),
        write("b", 2, 32, 1),
        effect("w", 2, 33, Kind::Task),
    ]);
    history
}

fn violations(history: &History) -> Vec<Violation> {
    history.judge().0
}

#[test]
fn a_good_history_is_good() -> Result<()> {
    let expected = Summary { terms: 2, writes: 2, tasks: 2, closest: Some(Duration::from_nanos(10)), excused: 0 };
    assert_eq!(good().check()?, expected);
    Ok(())
}

#[test]
fn a_stale_write_is_found_by_its_version_and_not_by_when_its_answer_came() -> Result<()> {
    let mut history = good();
    // Took effect before the other's, and was heard of late.
    history.extend([write("b", 2, 34, 3), write("a", 1, 40, 2)]);
    let wrong = violations(&history);
    assert!(
        matches!(wrong.as_slice(), [Violation::Stale { accepted, before, .. }]
        if accepted.epoch == 1 && before.epoch == 2),
        "{wrong:?}"
    );
    let mut history = good();
    history.effects.retain(|effect| !matches!(effect.kind, Kind::Write(..)));
    history.extend([write("b", 2, 32, 2), write("a", 1, 40, 1)]);
    history.check()?;
    Ok(())
}

#[test]
fn a_version_that_two_writes_left_is_found() {
    let mut history = good();
    history.extend([write("a", 1, 14, 1)]);
    let wrong = violations(&history);
    assert!(wrong.iter().any(|one| matches!(one, Violation::Twice { .. })), "{wrong:?}");
}

#[test]
fn a_stale_task_is_found_at_the_worker_that_took_it() -> Result<()> {
    let mut history = good();
    history.extend([effect("v", 1, 40, Kind::Task)]);
    history.check()?;
    history.extend([effect("w", 1, 41, Kind::Task)]);
    let wrong = violations(&history);
    assert!(matches!(wrong.as_slice(), [Violation::Stale { target, .. }] if target.contains("worker w")), "{wrong:?}");
    Ok(())
}

#[test]
fn nothing_excuses_a_stale_effect() {
    let mut history = good();
    history.paused("a", 0, 100);
    history.meddled(35, 36);
    history.extend([effect("w", 1, 41, Kind::Task)]);
    assert_eq!(violations(&history).len(), 1);
}

fn overlapping() -> History {
    let mut history = good();
    history.effects.retain(|effect| effect.kind != Kind::DemotedLeft);
    history.extend([effect("a", 1, 31, Kind::DemotedLeft)]);
    history
}

#[test]
fn a_term_that_ends_after_the_next_has_begun_is_found() {
    let wrong = violations(&overlapping());
    assert!(
        matches!(wrong.as_slice(), [Violation::Overlap { earlier, later }]
        if earlier.until == 31 && later.from == 30),
        "{wrong:?}"
    );
}

#[test]
fn a_term_that_never_ends_is_found() {
    let mut history = good();
    history.effects.retain(|effect| effect.kind != Kind::DemotedLeft);
    assert_eq!(violations(&history).len(), 1);
}

#[test]
fn an_older_term_that_is_told_after_a_newer_one_is_found() {
    let mut history = good();
    history.extend([effect("c", 1, 50, Kind::ElectedEntered), effect("c", 1, 51, Kind::DemotedLeft)]);
    let wrong = violations(&history);
    assert!(matches!(wrong.as_slice(), [Violation::Overlap { earlier, .. }] if earlier.node == "c"), "{wrong:?}");
}

#[test]
fn force_and_death_end_a_term_too() -> Result<()> {
    let mut history = good();
    history.effects.retain(|effect| effect.kind != Kind::DemotedLeft);
    history.extend([effect("a", 1, 25, Kind::Stopped)]);
    assert_eq!(history.check()?.closest, Some(Duration::from_nanos(5)));
    let mut history = good();
    history.effects.retain(|effect| !matches!(effect.kind, Kind::DemotedLeft | Kind::DemotedEntered));
    history.killed("b", 22, 22);
    assert_eq!(violations(&history).len(), 1, "it was another that died");
    history.killed("a", 22, 22);
    history.killed("a", 90, 90);
    assert_eq!(history.check()?.closest, Some(Duration::from_nanos(8)));
    Ok(())
}

#[test]
fn a_pause_of_the_leader_or_an_operator_excuses_an_overlap() -> Result<()> {
    let mut history = overlapping();
    history.paused("b", 25, 40);
    assert_eq!(violations(&history).len(), 1, "it was another that was paused");
    history.paused("a", 40, 50);
    assert_eq!(violations(&history).len(), 1, "it was paused afterwards");
    history.paused("a", 25, 31);
    assert_eq!(history.check()?.excused, 1);
    let mut history = overlapping();
    history.meddled(10, 20);
    assert_eq!(violations(&history).len(), 1, "it was long ago");
    history.meddled(29, 31);
    assert_eq!(history.check()?.excused, 1);
    Ok(())
}

#[test]
fn a_swap_within_a_term_is_no_overlap() -> Result<()> {
    let mut history = good();
    let mut new = effect("b", 2, 40, Kind::ElectedEntered);
    new.instance = 2;
    history.extend([new, effect("b", 2, 41, Kind::Stopped)]);
    history.check()?;
    assert_eq!(history.terms().iter().filter(|term| term.until == u64::MAX).count(), 1);
    Ok(())
}

#[test]
fn groups_have_nothing_to_do_with_each_other() -> Result<()> {
    let mut history = good();
    let others = good().effects.into_iter().map(|effect| Effect {
        group: "h".into(),
        at: effect.at + 25,
        epoch: effect.epoch + 10,
        ..effect
    });
    history.extend(others.collect::<Vec<_>>());
    history.check()?;
    Ok(())
}

#[test]
fn lines_are_read_as_nodes_write_them() {
    let line = json!({"timestamp": "…", "level": "DEBUG", "target": "bellwether::effects", "node": "n0", "group": "g",
        "epoch": 7, "fields": {"at_ns": 5, "effect": "write-accepted", "key": "k", "version": 3}});
    let read = Effect::parse(&line).expect("an effect");
    assert_eq!(read, Effect { instance: 0, ..effect("n0", 7, 5, Kind::Write("k".into(), Some(3))) });
    let line = json!({"target": "bellwether::effects", "node": "n0", "group": "g", "epoch": 7,
        "fields": {"at_ns": 6, "effect": "elected-entered", "instance": 1}});
    assert_eq!(Effect::parse(&line), Some(effect("n0", 7, 6, Kind::ElectedEntered)));
    assert_eq!(Effect::parse(&json!({"target": "guest", "message": "m"})), None);
}
