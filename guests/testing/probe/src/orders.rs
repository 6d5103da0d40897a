//! What the probe can be ordered to do.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use crate::bellwether::runtime::{cluster, state, workers};
use crate::wasi::config::store;
use crate::wasi::logging::logging::{Level, log};
use crate::{callbacks, load, numbered, script};

type Done = Result<Vec<u8>, String>;

fn say(what: impl std::fmt::Debug) -> Done {
    Ok(format!("{what:?}").into_bytes())
}

fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
}

/// Carries out an order: a verb, a blank, and the rest.
pub fn act(order: &str) -> Done {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    match verb {
        "echo" => Ok(rest.as_bytes().to_vec()),
        "refuse" => Err(rest.to_owned()),
        "count" => {
            let mut callbacks = callbacks();
            *callbacks += 1;
            say(*callbacks)
        }
        "config" => say(store::get(rest)),
        "config-all" => say(store::get_all()),
        "log" => {
            log(Level::Warn, "probe", rest);
            Ok(Vec::new())
        }
        // tell ORDER: logs what came of it
        "tell" => {
            let done = act(rest).map(|answer| String::from_utf8_lossy(&answer).into_owned());
            log(Level::Info, "tell", &format!("{done:?}"));
            Ok(Vec::new())
        }
        // script FILE: see there
        "script" => script::run(rest),
        "members" => Ok(cluster::members().iter().map(|m| m.id.as_str()).collect::<Vec<_>>().join(",").into_bytes()),
        "cluster" => say((cluster::this().id, cluster::epoch(), cluster::leader(), cluster::resign())),
        "answer" => Ok(vec![b'x'; number(rest)? as usize]),
        _ => misbehave(verb, rest)
            .or_else(|| outside(verb, rest))
            .or_else(|| fenced(verb, rest))
            .unwrap_or_else(|| Err(format!("no such order: {verb}"))),
    }
}

/// Everything a good guest does not do.
fn misbehave(verb: &str, rest: &str) -> Option<Done> {
    Some(match verb {
        "loop" => {
            let mut spins = 0_u64;
            loop {
                spins = std::hint::black_box(spins.wrapping_add(1));
            }
        }
        "panic" => boom(rest),
        "exit" => std::process::exit(number(rest).unwrap_or(1) as i32),
        "recurse" => say(deeper(number(rest).unwrap_or(0))),
        "allocate" => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        "allocate-mib" => number(rest).and_then(|mib| {
            let kept = std::hint::black_box(vec![1_u8; (mib << 20) as usize]);
            say(kept.len())
        }),
        "flood" => number(rest).map(|lines| {
            for line in 0..lines {
                println!("line {line} of a flood");
            }
            Vec::new()
        }),
        "host-calls" => number(rest).map(|calls| {
            for _ in 0..calls {
                std::hint::black_box(cluster::epoch());
            }
            Vec::new()
        }),
        "wasi-calls" => loop {
            std::hint::black_box(SystemTime::now());
        },
        _ => return None,
    })
}

#[inline(never)]
fn boom(why: &str) -> ! {
    panic!("{why}")
}

#[inline(never)]
fn deeper(level: u64) -> u64 {
    if std::hint::black_box(level) == u64::MAX { 0 } else { 1 + std::hint::black_box(deeper(level + 1)) }
}

/// What the sandbox must be asked for.
fn outside(verb: &str, rest: &str) -> Option<Done> {
    Some(match verb {
        "print" => {
            print!("{rest}");
            eprint!("{rest}");
            std::io::stdout().flush().map(|()| Vec::new()).map_err(|e| e.to_string())
        }
        "sleep" => number(rest).map(|ms| {
            std::thread::sleep(Duration::from_millis(ms));
            b"slept".to_vec()
        }),
        "env" => say(std::env::var(rest).ok()),
        "read" => std::fs::read(rest).map_err(|e| e.to_string()),
        "write" => std::fs::write(rest, b"written").map(|()| b"written".to_vec()).map_err(|e| e.to_string()),
        "connect" => std::net::TcpStream::connect(rest)
            .and_then(|mut stream| {
                stream.write_all(b"ping")?;
                let mut answer = vec![0; 4];
                stream.read_exact(&mut answer)?;
                Ok(answer)
            })
            .map_err(|e| e.to_string()),
        "listen" => {
            std::net::TcpListener::bind("127.0.0.1:0").map(|_| b"listening".to_vec()).map_err(|e| e.to_string())
        }
        "udp" => std::net::UdpSocket::bind("127.0.0.1:0").map(|_| b"bound".to_vec()).map_err(|e| e.to_string()),
        "random" => say(std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 1)),
        _ => return None,
    })
}

