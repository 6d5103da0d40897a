//! One guest in five languages (`guests/README.md`): driven through the same calls, each makes the same calls to its host, with the
//! same arguments, and gives the same results, errors included; and the state of each can be taken over by each.
//!
//! What they shall do is in `languages/*.txt`. The language's name, in what it writes, stands there as `LANGUAGE`.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

#[path = "languages/sheet.rs"]
mod sheet;

use std::sync::Arc;

use bellwether_core::callback::{Callback, Cause, DemotionReason};
use bellwether_core::id::Epoch;
use bellwether_core::state::StateError;
use bellwether_core::work::WorkError;
use bellwether_tests::guests::LANGUAGES;
use sheet::{Guest, demoted, elected, locked, members};

/// Compares line by line, so that the first difference is what is shown.
fn compare(language: &str, what: &str, done: &str, expected: &str) {
    for (index, (done, expected)) in done.lines().zip(expected.lines()).enumerate() {
        assert_eq!(done, expected, "{language}, line {} of {what}", index + 1);
    }
    assert_eq!(done.lines().count(), expected.lines().count(), "{language}: so much of {what} was done:\n{done}");
}

fn state_errors() -> Vec<StateError> {
    vec![
        StateError::NotLeader,
        StateError::Conflict(None),
        StateError::Conflict(Some(u32::MAX)),
        StateError::BadKey("so it is".into()),
        StateError::TooLarge(7),
        StateError::NotGranted("not you".into()),
        StateError::Unavailable("gone for 1 s".into()),
        StateError::Other("grüße \"from\" afar".into()),
    ]
}

/// What the leader does in its terms: elected, members, ticks, jobs that fail, saves that fail, demoted, elected again.
async fn terms(language: &'static str) {
    let guest = Guest::new(language, &[]).await;
    guest.tick().await;
    guest.call(Callback::Snapshot).await;
    guest.call(elected(Cause::Election)).await;
    guest.tick().await;
    guest.call(members(1, &[("n2", Some("4")), ("n1", None), ("n10", Some("10"))], &[], &[])).await;
    guest.tick().await;
    guest.call(members(2, &[], &[("n2", Some("2"))], &["n10", "nobody"])).await;
    guest.tick().await;

    guest
        .call(members(u64::from(u32::MAX), &[("N3", Some("9")), ("n0", Some("0")), ("n4", Some("x"))], &[], &[]))
        .await;
    let failing = [
        Err(WorkError::UnknownMember),
        Err(WorkError::Unreachable("no route".into())),
        Err(WorkError::TimedOut),
        Err(WorkError::Overloaded),
        Err(WorkError::StaleEpoch(Epoch((1 << 53) - 2))),
        Err(WorkError::Failed("it said \"no\"".into())),
        Err(WorkError::TooLarge(1 << 40)),
        Err(WorkError::NotLeader),
        Err(WorkError::Other("ünknown".into())),
        Ok(Vec::new()),
        Ok(b"+4".to_vec()),
        Ok(b"1000000000001".to_vec()),
        Ok(vec![0xff, 0, 0x31]),
    ];
    locked(&guest.sheet.jobs).extend((10..).zip(failing));
    guest.tick().await;
    guest.call(members(10, &[], &[], &["N3", "n2"])).await;
    guest.tick().await;
    guest.call(Callback::Snapshot).await;
    guest.call(members(11, &[("n5", Some("9"))], &[], &[])).await;
    guest.tick().await;
    guest.call(members(12, &[], &[], &["n5"])).await;

    for error in state_errors() {
        locked(&guest.sheet.writes).push_back(error.clone());
        guest.tick().await;
        locked(&guest.sheet.reads).push_back(error);
        guest.tick().await;
        guest.call(Callback::Snapshot).await;
    }
    guest.tick().await;
    // Somebody else wrote.
    guest.sheet.holds(b"1 other 30 9000 3 29", 77);
    guest.tick().await;
    guest.tick().await;

    for (reason, cause) in [
        (DemotionReason::Resigned, Cause::Election),
        (DemotionReason::LeaseLost, Cause::Restart),
        (DemotionReason::SessionLost, Cause::Election),
        (DemotionReason::Superseded, Cause::Election),
        (DemotionReason::Stopping, Cause::Election),
        (DemotionReason::Failed("trapped: in däta".into()), Cause::Election),
    ] {
        guest.call(demoted(reason)).await;
        guest.tick().await;
        guest.call(Callback::Snapshot).await;
        guest.call(elected(cause)).await;
        guest.tick().await;
    }
    guest.call(members(13, &[], &[], &["n0", "n1", "n4"])).await;
    guest.tick().await;
    compare(language, "terms", &guest.sheet.take(language), include_str!("languages/terms.txt"));
}

