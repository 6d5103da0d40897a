//! The main job as a team would run it: three processes on a real ZooKeeper count the words of a folder, while the leader and a
//! worker are killed and the logic is swapped. Both results must equal what coreutils count.

#![allow(clippy::print_stdout, reason = "the test harness keeps it, and shows it if the test has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

const GROUP: &str = "wordcount";
const PASS: Duration = Duration::from_secs(240);

/// A generator (xorshift, after Marsaglia), so that every run counts the same text.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}

/// Writes some megabytes of text: words of all cases between all sorts of other characters, some beyond ASCII, lines of all
/// lengths, files in folders, an empty one, and some that do not end in a line break.
fn write_corpus(folder: &Path) -> Result<()> {
    let mut random = Random(0x0062_656c_6c77_6574);
    let letters: Vec<char> = ('a'..='z').collect();
    let vocabulary: Vec<String> =
        (0..4000).map(|_| (0..=random.below(11)).map(|_| letters[random.below(letters.len())]).collect()).collect();
    let between = [
        " ", " ", " ", " ", ", ", ". ", "\n", "\n\n", "-", "'", " 42 ", "_", "\t", " é", "ß ", " 中文 ", "\r\n",
        "0x1f ",
    ];
    for file in 0..60 {
        let mut text = String::new();
        let length = 20_000 + random.below(100_000);
        while text.len() < length {
            // The square makes some words far more frequent than others.
            let at = random.below(vocabulary.len()) * random.below(vocabulary.len()) / vocabulary.len();
            match random.below(8) {
                0 => text.push_str(&vocabulary[at].to_uppercase()),
                1 => {
                    let (first, rest) = vocabulary[at].split_at(1);
                    write!(text, "{}{rest}", first.to_uppercase())?;
                }
                _ => text.push_str(&vocabulary[at]),
            }
            text.push_str(between[random.below(between.len())]);
        }
        let folder = folder.join(format!("part-{}", file % 7));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{file}.txt")), text)?;
    }
    std::fs::write(folder.join("empty"), "")?;
    // A word that is cut by every chunk's end.
    std::fs::write(folder.join("long"), "Wörd".to_owned() + &"longWORD".repeat(6000))?;
    Ok(())
}

/// What coreutils count in the folder, in the form of the guest's result; `fold` is one more step of the pipeline.
fn coreutils(folder: &Path, fold: &str) -> Result<String> {
    // `grep ''` gives every file's last line an end, so that no word is joined to the next file's.
    let pipeline = format!(
        "set -e; export LC_ALL=C; find . -type f -print0 | sort -z | xargs -0 grep -ah '' {fold} \
         | tr -cs 'A-Za-z' '\\n' | sed '/^$/d' | sort | uniq -c | awk '{{ print $1 \" \" $2 }}'"
    );
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &pipeline]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The job, as the nodes tell of it.
struct Job {
    cluster: Cluster,
}

impl Job {
    /// The key `progress`; none while nobody can read it.
    fn progress(&self) -> Option<Value> {
        let node = self.cluster.nodes().iter().find(|node| node.is_awake())?;
        serde_json::from_str(&node.state(GROUP, "progress").ok()??).ok()
    }

    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.cluster.wait_for(what, PASS, |_| self.progress().filter(|progress| holds(progress)))
    }

    /// The result of a pass, read by way of the command line.
    fn result(&self, pass: u64) -> Result<String> {
        let node = self.cluster.node(0);
        let keys = node.cli(&["state", "list", GROUP, &format!("result/{pass}/")])?.ok()?;
        ensure!(!keys.is_empty(), "pass {pass} has no result");
        keys.lines().try_fold(String::new(), |all, key| Ok(all + &node.cli(&["state", "get", GROUP, key])?.ok()?))
    }
}

fn number(progress: &Value, field: &str) -> u64 {
    progress[field].as_u64().unwrap_or(0)
}

/// Where the two differ, for a person.
fn compare(what: &str, expected: &str, found: &str) -> Result<()> {
    let table = |text: &str| -> BTreeMap<String, String> {
        text.lines().filter_map(|line| line.split_once(' ')).map(|(n, word)| (word.to_owned(), n.to_owned())).collect()
    };
    let (expected_words, found_words) = (table(expected), table(found));
    let differ = expected_words
        .keys()
        .chain(found_words.keys())
        .filter(|word| expected_words.get(*word) != found_words.get(*word));
    let shown: Vec<String> = differ
        .take(10)
        .map(|word| {
            format!("{word:.40}: coreutils {:?}, bellwether {:?}", expected_words.get(word), found_words.get(word))
        })
        .collect();
    ensure!(expected == found, "{what} differs from coreutils':\n{}", shown.join("\n"));
    Ok(())
}

