//! What waiting for memory costs: the time of a read whose address the one before it gave, beyond which no look-up in a table of that size can go.

use std::{hint::black_box, time::Instant};

use crate::random::Random;

const LINE_BYTES: usize = 64;
const READS: u32 = 1 << 20;
const TRIES: usize = 5;

/// Nanoseconds of one read after another in `bytes` of memory, each of another cache line, in random order: the median of five tries.
#[must_use]
pub fn dependent_read_ns(bytes: usize) -> f64 {
    let memory = chain(bytes / LINE_BYTES);
    let mut tries: Vec<f64> = (0..TRIES).map(|_| time_of(&memory)).collect();
    super::l4::median(&mut tries)
}

/// Lines that name each other in one circle (Sattolo's algorithm).
fn chain(lines: usize) -> Vec<[u64; LINE_BYTES / 8]> {
    let mut next: Vec<u64> = (0..lines as u64).collect();
    let mut random = Random::new(1);
    for last in (1..lines).rev() {
        next.swap(last, random.below(last as u64) as usize);
    }
    next.into_iter().map(|next| [next; LINE_BYTES / 8]).collect()
}

fn time_of(memory: &[[u64; LINE_BYTES / 8]]) -> f64 {
    let mut line = 0;
    let start = Instant::now();
    for _ in 0..READS {
        line = memory[line as usize][0];
    }
    let elapsed = start.elapsed();
    black_box(line);
    elapsed.as_nanos() as f64 / f64::from(READS)
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[test]
    fn the_reads_go_through_all_of_the_memory() {
        let memory = chain(1000);
        let circle = std::iter::successors(Some(0), |&line| Some(memory[line][0] as usize)).skip(1);
        assert_eq!(circle.take_while(|&line| line != 0).count(), 999);
    }
}
