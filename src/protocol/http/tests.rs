use super::encoded::LEASED;
use super::options::Apis;
use super::session::{HEAD_LANDING, MAX_PIPELINED};
use super::*;
use crate::host::peer::Peer;
use crate::session::drive::{Drive, Sizes};
use crate::session::lines::{LineOptions, TooLong};
use crate::session::memory::room::{Lease, Owner, Room};
use crate::session::profile::SCRATCH_LANDING;
use crate::session::routes::{Route, Routes, Rules, Token};
use crate::session::write::{Format, MARKER_ROOM};
use crate::session::{AckLevel, End, Refusal, Session, Turn};
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;

const MAX_LINE: usize = 200;

fn options(format: Format, too_long: TooLong, ack: AckLevel) -> HttpOptions {
    HttpOptions {
        listener: "t".into(),
        framing: LineOptions {
            max_line_bytes: MAX_LINE,
            too_long,
            strip_cr: false,
            strip_nul: false,
            keep_unterminated: true,
        },
        routes: Arc::new(Routes::new(
            Route { name: "default".into(), index: 3, format },
            [Route { name: "other".into(), index: 5, format: Format::Raw }],
        )),
        rules: Rules::default(),
        apis: Apis::default(),
        ack,
        max_header_bytes: 2048,
        max_headers: 32,
        max_body_bytes: 1 << 20,
        max_decoded_bytes: 4 << 20,
        max_requests: 0,
        tokens: Vec::new(),
        room: Room::new(32 << 20),
        dialect: Dialect::default(),
        site: None,
    }
}

/// What came of some input: lines by stream, and the answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    default: Vec<u8>,
    other: Vec<u8>,
    answers: String,
    over: bool,
}

/// A connection, and what came of it.
struct Bench {
    drive: Drive<Http>,
    out: Output,
    hold: bool,
}

impl Bench {
    fn new(options: HttpOptions, chunk: usize, tails: usize) -> Bench {
        let scratch = options.max_header_bytes + HEAD_LANDING + SCRATCH_LANDING;
        let session = Http::new(Arc::new(options), &Peer::Local, Owner::default());
        let drive = Drive::new(session, Sizes { chunk, scratch, tails, longest: 2048 }).unwrap();
        Bench { drive, out: Output::default(), hold: false }
    }

    /// One turn with at most `n` bytes of `input`; how many it took.
    fn turn(&mut self, input: &[u8], n: usize) -> usize {
        let lines = self.drive.lines;
        let n = self.drive.step(input, n);
        assert!(self.drive.around.refuse.is_none() || self.drive.lines == lines, "a refused window keeps nothing");
        self.settle();
        n
    }

    fn settle(&mut self) {
        if !self.hold {
            self.drive.reach(AckLevel::Durable);
        }
        self.drive.speak();
        self.collect();
    }

    fn collect(&mut self) {
        let (default, other) = (self.drive.bytes_of(Some(3)), self.drive.bytes_of(Some(5)));
        let answers = String::from_utf8(self.drive.said.clone()).unwrap();
        self.out = Output { default, other, answers, over: self.drive.session.state(0).is_over };
    }

    fn refuse(&mut self, refusal: Option<Refusal>) {
        self.drive.around.refuse = refusal;
    }

    fn feed(&mut self, input: &[u8], pieces: &[usize]) {
        self.drive.feed(input, pieces, !self.hold);
        self.settle();
    }

    fn end(&mut self) {
        self.drive.finish(End::Clean);
        self.settle();
        assert_eq!(self.drive.used_bytes(), 0, "a connection that has ended holds no blocks");
    }
}

fn run(options: HttpOptions, input: &[u8], pieces: &[usize], chunk: usize, budget: usize) -> Output {
    let room = Arc::clone(&options.room);
    let mut bench = Bench::new(options, chunk, budget);
    bench.feed(input, pieces);
    bench.end();
    let out = bench.out;
    drop(bench.drive);
    assert_eq!(room.used(), 0, "all leases are back");
    out
}

fn run_raw(input: &str) -> Output {
    run(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), input.as_bytes(), &[usize::MAX], 1 << 20, 1 << 20)
}

fn statuses(answers: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for part in answers.split("HTTP/1.1 ").skip(1) {
        found.push(&part[..3]);
    }
    found
}

