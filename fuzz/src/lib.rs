//! What the fuzz targets share: an HTTP connection as a reactor drives it, but in memory, and the stages before it; sessions
//! of lines, directories and disks are in modules of their own.

pub mod bytes;
pub mod disk;
pub mod framing;
pub mod memory;
pub mod segments;

use logweir::metrics::stats::StatusCells;
use logweir::host::peer::Peer;
use logweir::protocol::http::{Http, HttpOptions, Reply, StreamChoice};
use logweir::protocol::lines::{Format, LinesOptions, MARKER_ROOM, TooLong};
use logweir::session::room::{Owner, Room};
use logweir::session::tail::{TailHandle, TailStore};
use logweir::session::{AckLevel, End, Landing, Session, Step, Turn, Window};
use logweir::intake::transport::{Stage, StageError};
use std::sync::Arc;

pub const MAX_LINE: usize = 200;
pub const MAX_DECODED: u64 = 4 << 20;

/// How a connection is set up and fed.
#[derive(Debug, Clone)]
pub struct Setup {
    pub format: Format,
    pub too_long: TooLong,
    /// Sizes of the receives, again and again.
    pub pieces: Vec<usize>,
    pub chunk: usize,
    /// Room for partial lines.
    pub budget: usize,
    /// Acknowledgements come only when nothing goes on without them.
    pub late: bool,
}

impl Setup {
    /// In one piece, into a chunk that is large enough for raw lines (small ones are faster).
    pub fn whole() -> Setup {
        Setup {
            format: Format::Raw,
            too_long: TooLong::Truncate,
            pieces: vec![usize::MAX],
            chunk: 16_000,
            budget: 1 << 20,
            late: false,
        }
    }

    /// The same in other circumstances, which must not matter: made from some bytes.
    pub fn varied(&self, seed: &[u8; 4]) -> Setup {
        let pieces = match seed[0] % 4 {
            0 => vec![1],
            1 => vec![usize::from(seed[1]) + 1, usize::from(seed[2]) + 1],
            2 => vec![usize::from(seed[1]) * 16 + 1, 1, 2, 3],
            _ => vec![1, usize::from(seed[2]) + 1, 4000],
        };
        let least = if self.format == Format::Json { 60_000 } else { 12_000 };
        Setup {
            pieces,
            chunk: least + usize::from(seed[3]) * 128,
            budget: if seed[3] & 1 == 0 { 512 } else { 1 << 20 },
            late: seed[1] & 1 == 1,
            ..self.clone()
        }
    }
}

/// What came of some input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub statuses: Vec<String>,
    pub default: Vec<u8>,
    pub other: Vec<u8>,
}

struct Connection {
    session: Http,
    store: TailStore,
    handle: TailHandle,
    chunk: Vec<u8>,
    filled: usize,
    held: u64,
    late: bool,
    answers: Vec<u8>,
    counted: StatusCells,
    out: Output,
}

impl Connection {
    fn turn(&mut self, input: &[u8], n: usize) -> usize {
        let turn = self.session.turn();
        if turn == Turn::Wait {
            self.settle(true);
            return 0;
        }
        let allowance = self.store.allowance(&self.handle, true);
        let tail = self.handle.len();
        let landing = self.session.landing(self.chunk.len() - self.filled, tail, 64).unwrap_or_else(|| {
            self.filled = 0;
            self.session.landing(self.chunk.len(), tail, 1).expect("a fresh chunk is large enough")
        });
        let n = if turn == Turn::Receive { landing.len.min(n).min(input.len()).min(allowance) } else { 0 };
        let space = &mut self.chunk[self.filled..];
        space[landing.start..landing.start + n].copy_from_slice(&input[..n]);
        let mut window = Window::new(space, self.store.tail(&mut self.handle), 0);
        window.is_lane = true;
        let landing = Landing { start: landing.start, len: landing.len.min(allowance) };
        assert_eq!(self.session.input(landing, n, &mut window), Step::Continue);
        let mut at = 0;
        for part in window.before.iter().copied().chain([window.last_part()]) {
            let bytes = &window.space[at..at + part.bytes];
            let newlines = bytes.iter().filter(|b| **b == b'\n').count();
            assert_eq!(newlines, part.lines as usize, "records and newlines");
            assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "whole records");
            match part.stream {
                Some(5) => self.out.other.extend_from_slice(bytes),
                _ => self.out.default.extend_from_slice(bytes),
            }
            at += part.bytes;
        }
        self.held += u64::from(window.lines);
        self.filled += window.committed;
        drop(window);
        self.settle(!self.late);
        n
    }

    fn settle(&mut self, acknowledge: bool) {
        if acknowledge {
            self.session.acked(std::mem::take(&mut self.held));
        }
        self.session.output(&mut Reply { out: &mut self.answers, date: "D", statuses: &self.counted });
    }
}

