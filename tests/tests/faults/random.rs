//! Everything at once, from a seed.

use std::time::{Duration, Instant};

use anyhow::Result;
use bellwether_tests::checker::now_ns;
use bellwether_tests::proxy::{Flow, Link};
use bellwether_tests::settings::setting;

use crate::bed::{Bed, T, WRITES, busy, is_claim, is_state_write};

/// A small generator (splitmix64), so that a seed repeats what is done, if not what comes of it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

struct Storm {
    bed: Bed,
    dice: Dice,
    paused: [Option<u64>; NODES],
}

const NODES: usize = 5;

impl Storm {
    fn resume(&mut self, node: usize) -> Result<()> {
        if let Some(from) = self.paused[node].take() {
            self.bed.resume(node, from)?;
        }
        Ok(())
    }

    /// One more thing goes wrong, or is mended.
    fn step(&mut self) -> Result<()> {
        let some = self.dice.roll(NODES as u64) as usize;
        // Every other time it is the leader's turn.
        let leader = (self.dice.roll(2) == 0).then(|| self.bed.cluster.leader(WRITES)).flatten();
        let node = leader.unwrap_or(some);
        let (what, flow) = (self.dice.roll(12), [Flow::Stall, Flow::Swallow][self.dice.roll(2) as usize]);
        println!("n{node}: {what}, {flow:?}");
        let proxy = &self.bed.proxies[node];
        match what {
            0 => proxy.set(Link { up: flow, down: flow }),
            1 => proxy.set(Link { up: flow, down: Flow::Pass }),
            2 => proxy.set(Link { up: Flow::Pass, down: flow }),
            3 => proxy.set(Link { up: Flow::Delay(T / 20), down: Flow::Delay(T / 20) }),
            4 => proxy.reset(),
            5 => drop(proxy.lose_reply(is_claim)),
            6 => drop(proxy.lose_reply(is_state_write)),
            7 => drop(proxy.lose_reply(|request| request.creates("/m_") || request.creates("-n_"))),
            8 if self.paused[node].is_none() && self.bed.cluster.node(node).runs() => {
                self.paused[node] = Some(now_ns());
                self.bed.cluster.node(node).pause()?;
            }
            8 => self.resume(node)?,
            9 => {
                self.resume(node)?;
                self.bed.kill(node);
                self.bed.cluster.node(node).start()?;
            }
            10 if self.bed.cluster.node(node).is_awake() => {
                // It may not lead any more, or not answer.
                let _ = self.bed.cluster.node(node).cli(&["resign", WRITES])?;
            }
            _ => self.mend()?,
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<()> {
        self.bed.proxies.iter().for_each(bellwether_tests::proxy::Proxy::heal);
        (0..NODES).try_for_each(|node| self.resume(node))
    }
}

#[test]
fn a_storm_of_random_faults_leaves_no_stale_effect_and_ends_at_rest() -> Result<()> {
    let seconds = setting("BELLWETHER_FAULTS_SECONDS", 15_u64)?;
    let seed = setting("BELLWETHER_FAULTS_SEED", 1_u64)?;
    println!("BELLWETHER_FAULTS_SEED={seed} BELLWETHER_FAULTS_SECONDS={seconds}");
    // Killed nodes are cleared away by their reapers; links that are cut let sessions run out.
    let bed = Bed::prepare(NODES, |builder| busy(builder).node("reaper = true"))?;
    bed.start()?;
    let mut storm = Storm { bed, dice: Dice(seed), paused: [None; NODES] };
    let (end, mut steps) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end {
        storm.step()?;
        steps += 1;
        let pause = 100 + storm.dice.roll(T.as_millis() as u64 / 2);
        std::thread::sleep(Duration::from_millis(pause));
    }
    storm.mend()?;
    let summary = storm.bed.conclude()?;
    println!("{steps} faults in {seconds} s: {summary:?}");
    Ok(())
}