#[derive(Debug, Clone)]
struct Req {
    body: Vec<u8>,
    other: bool,
    coding: u8,
    chunked: bool,
}

fn encode(coding: u8, body: &[u8]) -> (Vec<u8>, &'static str) {
    match coding {
        1 => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(body).unwrap();
            (e.finish().unwrap(), "gzip")
        }
        2 => {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(body).unwrap();
            (e.finish().unwrap(), "deflate")
        }
        3 => {
            let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(body).unwrap();
            (e.finish().unwrap(), "deflate")
        }
        4 => (zstd::stream::encode_all(body, 1).unwrap(), "zstd"),
        5 => (zstd::bulk::compress(body, 1).unwrap(), "zstd"),
        6 => (snap::raw::Encoder::new().compress_vec(body).unwrap(), "snappy"),
        7 => {
            let mut e = snap::write::FrameEncoder::new(Vec::new());
            e.write_all(body).unwrap();
            (e.into_inner().unwrap(), "snappy")
        }
        8 => {
            // Two members.
            let (mut a, _) = encode(1, &body[..body.len() / 2]);
            a.extend(encode(1, &body[body.len() / 2..]).0);
            (a, "gzip")
        }
        _ => (body.to_vec(), "identity"),
    }
}

fn wire(requests: &[Req]) -> Vec<u8> {
    let mut out = Vec::new();
    for r in requests {
        let (body, coding) = encode(r.coding, &r.body);
        let path = if r.other { "/ingest/other" } else { "/" };
        write!(out, "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\n").unwrap();
        if r.chunked {
            write!(out, "Transfer-Encoding: chunked\r\n\r\n").unwrap();
            for chunk in body.chunks(97) {
                write!(out, "{:X}\r\n", chunk.len()).unwrap();
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n\r\n");
        } else {
            write!(out, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
            out.extend(body);
        }
    }
    out
}

fn requests() -> impl Strategy<Value = Vec<Req>> {
    let line = prop_oneof![
        4 => proptest::collection::vec(prop_oneof![4 => b'a'..=b'z', 1 => any::<u8>()], 0..30),
        1 => proptest::collection::vec(b'a'..=b'z', 150..450),
    ];
    let body = (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, ended)| {
        let mut body = lines.join(&b'\n');
        if ended && !body.is_empty() {
            body.push(b'\n');
        }
        body
    });
    let one = (body, any::<bool>(), prop_oneof![3 => Just(0u8), 2 => 1u8..9], any::<bool>())
        .prop_map(|(body, other, coding, chunked)| Req { body, other, coding, chunked });
    proptest::collection::vec(one, 1..50)
}

/// The same, obviously.
fn reference(requests: &[Req]) -> (Vec<u8>, Vec<u8>) {
    let (mut default, mut other) = (Vec::new(), Vec::new());
    for r in requests {
        let to = if r.other { &mut other } else { &mut default };
        let mut lines: Vec<&[u8]> = r.body.split(|b| *b == b'\n').collect();
        if lines.last().is_some_and(|l| l.is_empty()) {
            lines.pop();
        }
        for line in lines {
            if line.len() > MAX_LINE {
                let kept = MAX_LINE - MARKER_ROOM;
                to.extend_from_slice(&line[..kept]);
                write!(to, " [truncated {} bytes]", line.len() - kept).unwrap();
            } else {
                to.extend_from_slice(line);
            }
            to.push(b'\n');
        }
    }
    (default, other)
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        requests in requests(),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 12_000usize..100_000,
        budget in prop_oneof![Just(512usize), Just(1 << 20)],
    ) {
        let out = run(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), &wire(&requests), &pieces, chunk, budget);
        let (default, other) = reference(&requests);
        prop_assert_eq!(String::from_utf8_lossy(&out.default), String::from_utf8_lossy(&default));
        prop_assert_eq!(out.other, other);
        prop_assert_eq!(statuses(&out.answers), vec!["204"; requests.len()]);
    }

    #[test]
    fn json_too(
        requests in requests(),
        pieces in proptest::collection::vec(1usize..3000, 1..12),
        chunk in 60_000usize..100_000,
    ) {
        let out = run(options(Format::Json, TooLong::Truncate, AckLevel::Durable), &wire(&requests), &pieces, chunk, 1 << 20);
        let (default, other) = reference(&requests);
        let mut messages = String::new();
        for line in std::str::from_utf8(&out.default).unwrap().lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            messages += value["msg"].as_str().unwrap();
            messages.push('\n');
        }
        prop_assert_eq!(messages, String::from_utf8_lossy(&default));
        prop_assert_eq!(out.other, other);
        prop_assert_eq!(statuses(&out.answers), vec!["204"; requests.len()]);
    }

    #[test]
    fn noise_never_panics_and_any_split_of_it_gives_the_same(
        requests in requests(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        pieces in proptest::collection::vec(1usize..300, 1..12),
    ) {
        let mut input = wire(&requests);
        for (place, byte) in changes {
            let at = place.index(input.len());
            input[at] = byte;
        }
        let opts = || options(Format::Raw, TooLong::Truncate, AckLevel::Durable);
        let whole = run(opts(), &input, &[usize::MAX], 100_000, 1 << 20);
        let split = run(opts(), &input, &pieces, 100_000, 1 << 20);
        prop_assert_eq!(statuses(&whole.answers), statuses(&split.answers));
    }
}

