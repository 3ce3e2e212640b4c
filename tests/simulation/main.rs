//! The whole of logweir but its sockets and its disk, on simulated threads, sockets, disks and clocks. A seed is one run: who
//! gets ahead of whom, what clients send in which pieces, which calls fail, when the process is killed or the power goes.
//! After each of these the files are held against what clients were promised, and every account against what they sent.
//!
//!     LOGWEIR_SEEDS=1000000 cargo test --release --test simulation     as many seeds as that
//!     LOGWEIR_SEED=4711 cargo test --test simulation                   this one again, saying what happens

#[path = "../common/mod.rs"]
mod common;

mod client;
mod fiber;
mod ledger;
mod net;
mod server;
mod shipper;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::Report;

/// Seeds in `cargo test`; LOGWEIR_SEEDS asks for more.
const SEEDS: u64 = 4000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed; what goes wrong names it.
fn run(seed: u64, talks: bool) -> Report {
    let result = std::panic::catch_unwind(|| world::run(seed, talks));
    result.unwrap_or_else(|_| panic!("seed {seed}: LOGWEIR_SEED={seed} cargo test --test simulation"))
}

#[test]
fn nothing_promised_is_lost_whatever_happens() {
    if let Some(seed) = number("LOGWEIR_SEED") {
        eprintln!("{:?}", run(seed, true));
        return;
    }
    // Other seeds each day in CI would fail for those who changed nothing; more of them is what long runs are for.
    let first = number("LOGWEIR_FIRST_SEED").unwrap_or(1);
    let seeds = number("LOGWEIR_SEEDS").unwrap_or(SEEDS);
    let (next, sums) = (AtomicU64::new(first), Mutex::new(Report::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let report = run(seed, false);
                    let mut sums = sums.lock().unwrap();
                    sums.steps += report.steps;
                    sums.kills += report.kills;
                    sums.cuts += report.cuts;
                    sums.failures += report.failures;
                    sums.lines += report.lines;
                    sums.commits += report.commits;
                    sums.shipper_kills += report.shipper_kills;
                    sums.findings.duplicate += report.findings.duplicate;
                }
            });
        }
    });
    eprintln!("{seeds} seeds from {first}: {:?}", sums.into_inner().unwrap());
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 1..20 {
        assert_eq!(run(seed, false).trace, run(seed, false).trace, "seed {seed}");
    }
}
