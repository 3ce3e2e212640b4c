//! A lines session as a reactor drives it, and the same done the obvious way.

use logweir::host::peer::Peer;
use logweir::metrics::accounting::{Reason, Tally};
use logweir::protocol::lines::{Lines, LinesOptions, NulWord, least_chunk_bytes};
use logweir::session::drive::{Drive, Sizes};
use logweir::session::lines::{LineOptions, TooLong};
use logweir::session::memory::tail::BLOCK;
use logweir::session::profile::SCRATCH_LANDING;
use logweir::session::write::{Format, MARKER_ROOM};
use logweir::session::{End, Session};

/// Options, and how the connection ends.
pub struct Case {
    pub options: LinesOptions,
    pub peer: Peer,
    pub end: End,
}

/// The circumstances, which must not matter.
pub struct Feed {
    /// Sizes of the receives, again and again.
    pub pieces: Vec<usize>,
    pub chunk: usize,
    /// Room for partial lines.
    pub budget: usize,
}

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Framed {
    pub bytes: Vec<u8>,
    pub lines: u64,
    pub dropped: Tally,
    pub reason: Option<Reason>,
    pub cut: Tally,
    pub closed: bool,
}

/// Two bytes choose the options.
pub fn case(choice: u8, size: u8, format: Format) -> Case {
    let too_long = [TooLong::Truncate, TooLong::Drop, TooLong::Close, TooLong::Truncate][usize::from(choice & 3)];
    let end = if choice & 32 == 0 { End::Clean } else { End::Broken(Reason::Reset) };
    let options = LinesOptions {
        listener: if size & 1 == 0 { "t".into() } else { "li\"st\\en".into() },
        framing: LineOptions {
            max_line_bytes: 128 + usize::from(size),
            too_long,
            strip_cr: choice & 4 != 0,
            strip_nul: choice & 128 != 0,
            keep_unterminated: choice & 8 != 0,
        },
        reply_count: choice & 16 != 0,
        format,
        nul: if choice & 128 != 0 { NulWord::Strip } else { NulWord::Keep },
    };
    let peer = if choice & 64 == 0 { Peer::Local } else { Peer::Ip(([127, 0, 0, 1], 9).into()) };
    Case { options, peer, end }
}

impl Feed {
    pub fn whole(options: &LinesOptions) -> Feed {
        let chunk = least_chunk_bytes(options);
        Feed { pieces: vec![usize::MAX], chunk, budget: 1 << 20 }
    }

    /// Made from some bytes. Raw lines do with less than what a server gives them.
    pub fn varied(options: &LinesOptions, seed: &[u8; 4]) -> Feed {
        let pieces = match seed[0] % 4 {
            0 => vec![1],
            1 => vec![usize::from(seed[1]) + 1, usize::from(seed[2]) + 1],
            2 => vec![options.framing.max_line_bytes + usize::from(seed[1]) / 16, 1, 2],
            _ => vec![1, usize::from(seed[2]) * 4 + 1, 4000],
        };
        let longest = options.framing.max_line_bytes + MARKER_ROOM + 66; // and a receive that is worth a turn
        let least = match options.format {
            Format::Raw | Format::Classic => longest,
            Format::Json => least_chunk_bytes(options),
        };
        let budget = if seed[3] & 1 == 0 { BLOCK } else { 1 << 20 };
        Feed { pieces, chunk: least + usize::from(seed[3]) * 8, budget }
    }
}

/// One connection from its first byte to its end.
pub fn run(case: &Case, feed: &Feed, input: &[u8]) -> Framed {
    let framing = &case.options.framing;
    let most = framing.max_line_bytes + usize::from(framing.strips());
    let sizes =
        Sizes { chunk: feed.chunk, scratch: SCRATCH_LANDING, tails: feed.budget, longest: framing.max_line_bytes };
    let mut drive = Drive::new(Lines::new(&case.options, &case.peer), sizes).expect("memory");
    let mut at = 0;
    for piece in feed.pieces.iter().cycle() {
        if at == input.len() || drive.closed {
            break;
        }
        let n = drive.step(&input[at..], *piece);
        assert!(n > 0, "it goes on");
        at += n;
        assert!(drive.tail_len() <= most, "{} bytes in the tail of {most}", drive.tail_len());
        let blocks = drive.tail_len().div_ceil(BLOCK);
        assert!(drive.closed || drive.used_bytes() == blocks * BLOCK, "blocks are those of the tail");
        drive.reach(logweir::session::AckLevel::Durable);
        if at % 3 != 0 {
            reply(case, &mut drive);
        }
    }
    if drive.closed {
        drive.finish(End::Broken(Reason::TooLong));
    } else {
        drive.finish(case.end);
    }
    drive.reach(logweir::session::AckLevel::Durable);
    reply(case, &mut drive);
    assert_eq!(drive.used_bytes(), 0, "a connection that has ended holds no blocks");
    let out = Framed {
        bytes: drive.bytes(),
        lines: drive.lines,
        dropped: drive.dropped.1,
        reason: drive.dropped.0,
        cut: drive.truncated,
        closed: drive.closed,
    };
    counts(case, &out, &drive.said);
    out
}