#[test]
fn answers_keep_their_order_and_wait_for_their_lines() {
    let mut bench = Bench::new(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), 1 << 16, 1 << 20);
    bench.hold = true;
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let input = post("a\nb\n") + "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + &post("c") + &post("");
    bench.feed(input.as_bytes(), &[usize::MAX]);
    assert_eq!(bench.out.answers, "");
    bench.drive.reach_some(1);
    bench.settle();
    assert_eq!(bench.out.answers, "", "one of two lines");
    bench.drive.reach_some(1);
    bench.settle();
    assert_eq!(statuses(&bench.out.answers), ["204", "200"]);
    bench.drive.reach_some(1);
    bench.settle();
    assert_eq!(statuses(&bench.out.answers), ["204", "200", "204", "204"]);
}

#[test]
fn a_request_may_ask_for_less_than_the_listener_never_for_more() {
    let ask = |query: &str, header: &str| {
        format!("POST /{query} HTTP/1.1\r\nHost: a\r\n{header}Content-Length: 2\r\n\r\na\n")
    };
    let mut bench = Bench::new(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), 1 << 16, 1 << 20);
    bench.hold = true;
    bench.feed(ask("?ack=received", "").as_bytes(), &[usize::MAX]);
    assert_eq!(statuses(&bench.out.answers), ["204"]);
    bench.feed(ask("?x=y&ack=written", "").as_bytes(), &[usize::MAX]);
    assert_eq!(statuses(&bench.out.answers), ["204"]);
    assert_eq!(bench.drive.kept.last().map(|kept| kept.frame.level), Some(AckLevel::Written));
    bench.drive.reach(AckLevel::Written);
    bench.settle();
    assert_eq!(statuses(&bench.out.answers), ["204", "204"]);
    bench.feed(ask("", "X-Logweir-Ack: durable\r\n").as_bytes(), &[usize::MAX]);
    bench.drive.reach(AckLevel::Written);
    bench.settle();
    assert_eq!(statuses(&bench.out.answers), ["204", "204"], "written is not durable");
    let weak = |query: &str| {
        let opts = options(Format::Raw, TooLong::Truncate, AckLevel::Written);
        run(opts, ask(query, "").as_bytes(), &[usize::MAX], 1 << 16, 1 << 20).answers
    };
    assert!(weak("?ack=durable").contains("ack_too_strong"));
    assert!(weak("?ack=sure").contains("bad_ack"));
    assert_eq!(statuses(&weak("")), ["204"]);
}

#[test]
fn what_is_refused_keeps_nothing_and_the_connection_goes_on() {
    let mut bench = Bench::new(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), 1 << 16, 1 << 20);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na\nb\n";
    bench.refuse(Some(Refusal::Overloaded));
    bench.feed(post.as_bytes(), &[5]);
    bench.refuse(Some(Refusal::DiskFull));
    bench.feed(post.as_bytes(), &[5]);
    assert_eq!(statuses(&bench.out.answers), ["429", "503"]);
    assert!(bench.out.answers.contains("Retry-After: 1\r\n") && bench.out.answers.contains("\"code\":\"disk_full\""));
    bench.refuse(None);
    bench.feed(post.as_bytes(), &[5]);
    assert_eq!(statuses(&bench.out.answers), ["429", "503", "204"]);
    assert_eq!(bench.out.default, b"a\nb\n");
    // In the middle of a request: what came before is in, and the answer says so.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na\nb\n";
    bench.feed(head.as_bytes(), &[usize::MAX]);
    bench.refuse(Some(Refusal::Overloaded));
    bench.feed(b"c\nd\nx", &[1]);
    assert!(bench.out.answers.ends_with("\"lines_received\":2}\n"), "{}", bench.out.answers);
    assert_eq!(bench.out.default, b"a\nb\na\nb\n");
}

