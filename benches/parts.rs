//! Micro-benchmarks of the parts that every line or chunk passes: framing, ring, append.
//!
//! `cargo bench --bench parts`

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_utils::sync::Parker;
use logweir::chunk::Chunk;
use logweir::log::disk::{Caching, Disk};
use logweir::log::names::SegmentId;
use logweir::log::real_disk::RealDisk;
use logweir::log::segment::{AppendOptions, Segment, Stamp};
use logweir::net::Peer;
use logweir::ring::Ring;
use logweir::session::lines::{Format, Lines, LinesOptions, TooLong};
use logweir::session::tail::{TailHandle, TailStore};
use logweir::session::{Landing, Session, Window};
use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

const MIB: usize = 1 << 20;

/// One MiB of lines of a length, as one receive brings it; with lines far below and just below the greatest length.
fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Bytes(MIB as u64));
    for (name, line, max, format) in [
        ("raw 250 B", 250, MIB, Format::Raw),
        ("raw 250 B, max_line_bytes 1 KiB", 250, 1024, Format::Raw),
        ("raw 20 B", 20, MIB, Format::Raw),
    ] {
        let options = Arc::new(LinesOptions {
            listener: "bench".into(),
            max_line_bytes: max,
            too_long: TooLong::Truncate,
            strip_cr: false,
            keep_unterminated: true,
            reply_count: false,
            format,
        });
        let mut memory: Vec<u8> = std::iter::repeat_n(b'x', MIB).collect();
        memory.iter_mut().skip(line - 1).step_by(line).for_each(|b| *b = b'\n');
        let mut store = TailStore::new(MIB, max).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut session = Lines::new(Arc::clone(&options), &Peer::Local);
                let mut tail = TailHandle::default();
                let mut window = Window::new(&mut memory, store.tail(&mut tail), 0);
                session.input(Landing { start: 0, len: MIB }, MIB, &mut window);
                let lines = black_box(window.lines);
                window.tail.clear();
                lines
            });
        });
    }
    group.finish();
}

/// A chunk through the ring and back, on one thread: what a reactor and a writer pay per chunk, less the cache misses.
fn ring(c: &mut Criterion) {
    let parker = Parker::new();
    let ring = Ring::new(16, parker.unparker().clone());
    let mut chunk = Some(Box::new(Chunk::new(4096).unwrap()));
    c.bench_function("ring push and pop", |b| {
        b.iter(|| {
            ring.push(chunk.take().unwrap());
            chunk = ring.pop();
        });
    });
}

/// Appends of several sizes with reservation, checksum and trail, in both ways of writing, on the disk of the build.
fn append(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = RealDisk::new();
    let dont_cache_works = disk.can_drop_cache(dir.path());
    let mut group = c.benchmark_group("append");
    let mut sequence = 0;
    for size in [4096, 65536, 262_144, MIB] {
        let bytes = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        for caching in [Caching::Keep, Caching::Drop] {
            if caching == Caching::Drop && !dont_cache_works {
                continue;
            }
            let mut segment: Option<Segment> = None;
            let options = AppendOptions { large: caching, reserve_step: 64 << 20 };
            group.bench_function(format!("{} KiB, {caching:?}", size / 1024), |b| {
                b.iter_batched(
                    || (),
                    |()| {
                        // A new file every 256 MiB, the old one deleted.
                        if segment.as_ref().is_none_or(|s| s.len() > 256 << 20) {
                            if let Some(old) = segment.take() {
                                disk.remove(&old.path).unwrap();
                            }
                            sequence += 1;
                            let path = dir.path().join(format!("{sequence}.log"));
                            let (file, trail) = (
                                disk.create_new(&path).unwrap(),
                                disk.create_new(&path.with_extension("trail")).unwrap(),
                            );
                            segment = Some(Segment::new(SegmentId { shard: 0, sequence }, path, file, trail));
                        }
                        let segment = segment.as_mut().unwrap();
                        segment.append(&mut [IoSlice::new(&bytes)], 1, options, Stamp::default(), || 1 << 40).unwrap();
                    },
                    BatchSize::SmallInput,
                );
            });
            if let Some(old) = segment.take() {
                disk.remove(&old.path).unwrap();
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = framing, ring, append
}
criterion_main!(parts);
