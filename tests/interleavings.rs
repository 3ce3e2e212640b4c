//! What threads share without locks, in every order in which they can get ahead of each other: ring, pool, wake-ups, the way
//! back of tickets, the accounts.
//!
//!     cargo test --test interleavings                                            real threads, many times
//!     cargo +nightly miri test --test interleavings                              under Miri: races, weak memory
//!     RUSTFLAGS="--cfg model_loom" cargo test --release --test interleavings     every order, exhaustively (loom)
//!     RUSTFLAGS="--cfg model_shuttle" cargo test --release --test interleavings  LOGWEIR_SCHEDULES random ones (shuttle)

use logweir::host::sync::Ordering;
use logweir::metrics::accounting::{Accounting, Ledger, Tally, Term};
use logweir::pipeline::chunk::{Chunk, Class, Pool};
use logweir::pipeline::ring::{Ring, Wake};
use logweir::pipeline::shard::{Shard, ShardSize};
#[cfg(model_loom)]
use loom::{sync::Condvar, sync::Mutex, thread};
#[cfg(model_shuttle)]
use shuttle::{sync::Condvar, sync::Mutex, thread};
#[cfg(not(any(model_loom, model_shuttle)))]
use std::{sync::Condvar, sync::Mutex, thread};

use std::sync::Arc;

#[cfg(model_loom)]
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

#[cfg(model_shuttle)]
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("LOGWEIR_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    shuttle::check_random(run, schedules);
}

#[cfg(not(any(model_loom, model_shuttle)))]
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let rounds = if cfg!(miri) { 20 } else { 300 };
    (0..rounds).for_each(|_| run());
}

/// What sleeps until the other is called. loom's `park` forgets a wake-up that comes while the thread waits for a lock.
fn sleeper() -> (impl Fn(), impl Fn() + Send + Sync + 'static) {
    let woken = Arc::new((Mutex::new(false), Condvar::new()));
    let sleeper = Arc::clone(&woken);
    let sleep = move || {
        let mut is_woken = sleeper.0.lock().unwrap();
        while !std::mem::take(&mut *is_woken) {
            is_woken = sleeper.1.wait(is_woken).unwrap();
        }
    };
    let wake = move || {
        *woken.0.lock().unwrap() = true;
        woken.1.notify_one();
    };
    (sleep, wake)
}

/// Wakes the calling thread.
fn wakes_me() -> impl Fn() + Send + Sync + 'static {
    let me = thread::current();
    move || me.unpark()
}

fn chunk(lines: u32) -> Box<Chunk> {
    let mut chunk = Box::new(Chunk::new(4096).unwrap());
    chunk.commit(0, 0, None, 1, lines, 0);
    chunk
}

/// The writer sleeps when it finds the ring empty; whoever pushes wakes it.
#[test]
fn no_push_into_the_ring_is_slept_through() {
    explore(|| {
        let ring = Arc::new(Ring::new(2, Arc::new(wakes_me())));
        let producers: Vec<_> = (1..=2)
            .map(|lines| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(chunk(lines)))
            })
            .collect();
        let mut lines = 0;
        for _ in 0..2 {
            let chunk = loop {
                match ring.pop() {
                    Some(chunk) => break chunk,
                    None => thread::park(),
                }
            };
            lines += chunk.runs()[0].lines;
        }
        assert_eq!(lines, 3, "each chunk came once");
        assert!(ring.is_empty());
        producers.into_iter().for_each(|p| p.join().unwrap());
    });
}

/// Who finds no chunk is named by the next one that comes back.
#[test]
fn whoever_waits_for_a_chunk_is_woken() {
    explore(|| {
        let pool = Arc::new(Pool::new(Class::Lossless, 1, 4096, 1, None).unwrap());
        let chunk = pool.take().unwrap();
        let wake = wakes_me();
        let other = Arc::clone(&pool);
        let giver = thread::spawn(move || other.put(chunk, |_| wake()));
        while pool.take_or_wait(0).is_none() {
            thread::park();
        }
        giver.join().unwrap();
        assert_eq!(pool.free(), 0, "there is one, and it is taken");
    });
}

