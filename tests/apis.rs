//! The APIs of other log servers through the public edge: what a 2xx means, that it waits for everything that a request touched, and
//! that kills lose nothing that was answered. `api_clients.rs` sends with clients that others have written.

mod common;

use common::http::{Client, request};
use common::{Server, await_that, scratch};
use logweir::bench::bodies::field;
use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn drop_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/drop-in.toml")
}

fn start(dir: &Path, more: &[&str]) -> Server {
    let file = drop_in();
    let mut args = vec!["--config", file.to_str().unwrap(), "--set", "listener.http.address=\"tcp://127.0.0.1:0\""];
    for set in more {
        args.extend(["--set", set]);
    }
    Server::start(&dir.join("data"), &args)
}

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// A request of each API that holds this text, and the status of its success.
fn requests(text: &str) -> Vec<(&'static str, &'static str, String, u16)> {
    vec![
        ("/", "", format!("{text} lines\n"), 204),
        (
            "/loki/api/v1/push",
            JSON,
            format!("{{\"streams\":[{{\"stream\":{{\"job\":\"a\"}},\"values\":[[\"1\",\"{text} loki\"]]}}]}}"),
            204,
        ),
        ("/_bulk", NDJSON, format!("{{\"create\":{{\"_index\":\"i\"}}}}\n{{\"m\":\"{text} elasticsearch\"}}\n"), 200),
        ("/services/collector/event", "", format!("{{\"event\":\"{text} splunk\"}}"), 200),
        (
            "/v1/logs",
            JSON,
            format!(
                "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{{\"stringValue\":\"{text} otlp\"}}}}]}}]}}]}}"
            ),
            200,
        ),
        ("/api/v2/logs", JSON, format!("[{{\"message\":\"{text} datadog\"}}]"), 202),
        ("/gelf", "", format!("{{\"short_message\":\"{text} gelf\"}}"), 202),
        ("/upload", "Content-Type: application/vnd.fdo.journal\r\n", format!("MESSAGE={text} journal\n\n"), 202),
    ]
}

#[test]
fn what_each_api_took_is_durable_when_it_is_answered() {
    let dir = scratch();
    let server = start(dir.path(), &[]);
    let mut client = Client::to(server.address("http"));
    for (path, headers, body, status) in requests("one") {
        let answer = client.post(path, headers, &body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    let metrics = server.metrics();
    metrics.check_accounts();
    assert_eq!(metrics.sum("logweir_durable_lines_total", ""), 8.0);
    let text = || String::from_utf8(server.cat()).unwrap();
    await_that("all are in the files", || text().lines().count() == 8);
    for (line, api) in
        text().lines().zip(["lines", "loki", "elasticsearch", "splunk", "otlp", "datadog", "gelf", "journal"])
    {
        assert!(line.starts_with("{\"t\":\"") && line.contains(&format!("one {api}")), "{line}");
    }
}

#[test]
fn one_answer_stands_for_all_streams_that_a_request_touched() {
    let dir = scratch();
    let more = [
        "listener.http.streams=[\"web\"]",
        "listener.http.route={\"index=web-*\"=\"web\"}",
        "listener.http.format=\"raw\"",
    ];
    let server = start(dir.path(), &more);
    let mut client = Client::to(server.address("http"));
    let pairs: String = (0..2000)
        .map(|i| {
            format!("{{\"index\":{{\"_index\":\"{}\"}}}}\n{{\"n\":{i}}}\n", if i % 2 == 0 { "web-1" } else { "db" })
        })
        .collect();
    let answer = client.post("/_bulk", NDJSON, &pairs);
    assert_eq!((answer.status, answer.body.matches("\"status\":201").count()), (200, 2000));
    assert_eq!(server.metrics().sum("logweir_durable_lines_total", ""), 2000.0);
    let cat = |stream: &str| {
        let dir = server.data_dir.to_str().unwrap();
        String::from_utf8(common::logweir(&["cat", "--data-dir", dir, "--stream", stream]).stdout).unwrap()
    };
    let of = |rest: usize| (0..2000).filter(|i| i % 2 == rest).map(|i| format!("{{\"n\":{i}}}\n")).collect::<String>();
    await_that("both streams are whole", || cat("web") == of(0) && cat("default") == of(1));
}

/// Posts numbered requests of one API until the server is gone; each that was answered with success is noted.
fn post_until_gone(stream: TcpStream, which: usize, name: &str, answered: &Mutex<HashSet<String>>) {
    let mut client = Client::over(stream);
    for i in 0.. {
        let text = format!("{name}-{i}");
        let (path, headers, body, status) = requests(&text).swap_remove(which);
        if std::io::Write::write_all(&mut client.stream, request(path, headers, &body).as_bytes()).is_err() {
            return;
        }
        match client.answer() {
            Some(answer) if answer.status == status => answered.lock().unwrap().insert(text),
            Some(answer) => panic!("{answer:?}"),
            None => return,
        };
    }
}

#[test]
fn kills_lose_nothing_that_was_answered() {
    let dir = scratch();
    let answered = Mutex::new(HashSet::new());
    for round in 0..8 {
        let mut server = start(dir.path(), &[]);
        let address = server.address("http");
        std::thread::scope(|scope| {
            for (which, thread) in [(1, "loki"), (2, "bulk"), (4, "otlp"), (3, "splunk")] {
                let answered = &answered;
                let stream = TcpStream::connect(address).unwrap();
                scope.spawn(move || post_until_gone(stream, which, &format!("{thread}-{round}"), answered));
            }
            let before = answered.lock().unwrap().len();
            await_that("some were answered", || answered.lock().unwrap().len() > before + 200 + 37 * round);
            server.kill();
        });
    }
    let mut server = start(dir.path(), &[]);
    assert!(server.stop().success());
    let text = String::from_utf8(server.cat()).unwrap();
    let found: HashSet<&str> = text.split(['"', ' ']).filter(|word| word.contains('-')).collect();
    let answered = answered.into_inner().unwrap();
    assert!(answered.len() > 8 * 200);
    for text in &answered {
        assert!(found.contains(&**text), "{text} was answered and is gone");
    }
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "torn: {line}");
    }
}