/// Work and state.
fn fenced(verb: &str, rest: &str) -> Option<Done> {
    let mut words = rest.splitn(3, ' ');
    let mut word = || words.next().unwrap_or("");
    Some(match verb {
        // send TO TIMEOUT PAYLOAD
        "send" => {
            let (to, ms, payload) = (word(), word(), word());
            number(ms).and_then(|ms| say(workers::send(to, payload.as_bytes(), ms as u32)))
        }
        // send-bytes TO TIMEOUT SIZE: bytes that are no text, which a probe sends back
        "send-bytes" => {
            let (to, ms, size) = (word(), word(), word());
            number(ms).and_then(|ms| {
                let payload = vec![0xff; number(size)? as usize];
                say(workers::send(to, &payload, ms as u32).map(|answer| answer.len()))
            })
        }
        // each TIMEOUT ORDER: to every member
        "each" => {
            let (ms, order) = rest.split_once(' ').unwrap_or((rest, ""));
            let members = cluster::members().into_iter();
            let assignments: Vec<_> =
                members.map(|m| workers::Assignment { to: m.id, payload: order.as_bytes().to_vec() }).collect();
            number(ms).and_then(|ms| say(workers::scatter(&assignments, ms as u32)))
        }
        // batch COUNT TIMEOUT FOLDER: numbered pieces to whoever is there
        "batch" => {
            let (count, ms, folder) = (word(), word(), word());
            number(count).and_then(|count| load::batch(count, number(ms)? as u32, folder)).map(|()| Vec::new())
        }
        // numbered COUNT TIMEOUT FOLDER: the same, in a way that a successor can go on with
        "numbered" => {
            let (count, ms, folder) = (word(), word(), word());
            number(count).and_then(|count| {
                numbered::work(count, number(ms)? as u32, folder);
                Ok(Vec::new())
            })
        }
        // once FOLDER PIECE
        "once" => load::once(word(), word()),
        // crowd TO COUNT TIMEOUT ORDER: the same to one member, so many times at once
        "crowd" => {
            let (to, count, rest) = (word(), word(), word());
            let (ms, order) = rest.split_once(' ').unwrap_or((rest, ""));
            number(count).and_then(|count| {
                let assignment = workers::Assignment { to: to.to_owned(), payload: order.as_bytes().to_vec() };
                let assignments = vec![assignment; count as usize];
                say(workers::scatter(&assignments, number(ms)? as u32))
            })
        }
        // scatter COUNT TIMEOUT: to n0, n1, …
        "scatter" => {
            let (count, ms) = (word(), word());
            number(count).and_then(|count| {
                let assignments: Vec<_> = (0..count)
                    .map(|n| workers::Assignment { to: format!("n{n}"), payload: format!("echo {n}").into_bytes() })
                    .collect();
                let answers = workers::scatter(&assignments, number(ms)? as u32);
                let answers = answers.into_iter().map(|a| a.map(|a| String::from_utf8_lossy(&a).into_owned()));
                say(answers.collect::<Vec<_>>())
            })
        }
        "put" => say(state::put(word(), word().as_bytes(), state::Expectation::Anything)),
        // put-at KEY VERSION VALUE: only if it has that version
        "put-at" => {
            let (key, version, value) = (word(), word(), word());
            number(version)
                .and_then(|version| say(state::put(key, value.as_bytes(), state::Expectation::Version(version as u32))))
        }
        // put-bytes KEY SIZE
        "put-bytes" => {
            let (key, size) = (word(), word());
            number(size).and_then(|size| say(state::put(key, &vec![0; size as usize], state::Expectation::Anything)))
        }
        "put-new" => say(state::put(word(), word().as_bytes(), state::Expectation::Absent)),
        "get" => say(state::get(rest).map(|e| e.map(|e| (String::from_utf8_lossy(&e.value).into_owned(), e.version)))),
        "delete" => say(state::delete(rest, state::Expectation::Anything)),
        "list" => say(state::list(rest)),
        "watch" => say(state::watch(rest)),
        "unwatch" => say(state::unwatch(rest)),
        _ => return None,
    })
}