/// One connection from its first byte to its end.
pub fn run(setup: &Setup, input: &[u8]) -> Output {
    let budget = Room::new(32 << 20);
    let lines = LinesOptions {
        listener: "t".into(),
        max_line_bytes: MAX_LINE,
        too_long: setup.too_long,
        strip_cr: false,
        keep_unterminated: true,
        reply_count: false,
        format: setup.format,
    };
    let stream = |name: &str, index| StreamChoice { name: name.into(), index, format: setup.format };
    let options = HttpOptions {
        lines: Arc::new(lines),
        streams: vec![stream("default", 3), stream("other", 5)],
        ack: AckLevel::Durable,
        max_header_bytes: 2048,
        max_headers: 32,
        max_body_bytes: 1 << 20,
        max_decoded_bytes: MAX_DECODED,
        max_requests: 0,
        tokens: Vec::new(),
        decoding: Arc::clone(&budget),
    };
    let mut connection = Connection {
        session: Http::new(Arc::new(options), &Peer::Local, Owner::default()),
        store: TailStore::new(setup.budget, 2048, 1).expect("memory"),
        handle: TailHandle::default(),
        chunk: vec![0xaa; setup.chunk],
        filled: 0,
        held: 0,
        late: setup.late,
        answers: Vec::new(),
        counted: StatusCells::default(),
        out: Output::default(),
    };
    let (mut at, mut still) = (0, 0);
    for piece in setup.pieces.iter().cycle() {
        let waits = connection.session.turn() != Turn::Receive;
        if (at == input.len() && !waits) || connection.session.is_over() {
            break;
        }
        let n = connection.turn(&input[at..], *piece);
        at += n;
        still = if n == 0 { still + 1 } else { 0 };
        assert!(still < 10_000, "it goes on for ever");
    }
    let mut window = Window::new(&mut [], connection.store.tail(&mut connection.handle), 0);
    connection.session.finish(End::Clean, &mut window);
    drop(window);
    connection.settle(true);
    assert_eq!(connection.store.used_bytes(), 0, "a connection that has ended holds no blocks");
    assert!(!connection.session.owes(), "everything is answered");
    let answers = String::from_utf8(std::mem::take(&mut connection.answers)).expect("answers are text");
    let mut out = connection.out;
    // Each begins a line; a message may have the same words inside.
    out.statuses = answers.lines().filter_map(|l| l.strip_prefix("HTTP/1.1 ")).map(|l| l[..3].to_string()).collect();
    assert_eq!(connection.counted.iter().map(|(_, n)| n).sum::<u64>(), out.statuses.len() as u64, "each is counted");
    out
}

/// Runs it whole and in pieces: the statuses and lines must be the same, except where a coding was broken. A decoder may
/// have given some of its output before it saw that, or none: fewer lines are kept, or a line in it was too long (413)
/// before the rest was found bad (400).
pub fn run_both(setup: &Setup, seed: &[u8; 4], input: &[u8]) -> Output {
    let whole = run(setup, input);
    let varied = run(&setup.varied(seed), input);
    let is_encoded = input.windows(9).any(|w| w.eq_ignore_ascii_case(b"-encoding"));
    let verdict = |status: &String| if is_encoded && status == "413" { "400".to_string() } else { status.clone() };
    let verdicts = |out: &Output| out.statuses.iter().map(verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&whole), verdicts(&varied), "statuses, whole and in pieces");
    if !is_encoded || whole.statuses.iter().all(|s| s.starts_with('2')) {
        assert_eq!(text(&whole.default), text(&varied.default), "lines, whole and in pieces");
        assert_eq!(text(&whole.other), text(&varied.other), "lines of the other stream, whole and in pieces");
    }
    whole
}

pub fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What a body becomes on disk, the obvious way.
pub fn lines_of(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut lines: Vec<&[u8]> = body.split(|b| *b == b'\n').collect();
    if lines.last().is_some_and(|l| l.is_empty()) {
        lines.pop();
    }
    for line in lines {
        if line.len() > MAX_LINE {
            let kept = MAX_LINE - MARKER_ROOM;
            out.extend_from_slice(&line[..kept]);
            out.extend(format!(" [truncated {} bytes]", line.len() - kept).bytes());
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
    }
    out
}

/// The first bytes of the input, and the rest.
pub fn seed(data: &[u8]) -> Option<([u8; 4], &[u8])> {
    let (seed, rest) = data.split_first_chunk()?;
    Some((*seed, rest))
}

/// What a stage lets through, in pieces; and where it gave up.
pub fn through(stage: &mut dyn Stage, wire: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<StageError>) {
    let (mut out, mut at) = (Vec::new(), 0);
    for piece in pieces.iter().cycle() {
        if at == wire.len() {
            break;
        }
        let piece = &wire[at..wire.len().min(at.saturating_add(*piece))];
        at += piece.len();
        let held = stage.held();
        let mut space = vec![0; held + piece.len()];
        space[held..].copy_from_slice(piece);
        let most = space.len();
        match stage.decode(&mut space, piece.len(), most) {
            Ok(n) => out.extend_from_slice(&space[..n]),
            Err(error) => return (out, Some(error)),
        }
        let mut rounds = 0;
        stage.take_turn();
        while stage.pending() {
            let mut space = vec![0; stage.held() + 1024];
            match stage.decode(&mut space, 0, 1024) {
                Ok(n) => out.extend_from_slice(&space[..n]),
                Err(error) => return (out, Some(error)),
            }
            rounds += 1;
            assert!(rounds < 10_000, "it is pending for ever");
        }
    }
    (out, None)
}