#[test]
fn the_main_job_counts_exactly_in_spite_of_kills_and_a_swap() -> Result<()> {
    let (v1, v2) = (guest("wordcount-v1"), guest("wordcount-v2"));
    let zookeeper = Server::start()?;
    let text = tempfile::tempdir()?;
    write_corpus(text.path())?;
    let settings = format!(
        "[group.config]\nfolder = \"/corpus\"\nchunk_bytes = 16384\nbatch = 2\npasses = 2\nhold = true\n\
         [group.tick]\nevery = \"60ms\"\n[group.grants]\nfolders = [{{ host = {:?}, guest = \"/corpus\" }}]\n",
        text.path()
    );
    let job = Job { cluster: Cluster::builder(zookeeper.address()).nodes(3).group(GROUP, v1, &settings).start()? };
    let cluster = &job.cluster;
    cluster.wait_ready()?;

    // The leader is killed part way; another goes on from the checkpoint, and does not begin anew.
    let first = cluster.wait_leader(GROUP)?;
    let before = job.wait("a fifth of pass 1", |p| number(p, "done") * 5 >= number(p, "total"))?;
    ensure!(before["state"] == "counting" && before["pass"] == 1, "pass 1 was over too soon: {before}");
    cluster.node(first).kill();
    cluster.node(first).start()?;
    let second = cluster.wait_successor(GROUP, first)?;
    let after = job.wait("the new leader to go on", |p| number(p, "done") > number(&before, "done"))?;
    ensure!(after["pass"] == 1, "{after}");

    // So is a worker, the one that has been there all the time.
    cluster.wait_until("the killed leader to work", |c| c.node(first).role(GROUP).as_deref() == Some("worker"))?;
    let worker = (0..3).find(|index| ![first, second].contains(index)).context("three nodes")?;
    let before = job.progress().context("nobody tells of the progress")?;
    ensure!(before["state"] == "counting", "pass 1 was over before a worker could be killed: {before}");
    cluster.node(worker).kill();
    job.wait("more chunks with one worker less", |p| number(p, "done") > number(&before, "done"))?;
    cluster.node(worker).start()?;
    job.wait("the end of pass 1", |p| p["pass"] == 1 && p["state"] == "finished")?;
    cluster.wait_ready()?;

    // New logic on every node, the workers first. Nothing restarts, and leadership stays.
    let leader = cluster.wait_leader(GROUP)?;
    let stays = |cluster: &Cluster| -> Result<(Value, Vec<Value>, Vec<i32>)> {
        let epoch = cluster.node(leader).group(GROUP)?["epoch"].clone();
        let sessions =
            cluster.nodes().iter().map(|node| Ok(node.status()?["session"]["id"].clone())).collect::<Result<_>>()?;
        let pids = cluster.nodes().iter().map(|node| node.pid()).collect::<Result<_>>()?;
        Ok((epoch, sessions, pids))
    };
    let before_swap = stays(cluster)?;
    for index in (0..3).filter(|index| *index != leader).chain([leader]) {
        let report = cluster.node(index).cli(&["swap", GROUP, &v2.display().to_string(), "--json"])?.json()?;
        ensure!(report["outcome"] == "committed", "{report}");
    }
    job.wait("the end of pass 2", |p| p["pass"] == 2 && p["state"] == "finished" && p["version"] == "v2")?;
    assert_eq!(stays(cluster)?, before_swap, "epoch, sessions and processes stay");

    let expected = coreutils(text.path(), "")?;
    ensure!(expected.lines().count() > 1000, "the corpus is too small to prove anything");
    println!("{} different words in pass 1; epoch {}", expected.lines().count(), before_swap.0);
    compare("pass 1", &expected, &job.result(1)?)?;
    compare("pass 2", &coreutils(text.path(), "| tr A-Z a-z")?, &job.result(2)?)?;
    for node in cluster.nodes() {
        assert_eq!(node.stop()?, 0);
    }
    Ok(())
}
