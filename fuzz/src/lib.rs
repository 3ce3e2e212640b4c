//! What the fuzz targets share: an HTTP connection as a reactor drives it, but in memory, and the stages before it; sessions
//! of lines, directories and disks are in modules of their own.

pub mod bytes;
pub mod disk;
pub mod framing;
pub mod memory;
pub mod segments;

use logweir::host::peer::Peer;
use logweir::intake::transport::{Stage, StageError};
use logweir::protocol::http::api::Api;
use logweir::protocol::http::{Apis, Dialect, HEAD_LANDING, Http, HttpOptions};
use logweir::session::drive::{Drive, Sizes};
use logweir::session::lines::{LineOptions, TooLong};
use logweir::session::memory::room::{Owner, Room};
use logweir::session::profile::SCRATCH_LANDING;
use logweir::session::routes::{Route, Routes, Rules};
use logweir::session::write::{Format, MARKER_ROOM};
use logweir::session::{AckLevel, End, Session, Turn};
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
    /// The APIs of the listener besides lines.
    pub apis: &'static [&'static str],
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
            apis: &[],
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

/// Longest head of a request.
const HEADER: usize = 2048;

/// One connection from its first byte to its end.
pub fn run(setup: &Setup, input: &[u8]) -> Output {
    let route = |name: &str, index| Route { name: name.into(), index, format: setup.format };
    let framing = LineOptions {
        max_line_bytes: MAX_LINE,
        too_long: setup.too_long,
        strip_cr: false,
        strip_nul: false,
        keep_unterminated: true,
    };
    let options = HttpOptions {
        listener: "t".into(),
        framing,
        routes: Arc::new(Routes::new(route("default", 3), [route("other", 5)])),
        rules: Rules::default(),
        apis: Apis { others: setup.apis.iter().filter_map(|name| Api::find(name)).collect(), ..Apis::default() },
        ack: AckLevel::Durable,
        max_header_bytes: HEADER,
        max_headers: 32,
        max_body_bytes: 1 << 20,
        max_decoded_bytes: MAX_DECODED,
        max_requests: 0,
        tokens: Vec::new(),
        room: Room::new(32 << 20),
        dialect: Dialect::default(),
        site: None,
    };
    let scratch = HEADER + HEAD_LANDING + SCRATCH_LANDING;
    let sizes = Sizes { chunk: setup.chunk, scratch, tails: setup.budget, longest: HEADER };
    let session = Http::new(Arc::new(options), &Peer::Local, Owner::default());
    let mut drive = Drive::new(session, sizes).expect("memory");
    let (mut at, mut still) = (0, 0);
    for piece in setup.pieces.iter().cycle() {
        let state = drive.session.state(drive.tail_len());
        if (at == input.len() && state.turn == Turn::Receive) || state.is_over {
            break;
        }
        let n = drive.step(&input[at..], *piece);
        if !setup.late || state.turn == Turn::Wait {
            drive.reach(AckLevel::Durable);
        }
        drive.speak();
        at += n;
        still = if n == 0 { still + 1 } else { 0 };
        assert!(still < 10_000, "it goes on for ever");
    }
    drive.finish(End::Clean);
    drive.reach(AckLevel::Durable);
    drive.speak();
    assert_eq!(drive.used_bytes(), 0, "a connection that has ended holds no blocks");
    assert!(!drive.session.state(0).owes, "everything is answered");
    let answers = String::from_utf8(std::mem::take(&mut drive.said)).expect("answers are text");
    // Each begins a line; a message may have the same words inside.
    let statuses: Vec<String> =
        answers.lines().filter_map(|l| l.strip_prefix("HTTP/1.1 ")).map(|l| l[..3].to_string()).collect();
    assert_eq!(drive.answers.iter().map(|(_, n)| n).sum::<u64>(), statuses.len() as u64, "each is counted");
    Output { statuses, default: drive.bytes_of(Some(3)), other: drive.bytes_of(Some(5)) }
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