#[test]
fn what_is_wrong_is_said() {
    let post =
        |path: &str, headers: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
    for (input, status, code) in [
        (post("/", "", ""), "411", "length_required"),
        (post("/nope", "Content-Length: 1\r\n", "x"), "404", "not_found"),
        (post("/ingest/nope", "Content-Length: 1\r\n", "x"), "404", "no_such_stream"),
        (post("/ingest/../default", "Content-Length: 1\r\n", "x"), "404", "no_such_stream"),
        (post("/", "Content-Length: 1048577\r\n", ""), "413", "body_too_large"),
        (post("/", "Content-Length: 1\r\nContent-Encoding: br\r\n", "x"), "415", "unsupported_encoding"),
        (post("/", "Content-Length: 1\r\nContent-Encoding: gzip, gzip\r\n", "x"), "415", "unsupported_encoding"),
        (post("/", "Content-Length: 1\r\nContent-Encoding: gzip\r\n", "x"), "400", "bad_encoding"),
        (post("/", "Content-Length: 1\r\nExpect: more\r\n", "x"), "417", "expectation_failed"),
        (post("/", "Transfer-Encoding: chunked\r\n", "1;a=b\r\n"), "400", "bad_chunk"),
        (post("/", &format!("X: {}\r\n", "y".repeat(3000)), ""), "431", "head_too_large"),
        (post("/", &"X: y\r\n".repeat(40), ""), "431", "head_too_large"),
        (post("/", "Content-Length: 9\r\n", "cut"), "400", "incomplete"),
        ("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "405", "method_not_allowed"),
        ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "411", "length_required"),
        ("GET /\n\n".into(), "400", "bad_request"),
        ("\x16\x03\x01".into(), "400", "bad_request"),
    ] {
        let out = run_raw(&input);
        assert_eq!(statuses(&out.answers), [status], "{input}");
        assert!(out.answers.contains(&format!("\"code\":\"{code}\"")), "{input}: {}", out.answers);
    }
    let long = format!("{}\nb\n", "x".repeat(MAX_LINE + 1));
    let input = post("/", &format!("Content-Length: {}\r\n", long.len()), &long);
    for (too_long, lines, over) in [(TooLong::Drop, "b\n", false), (TooLong::Close, "", true)] {
        let mut bench = Bench::new(options(Format::Raw, too_long, AckLevel::Durable), 1 << 16, 1 << 20);
        bench.feed(input.as_bytes(), &[usize::MAX]);
        assert!(bench.out.answers.contains("line_too_long"), "{}", bench.out.answers);
        assert_eq!((bench.out.default.as_slice(), bench.out.over), (lines.as_bytes(), over));
    }
}

#[test]
fn continue_comes_when_asked_for_and_only_then() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut bench = Bench::new(options(Format::Raw, TooLong::Truncate, AckLevel::Durable), 1 << 16, 1 << 20);
    bench.feed(head.as_bytes(), &[usize::MAX]);
    assert_eq!(bench.out.answers, "HTTP/1.1 100 Continue\r\n\r\n");
    bench.feed(b"a\n", &[usize::MAX]);
    assert_eq!(statuses(&bench.out.answers), ["100", "204"]);
    let out = run_raw(&head.replace("POST /", "POST /nope"));
    assert_eq!(statuses(&out.answers), ["404"]);
    assert!(out.answers.contains("Connection: close"), "whether a body follows cannot be told");
}

mod api_tests;
mod chunks_tests;
mod dialect_tests;
mod elasticsearch_tests;
mod limits_tests;
mod loki_tests;
mod otlp_tests;
mod routes_tests;
mod small_apis_tests;
mod splunk_tests;
