use super::*;
use crate::metrics::accounting::Tally;
use crate::session::drive::{Drive, Sizes};
use crate::session::write::{MARKER_ROOM, Record, json::Envelope};
use proptest::prelude::*;

const MAX: usize = 128;

fn options(too_long: TooLong, strip_cr: bool, keep: bool, format: Format) -> LinesOptions {
    LinesOptions {
        listener: "t".into(),
        framing: LineOptions { max_line_bytes: MAX, too_long, strip_cr, strip_nul: false, keep_unterminated: keep },
        reply_count: false,
        format,
        nul: NulWord::Keep,
    }
}

/// What came out: the bytes of the records, how many, how many were dropped, how many bytes were cut off.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    bytes: Vec<u8>,
    lines: u64,
    dropped: Tally,
    cut: Tally,
    closed: bool,
    /// Times that something needed a fresh chunk.
    fresh: u32,
}

/// A connection that is fed `input` in pieces of the given lengths (cycled), and ended.
fn run(options: &LinesOptions, input: &[u8], pieces: &[usize], chunk: usize) -> Output {
    let sizes = Sizes { chunk, scratch: SCRATCH_LANDING, tails: 1 << 20, longest: MAX };
    let mut drive = Drive::new(Lines::new(options, &Peer::Local), sizes).unwrap();
    drive.feed(input, pieces, false);
    if !drive.closed {
        drive.finish(End::Clean);
    }
    assert_eq!(drive.used_bytes(), 0, "a finished connection holds no blocks");
    output(&drive)
}

fn output(drive: &Drive<Lines>) -> Output {
    Output {
        bytes: drive.bytes(),
        lines: drive.lines,
        dropped: drive.dropped.1,
        cut: drive.truncated,
        closed: drive.closed,
        fresh: drive.fresh,
    }
}

