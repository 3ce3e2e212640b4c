//! A lines session as a reactor drives it, and the same done the obvious way.

use logweir::metrics::accounting::{Reason, Tally};
use logweir::metrics::stats::StatusCells;
use logweir::host::peer::Peer;
use logweir::protocol::http::Reply;
use logweir::protocol::lines::{Format, Lines, LinesOptions, MARKER_ROOM, TooLong, least_chunk_bytes};
use logweir::session::tail::{BLOCK, TailHandle, TailStore};
use logweir::session::{End, Session, Step, Window};
use std::sync::Arc;

/// Options, and how the connection ends.
pub struct Case {
    pub options: Arc<LinesOptions>,
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
        max_line_bytes: 128 + usize::from(size),
        too_long,
        strip_cr: choice & 4 != 0,
        keep_unterminated: choice & 8 != 0,
        reply_count: choice & 16 != 0,
        format,
    };
    let peer = if choice & 64 == 0 { Peer::Local } else { Peer::Ip(([127, 0, 0, 1], 9).into()) };
    Case { options: Arc::new(options), peer, end }
}

impl Feed {
    pub fn whole(options: &LinesOptions) -> Feed {
        let chunk = least_chunk_bytes(options.max_line_bytes, options.format);
        Feed { pieces: vec![usize::MAX], chunk, budget: 1 << 20 }
    }

    /// Made from some bytes. Raw lines do with less than what a server gives them.
    pub fn varied(options: &LinesOptions, seed: &[u8; 4]) -> Feed {
        let pieces = match seed[0] % 4 {
            0 => vec![1],
            1 => vec![usize::from(seed[1]) + 1, usize::from(seed[2]) + 1],
            2 => vec![options.max_line_bytes + usize::from(seed[1]) / 16, 1, 2],
            _ => vec![1, usize::from(seed[2]) * 4 + 1, 4000],
        };
        let longest = options.max_line_bytes + MARKER_ROOM + 2;
        let least = match options.format {
            Format::Raw => longest,
            Format::Json => least_chunk_bytes(options.max_line_bytes, Format::Json),
        };
        let budget = if seed[3] & 1 == 0 { BLOCK } else { 1 << 20 };
        Feed { pieces, chunk: least + usize::from(seed[3]) * 8, budget }
    }
}

/// One connection from its first byte to its end.
pub fn run(case: &Case, feed: &Feed, input: &[u8]) -> Framed {
    let options = &case.options;
    let most = options.max_line_bytes + usize::from(options.strip_cr);
    let mut session = Lines::new(Arc::clone(options), &case.peer);
    let mut store = TailStore::new(feed.budget, options.max_line_bytes, 1).expect("memory");
    let mut handle = TailHandle::default();
    let mut memory = vec![0xaa; feed.chunk];
    let mut out = Framed::default();
    let (mut filled, mut at) = (0, 0);
    let mut answers = Vec::new();
    for piece in feed.pieces.iter().cycle() {
        if at == input.len() || out.closed {
            break;
        }
        let landing = session.landing(feed.chunk - filled, handle.len(), 16).unwrap_or_else(|| {
            filled = 0;
            session.landing(feed.chunk, handle.len(), 1).expect("a fresh chunk is large enough")
        });
        let n = landing.len.min(*piece).min(input.len() - at).min(store.allowance(&handle, true));
        assert!(n > 0, "it goes on");
        let space = &mut memory[filled..];
        space[landing.start..landing.start + n].copy_from_slice(&input[at..at + n]);
        let mut window = Window::new(space, store.tail(&mut handle), 0);
        out.closed = session.input(landing, n, &mut window) == Step::Close;
        let lines = u64::from(window.lines);
        filled += take(&window, &mut out);
        drop(window);
        at += n;
        assert!(handle.len() <= most, "{} bytes in the tail of {most}", handle.len());
        assert!(out.closed || store.used_bytes() == handle.blocks() * BLOCK, "blocks are those of the tail");
        if at % 3 != 0 {
            reply(case, &mut session, lines, &mut answers);
        } else {
            session.acked(lines);
        }
    }
    if out.closed {
        store.tail(&mut handle).clear();
    } else {
        if session.finish_room(handle.len()) > feed.chunk - filled {
            filled = 0;
        }
        let mut window = Window::new(&mut memory[filled..], store.tail(&mut handle), 0);
        session.finish(case.end, &mut window);
        take(&window, &mut out);
        let lines = u64::from(window.lines);
        drop(window);
        reply(case, &mut session, lines, &mut answers);
    }
    reply(case, &mut session, 0, &mut answers);
    assert_eq!(store.used_bytes(), 0, "a connection that has ended holds no blocks");
    assert_eq!(out.lines, out.bytes.iter().filter(|b| **b == b'\n').count() as u64, "records and newlines");
    assert!(out.bytes.is_empty() || out.bytes.ends_with(b"\n"), "whole records");
    counts(case, &out, &answers);
    out
}

fn take(window: &Window<'_>, out: &mut Framed) -> usize {
    out.bytes.extend_from_slice(&window.space[..window.committed]);
    out.lines += u64::from(window.lines);
    if let Some((reason, tally)) = window.dropped {
        out.dropped.add(tally);
        out.reason = Some(reason);
    }
    out.cut.add(window.truncated);
    window.committed
}

fn reply(case: &Case, session: &mut Lines, lines: u64, answers: &mut Vec<u8>) {
    session.acked(lines);
    let before = answers.len();
    let says = session.has_output();
    session.output(&mut Reply { out: answers, date: "D", statuses: &StatusCells::default() });
    assert_eq!(answers.len() > before, says, "it says something when it has something to say");
    assert!(case.options.reply_count || !says, "only where that is asked for");
    assert!(!session.has_output(), "and says it once");
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
    let options = &case.options;
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
        let is_clearly_over = line.len() > max + usize::from(options.strip_cr);
        let text = if options.strip_cr { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
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
    if case.options.too_long != TooLong::Close {
        assert_eq!(a.dropped.bytes, b.dropped.bytes);
    }
}
