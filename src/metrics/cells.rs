//! Counters and histograms that one thread writes and every thread may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count or level with one writing thread: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning thread may.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Sets; only the owning thread may.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Reads; anybody may.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds; the last bucket is everything above.
pub const BUCKETS_US: [u64; 18] = [
    25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 1_000_000,
    4_000_000, 16_000_000,
];

/// A latency histogram of fixed buckets: it does not grow, whatever happens.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; BUCKETS_US.len() + 1],
    sum_ns: Cell,
}

impl Histogram {
    /// Counts one latency; only the owning thread may.
    pub fn record(&self, ns: u64) {
        let us = ns.div_ceil(1000);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].add(1);
        self.sum_ns.add(ns);
    }

    /// Counts per bucket (not cumulated) and the sum in seconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], f64) {
        (std::array::from_fn(|i| self.buckets[i].get()), self.sum_ns.get() as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_on_a_bound_counts_below_it() {
        let histogram = Histogram::default();
        histogram.record(25_000);
        histogram.record(25_001);
        histogram.record(u64::MAX / 2);
        let (buckets, _) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS_US.len()]), (1, 1, 1));
    }
}
