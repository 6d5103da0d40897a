//! How the C library's allocator treats blocks of the size of a message.

/// Up to so much is taken from what the process has and goes back there. What is larger comes from the kernel each time.
const KEPT: usize = 8 << 20;

/// Has freed blocks kept for the next ones, unless the environment says how the allocator shall work (`GLIBC_TUNABLES`).
///
/// To begin with, glibc gives memory back to the kernel as soon as a few MiB lie free at the end of a heap, as after every large message:
/// each of 1 MiB then cost 400 page faults and more, and a third of all processor time. But glibc learns: once a block is freed for
/// which it had asked the kernel, blocks up to that size are no longer asked for one by one, and up to twice as much is kept free in
/// each heap. So it is shown one, which is never written to and thus costs nothing. Other allocators do not mind.
/// A heap is one of a thread that has dealt with such messages, or of several: where there are many, each may keep 16 MiB.
pub fn keep_freed() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT)));
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Page faults of this thread that needed no disk: `minflt`.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("this thread's counters");
        let (_, after) = stat.rsplit_once(')').expect("a name");
        after.split_whitespace().nth(7).and_then(|count| count.parse().ok()).expect("a number")
    }

    #[test]
    fn blocks_of_the_size_of_a_message_are_there_already() {
        keep_freed();
        let use_some = || {
            let blocks: Vec<Vec<u8>> = (0..6).map(|n| vec![n + 1; 2 << 20]).collect();
            std::hint::black_box(blocks);
        };
        use_some();
        let before = faults();
        for _ in 0..10 {
            use_some();
        }
        let of_each = (faults() - before) / 10;
        // They have 3,072 pages.
        assert!(of_each < 300, "{of_each} page faults");
    }
}
