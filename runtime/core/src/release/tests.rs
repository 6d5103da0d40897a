use super::change::{MAX_TEXT, size};
use super::*;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn nodes(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().map(|name| node(name)).collect()
}

fn wanted(digest: &str) -> Wanted {
    let component = Artifact { reference: format!("file:{digest}.wasm"), digest: digest.into() };
    Wanted { component, worker: None, config: None }
}

fn deployed(digest: &str) -> Document {
    let document = Document::default().deploy(wanted(digest), Policy::default(), "ada".into(), 7).unwrap();
    document.end(&BTreeSet::new())
}

fn running(document: Document, digest: &str) -> Document {
    document.deploy(wanted(digest), Policy::default(), "ada".into(), 8).unwrap()
}

fn number(document: &Document, me: &str) -> Option<u64> {
    document.target(&node(me)).map(|target| target.number)
}

#[test]
fn a_node_runs_what_comes_once_it_is_admitted_and_what_runs_until_then() {
    let document = running(deployed("one"), "two").admit(nodes(&["a"]), BTreeSet::new());
    assert_eq!((number(&document, "a"), number(&document, "b")), (Some(2), Some(1)));
    let paused = document.clone().pause().unwrap();
    assert_eq!((number(&paused, "a"), number(&paused, "b")), (Some(2), Some(1)));
    let mut halting = document.clone();
    halting.rollout.as_mut().unwrap().policy.on_failure = OnFailure::Halt;
    let halted = halting.fail(node("a"), "traps".into());
    assert_eq!(halted.rollout.as_ref().unwrap().phase, Phase::Halted { reason: "a: traps".into() });
    assert_eq!(number(&halted, "a"), Some(2), "an operator can look at it");
    assert_eq!(number(&document.fail(node("a"), "traps".into()), "a"), Some(1));
    assert_eq!(number(&Document::default(), "a"), None);
}

#[test]
fn a_rollout_that_ends_well_is_what_runs_and_others_leave_it_as_it_was() {
    let begun = running(deployed("one"), "two").admit(nodes(&["a"]), BTreeSet::new());
    let done = begun.clone().end(&BTreeSet::new());
    assert_eq!(done.current.as_ref().map(|current| current.number), Some(2));
    assert_eq!(done.history.last().map(|past| &past.outcome), Some(&Outcome::Done));
    let failed = begun.clone().fail(node("a"), "traps".into()).end(&nodes(&["b"]));
    assert_eq!(failed.current.as_ref().map(|current| current.number), Some(1));
    let reason = "a: traps (1 of the nodes are not back yet: b)".to_owned();
    assert_eq!(failed.history.last().map(|past| &past.outcome), Some(&Outcome::Failed { reason }));
    let aborted = begun.abort("bob".into()).unwrap().end(&BTreeSet::new());
    assert_eq!(aborted.history.last().map(|past| &past.outcome), Some(&Outcome::Aborted { by: "bob".into() }));
    assert_eq!((aborted.rollout.as_ref(), aborted.last), (None, 2));
    let next = running(aborted, "three");
    assert_eq!(next.rollout.map(|rollout| rollout.to.number), Some(3), "a number is never used twice");
}

#[test]
fn waves_are_canaries_then_workers_and_the_leader_last() {
    let all = nodes(&["a", "b", "c", "d", "e", "f"]);
    let plan = |canaries, max_unavailable, leader: &str| {
        let policy = Policy { canaries, max_unavailable, ..Policy::default() };
        let waves = Document::plan(&all, Some(&node(leader)), &policy);
        waves.iter().map(|wave| wave.iter().map(NodeId::as_str).collect::<String>()).collect::<Vec<_>>()
    };
    assert_eq!(plan(1, 2, "a"), ["b", "cd", "ef", "a"]);
    assert_eq!(plan(2, 3, "f"), ["ab", "cde", "f"]);
    assert_eq!(plan(0, 2, "a"), ["bc", "de", "f", "a"]);
    assert_eq!(plan(9, 1, "c"), ["abdef", "c"]);
    let alone = Document::plan(&nodes(&["a"]), Some(&node("a")), &Policy::default());
    assert_eq!(alone, [[node("a")]]);
    assert_eq!(Document::plan(&nodes(&["b", "a"]), None, &Policy::default()), [[node("a")], [node("b")]]);
    assert!(Document::plan(&BTreeSet::new(), None, &Policy::default()).is_empty());
}

#[test]
fn one_rollout_at_a_time_and_none_of_what_runs_already() {
    let begun = running(deployed("one"), "two");
    let again = begun.clone().deploy(wanted("three"), Policy::default(), "ada".into(), 9);
    assert_eq!(again, Err(Refusal::UnderWay { number: 2, phase: "running" }));
    assert_eq!(
        begun.rollback(None, Policy::default(), "ada".into(), 9),
        Err(Refusal::UnderWay { number: 2, phase: "running" })
    );
    let mut elsewhere = wanted("one");
    elsewhere.component.reference = "https://elsewhere/one.wasm".into();
    let same = deployed("one").deploy(elsewhere.clone(), Policy::default(), "ada".into(), 9);
    assert_eq!(same, Err(Refusal::Unchanged { number: 1 }));
    elsewhere.config = Some(BTreeMap::from([("level".into(), "2".into())]));
    assert!(
        deployed("one").deploy(elsewhere, Policy::default(), "ada".into(), 9).is_ok(),
        "another configuration is another release"
    );
}

