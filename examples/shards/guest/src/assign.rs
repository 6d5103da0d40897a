//! Who serves which shard. A pure function of who served it and who is there.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The owner of each shard; the shards are numbered from 0.
pub type Owners = Vec<Option<String>>;

/// Divides `owners` over `members`, so that the members' numbers of shards differ by one at the most, and no shard moves that can
/// stay: those without a member move, and of each member what it has too much.
pub fn rebalance(owners: &Owners, members: &[String]) -> Owners {
    if members.is_empty() {
        return vec![None; owners.len()];
    }
    let mut held: BTreeMap<&str, Vec<usize>> = members.iter().map(|member| (member.as_str(), Vec::new())).collect();
    let mut free = Vec::new();
    for (shard, owner) in owners.iter().enumerate() {
        match owner.as_deref().and_then(|owner| held.get_mut(owner)) {
            Some(shards) => shards.push(shard),
            None => free.push(shard),
        }
    }
    // Whoever has most keeps one more, where the numbers do not divide: so it need not move.
    let (share, more) = (owners.len() / held.len(), owners.len() % held.len());
    let mut order: Vec<(&str, Vec<usize>)> = held.into_iter().collect();
    order.sort_by_key(|(_, shards)| Reverse(shards.len()));
    let quota = |place: usize| share + usize::from(place < more);
    for (place, (_, shards)) in order.iter_mut().enumerate() {
        free.extend(shards.split_off(quota(place).min(shards.len())));
    }
    let mut owners = vec![None; owners.len()];
    for (place, (member, mut shards)) in order.into_iter().enumerate() {
        let missing = quota(place) - shards.len();
        shards.extend(free.drain(..missing));
        for shard in shards {
            owners[shard] = Some(member.to_owned());
        }
    }
    owners
}

/// A line for each shard: its number and its owner, `-` for none.
pub fn write(owners: &Owners) -> String {
    let line = |(shard, owner): (usize, &Option<String>)| format!("{shard} {}\n", owner.as_deref().unwrap_or("-"));
    owners.iter().enumerate().map(line).collect()
}

pub fn parse(text: &str) -> Result<Owners, String> {
    let owner = |(n, line): (usize, &str)| match line.split_once(' ') {
        Some((shard, owner)) if shard.parse() == Ok(n) => Some((owner != "-").then(|| owner.to_owned())),
        _ => None,
    };
    let owners: Option<Owners> = text.lines().enumerate().map(owner).collect();
    owners.ok_or_else(|| "this is no assignment".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[usize]) -> Vec<String> {
        ids.iter().map(|id| format!("n{id}")).collect()
    }

    fn counts(owners: &Owners, members: &[String]) -> Vec<usize> {
        members.iter().map(|member| owners.iter().filter(|owner| owner.as_ref() == Some(member)).count()).collect()
    }

    fn moved(before: &Owners, after: &Owners) -> usize {
        before.iter().zip(after).filter(|(before, after)| before != after).count()
    }

    /// The least that any fair division must move: what has no member, and what is beyond the members' shares.
    fn least(before: &Owners, members: &[String]) -> usize {
        let mut held = counts(before, members);
        held.sort_unstable_by_key(|held| Reverse(*held));
        let (share, more) = (before.len() / members.len(), before.len() % members.len());
        let kept: usize = held.iter().enumerate().map(|(n, held)| (*held).min(share + usize::from(n < more))).sum();
        before.len() - kept
    }

    #[test]
    fn every_change_is_fair_and_moves_the_least() {
        // All ways in which five members come and go, three changes long.
        let sets: Vec<Vec<usize>> =
            (1..32_usize).map(|set| (0..5).filter(|member| set >> member & 1 == 1).collect()).collect();
        for shards in [1, 7, 12] {
            for first in &sets {
                let one = rebalance(&vec![None; shards], &members(first));
                for second in &sets {
                    let two = rebalance(&one, &members(second));
                    for third in &sets {
                        let third = members(third);
                        let three = rebalance(&two, &third);
                        let counts = counts(&three, &third);
                        let (most, fewest) = (counts.iter().max(), counts.iter().min());
                        assert!(most <= fewest.map(|fewest| fewest + 1).as_ref(), "{counts:?}");
                        assert_eq!(counts.iter().sum::<usize>(), shards, "{counts:?}");
                        assert_eq!(moved(&two, &three), least(&two, &third), "{two:?} {third:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn with_nobody_there_nobody_serves_and_all_is_read_again() {
        let owners = rebalance(&vec![None; 4], &members(&[1, 2]));
        assert_eq!(parse(&write(&owners)), Ok(owners.clone()));
        assert_eq!(rebalance(&owners, &[]), vec![None; 4]);
        assert!(parse("1 n1\n").is_err());
    }
}
