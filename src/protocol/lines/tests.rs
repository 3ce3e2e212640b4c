use super::*;
use crate::session::tail::{TailHandle, TailStore};
use proptest::prelude::*;

const MAX: usize = 128;

fn options(too_long: TooLong, strip_cr: bool, keep: bool, format: Format) -> Arc<LinesOptions> {
    Arc::new(LinesOptions {
        listener: "t".into(),
        max_line_bytes: MAX,
        too_long,
        strip_cr,
        keep_unterminated: keep,
        reply_count: false,
        format,
    })
}

/// What came out: the bytes of the records, how many, how many were dropped, how many bytes were cut off.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    bytes: Vec<u8>,
    lines: u32,
    dropped: Tally,
    cut: Tally,
    closed: bool,
    /// Times that something was left for a fresh chunk.
    rests: u32,
}

/// Feeds `input` in pieces of the given lengths (cycled), as a reactor would: into a chunk, with a fresh one when asked.
fn run(options: &Arc<LinesOptions>, input: &[u8], pieces: &[usize], chunk: usize) -> Output {
    feed(Lines::new(Arc::clone(options), &Peer::Local), input, pieces, chunk)
}

fn feed(mut session: Lines, input: &[u8], pieces: &[usize], chunk: usize) -> Output {
    let mut store = TailStore::new(1 << 20, MAX, 1).unwrap();
    let mut handle = TailHandle::default();
    let mut out = Output::default();
    let (mut filled, mut at, mut piece) = (0, 0, 0);
    let mut memory = vec![0xaa; chunk];
    while at < input.len() && !out.closed {
        let landing = session.landing(chunk - filled, handle.len(), 16).unwrap_or_else(|| {
            filled = 0;
            session.landing(chunk, handle.len(), 16).expect("a fresh chunk is always large enough")
        });
        let n = landing.len.min(pieces[piece % pieces.len()].max(1)).min(input.len() - at);
        piece += 1;
        let space = &mut memory[filled..];
        space[landing.start..landing.start + n].copy_from_slice(&input[at..at + n]);
        let mut window = Window::new(space, store.tail(&mut handle), 0);
        out.closed = session.input(landing, n, &mut window) == Step::Close;
        let mut rest = window.rest.map(|rest| window.space[rest.start..rest.start + rest.len].to_vec());
        filled += take(window, &mut out);
        at += n;
        while let Some(bytes) = rest {
            assert!(!out.closed && handle.is_empty(), "what is left begins with a whole line");
            out.rests += 1;
            let start = chunk - bytes.len();
            memory[start..].copy_from_slice(&bytes);
            let mut window = Window::new(&mut memory, store.tail(&mut handle), 0);
            out.closed = session.input(Landing { start, len: bytes.len() }, bytes.len(), &mut window) == Step::Close;
            assert!(window.lines > 0 || window.dropped.is_some(), "each fresh chunk takes something");
            rest = window.rest.map(|rest| window.space[rest.start..rest.start + rest.len].to_vec());
            filled = take(window, &mut out);
        }
    }
    if !out.closed {
        if session.finish_room(handle.len()) > chunk - filled {
            filled = 0;
        }
        let mut window = Window::new(&mut memory[filled..], store.tail(&mut handle), 0);
        session.finish(End::Clean, &mut window);
        take(window, &mut out);
    }
    assert_eq!(store.used_bytes(), 0, "a finished connection holds no blocks");
    out
}

fn take(window: Window<'_>, out: &mut Output) -> usize {
    out.bytes.extend_from_slice(&window.space[..window.committed]);
    out.lines += window.lines;
    out.dropped.add(window.dropped.map_or(Tally::default(), |(_, t)| t));
    out.cut.add(window.truncated);
    window.committed
}