#[test]
fn pausing_resuming_and_aborting_need_something_to_pause_resume_or_abort() {
    assert_eq!(deployed("one").pause(), Err(Refusal::NoRollout));
    assert_eq!(deployed("one").resume(), Err(Refusal::NoRollout));
    assert_eq!(deployed("one").abort("ada".into()), Err(Refusal::NoRollout));
    let begun = running(deployed("one"), "two");
    let not_now = |phase, what| Err(Refusal::NotNow { number: 2, phase, what });
    assert_eq!(begun.clone().resume(), not_now("running", "resumed"));
    let paused = begun.clone().pause().unwrap();
    assert_eq!(paused.clone().pause(), not_now("paused", "paused"));
    assert_eq!(paused.clone().resume().unwrap(), begun);
    let back = paused.abort("ada".into()).unwrap();
    assert_eq!(back.clone().abort("ada".into()), not_now("going back", "aborted"));
    assert_eq!(back.pause(), not_now("going back", "paused"));
}

#[test]
fn a_way_back_is_a_release_of_its_own_that_says_what_it_repeats() {
    let document = running(running(deployed("one"), "two").end(&BTreeSet::new()), "bad");
    let document = document.fail(node("a"), "traps".into()).end(&BTreeSet::new());
    let to = |document: &Document, number| {
        let back = document.clone().rollback(number, Policy::default(), "ada".into(), 9)?;
        Ok(back.rollout.map(|rollout| (rollout.to.number, rollout.to.repeats, rollout.to.wanted.component.digest)))
    };
    assert_eq!(to(&document, None), Ok(Some((4, Some(1), "one".into()))), "what failed is no way back");
    assert_eq!(to(&document, Some(1)), Ok(Some((4, Some(1), "one".into()))));
    assert_eq!(to(&document, Some(2)), Err(Refusal::Unchanged { number: 2 }));
    assert_eq!(to(&document, Some(9)), Err(Refusal::NoSuchNumber { number: 9, known: "1, 2, 3".into() }));
    assert_eq!(to(&deployed("one"), None), Err(Refusal::NothingEarlier));
    assert_eq!(to(&Document::default(), Some(1)), Err(Refusal::NoSuchNumber { number: 1, known: "none".into() }));
}

#[test]
fn policies_by_which_nothing_would_happen_are_refused() {
    let deploy = |policy| Document::default().deploy(wanted("one"), policy, "ada".into(), 1);
    assert!(matches!(deploy(Policy { max_unavailable: 0, ..Policy::default() }), Err(Refusal::BadPolicy(_))));
    assert!(matches!(deploy(Policy { patience: Duration::ZERO, ..Policy::default() }), Err(Refusal::BadPolicy(_))));
    assert!(deploy(Policy { canaries: 0, ..Policy::default() }).is_ok());
}

#[test]
fn documents_survive_the_way_through_json_and_tolerate_what_they_do_not_know() {
    let begun = running(deployed("one"), "two").admit(nodes(&["a", "b"]), nodes(&["a"]));
    for document in
        [Document::default(), begun.clone(), begun.clone().pause().unwrap(), begun.fail(node("a"), "x".into())]
    {
        assert_eq!(Document::parse(&document.encode()), Ok(document));
    }
    assert_eq!(Document::parse(b""), Ok(Document::default()));
    let mut json: serde_json::Value = serde_json::from_slice(&deployed("one").encode()).unwrap();
    json["later"] = "unknown".into();
    json["current"]["later"] = 1.into();
    assert_eq!(Document::parse(json.to_string().as_bytes()), Ok(deployed("one")));
    assert_eq!(Document::parse(br#"{"format":2,"current":"of another kind"}"#), Err(Unreadable::Newer { found: 2 }));
    for garbage in ["{", "[]", "hello", r#"{"format":1,"current":3}"#, r#"{"current":null}"#] {
        assert!(matches!(Document::parse(garbage.as_bytes()), Err(Unreadable::Garbage(_))), "{garbage}");
    }
}

#[test]
fn a_document_does_not_grow_without_a_bound() {
    let large = |number: usize| {
        let mut wanted = wanted(&format!("{number}"));
        wanted.config = Some(BTreeMap::from([("padding".into(), "x".repeat(MAX_WANTED - 1000))]));
        wanted
    };
    let mut document = Document::default();
    for number in 0..50 {
        document =
            document.deploy(large(number), Policy::default(), "x".repeat(10_000), 1).unwrap().end(&BTreeSet::new());
        assert!(document.encode().len() <= MAX_DOCUMENT, "{} bytes", document.encode().len());
    }
    assert!(document.history.len() > 1, "as much of the history as there is room for is kept");
    let mut too_large = large(50);
    too_large.config.as_mut().unwrap().insert("more".into(), "x".repeat(1000));
    let refused = document.deploy(too_large, Policy::default(), "ada".into(), 1);
    assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
    let mut small = Document::default();
    for number in 0..50 {
        small = running(small, &number.to_string()).end(&BTreeSet::new());
    }
    assert_eq!((small.history.len(), small.history[0].release.number), (HISTORY, 31));
    let failed = running(small, "bad").fail(node("a"), "ä".repeat(10_000)).end(&BTreeSet::new());
    assert!(size(&failed.history.last()) < 4 * MAX_TEXT);
}

#[test]
fn reports_say_what_is_settled_and_what_failed() {
    let report =
        |running, state| Report { running, release: "r".into(), digest: "d".into(), state, address: "h:1".into() };
    assert!(report(Some(2), Staging::Settled).settled(Some(2)));
    assert!(!report(Some(1), Staging::Settled).settled(Some(2)));
    assert!(!report(Some(2), Staging::Proving).settled(Some(2)));
    let failed = report(Some(1), Staging::Failed { number: 2, reason: "traps".into() });
    assert_eq!((failed.failed(2), failed.failed(3)), (Some("traps"), None));
    let json = serde_json::to_string(&failed).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), failed);
}
