//! A search over documents, scattered over the members and gathered. `README.md` beside this says how it is asked.
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({
    inline: "
        package example:search;
        world search {
            include bellwether:runtime/service@0.1.0;
            export bellwether:runtime/ticker@0.1.0;
        }
    ",
    path: "../../../wit",
    generate_all,
});

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bellwether::runtime::workers::{self, Assignment};
use exports::bellwether::runtime::lifecycle::{DemotionReason, Leadership, Membership};
use exports::bellwether::runtime::{lifecycle, ticker, worker};
use wasi::logging::logging::{Level, log};

const DOCUMENTS: &str = "/documents";
const QUERIES: &str = "/queries";
/// Documents in one piece of work: small, so that a member that is lost takes little with it.
const PIECE: usize = 40;
/// Answers that are listed.
const BEST: usize = 10;

struct Search;

thread_local! {
    // An instance has one thread, and its callbacks come one at a time.
    static MEMBERS: RefCell<BTreeSet<String>> = RefCell::default();
}

/// The files below `folder`, by their names from there on, in order.
fn documents(folder: &Path, below: &str, found: &mut Vec<String>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(failed)?.is_dir() {
            documents(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(())
}

/// How often a word stands in a text, in capitals or not. Words are made of the letters, digits and `_` of ASCII.
fn count(text: &[u8], word: &[u8]) -> u64 {
    let parts = text.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    parts.filter(|part| part.eq_ignore_ascii_case(word)).map(|_| 1).sum()
}

/// Lines `NUMBER NAME`, for documents in which the word stands.
fn counted(answer: &[u8]) -> Option<Vec<(u64, String)>> {
    let line = |line: &str| line.split_once(' ').and_then(|(n, name)| Some((n.parse().ok()?, name.to_owned())));
    std::str::from_utf8(answer).ok()?.lines().map(line).collect()
}

/// Has every document searched, whoever answers and whoever does not. An answer is whole, or there is none.
fn search(word: &str, members: &BTreeSet<String>) -> Result<String, String> {
    let mut names = Vec::new();
    documents(Path::new(DOCUMENTS), "", &mut names)?;
    let mut open: Vec<&[String]> = names.chunks(PIECE).collect();
    let mut hits = Vec::new();
    let mut able: Vec<&String> = members.iter().collect();
    while !open.is_empty() && !able.is_empty() {
        let work: Vec<Assignment> = open
            .iter()
            .zip(able.iter().cycle())
            .map(|(piece, to)| Assignment {
                to: (*to).clone(),
                payload: format!("{word}\n{}", piece.join("\n")).into_bytes(),
            })
            .collect();
        let answers = workers::scatter(&work, 2_000);
        let mut failed = BTreeMap::new();
        let mut again = Vec::new();
        for ((piece, work), answer) in open.iter().zip(&work).zip(answers) {
            match answer
                .map_err(|error| format!("{error:?}"))
                .and_then(|it| counted(&it).ok_or_else(|| "rubbish".into()))
            {
                Ok(found) => hits.extend(found),
                Err(why) => {
                    again.push(*piece);
                    failed.insert(&work.to, why);
                }
            }
        }
        for (member, why) in &failed {
            log(Level::Warn, "search", &format!("{member} did not answer, others do its part: {why}"));
        }
        able.retain(|member| !failed.contains_key(*member));
        open = again;
    }
    if !open.is_empty() {
        return Err(format!("no member is left to search {} pieces", open.len()));
    }
    let (documents, times) = (hits.len(), hits.iter().map(|(n, _)| n).sum::<u64>());
    hits.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let best: Vec<String> = hits.iter().take(BEST).map(|(n, name)| format!("{n} {name}\n")).collect();
    Ok(format!("{times} times in {documents} documents\n{}", best.concat()))
}

/// Answers the queries that lie there and have no answer yet.
fn attend(members: &BTreeSet<String>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{QUERIES}: {error}");
    for entry in fs::read_dir(QUERIES).map_err(failed)? {
        let query = entry.map_err(failed)?.path();
        if query.extension().is_none_or(|extension| extension != "query") || query.with_extension("answer").exists() {
            continue;
        }
        let word = fs::read_to_string(&query).map_err(failed)?;
        let answer = search(word.trim(), members)?;
        // Whole or not there, for whoever reads it.
        let aside = query.with_extension("aside");
        fs::write(&aside, answer).and_then(|()| fs::rename(&aside, query.with_extension("answer"))).map_err(failed)?;
        log(Level::Info, "search", &format!("answered {:?} by {} members", word.trim(), members.len()));
    }
    Ok(())
}

impl lifecycle::Guest for Search {
    fn on_elected(_leadership: Leadership) -> Result<(), String> {
        Ok(())
    }

    fn on_demoted(_reason: DemotionReason) -> Result<(), String> {
        Ok(())
    }

    fn on_members_changed(change: Membership) -> Result<(), String> {
        MEMBERS.with_borrow_mut(|members| {
            members.extend(change.joined.into_iter().map(|member| member.id));
            for id in &change.left {
                members.remove(id);
            }
        });
        Ok(())
    }
}

impl ticker::Guest for Search {
    fn on_tick() -> Result<(), String> {
        MEMBERS.with_borrow(|members| if members.is_empty() { Ok(()) } else { attend(members) })
    }
}

impl worker::Guest for Search {
    fn handle(task: worker::Task) -> Result<Vec<u8>, String> {
        let order = String::from_utf8(task.payload).map_err(|error| error.to_string())?;
        let mut lines = order.lines();
        let word = lines.next().ok_or("not an order")?;
        let mut answer = String::new();
        for name in lines {
            let text = fs::read(Path::new(DOCUMENTS).join(name)).map_err(|error| format!("{name}: {error}"))?;
            let times = count(&text, word.as_bytes());
            if times > 0 {
                answer.push_str(&format!("{times} {name}\n"));
            }
        }
        Ok(answer.into_bytes())
    }
}

export!(Search);
