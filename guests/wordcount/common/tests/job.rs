//! The whole job against a model of the runtime: whatever fails, a pass ends with every word counted once.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use wordcount_common::corpus::{Chunk, CorpusError};
use wordcount_common::counts::Counts;
use wordcount_common::job::Job;
use wordcount_common::outside::{Entry, Expect, Level, Outside, StateError, TaskError};
use wordcount_common::progress::{Phase, Progress};
use wordcount_common::release::Release;
use wordcount_common::task;
use wordcount_common::words::{Mode, count};

const V1: Release = Release { version: "v1", starts: Mode::Exact, knows: &[Mode::Exact] };
const V2: Release = Release { version: "v2", starts: Mode::Folded, knows: &[Mode::Folded, Mode::Exact] };

/// What goes wrong at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// The call does nothing.
    Before,
    /// The call does what it shall, and its answer is lost.
    After,
    /// Leadership ends before the call.
    Deposed,
}

/// What all nodes share.
struct World {
    state: BTreeMap<String, (Vec<u8>, u32)>,
    files: Vec<(String, Vec<u8>)>,
    /// The version that each worker runs.
    workers: BTreeMap<String, Release>,
    epoch: u64,
    faults: Box<dyn Iterator<Item = Fault>>,
    writes: Vec<String>,
    log: Vec<String>,
}

impl World {
    fn new(texts: &[&str], workers: &[(&str, Release)]) -> Rc<RefCell<Self>> {
        let files = texts.iter().enumerate().map(|(n, text)| (format!("{n}.txt"), text.as_bytes().to_vec()));
        Rc::new(RefCell::new(Self {
            state: BTreeMap::new(),
            files: files.collect(),
            workers: workers.iter().map(|(name, release)| ((*name).to_owned(), *release)).collect(),
            epoch: 1,
            faults: Box::new(std::iter::empty()),
            writes: Vec::new(),
            log: Vec::new(),
        }))
    }

    fn progress(&self) -> Progress {
        Progress::decode(&self.state.get("progress").unwrap().0).unwrap()
    }

    fn finished(&self, pass: u64) -> bool {
        self.state.contains_key("progress") && self.progress().pass == pass && self.progress().state == Phase::Finished
    }