#[test]
fn documents_that_find_no_room_are_sent_again_later() {
    let dir = scratch();
    let server = start(dir.path(), &["buffer.memory=\"64MiB\"", "listener.http.max_line_bytes=\"64KiB\""]);
    let address = server.address("http");
    // Together four times as large as all leased memory. Each connection sends until it is taken.
    let values: Vec<String> = (0..40_000).map(|i| format!("[\"{i}\",\"{}\"]", "x".repeat(80))).collect();
    let body = format!("{{\"streams\":[{{\"stream\":{{}},\"values\":[{}]}}]}}", values.join(","));
    assert!(body.len() > 3 << 20);
    let refused = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                await_that("it is taken", || {
                    let mut client = Client::to(address);
                    let body = request("/loki/api/v1/push", JSON, &body);
                    // It may be refused while it is still sending.
                    let _ = std::io::Write::write_all(&mut client.stream, body.as_bytes());
                    match client.answer().map(|answer| answer.status) {
                        Some(204) => true,
                        Some(429) | None => {
                            refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            false
                        }
                        other => panic!("{other:?}"),
                    }
                });
            });
        }
    });
    let metrics = server.metrics();
    metrics.check_accounts();
    assert!(metrics.sum("logweir_durable_lines_total", "") >= 16.0 * 40_000.0);
}

/// 1 GiB of zeros or of anything else that is one byte again and again, in one MiB: a member of gzip for each 16 MiB.
fn bomb(beginning: &str, byte: u8) -> Vec<u8> {
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let more = member(&vec![byte; 16 << 20]);
    let bomb = [member(beginning.as_bytes()), more.repeat(64)].concat();
    assert!(bomb.len() < 11 << 17, "1 GiB in {} bytes", bomb.len());
    bomb
}

