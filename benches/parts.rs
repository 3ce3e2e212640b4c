//! Micro-benchmarks of the parts that every line or chunk passes: framing, ring, append.
//!
//! `cargo bench --features bench --bench parts`

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use logweir::bench::bodies::{self, BenchApi};
use logweir::host::peer::Peer;
use logweir::log::disk::{Caching, Disk};
use logweir::log::names::SegmentId;
use logweir::log::real_disk::RealDisk;
use logweir::log::segment::{AppendOptions, Segment, Stamp};
use logweir::pipeline::chunk::Chunk;
use logweir::pipeline::ring::Ring;
use logweir::protocol::http::api::Api;
use logweir::protocol::http::{Apis, Dialect, HEAD_LANDING, Http, HttpOptions};
use logweir::protocol::lines::{Lines, LinesOptions, NulWord};
use logweir::session::drive::{Drive, Sizes};
use logweir::session::lines::{LineOptions, TooLong};
use logweir::session::memory::room::{Owner, Room};
use logweir::session::memory::tail::{TailHandle, TailStore};
use logweir::session::profile::SCRATCH_LANDING;
use logweir::session::routes::{Route, Routes, Rules};
use logweir::session::write::Format;
use logweir::session::{ANY_PARTS, AckLevel, Around, Input, Session, Sink, Turn, Window};
use std::hint::black_box;
use std::io::{IoSlice, Write};
use std::sync::Arc;
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

const MIB: usize = 1 << 20;

fn framing_of(max_line_bytes: usize) -> LineOptions {
    LineOptions {
        max_line_bytes,
        too_long: TooLong::Truncate,
        strip_cr: false,
        strip_nul: false,
        keep_unterminated: true,
    }
}

/// One MiB of lines of a length, as one receive brings it; with lines far below and just below the greatest length.
fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Bytes(MIB as u64));
    for (name, line, max, format) in [
        ("raw 250 B", 250, MIB, Format::Raw),
        ("raw 250 B, max_line_bytes 1 KiB", 250, 1024, Format::Raw),
        ("raw 20 B", 20, MIB, Format::Raw),
    ] {
        let options = LinesOptions {
            listener: "bench".into(),
            framing: framing_of(max),
            reply_count: false,
            format,
            nul: NulWord::Keep,
        };
        let mut memory: Vec<u8> = std::iter::repeat_n(b'x', MIB).collect();
        memory.iter_mut().skip(line - 1).step_by(line).for_each(|b| *b = b'\n');
        let mut store = TailStore::new(MIB, max, 1).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut session = Lines::new(&options, &Peer::Local);
                let mut tail = TailHandle::default();
                let mut window =
                    Window::new(Sink::new(&mut memory, ANY_PARTS), store.tail(&mut tail), Around::default());
                let _ = session.input(Input::Chunk { start: 0, len: MIB }, &mut window);
                let lines = black_box(window.sink.lines());
                window.tail.clear();
                lines
            });
        });
    }
    group.finish();
}