/// The same, obviously: split the whole input at newlines.
fn reference(options: &LinesOptions, input: &[u8]) -> Output {
    let mut out = Output::default();
    let mut lines: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    let unterminated = (!last.is_empty()).then_some(last);
    for (line, ended) in lines.into_iter().map(|l| (l, true)).chain(unterminated.map(|l| (l, false))) {
        if !ended && !options.keep_unterminated {
            let over = line.len() > MAX + usize::from(options.strip_cr);
            out.closed |= over && options.too_long == TooLong::Close;
            out.dropped.add(Tally { lines: 1, bytes: line.len() as u64 });
            break;
        }
        let held = MAX + usize::from(options.strip_cr); // a last byte over the limit may still prove to be a CR
        let ends_early = ended || line.len() > held; // at the end of the connection there is nothing left to close
        let line = if options.strip_cr { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        let mut record = line.to_vec();
        if line.len() > MAX {
            if options.too_long != TooLong::Truncate {
                out.dropped.lines += 1;
                if options.too_long == TooLong::Close {
                    out.closed = ends_early;
                    break;
                }
                continue;
            }
            let cut = line.len() - (MAX - MARKER_ROOM);
            record.truncate(MAX - MARKER_ROOM);
            record.extend_from_slice(format!(" [truncated {cut} bytes]").as_bytes());
            out.cut.add(Tally { lines: 1, bytes: cut as u64 });
        }
        if options.format == Format::Json {
            let envelope = Envelope::new("t", "local");
            let mut json = vec![0; envelope.overhead() + 6 * record.len()];
            let n = envelope.write(&json::time(0), &record, b"", &mut json);
            out.bytes.extend_from_slice(&json[..n]);
        } else {
            out.bytes.extend_from_slice(&record);
            out.bytes.push(b'\n');
        }
        out.lines += 1;
    }
    out
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let near = (MAX - 3)..(MAX + MARKER_ROOM + 5);
    let length = prop_oneof![4 => 0usize..20, 2 => near, 1 => 200usize..900];
    let byte = prop_oneof![8 => Just(b'x'), 2 => Just(b'\r'), 1 => Just(0u8), 1 => Just(0xffu8), 1 => Just(b'"')];
    (length, byte, any::<bool>()).prop_map(|(n, b, cr)| {
        let mut line = vec![b; n];
        if b == b'\n' {
            line.clear();
        }
        if cr {
            line.push(b'\r');
        }
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_split_gives_the_same_records(
        lines in proptest::collection::vec(line(), 0..12),
        ended in any::<bool>(),
        pieces in proptest::collection::vec(prop_oneof![1usize..8, 1usize..400, Just(4000usize)], 1..6),
        which in 0usize..3, strip_cr in any::<bool>(), keep in any::<bool>(), json in any::<bool>(),
    ) {
        let too_long = [TooLong::Truncate, TooLong::Drop, TooLong::Close][which];
        let format = if json { Format::Json } else { Format::Raw };
        let options = options(too_long, strip_cr, keep, format);
        let mut input = lines.join(&b'\n');
        if ended { input.push(b'\n'); }
        let expected = reference(&options, &input);
        let chunk = if json { 100_000 } else { 1200 };
        let got = run(&options, &input, &pieces, chunk);
        prop_assert_eq!(&got.bytes, &expected.bytes);
        prop_assert_eq!(got.lines, expected.lines);
        prop_assert_eq!(got.cut, expected.cut);
        prop_assert_eq!(got.dropped.lines, expected.dropped.lines);
        prop_assert_eq!(got.closed, expected.closed);
    }
}

#[test]
fn bytes_are_kept_as_sent() {
    let options = options(TooLong::Truncate, false, true, Format::Raw);
    let input = b"a\0b\r\n\xff\xfe\n\nlast";
    let out = run(&options, input, &[3], 1200);
    assert_eq!(out.bytes, b"a\0b\r\n\xff\xfe\n\nlast\n");
    assert_eq!(out.lines, 4);
}

#[test]
fn a_line_one_byte_too_long_at_the_end_of_the_connection_is_dropped() {
    // With strip_cr the byte over the limit is held, as it may be a CR; here it is none, and only the end shows that.
    let options = options(TooLong::Close, true, true, Format::Raw);
    let out = run(&options, &[b'x'; MAX + 1], &[1], 1200);
    assert_eq!((out.lines, out.dropped.lines, out.bytes.len()), (0, 1, 0));
}

#[test]
fn a_truncated_line_says_how_much_is_missing() {
    let options = options(TooLong::Truncate, false, true, Format::Raw);
    let mut input = vec![b'x'; 1000];
    input.extend_from_slice(b"\nnext\n");
    let out = run(&options, &input, &[64], 1200);
    let text = String::from_utf8(out.bytes).unwrap();
    assert_eq!(text, format!("{} [truncated 912 bytes]\nnext\n", "x".repeat(88)));
}

#[test]
fn the_count_is_cumulative_and_said_once() {
    let mut options = (*options(TooLong::Truncate, false, true, Format::Raw)).clone();
    options.reply_count = true;
    let mut session = Lines::new(Arc::new(options), &Peer::Local);
    let mut out = Vec::new();
    session.acked(3);
    session.acked(4);
    let statuses = crate::metrics::stats::StatusCells::default();
    session.output(&mut http::Reply { out: &mut out, date: "", statuses: &statuses });
    session.output(&mut http::Reply { out: &mut out, date: "", statuses: &statuses });
    assert_eq!(out, b"7\n");
}

/// What becomes of the input is not known before: little of it may become much, at any time.
#[test]
fn records_that_grow_more_than_those_before_find_room_in_further_chunks() {
    let lines = |line: &[u8], count: usize| [line, b"\n"].concat().repeat(count);
    let input = [
        lines(&[b'a'; 100], 3000),
        lines(b"", 40_000),
        lines(&[b'b'; MAX], 2000),
        lines(&[0; MAX], 3000),
        lines(b"\xff\"\\x", 20_000),
        lines(&[b'c'; 3 * MAX], 1000),
        lines(b"", 100_000),
        b"the end".to_vec(),
    ]
    .concat();
    for too_long in [TooLong::Truncate, TooLong::Drop] {
        let options = options(too_long, false, true, Format::Json);
        let chunk = least_chunk_bytes(MAX, Format::Json);
        for pieces in [vec![usize::MAX], vec![50_000, 3, 1 << 20], vec![7777]] {
            let session = Lines::new(Arc::clone(&options), &Peer::Local).leaving_rest();
            let out = feed(session, &input, &pieces, chunk);
            assert!(out.rests > 10, "{} rests", out.rests);
            let mut expected = Output { rests: out.rests, ..reference(&options, &input) };
            expected.dropped.bytes = out.dropped.bytes;
            assert!(out == expected, "{} and {} lines", out.lines, expected.lines);
        }
    }
}

proptest! {
    #[test]
    fn whether_or_not_a_rest_is_left_the_records_are_the_same(
        lines in proptest::collection::vec(line(), 0..60),
        pieces in proptest::collection::vec(1usize..300, 1..6),
        strip_cr in any::<bool>(),
    ) {
        let options = options(TooLong::Truncate, strip_cr, true, Format::Json);
        let input = lines.concat();
        let session = Lines::new(Arc::clone(&options), &Peer::Local).leaving_rest();
        let out = feed(session, &input, &pieces, least_chunk_bytes(MAX, Format::Json));
        let expected = Output { rests: out.rests, ..reference(&options, &input) };
        prop_assert_eq!(out, expected);
    }
}