/// Settings, and what is in the state when a term begins.
async fn beginnings(language: &'static str) {
    let mut done = String::new();
    for (key, value) in [
        ("until", "x"),
        ("until", ""),
        ("until", "0"),
        ("until", "1000001"),
        ("save_every", "+1"),
        ("save_every", "1_0"),
        ("save_every", " 1"),
        ("timeout_ms", "0x10"),
        ("timeout_ms", "1e3"),
        ("timeout_ms", "60001"),
        ("timeout_ms", "\u{663}"),
        ("timeout_ms", "000000000000000000001"),
    ] {
        let guest = Guest::new(language, &[(key, value)]).await;
        guest.call(elected(Cause::Election)).await;
        guest.tick().await;
        done += &guest.sheet.take(language);
    }
    let guest = Guest::new(language, &[("until", "15"), ("timeout_ms", "60000")]).await;
    guest.call(members(1, &[("n1", None)], &[], &[])).await;
    guest.call(elected(Cause::Election)).await;
    for value in [
        "",
        "1",
        "1 x",
        "1 x 5",
        "2 x 5 30",
        "01 x 5 30",
        "1 x 0 0",
        "1 x 1000002 0",
        "1 x 5 1000000000000000001",
        "1 x 5 30 ",
        "1 x 5  30",
        " 1 x 5 30",
        "1 x 5 30\n",
        "1 x 5 30 5",
        "1 x 5 30 0",
        "1 x 5 -30",
        "1 x 5 30 4 y",
        "1 x 5 0x1e",
        "1 x 5 99999999999999999999",
        "1 x 5 30 100000000000000000000000000002",
    ] {
        guest.sheet.holds(value.as_bytes(), 3);
        guest.tick().await;
    }
    guest.sheet.holds(b"1 x 5 3\xff", 3);
    guest.tick().await;
    guest.sheet.holds(b"1 x 14 1000000000000000000 2 4", u32::MAX - 9);
    for _ in 0..5 {
        guest.tick().await;
        guest.call(Callback::Snapshot).await;
    }
    done += &guest.sheet.take(language);
    compare(language, "beginnings", &done, include_str!("languages/beginnings.txt"));
}

/// A swap: progress that was not saved goes on, and what does not fit is refused.
async fn handovers(language: &'static str) {
    let settings = [("until", "12"), ("save_every", "3")];
    let mut handed = None;
    for from in LANGUAGES {
        let old = Guest::new(from, &settings).await;
        old.call(elected(Cause::Election)).await;
        old.call(members(1, &[("n1", None), ("n2", Some("2"))], &[], &[])).await;
        locked(&old.sheet.jobs).insert(2, Err(WorkError::TimedOut));
        old.tick().await;
        old.tick().await;
        let state = old.snapshot().await;
        compare(from, "before the handover", &old.sheet.take(from), include_str!("languages/before.txt"));
        assert_eq!(String::from_utf8_lossy(&state), "1 - 2 6 55", "{from}");

        let new = Guest::new(language, &settings).await;
        new.call(Callback::Restore(Arc::clone(&state))).await;
        new.call(elected(Cause::Swap)).await;
        new.call(members(1, &[("n1", None), ("n2", Some("2"))], &[], &[])).await;
        for _ in 0..4 {
            new.tick().await;
            new.call(Callback::Snapshot).await;
        }
        compare(language, &format!("after {from}"), &new.sheet.take(language), include_str!("languages/after.txt"));
        handed = Some(state);
    }

    let guest = Guest::new(language, &settings).await;
    guest.call(Callback::Restore(handed.expect("there is a language"))).await;
    for state in [
        "",
        "2",
        "1 ",
        "1 -",
        "1 - 2",
        "1 - 2 6",
        "2 - 2 6 55",
        "1 - 2 6 55 ",
        "1 x 2 6 55",
        "1 -1 2 6 55",
        "1 4294967296 2 6 55",
        "1 - 4294967296 6 55",
        "1 - +2 6 55",
        "1 - 2 6 55 6",
        "1 - 2 0 55",
        "1 - 2 6 55\n",
        "1  2 6 55",
        "1 - - 6 55",
        "\u{661} - 2 6 55",
    ] {
        guest.call(Callback::Restore(state.as_bytes().to_vec().into())).await;
        guest.call(Callback::Snapshot).await;
    }
    for state in ["1 4294967295 4294967295 1000001 1000000000000000000 1 1000000", "1 0 0 1 0", "1"] {
        guest.call(Callback::Restore(state.as_bytes().to_vec().into())).await;
        guest.call(Callback::Snapshot).await;
    }
    compare(language, "restores", &guest.sheet.take(language), include_str!("languages/restores.txt"));
}

