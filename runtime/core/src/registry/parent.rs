//! The znode above the members: what its stat tells of them.

use crate::candidate::COUNTER_END;
use crate::request::Stat;

/// The parent at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    /// The transaction that made it: made again, it begins to count from zero, and its children's names mean others.
    pub czxid: i64,
    children: i32,
    cversion: i32,
}

impl Parent {
    pub fn of(stat: &Stat) -> Self {
        Self { czxid: stat.czxid, children: stat.children, cversion: stat.cversion }
    }

    /// How many children were ever made, which is the number that the next sequential one is given; none at the counter's end, from
    /// where on it tells nothing.
    pub fn counter(self) -> Option<i64> {
        // 2 made: each child that was made counts in both, each that was deleted adds to one what it takes from the other. Unsigned it
        // holds all numbers up to the end.
        let made = i64::from(self.cversion.wrapping_add(self.children).cast_unsigned() / 2);
        (made < COUNTER_END).then_some(made)
    }

    /// Whether nothing has happened to the children since then.
    pub fn is_still(self, then: Self) -> bool {
        self == then && self.counter().is_some()
    }

    /// Whether a child was made since then, and nothing else has happened to the children.
    pub fn is_one_more_than(self, then: Self) -> bool {
        // The one says that one more was made than deleted; the other that one thing has happened, unless the counter has come to its end
        // and not all that were made are counted.
        self.counter().is_some()
            && self.czxid == then.czxid
            && self.children == then.children.wrapping_add(1)
            && self.cversion == then.cversion.wrapping_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parent as a server shows it that has made so many children and deleted so many.
    fn parent(made: i32, deleted: i32) -> Parent {
        let children = made.wrapping_sub(deleted);
        Parent { czxid: 1, children, cversion: made.wrapping_mul(2).wrapping_sub(children) }
    }

    #[test]
    fn the_counter_is_found_in_the_stat_wherever_it_stands() {
        for (made, deleted) in [(0, 0), (3, 0), (3, 3), (1 << 30, 5), ((1 << 30) + 1, 1 << 30), (i32::MAX - 1, 7)] {
            assert_eq!(parent(made, deleted).counter(), Some(i64::from(made)), "{made} made, {deleted} deleted");
        }
        assert_eq!(parent(i32::MAX, 0).counter(), None);
        assert_eq!(parent(i32::MAX, i32::MAX - 2).counter(), None);
    }

    #[test]
    fn one_join_is_told_from_everything_else() {
        // The last two: the number of changes wraps.
        for (made, deleted) in [(0, 0), (9, 4), ((1 << 30) - 1, 0), (1 << 30, 1)] {
            let then = parent(made, deleted);
            let now = |more, fewer| parent(made + more, deleted + fewer);
            assert!(now(1, 0).is_one_more_than(then), "{then:?}");
            for (more, fewer) in [(0, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, 2), (3, 2)] {
                assert!(!now(more, fewer).is_one_more_than(then), "{more} more and {fewer} fewer than {then:?}");
            }
            assert!(!Parent { czxid: 2, ..now(1, 0) }.is_one_more_than(then));
            assert!(now(0, 0).is_still(then) && !now(1, 1).is_still(then) && !now(1, 0).is_still(then));
        }
    }

    #[test]
    fn at_the_end_of_the_counter_nothing_is_taken_for_one_join_and_nothing_for_rest() {
        // The server makes children there without counting them.
        let at_the_end = |children: i32| Parent { czxid: 1, children, cversion: (-2_i32).wrapping_sub(children) };
        let then = at_the_end(10);
        for children in 5..15 {
            assert!(!at_the_end(children).is_one_more_than(then) && !at_the_end(children).is_still(then), "{children}");
        }
        // The last number of all is given: two made, of which one is not counted, and one deleted look like one made.
        let then = parent(i32::MAX - 1, i32::MAX - 11);
        assert_eq!((then.children, then.counter()), (10, Some(i64::from(i32::MAX - 1))));
        assert!(!at_the_end(11).is_one_more_than(then));
        assert_eq!(at_the_end(11).cversion, then.cversion + 1);
    }
}