/// The same, obviously: split the whole input at newlines.
fn reference(options: &LinesOptions, input: &[u8]) -> Output {
    let mut out = Output::default();
    let is_split = options.nul == NulWord::Split;
    let input: Vec<u8> = input.iter().map(|b| if is_split && *b == 0 { b'\n' } else { *b }).collect();
    let framing = &options.framing;
    let is_taken_off = |last: &u8| (framing.strip_cr && *last == b'\r') || (framing.strip_nul && *last == 0);
    let mut lines: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    let unterminated = (!last.is_empty()).then_some(last);
    for (line, ended) in lines.into_iter().map(|l| (l, true)).chain(unterminated.map(|l| (l, false))) {
        if !ended && !options.framing.keep_unterminated {
            let over = line.len() > MAX + usize::from(options.framing.strips());
            out.closed |= over && options.framing.too_long == TooLong::Close;
            out.dropped.add(Tally { lines: 1, bytes: line.len() as u64 });
            break;
        }
        let held = MAX + usize::from(options.framing.strips()); // a last byte over the limit may still be taken off
        let ends_early = ended || line.len() > held; // at the end of the connection there is nothing left to close
        let line = if line.last().is_some_and(is_taken_off) { &line[..line.len() - 1] } else { line };
        let mut record = line.to_vec();
        if line.len() > MAX {
            if options.framing.too_long != TooLong::Truncate {
                out.dropped.add(Tally { lines: 1, bytes: line.len() as u64 + 1 });
                if options.framing.too_long == TooLong::Close {
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
            let mut json = vec![0; envelope.around() + 6 * record.len()];
            let n = envelope.write(&Record { message: &record, ..Record::default() }, &mut json).unwrap();
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
    (length, byte, any::<bool>(), any::<bool>()).prop_map(|(n, b, cr, nul)| {
        let mut line = vec![b; n];
        if b == b'\n' {
            line.clear();
        }
        if cr {
            line.push(b'\r');
        }
        if nul {
            line.push(0);
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
        nul in prop_oneof![Just(NulWord::Keep), Just(NulWord::Strip), Just(NulWord::Split)],
    ) {
        let too_long = [TooLong::Truncate, TooLong::Drop, TooLong::Close][which];
        let format = if json { Format::Json } else { Format::Raw };
        let mut options = options(too_long, strip_cr, keep, format);
        (options.nul, options.framing.strip_nul) = (nul, nul == NulWord::Strip);
        let mut input = lines.join(&b'\n');
        if ended { input.push(b'\n'); }
        let mut expected = reference(&options, &input);
        let chunk = if json { 100_000 } else { 1200 };
        let got = run(&options, &input, &pieces, chunk);
        expected.fresh = got.fresh;
        prop_assert_eq!(&got.bytes, &expected.bytes);
        prop_assert_eq!(got.lines, expected.lines);
        prop_assert_eq!(got.cut, expected.cut);
        prop_assert_eq!(got.dropped.lines, expected.dropped.lines);
        // Those of a line that closes the connection depend on how much of it had come.
        if too_long != TooLong::Close {
            prop_assert_eq!(got.dropped.bytes, expected.dropped.bytes);
        }
        prop_assert_eq!(got.closed, expected.closed);
    }
}

#[test]
fn the_bytes_of_a_dropped_line_are_counted_without_its_cr_however_it_arrives() {
    let input = [&[b'x'; 2 * MAX][..], b"\r\n"].concat();
    for format in [Format::Raw, Format::Json] {
        let options = options(TooLong::Drop, true, true, format);
        for pieces in [vec![usize::MAX], vec![1], vec![MAX], vec![2 * MAX], vec![2 * MAX + 1]] {
            let out = run(&options, &input, &pieces, 100_000);
            assert_eq!(
                out.dropped,
                Tally { lines: 1, bytes: 2 * MAX as u64 + 1 },
                "{format:?} in pieces of {pieces:?}"
            );
        }
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
    let options = LinesOptions { reply_count: true, ..options(TooLong::Truncate, false, true, Format::Raw) };
    let sizes = Sizes { chunk: 1000, scratch: 0, tails: 1000, longest: MAX };
    let mut drive = Drive::new(Lines::new(&options, &Peer::Local), sizes).unwrap();
    drive.feed(b"1\n2\n3\n4\n5\n6\n7\n8\n", &[9], false);
    drive.reach_some(3);
    drive.reach_some(4);
    drive.speak();
    drive.speak();
    assert_eq!(drive.said, b"7\n");
}

/// A line never goes on beyond its datagram, however chunks end.
#[test]
fn datagrams_end_their_lines_and_name_their_senders() {
    let sender = |port| Peer::Ip(([127, 0, 0, 1], port).into());
    for format in [Format::Raw, Format::Json] {
        let options = options(TooLong::Truncate, false, true, format);
        let sizes = Sizes { chunk: least_chunk_bytes(&options), scratch: 0, tails: 1000, longest: MAX };
        let mut drive = Drive::new(Lines::new(&options, &Peer::Local), sizes).unwrap();
        drive.datagram(b"a\nb", 0, &sender(1));
        drive.datagram(b"c\n", 0, &sender(2));
        drive.datagram(b"", 0, &sender(2));
        drive.datagram(b"cut", 7, &sender(3));
        let many = b"line\n".repeat(5000);
        drive.datagram(&many, 0, &sender(4));
        assert_eq!((drive.lines, drive.tail_len(), drive.fresh > 0), (5004, 0, true));
        let text = String::from_utf8(drive.bytes()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        if format == Format::Raw {
            assert_eq!(lines[..5], ["a", "b", "c", "cut [truncated 7 bytes]", "line"]);
        } else {
            let values: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
            let of = |i: usize| (values[i]["msg"].as_str().unwrap(), values[i]["peer"].as_str().unwrap());
            assert_eq!(of(1), ("b", "127.0.0.1:1"));
            assert_eq!(of(2), ("c", "127.0.0.1:2"));
            assert_eq!(of(5003), ("line", "127.0.0.1:4"));
        }
    }
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
        for pieces in [vec![usize::MAX], vec![50_000, 3, 1 << 20], vec![7777]] {
            let out = run(&options, &input, &pieces, least_chunk_bytes(&options));
            assert!(out.fresh > 10, "{} fresh chunks", out.fresh);
            let expected = Output { fresh: out.fresh, ..reference(&options, &input) };
            assert!(out == expected, "{} and {} lines", out.lines, expected.lines);
        }
    }
}

proptest! {
    #[test]
    fn however_often_a_fresh_chunk_is_needed_the_records_are_the_same(
        lines in proptest::collection::vec(line(), 0..60),
        pieces in proptest::collection::vec(1usize..300, 1..6),
        strip_cr in any::<bool>(),
    ) {
        let options = options(TooLong::Truncate, strip_cr, true, Format::Json);
        let input = lines.concat();
        let out = run(&options, &input, &pieces, least_chunk_bytes(&options));
        let expected = Output { fresh: out.fresh, ..reference(&options, &input) };
        prop_assert_eq!(out, expected);
    }
}

/// What is noticed of a connection's beginning changes nothing of what is stored, but for a TLS handshake, which ends it.
#[test]
fn the_beginning_of_another_protocol_is_stored_all_the_same_and_a_tls_handshake_is_not() {
    let options = options(TooLong::Truncate, false, true, Format::Raw);
    let request = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(run(&options, request, &[5], 1200).bytes, request);
    for pieces in [vec![1], vec![3], vec![usize::MAX]] {
        let out = run(&options, b"\x16\x03\x01\x00\x05\x01\x00\x00\x00\x00", &pieces, 1200);
        assert!(out.closed && out.bytes.is_empty(), "{pieces:?}");
        assert_eq!(out.dropped.lines, 1);
    }
}

/// Python's SysLogHandler ends each message with NUL, and GELF over TCP separates them so.
#[test]
fn nul_may_be_kept_taken_off_or_end_lines() {
    let with = |nul| {
        let mut options = options(TooLong::Truncate, false, true, Format::Raw);
        (options.nul, options.framing.strip_nul) = (nul, nul == NulWord::Strip);
        options
    };
    let sizes = Sizes { chunk: 1200, scratch: 0, tails: 1 << 16, longest: MAX };
    for (nul, expected) in [(NulWord::Keep, "a\0\nb\0\n"), (NulWord::Strip, "a\nb\n"), (NulWord::Split, "a\nb\n")] {
        let mut drive = Drive::new(Lines::new(&with(nul), &Peer::Local), sizes).unwrap();
        drive.datagram(b"a\0", 0, &Peer::Local);
        drive.datagram(b"b\0", 0, &Peer::Local);
        assert_eq!(drive.bytes(), expected.as_bytes(), "{nul}");
        assert_eq!(drive.lines, 2);
    }
    assert_eq!(run(&with(NulWord::Split), b"{1}\0{2}\0{3}", &[2], 1200).bytes, b"{1}\n{2}\n{3}\n");
    assert_eq!(run(&with(NulWord::Strip), b"a\0\nb\0\n", &[2], 1200).bytes, b"a\nb\n");
}