/// What a worker does with its tasks.
async fn tasks(language: &'static str) {
    let guest = Guest::new(language, &[]).await;
    guest.work(b"square 7", Some(9)).await;
    guest.work(b"square 8", None).await;
    // Squares that are not exact in a double.
    guest.work(b"square 4294967295", Some((1 << 53) - 1)).await;
    guest.work(b"square 94906267", Some(0)).await;
    guest.work(b"square 0", Some(1)).await;
    guest.work(b"square 007", Some(1)).await;
    for payload in [
        "",
        "square",
        "square ",
        "square -1",
        "square +1",
        "square 1_0",
        "square 0x10",
        "square 1e3",
        "square 4294967296",
        "square 18446744073709551617",
        "square 000000000000000000001",
        "square 1 ",
        "square  1",
        "square 1\n",
        "square 1\0",
        "square 1 2",
        " square 1",
        "SQUARE 1",
        "cube 1",
        "square \u{663}",
        "square 1.0",
        "\0",
    ] {
        guest.work(payload.as_bytes(), Some(1)).await;
    }
    guest.work(b"square \xff", Some(1)).await;
    guest.work(&[0xc3; 40], Some(1)).await;
    guest.work(b"square 3", Some(1)).await;
    compare(language, "tasks", &guest.sheet.take(language), include_str!("languages/tasks.txt"));
}

/// Many calls with much to carry: nothing is lost, and memory stays within the usual limit however often its collector has to run.
async fn long_life(language: &'static str) {
    let guest = Guest::new(language, &[]).await;
    let ids: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    let all: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), Some("1"))).collect();
    guest.call(elected(Cause::Election)).await;
    guest.call(members(1, &all, &[], &[])).await;
    guest.sheet.take(language);
    let mut payload = b"square ".to_vec();
    payload.resize(256 << 10, b'7');
    for round in 0..600 {
        guest.call(members(round + 2, &[], &all, &[])).await;
        guest.tick().await;
        guest.call(Callback::Restore(vec![b'1'; 64 << 10].into())).await;
        guest.work(if round % 8 == 0 { &payload } else { b"square 7" }, Some(7)).await;
        let done = guest.sheet.take(language);
        assert!(
            !done.contains("LOST") && done.contains(&format!("jobs {} ", round * 100 + 1)),
            "{language}, {round}: {done}"
        );
    }
    guest.call(Callback::Snapshot).await;
    let done = guest.sheet.take(language);
    let sum: u64 = (1..=60_000_u64).map(|job| job * job).sum();
    assert_eq!(done, format!("snapshot\n= 1 599 0 60001 {sum}\n"), "{language}");
}

macro_rules! each_language {
    ($($language:ident)*) => {$(
        mod $language {
            const NAME: &str = stringify!($language);

            #[tokio::test]
            async fn leads_as_all_do() {
                super::terms(NAME).await;
            }

            #[tokio::test]
            async fn begins_as_all_do() {
                super::beginnings(NAME).await;
            }

            #[tokio::test]
            async fn takes_over_from_each() {
                super::handovers(NAME).await;
            }

            #[tokio::test]
            async fn lives_long() {
                super::long_life(NAME).await;
            }

            #[tokio::test]
            async fn works_as_all_do() {
                super::tasks(NAME).await;
            }
        }
    )*
        #[test]
        fn no_language_is_left_out() {
            assert_eq!([$(stringify!($language)),*], LANGUAGES);
        }
    };
}

each_language!(rust c javascript python go);