fn reply(case: &Case, drive: &mut Drive<Lines>) {
    let before = drive.said.len();
    let says = drive.session.state(0).has_output;
    drive.speak();
    assert_eq!(drive.said.len() > before, says, "it says something when it has something to say");
    assert!(case.options.reply_count || !says, "only where that is asked for");
    assert!(!drive.session.state(0).has_output, "and says it once");
}

/// The counts that were answered rise, up to how many lines there were.
fn counts(case: &Case, out: &Framed, answers: &[u8]) {
    let text = std::str::from_utf8(answers).expect("answers are text");
    let said: Vec<u64> = text.lines().map(|l| l.parse().expect("a count")).collect();
    assert!(said.is_sorted_by(|a, b| a < b), "{said:?}");
    if case.options.reply_count {
        assert_eq!(said.last().copied().unwrap_or(0), out.lines);
    }
}

/// A record, before it is written in whichever format.
pub struct Expected {
    pub kept: Vec<u8>,
    pub marker: String,
}

/// The same, obviously: splits the whole input at newlines. Its bytes are those of raw lines.
pub fn obvious(case: &Case, input: &[u8]) -> (Framed, Vec<Expected>) {
    let options = &case.options.framing;
    let max = options.max_line_bytes;
    let is_kept = options.keep_unterminated && case.end == End::Clean;
    let (mut out, mut records) = (Framed::default(), Vec::new());
    let pieces: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
    for (i, line) in pieces.iter().enumerate() {
        let has_end = i + 1 < pieces.len();
        if !has_end && line.is_empty() {
            break;
        }
        // A byte more may still prove to be a CR before a newline.
        let is_clearly_over = line.len() > max + usize::from(options.strips());
        let is_taken_off = match line.last() {
            Some(b'\r') => options.strip_cr,
            Some(0) => options.strip_nul,
            _ => false,
        };
        let text = &line[..line.len() - usize::from(is_taken_off)];
        if options.too_long == TooLong::Close && (is_clearly_over || (has_end && text.len() > max)) {
            out.dropped.lines += 1;
            out.reason = Some(Reason::TooLong);
            out.closed = true;
            break;
        }
        let drop = |out: &mut Framed, reason, bytes: usize| {
            out.dropped.add(Tally { lines: 1, bytes: bytes as u64 });
            out.reason = Some(reason);
        };
        if !has_end && !is_kept {
            let reason = if let End::Broken(reason) = case.end { reason } else { Reason::Unterminated };
            drop(&mut out, reason, line.len());
        } else if text.len() <= max {
            records.push(Expected { kept: text.to_vec(), marker: String::new() });
        } else if options.too_long == TooLong::Truncate {
            let cut = text.len() - (max - MARKER_ROOM);
            let marker = format!(" [truncated {cut} bytes]");
            out.cut.add(Tally { lines: 1, bytes: cut as u64 });
            records.push(Expected { kept: text[..max - MARKER_ROOM].to_vec(), marker });
        } else {
            drop(&mut out, Reason::TooLong, text.len() + 1);
        }
    }
    out.lines = records.len() as u64;
    for record in &records {
        out.bytes.extend_from_slice(&record.kept);
        out.bytes.extend_from_slice(record.marker.as_bytes());
        out.bytes.push(b'\n');
    }
    (out, records)
}

/// Everything but the bytes. Those of a line that closes the connection depend on how much of it had come.
pub fn same_counts(case: &Case, a: &Framed, b: &Framed) {
    assert_eq!((a.lines, a.cut, a.closed, a.reason), (b.lines, b.cut, b.closed, b.reason));
    assert_eq!(a.dropped.lines, b.dropped.lines);
    if case.options.framing.too_long != TooLong::Close {
        assert_eq!(a.dropped.bytes, b.dropped.bytes);
    }
}