/// A wake-up that comes while a reactor is awake says nothing when it sleeps: another may have the chunk by then.
#[test]
fn whoever_sleeps_without_a_chunk_is_woken_though_another_took_it() {
    explore(|| {
        let size = ShardSize { reactors: 2, chunks: vec![(Class::Lossless, 1)], chunk_bytes: 4096, node: None };
        let shard = Shard::new(0, &size, Arc::new(|| {})).unwrap();
        let (sleeper, waker) = sleeper();
        let _ = shard.reactors[0].wake.set(Wake::new(Box::new(waker)));
        let chunk = shard.channel(Class::Lossless).pool.take().unwrap();
        let (giver, other) = (Arc::clone(&shard), Arc::clone(&shard));
        let giver = thread::spawn(move || giver.release(Class::Lossless, chunk));
        let other = thread::spawn(move || {
            if let Some(chunk) = other.channel(Class::Lossless).pool.take() {
                other.release(Class::Lossless, chunk);
            }
        });
        let (pool, wake) = (&shard.channel(Class::Lossless).pool, shard.reactors[0].wake.get().unwrap());
        while pool.take_or_wait(0).is_none() {
            wake.about_to_sleep();
            if !pool.is_there_or_wait(0) {
                sleeper();
            }
            wake.awake();
        }
        giver.join().unwrap();
        other.join().unwrap();
        assert_eq!(pool.free(), 0, "there is one, and it is taken");
    });
}

/// Two reactors and one chunk: it is never with both, and never lost.
#[test]
fn a_chunk_is_with_one_reactor_at_a_time() {
    explore(|| {
        let pool = Arc::new(Pool::new(Class::Lossless, 1, 4096, 2, None).unwrap());
        let takers: Vec<_> = (0..2)
            .map(|reactor| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || match pool.take_or_wait(reactor) {
                    Some(chunk) => {
                        assert_eq!(pool.free(), 0);
                        pool.put(chunk, |_| {});
                        1
                    }
                    None => 0,
                })
            })
            .collect();
        let took: u32 = takers.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(took >= 1);
        assert_eq!(pool.free(), 1);
    });
}

/// A shard with one reactor that is woken like a sleeping engine, and what it does before it sleeps.
fn shard() -> Arc<Shard> {
    let size = ShardSize { reactors: 1, chunks: vec![(Class::Lossless, 1)], chunk_bytes: 4096, node: None };
    let shard = Shard::new(0, &size, Arc::new(|| {})).unwrap();
    let _ = shard.reactors[0].wake.set(Wake::new(Box::new(wakes_me())));
    shard
}

fn sleep_unless(shard: &Shard, came: impl Fn() -> bool) {
    let wake = shard.reactors[0].wake.get().unwrap();
    wake.about_to_sleep();
    if !came() {
        thread::park();
    }
    wake.awake();
}

/// Chunks come back to a reactor that may be about to sleep.
#[test]
fn no_ticket_is_slept_through_on_its_way_back() {
    explore(|| {
        let shard = shard();
        let writer = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.give_back(chunk(7)))
        };
        let port = &shard.reactors[0];
        let back = loop {
            match port.spent.pop() {
                Some(chunk) => break chunk,
                None => sleep_unless(&shard, || !port.spent.is_empty()),
            }
        };
        assert_eq!(back.runs()[0].lines, 7);
        writer.join().unwrap();
    });
}

/// What is written is announced while the sync still runs; then the chunk comes back.
#[test]
fn no_announcement_is_slept_through() {
    explore(|| {
        let shard = shard();
        let writer = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let mut chunk = chunk(1);
                chunk.number = 5;
                shard.announce_written(&chunk);
            })
        };
        let port = &shard.reactors[0];
        while port.written.load(Ordering::Acquire) < 5 {
            sleep_unless(&shard, || port.written.load(Ordering::SeqCst) >= 5);
        }
        writer.join().unwrap();
    });
}

/// A scrape sees all of an update or nothing of it, and never more downstream than upstream.
#[test]
fn a_scrape_sees_whole_updates() {
    explore(|| {
        let (reactor, writer) = (Ledger::new(1), Ledger::new(1));
        let mut accounting = Accounting::new(1);
        accounting.downstream.push(Arc::clone(&writer));
        accounting.upstream.push(Arc::clone(&reactor));
        accounting.capacity_bytes = u64::MAX;
        let one = Tally { lines: 1, bytes: 10 };
        let counting = thread::spawn(move || {
            let mut entry = reactor.entry();
            entry.add(0, Term::Received, one);
            entry.add(0, Term::Entered, one);
            drop(entry);
            let mut entry = writer.entry();
            entry.add(0, Term::Left, one);
            entry.add(0, Term::Written, one);
        });
        let account = accounting.snapshot()[0];
        assert!(account.residual().is_zero(), "{account:?}");
        assert!(account.in_flight.lines <= 1, "{account:?}");
        counting.join().unwrap();
    });
}