/// A chunk through the ring and back, on one thread: what a reactor and a writer pay per chunk, less the cache misses.
fn ring(c: &mut Criterion) {
    let (_sleeper, waker) = logweir::pipeline::sleep::parking();
    let ring = Ring::new(16, waker);
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
                        segment.append(&[IoSlice::new(&bytes)], 1, options, Stamp::default(), &[], || 1 << 40).unwrap();
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

fn http_options(format: Format, apis: &[&str]) -> Arc<HttpOptions> {
    Arc::new(HttpOptions {
        listener: "bench".into(),
        framing: framing_of(MIB),
        routes: Arc::new(Routes::new(Route { name: "default".into(), index: 0, format }, [])),
        rules: Rules::default(),
        apis: Apis { others: apis.iter().map(|name| Api::find(name).unwrap()).collect(), ..Apis::default() },
        ack: AckLevel::Received,
        max_header_bytes: 16 << 10,
        max_headers: 64,
        max_body_bytes: 1 << 30,
        max_decoded_bytes: 1 << 30,
        max_requests: 0,
        tokens: Vec::new(),
        room: Room::new(32 << 20),
        dialect: Dialect::default(),
        site: None,
    })
}

/// JSON of Loki and OTLP through the whole session, written as `json` and `raw`, beside a bare pass of simd-json over the same
/// text, which makes its tape and writes nothing. Throughput is in bytes of the bodies.
fn json(c: &mut Criterion) {
    for (api, name) in [(BenchApi::LokiJson, "loki"), (BenchApi::OtlpJson, "otlp")] {
        let body = bodies::body(api, 512, 250);
        let mut group = c.benchmark_group(format!("json of {name}"));
        group.throughput(Throughput::Bytes(body.plain as u64));
        let head =
            format!("POST {} HTTP/1.1\r\nHost: a\r\n{}Content-Length: {}\r\n\r\n", body.path, body.headers, body.plain);
        let input = [head.as_bytes(), &body.bytes].concat();
        for format in [Format::Json, Format::Raw] {
            let session = Http::new(http_options(format, &[name]), &Peer::Local, Owner::default());
            let scratch = (16 << 10) + HEAD_LANDING + SCRATCH_LANDING;
            let mut drive = Drive::new(session, Sizes { chunk: 8 * MIB, scratch, tails: MIB, longest: MIB }).unwrap();
            drive.keeps = false;
            group.bench_function(format!("session, {format:?}"), |b| b.iter(|| http_request(&mut drive, &input)));
        }
        let mut buffers = simd_json::Buffers::new(body.plain);
        // It writes into its input.
        let copy = || body.bytes.clone();
        group.bench_function("bare pass of simd-json", |b| {
            b.iter_batched_ref(
                copy,
                |text| simd_json::to_tape_with_buffers(text, &mut buffers).unwrap().0.len(),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

/// Requests through the whole session, as receives of 64 KiB bring them: small ones, and a compressed body beside its
/// decompressor alone. Throughput is in bytes of lines.
fn http(c: &mut Criterion) {
    let options = http_options(Format::Raw, &[]);
    let text: String = (0..4 * MIB / 100)
        .map(|i| {
            format!(
                "2026-11-21T08:{:02}:{:02}Z host-{} app[{i}]: request {} took {} ms, status {}\n",
                i / 60 % 60,
                i % 60,
                i % 7,
                i * 7919 % 10_000,
                i * 31 % 997,
                200 + i % 5
            )
        })
        .collect();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let request = |coding: &str, body: &[u8]| {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost:9880\r\nUser-Agent: bench\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let mut group = c.benchmark_group("http");
    let small = request("identity", &[&[b'x'; 199][..], b"\n"].concat());
    let zstd = zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    let cases = [
        ("one line of 200 B", small, 200),
        ("4 MiB, gzip", request("gzip", &gzip), text.len()),
        ("4 MiB, zstd", request("zstd", &zstd), text.len()),
    ];
    let mut memory = vec![0; MIB];
    let scratch = (16 << 10) + HEAD_LANDING + SCRATCH_LANDING;
    for (name, input, bytes) in cases {
        group.throughput(Throughput::Bytes(bytes as u64));
        let session = Http::new(Arc::clone(&options), &Peer::Local, Owner::default());
        let mut drive = Drive::new(session, Sizes { chunk: MIB, scratch, tails: MIB, longest: MIB }).unwrap();
        drive.keeps = false;
        group.bench_function(name, |b| b.iter(|| http_request(&mut drive, &input)));
    }
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("4 MiB, gzip, decompressor alone", |b| {
        b.iter(|| {
            let mut inflate = flate2::Decompress::new_gzip(15);
            let mut status = flate2::Status::Ok;
            while status != flate2::Status::StreamEnd {
                let at = inflate.total_in() as usize;
                status = inflate.decompress(&gzip[at..], &mut memory, flate2::FlushDecompress::None).unwrap();
            }
            inflate.total_out()
        });
    });
    group.bench_function("4 MiB, zstd, decompressor alone", |b| {
        b.iter(|| {
            let mut decoder = zstd::stream::raw::Decoder::new().unwrap();
            let (mut at, mut made) = (0, 0);
            while made < text.len() {
                let (mut from, mut to) = (InBuffer::around(&zstd[at..]), OutBuffer::around(&mut memory[..]));
                decoder.run(&mut from, &mut to).unwrap();
                (at, made) = (at + from.pos(), made + to.pos());
            }
            made
        });
    });
    group.finish();
}

/// One request, received and answered.
fn http_request(drive: &mut Drive<Http>, input: &[u8]) -> u64 {
    let (mut at, before) = (0, drive.lines);
    while at < input.len() || drive.turn() == Turn::GoOn {
        at += drive.step(&input[at..], 64 << 10);
    }
    drive.held.clear();
    drive.said.clear();
    drive.speak();
    assert!(drive.said.starts_with(b"HTTP/1.1 20"));
    drive.lines - before
}

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = framing, http, json, ring, append
}
criterion_main!(parts);