    fn result(&self, pass: u64) -> Counts {
        let mut counts = Counts::default();
        let prefix = format!("result/{pass}/");
        for (value, _) in self.state.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value) {
            counts.merge(Counts::decode(value).unwrap());
        }
        counts
    }

    fn truth(&self, mode: Mode) -> Counts {
        let mut counts = Counts::default();
        self.files.iter().for_each(|(_, text)| counts.merge(count(text, mode).unwrap()));
        counts
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.state.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

/// One node's view of it.
struct Node {
    world: Rc<RefCell<World>>,
    epoch: u64,
}

impl Node {
    fn fault(&self) -> Result<Fault, StateError> {
        let mut world = self.world.borrow_mut();
        if world.epoch != self.epoch {
            return Err(StateError::NotLeader);
        }
        let fault = world.faults.next().unwrap_or(Fault::None);
        match fault {
            Fault::Before => Err(StateError::Failed("unavailable".into())),
            Fault::Deposed => {
                world.epoch += 1;
                Err(StateError::NotLeader)
            }
            Fault::None | Fault::After => Ok(fault),
        }
    }
}

fn lost<T>(fault: Fault, value: T) -> Result<T, StateError> {
    if fault == Fault::After { Err(StateError::Failed("the answer was lost".into())) } else { Ok(value) }
}

impl Outside for Node {
    fn get(&mut self, key: &str) -> Result<Option<Entry>, StateError> {
        let fault = self.fault()?;
        let entry = self
            .world
            .borrow()
            .state
            .get(key)
            .map(|(value, version)| Entry { value: value.clone(), version: *version });
        lost(fault, entry)
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<u32, StateError> {
        let fault = self.fault()?;
        assert!(value.len() <= 1_000_000, "{key} is too large");
        let mut world = self.world.borrow_mut();
        let found = world.state.get(key).map(|(_, version)| *version);
        let fits = match expect {
            Expect::Anything => true,
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(version),
        };
        if !fits {
            return Err(StateError::Conflict(found));
        }
        let version = found.map_or(0, |version| version + 1);
        world.state.insert(key.to_owned(), (value.to_vec(), version));
        world.writes.push(key.to_owned());
        lost(fault, version)
    }

    fn delete(&mut self, key: &str) -> Result<(), StateError> {
        let fault = self.fault()?;
        self.world.borrow_mut().state.remove(key);
        lost(fault, ())
    }

    fn list(&mut self, prefix: &str) -> Result<Vec<String>, StateError> {
        let fault = self.fault()?;
        let keys = self.world.borrow().keys(prefix);
        lost(fault, keys)
    }

    fn scatter(&mut self, tasks: Vec<(String, Vec<u8>)>, _timeout_ms: u32) -> Vec<Result<Vec<u8>, TaskError>> {
        let work = |(to, payload): (String, Vec<u8>)| {
            match self.fault() {
                Ok(Fault::None) => {}
                Ok(_) => return Err(TaskError::Away("no answer in time".into())),
                Err(StateError::NotLeader) => return Err(TaskError::NotLeader),
                Err(_) => return Err(TaskError::Overloaded),
            }
            let world = self.world.borrow();
            let Some(release) = world.workers.get(&to) else {
                return Err(TaskError::Away("connection refused".into()));
            };
            task::perform(&payload, release, |chunk| read(&world, chunk)).map_err(TaskError::Failed)
        };
        tasks.into_iter().map(work).collect()
    }

    fn epoch(&mut self) -> Option<u64> {
        (self.world.borrow().epoch == self.epoch).then_some(self.epoch)
    }

    fn files(&mut self, _folder: &str) -> Result<Vec<(String, u64)>, CorpusError> {
        Ok(self.world.borrow().files.iter().map(|(name, text)| (name.clone(), text.len() as u64)).collect())
    }

    fn text(&mut self, _folder: &str, chunk: &Chunk) -> Result<Vec<u8>, CorpusError> {
        read(&self.world.borrow(), chunk)
    }

    fn log(&mut self, _level: Level, message: &str) {
        self.world.borrow_mut().log.push(message.to_owned());
    }
}

/// What `corpus::text` does, from memory: the words that begin in the chunk.
fn read(world: &World, chunk: &Chunk) -> Result<Vec<u8>, CorpusError> {
    let text = &world.files.iter().find(|(name, _)| *name == chunk.file).unwrap().1;
    if text.len() as u64 != chunk.size {
        let (path, expected, found) = (chunk.file.clone(), chunk.size, text.len() as u64);
        return Err(CorpusError::Differs { path, expected, found });
    }
    let letter = |at: usize| text.get(at).is_some_and(u8::is_ascii_alphabetic);
    let (mut start, mut end) = (chunk.start as usize, chunk.end as usize);
    while start > 0 && start < end && letter(start - 1) && letter(start) {
        start += 1;
    }
    while start < end && letter(end - 1) && letter(end) {
        end += 1;
    }
    Ok(text.get(start..end).unwrap().to_vec())
}

fn job(release: Release, world: &Rc<RefCell<World>>, config: &[(&str, &str)]) -> Job {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let mut job = Job::new(release, config).unwrap();
    job.members_changed(world.borrow().workers.keys().cloned(), &[]);
    job
}

fn elect(job: &mut Job, world: &Rc<RefCell<World>>) -> Node {
    let epoch = world.borrow().epoch;
    let mut node = Node { world: Rc::clone(world), epoch };
    job.elected(&mut node, epoch);
    node
}

const TEXTS: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog. THE DOG SLEEPS; the fox does not.",
    "",
    "A bell tolls for the wether, and the sheep follow: one, two, three.\nThe end.",
];
const SMALL: &[(&str, &str)] = &[("chunk_bytes", "7"), ("batch", "4"), ("passes", "2"), ("hold", "true")];

#[test]
fn two_passes_and_a_swap_between_them() {
    let world = World::new(&TEXTS, &[("a", V1), ("b", V1)]);
    let mut old = job(V1, &world, SMALL);
    let mut node = elect(&mut old, &world);
    for _ in 0..20 {
        old.tick(&mut node).unwrap();
    }
    assert!(world.borrow().finished(1));
    assert_eq!(world.borrow().progress().mode, "exact");
    assert_eq!(world.borrow().result(1), world.borrow().truth(Mode::Exact));
    assert_eq!(world.borrow().keys("part/"), [""; 0]);
    let writes = world.borrow().writes.len();
    old.tick(&mut node).unwrap();
    assert_eq!(world.borrow().writes.len(), writes, "a held job writes nothing");

    // The leader is swapped first: its pass waits for workers that can count so.
    let mut new = job(V2, &world, SMALL);
    new.restore(&old.snapshot()).unwrap();
    new.elected(&mut node, 1);
    for _ in 0..5 {
        new.tick(&mut node).unwrap();
    }
    assert_eq!((world.borrow().progress().mode.as_str(), world.borrow().progress().done), ("folded", 0));
    assert!(world.borrow().log.iter().any(|line| line.contains("v1 counts exact words, not \"folded\" ones")));
    for release in world.borrow_mut().workers.values_mut() {
        *release = V2;
    }
    for _ in 0..30 {
        new.tick(&mut node).unwrap();
    }
    assert!(world.borrow().finished(2));
    assert_eq!(world.borrow().result(2), world.borrow().truth(Mode::Folded));
    assert_eq!(world.borrow().result(1), world.borrow().truth(Mode::Exact));
    assert_eq!(world.borrow().progress().version, "v2");
}

#[test]
fn a_swap_in_the_middle_finishes_the_pass_in_its_mode_without_reading_anything_again() {
    let world = World::new(&TEXTS, &[("a", V2), ("b", V1)]);
    let mut old = job(V1, &world, SMALL);
    let mut node = elect(&mut old, &world);
    for _ in 0..3 {
        old.tick(&mut node).unwrap();
    }
    let done = world.borrow().progress().done;
    assert!(done > 0);
    let version = world.borrow().state.get("progress").unwrap().1;
    let mut new = job(V2, &world, SMALL);
    new.restore(&old.snapshot()).unwrap();
    new.elected(&mut node, 1);
    assert_eq!(world.borrow().state.get("progress").unwrap().1, version, "what is handed over is not claimed again");
    for _ in 0..20 {
        new.tick(&mut node).unwrap();
        if world.borrow().finished(1) {
            break;
        }
    }
    assert_eq!(world.borrow().progress().mode, "exact");
    assert_eq!(world.borrow().result(1), world.borrow().truth(Mode::Exact));
}

#[test]
fn a_leader_without_workers_waits_and_says_so_once() {
    let world = World::new(&TEXTS, &[]);
    let mut job = job(V1, &world, SMALL);
    let mut node = elect(&mut job, &world);
    for _ in 0..10 {
        job.tick(&mut node).unwrap();
    }
    assert_eq!(world.borrow().progress().done, 0);
    let waits = world.borrow().log.iter().filter(|line| line.contains("there are no workers")).count();
    assert_eq!(waits, 1);
    world.borrow_mut().workers.insert("c".into(), V1);
    job.members_changed(["c".to_owned()], &[]);
    for _ in 0..20 {
        job.tick(&mut node).unwrap();
    }
    assert!(world.borrow().finished(1));
    assert!(world.borrow().log.iter().any(|line| line.contains("chunks, 1 worker")));
}

#[test]
fn a_corpus_that_changes_starts_the_pass_over() {
    let world = World::new(&TEXTS, &[("a", V1)]);
    let mut job = job(V1, &world, SMALL);
    let mut node = elect(&mut job, &world);
    for _ in 0..3 {
        job.tick(&mut node).unwrap();
    }
    world.borrow_mut().files.get_mut(2).unwrap().1.extend_from_slice(b" And more.");
    for _ in 0..30 {
        job.tick(&mut node).unwrap();
    }
    assert!(world.borrow().finished(1));
    assert!(world.borrow().log.iter().any(|line| line.contains("starts over")));
    assert_eq!(world.borrow().result(1), world.borrow().truth(Mode::Exact));
}

#[test]
fn an_empty_corpus_and_text_in_tasks_and_endless_passes_work() {
    let world = World::new(&[""], &[("a", V1)]);
    let mut empty = job(V1, &world, SMALL);
    let mut node = elect(&mut empty, &world);
    for _ in 0..3 {
        empty.tick(&mut node).unwrap();
    }
    assert!(world.borrow().finished(1));
    assert_eq!(world.borrow().keys("result/"), ["result/1/00"]);

    let world = World::new(&TEXTS, &[("a", V1)]);
    let mut endless = job(V1, &world, &[("tasks", "text"), ("keep", "2"), ("batch", "100")]);
    let mut node = elect(&mut endless, &world);
    while !world.borrow().state.contains_key("progress") || !world.borrow().finished(12) {
        endless.tick(&mut node).unwrap();
    }
    assert_eq!(world.borrow().keys("result/"), ["result/11/00", "result/12/00"]);
    assert_eq!(world.borrow().result(12), world.borrow().truth(Mode::Exact));
}

#[test]
fn large_counts_are_split_and_compacted() {
    let text: String = (0..60_000_u32).map(|n| format!("{} ", letters(n))).collect();
    let world = World::new(&[&text, &text], &[("a", V1), ("b", V1)]);
    let mut job = job(V1, &world, &[("chunk_bytes", "4096"), ("batch", "8"), ("passes", "1")]);
    let mut node = elect(&mut job, &world);
    let mut most = 0;
    while !world.borrow().state.contains_key("progress") || !world.borrow().finished(1) {
        job.tick(&mut node).unwrap();
        most = most.max(world.borrow().keys("part/").len());
    }
    assert!((20..40).contains(&most), "{most} parts at the most");
    assert!(world.borrow().keys("result/1/").len() > 1, "the result is larger than one value");
    assert_eq!(world.borrow().result(1), world.borrow().truth(Mode::Exact));
    assert_eq!(world.borrow().keys("part/"), [""; 0]);
}

/// A number as a word of 20 letters.
fn letters(number: u32) -> String {
    (0..20).map(|digit| char::from(b'a' + ((number >> digit) & 1) as u8)).collect()
}

#[test]
fn foreign_state_is_left_alone() {
    let world = World::new(&TEXTS, &[("a", V1)]);
    world.borrow_mut().state.insert("progress".into(), (b"somebody else's".to_vec(), 0));
    let mut job = job(V1, &world, SMALL);
    let mut node = elect(&mut job, &world);
    let message = job.tick(&mut node).unwrap_err();
    assert!(message.contains("does not hold what a word count writes"), "{message}");
    assert_eq!(world.borrow().state.get("progress").unwrap().0, b"somebody else's");
}

#[test]
fn bad_snapshots_are_refused() {
    let world = World::new(&TEXTS, &[("a", V1)]);
    let mut job = job(V1, &world, SMALL);
    let message = |job: &mut Job, text: &str| job.restore(text.as_bytes()).unwrap_err();
    assert!(message(&mut job, "").contains("no snapshot of a word count"));
    assert!(message(&mut job, "{\"format\":9}\n").contains("format 9"));
    assert_eq!(job.restore(&job.snapshot()), Ok(()));
    let mut node = elect(&mut job, &world);
    for _ in 0..3 {
        job.tick(&mut node).unwrap();
    }
    let text = String::from_utf8(job.snapshot()).unwrap() + "no line of counts";
    assert!(message(&mut job, &text).contains("is not `count word`"));
}

/// What happens before a tick, apart from what goes wrong within.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Nothing,
    /// Another node is elected.
    Election,
    /// The instance fails and is replaced within its term.
    Restart,
    /// The leader is swapped to the other version.
    Swap,
    /// A worker is gone, or back.
    Worker,
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        20 => Just(Fault::None),
        2 => Just(Fault::Before),
        2 => Just(Fault::After),
        1 => Just(Fault::Deposed),
    ];
    prop::collection::vec(fault, 0..300)
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        8 => Just(Happening::Nothing),
        1 => Just(Happening::Election),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Swap),
        1 => Just(Happening::Worker),
    ];
    prop::collection::vec(happening, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_fails_every_word_counts_once(faults in faults(), happenings in happenings()) {
        let world = World::new(&TEXTS, &[("a", V2), ("b", V2), ("c", V2)]);
        world.borrow_mut().faults = Box::new(faults.into_iter());
        let mut release = V1;
        let mut leader = job(release, &world, SMALL);
        let mut node = elect(&mut leader, &world);
        // Leaders that do not know yet that they are leaders no more.
        let mut deposed: Vec<(Job, Node)> = Vec::new();
        let mut happenings = happenings.into_iter();
        let mut ticks = 0;
        while !world.borrow().state.contains_key("progress") || !world.borrow().finished(1) {
            ticks += 1;
            prop_assert!(ticks < 2_000, "no end: {:?}", world.borrow().log.last());
            match happenings.next().unwrap_or(Happening::Nothing) {
                Happening::Nothing => {}
                Happening::Election => world.borrow_mut().epoch += 1,
                Happening::Restart => {
                    leader = job(release, &world, SMALL);
                    let epoch = node.epoch;
                    leader.elected(&mut node, epoch);
                }
                Happening::Swap => {
                    release = if release == V1 { V2 } else { V1 };
                    let mut new = job(release, &world, SMALL);
                    new.restore(&leader.snapshot()).unwrap();
                    let epoch = node.epoch;
                    new.elected(&mut node, epoch);
                    leader = new;
                }
                Happening::Worker => {
                    let gone = world.borrow_mut().workers.remove("b");
                    if gone.is_none() {
                        world.borrow_mut().workers.insert("b".into(), V2);
                    }
                    let here: Vec<_> = world.borrow().workers.keys().cloned().collect();
                    let left = if gone.is_some() { vec!["b".to_owned()] } else { Vec::new() };
                    leader.members_changed(here, &left);
                }
            }
            if world.borrow().epoch != node.epoch {
                let mut new = job(release, &world, SMALL);
                let at = elect(&mut new, &world);
                deposed.push((std::mem::replace(&mut leader, new), std::mem::replace(&mut node, at)));
            }
            let _ = leader.tick(&mut node);
            for (job, node) in &mut deposed {
                let _ = job.tick(node);
            }
        }
        let world = world.borrow();
        let mode = if world.progress().mode == "exact" { Mode::Exact } else { Mode::Folded };
        prop_assert_eq!(world.result(1), world.truth(mode));
        prop_assert_eq!(world.progress().words, world.truth(mode).total());
    }
}