/// A request, and the statuses that may be its answer.
type Hostile = (String, Vec<u8>, &'static [u16]);

fn hostile() -> Vec<Hostile> {
    let post = |path: &str, headers: &str, body: Vec<u8>, statuses| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        (format!("{path} {headers}"), [head.into_bytes(), body].concat(), statuses)
    };
    let gzip = |kind: &str| format!("{kind}Content-Encoding: gzip\r\n");
    let (protobuf, journal) =
        ("Content-Type: application/x-protobuf\r\n", "Content-Type: application/vnd.fdo.journal\r\n");
    let mut all = Vec::new();
    // Bombs: too large, or nothing that the API takes.
    for (path, kind, beginning) in [
        ("/loki/api/v1/push", JSON, "{\"streams\":[{\"stream\":{},\"values\":[[\"1\",\""),
        ("/_bulk", NDJSON, "{\"index\":{}}\n{\"m\":\""),
        ("/services/collector/event", "", "{\"event\":\""),
        ("/v1/logs", JSON, "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"body\":{\"stringValue\":\""),
        ("/v1/logs", protobuf, "\n"),
        ("/api/v2/logs", JSON, "[{\"message\":\""),
        ("/gelf", "", "{\"short_message\":\""),
        ("/upload", journal, "MESSAGE="),
    ] {
        all.push(post(path, &gzip(kind), bomb(beginning, b'a'), &[413, 400][..]));
    }
    // A million levels, which no walker may take for a million calls of itself.
    let deep = |before: &str| [before.as_bytes(), &b"[".repeat(1_000_000)].concat();
    for (path, kind, before) in [
        ("/loki/api/v1/push", JSON, "{\"streams\":[{\"stream\":"),
        ("/services/collector/event", "", "{\"event\":"),
        ("/v1/logs", JSON, "{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"a\",\"value\":"),
        ("/api/v2/logs", JSON, "[{\"message\":"),
        ("/gelf", "", "{\"short_message\":\"a\",\"_a\":"),
    ] {
        all.push(post(path, kind, deep(before), &[400, 413]));
    }
    // In `_bulk` it is only that item.
    all.push(post("/_bulk", NDJSON, [deep("{\"index\":{}}\n{\"m\":"), b"\n".to_vec()].concat(), &[200, 400, 413]));
    // Lengths of 2^63.
    let length = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    all.push(post("/v1/logs", protobuf, length.to_vec(), &[400]));
    let snappy = snap::raw::Encoder::new().compress_vec(&length).unwrap();
    all.push(post("/loki/api/v1/push", protobuf, snappy, &[400]));
    let value = [b"MESSAGE\n".as_slice(), &(1u64 << 63).to_le_bytes(), b"x\n\n"].concat();
    all.push(post("/upload", journal, value, &[400, 413]));
    // A million empty attributes of one record: too long for a line, and the client is told.
    let attributes = b"\x32\x00".repeat(1_000_000);
    all.push(post("/v1/logs", protobuf, field(1, &field(2, &field(2, &attributes))), &[200]));
    all
}

#[test]
fn hostile_documents_are_answered_and_nothing_else_is_slowed() {
    let dir = scratch();
    let server = start(dir.path(), &[]);
    let cap = common::ledger::memory_cap(&server.introduction);
    let address = server.address("http");
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut polite = Client::to(address);
            while !is_over.load(Ordering::SeqCst) {
                assert_eq!(polite.post("/", "", "polite\n").status, 204);
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        let outcome = std::panic::catch_unwind(|| {
            for (what, request, statuses) in hostile() {
                let before = sent.load(Ordering::SeqCst);
                // Several at once, and the other client goes on meanwhile.
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            let mut client = Client::to(address);
                            let _ = client.stream.write_all(&request); // it may be refused before it is all sent
                            match client.answer() {
                                Some(answer) => assert!(statuses.contains(&answer.status), "{what}: {answer:?}"),
                                None => panic!("{what}: no answer"),
                            }
                        });
                    }
                });
                await_that("another client is served", || sent.load(Ordering::SeqCst) > before);
            }
        });
        is_over.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|wrong| std::panic::resume_unwind(wrong));
    });
    let metrics = server.metrics();
    metrics.check_accounts();
    let memory = common::ledger::Memory::of(server.pid()).unwrap();
    assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
    await_that("all polite lines are there", || {
        let text = server.cat();
        let polite = text.split(|b| *b == b'\n').filter(|line| line.ends_with(b"\"msg\":\"polite\"}")).count() as u64;
        polite == sent.load(Ordering::SeqCst)
    });
}
