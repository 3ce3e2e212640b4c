use super::*;
use crate::metrics::accounting::Tally;
use crate::session::drive::{Drive, Sizes};
use crate::session::routes::{Route, Routes, Rules};
use crate::session::syslog::route;
use crate::session::write::{Escape, MARKER_ROOM, taken_back};
use proptest::prelude::*;

const MAX: usize = 128;

fn options(format: Format, escape: Escape, too_long: TooLong) -> SyslogOptions {
    SyslogOptions {
        listener: "net".into(),
        framing: LineOptions {
            max_line_bytes: MAX,
            too_long,
            strip_cr: true,
            strip_nul: false,
            keep_unterminated: true,
        },
        writing: writing::Options::plain(format, escape),
    }
}

fn raw() -> SyslogOptions {
    options(Format::Raw, Escape::Newlines, TooLong::Truncate)
}

fn drive(options: &SyslogOptions) -> Drive<Syslog> {
    let profile = SyslogProtocol::new(options.clone(), Patience::default()).profile;
    let sizes =
        Sizes { chunk: profile.least_chunk, scratch: profile.scratch, tails: 1 << 16, longest: profile.longest_tail };
    Drive::new(Syslog::new(options, &Peer::Local), sizes).unwrap()
}

/// A connection that is fed in pieces of these sizes, and ended.
fn run(options: &SyslogOptions, input: &[u8], pieces: &[usize]) -> Drive<Syslog> {
    let mut drive = drive(options);
    drive.feed(input, pieces, false);
    if !drive.closed {
        drive.finish(End::Clean);
    }
    assert_eq!(drive.used_bytes(), 0, "a finished connection holds no blocks");
    drive
}

fn text(drive: &Drive<Syslog>) -> String {
    String::from_utf8(drive.bytes()).unwrap()
}

/// RFC 6587 section 3.4, RFC 5425 section 4.3, and what senders do: each framing alone, and all of them on one connection.
#[test]
fn counts_newlines_and_nuls_are_told_apart_for_each_message() {
    let cases: [(&[u8], &str); 16] = [
        (b"<13>one\n<13>two\r\n<13>three", "<13>one\n<13>two\n<13>three\n"),
        (b"7 <13>one7 <13>two", "<13>one\n<13>two\n"),
        // syslog-ng counts its newline in; others add one behind the count.
        (b"8 <13>one\n8 <13>two\n", "<13>one\n<13>two\n"),
        (b"9 <13>one\r\n8 <13>two\0", "<13>one\n<13>two\n"),
        (b"7 <13>one\n7 <13>two\n", "<13>one\n<13>two\n"),
        // Python's SysLogHandler.
        (b"<13>one\0<13>two\0", "<13>one\n<13>two\n"),
        (b"<13>one\n\0<13>two\r\n\0\n", "<13>one\n<13>two\n"),
        // The same with a traceback: each of its lines is one, and the next message is its own.
        (b"<13>a\nb\0<13>c\0<13>d\0", "<13>a\nb\n<13>c\n<13>d\n"),
        (b"<13>one\n7 <13>two<13>three\0" as &[u8], "<13>one\n<13>two\n<13>three\n"),
        // From the first PRI on NUL ends text, wherever that was.
        (b"<x>a\n<13>b\nfoo\0bar\n", "<x>a\n<13>b\nfoo\nbar\n"),
        // A newline inside a count is part of the message.
        (b"15 <13>one\nC:\\nope", "<13>one\\nC:\\nope\n"),
        // Text without PRI may begin with a date or a number, and NUL is part of it.
        (b"2026-11-27T10:00:00 host x\n12 monkeys\na\0b\n", "2026-11-27T10:00:00 host x\n12 monkeys\na\0b\n"),
        (b"1234567890 <13>x\n", "1234567890 <13>x\n"),
        (b"0 <13>x\n", "0 <13>x\n"),
        // An ending in the middle: text is kept, a counted message is known to be half.
        (b"<13>one\n12", "<13>one\n12\n"),
        (b"<13>one\n20 <13>half", "<13>one\n"),
    ];
    for (input, expected) in cases {
        for pieces in [vec![usize::MAX], vec![1], vec![3], vec![7, 2]] {
            let out = run(&raw(), input, &pieces);
            assert_eq!(text(&out), expected, "{} in pieces of {pieces:?}", input.escape_ascii());
            assert!(!out.closed);
            assert_eq!(out.dropped.1.lines, u64::from(input.ends_with(b"half")));
        }
    }
}

/// RFC 5425 section 4.3.1 wants a count of digits only; nothing is guessed behind one that was wrong.
#[test]
fn a_count_that_lies_ends_the_connection_and_nothing_is_invented() {
    for (input, expected) in [
        (&b"8 <13>hello\n7 <13>two"[..], "<13>hell\n"),
        (b"13 <13>hello7 <13>two", "<13>hello7 <1\n"),
        (b"9 <13>hello 9 <13>hello", "<13>hello\n"),
    ] {
        for pieces in [vec![usize::MAX], vec![1], vec![5]] {
            let out = run(&raw(), input, &pieces);
            assert!(out.closed, "{}", input.escape_ascii());
            assert_eq!(text(&out), expected, "{}", input.escape_ascii());
            assert_eq!(out.dropped, (Some(Reason::Unexpected), Tally { lines: 1, bytes: out.dropped.1.bytes }));
        }
    }
}

#[test]
fn what_rsyslog_compresses_is_refused() {
    for input in
        [&b"zx\x9c\x4b\x04"[..], b"<13>one\n12 zx\xda\x01", b"x\x9c\x4b\x04\0", b"\x16\x03\x01\0\x05\x01\0\0\0\0"]
    {
        for pieces in [vec![usize::MAX], vec![1]] {
            let out = run(&raw(), input, &pieces);
            assert!(out.closed && out.dropped.0 == Some(Reason::Unexpected), "{}", input.escape_ascii());
        }
    }
    let mut out = drive(&raw());
    out.datagram(b"zx\x9c\x4b\x04", 0, &Peer::Local);
    out.datagram(b"<13>next", 0, &Peer::Local);
    assert_eq!((text(&out).as_str(), out.dropped.1.lines), ("<13>next\n", 1));
}

/// RFC 5426 section 3.1: one message a datagram, whatever it holds.
#[test]
fn a_datagram_is_one_message() {
    let mut out = drive(&raw());
    for datagram in [&b"<13>one\n"[..], b"<13>two\n\0", b"<13>a\nb\0c", b"7 <13>x", b"", b"\n", b"no pri", b"\xff\xfe"]
    {
        out.datagram(datagram, 0, &Peer::Local);
    }
    out.datagram(b"<13>cut", 1000, &Peer::Local);
    let expected = b"<13>one\n<13>two\n<13>a\\nb\0c\n7 <13>x\nno pri\n\xff\xfe\n<13>cut [truncated 1000 bytes]\n";
    assert_eq!(out.bytes().escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn a_message_that_is_too_long_is_cut_or_dropped_however_it_is_framed() {
    let long = |n: usize| [&b"<13>"[..], &vec![b'x'; n]].concat();
    let message = long(1000);
    let counted = [message.len().to_string().as_bytes(), b" ", &message].concat();
    let inputs = [[&message[..], b"\n<13>next\n"].concat(), [&counted[..], b"8 <13>next"].concat()];
    for input in inputs {
        for pieces in [vec![usize::MAX], vec![1], vec![100]] {
            let cut = run(&raw(), &input, &pieces);
            let kept = MAX - MARKER_ROOM;
            let expected = format!("<13>{} [truncated {} bytes]\n<13>next\n", "x".repeat(kept - 4), 1004 - kept);
            assert_eq!(text(&cut), expected);
            let dropped = run(&options(Format::Raw, Escape::Newlines, TooLong::Drop), &input, &pieces);
            assert_eq!((text(&dropped).as_str(), dropped.dropped.1.lines), ("<13>next\n", 1));
            let closed = run(&options(Format::Raw, Escape::Newlines, TooLong::Close), &input, &pieces);
            assert!(closed.closed && closed.lines == 0);
        }
    }
    // A terminator that is counted in makes nothing too long.
    let just = [format!("{} ", MAX + 2).as_bytes(), &long(MAX - 4), b"\r\n"].concat();
    for pieces in [vec![usize::MAX], vec![1], vec![50]] {
        assert_eq!(run(&raw(), &just, &pieces).bytes().len(), MAX + 1);
    }
}

#[test]
fn json_says_what_the_message_says_of_itself() {
    let input = b"<165>1 2003-10-11T22:14:15.003Z host evntslog 9 ID47 [x@1 a=\"1\" a=\"2\"] an \"entry\"\n<38>User logged in\nplain\n";
    let out = run(&options(Format::Json, Escape::Nothing, TooLong::Truncate), input, &[9]);
    let values: Vec<serde_json::Value> = text(&out).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        values[0]["attrs"],
        serde_json::json!({"facility": "local4", "severity": "notice", "host": "host", "app": "evntslog", "procid": "9",
            "msgid": "ID47", "time": "2003-10-11T22:14:15.003Z", "sd": {"x@1": {"a": ["1", "2"]}}})
    );
    assert_eq!(
        (&values[0]["msg"], &values[0]["listener"], &values[0]["peer"]),
        (&"an \"entry\"".into(), &"net".into(), &"local".into())
    );
    assert_eq!(values[1]["attrs"], serde_json::json!({"facility": "auth", "severity": "info"}));
    assert_eq!((&values[2]["attrs"], &values[2]["msg"]), (&serde_json::json!({}), &"plain".into()));
}

#[test]
fn classic_looks_as_syslog_files_do() {
    let long = format!("<13>1 - {} a - - - x", "h".repeat(40));
    let input = [
        "<34>Oct  1 22:14:15 mymachine su[7]: 'su root' failed",
        "<165>1 2003-08-04T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - a\\b",
        "<13>1 - - app - - -",
        "<38>User logged in",
        "<189>86: *Feb 8 2010 00:20:10.663 UTC: %SYS-5-CONFIG_I: x",
        &long,
    ]
    .join("\n");
    let mut out = drive(&options(Format::Classic, Escape::Newlines, TooLong::Truncate));
    out.around.wall_ns = 1_700_000_000_000_000_000; // 2023-11-14T22:13:20Z
    out.feed(input.as_bytes(), &[11], false);
    out.finish(End::Clean);
    let expected = [
        "Oct  1 22:14:15 mymachine su[7]: 'su root' failed",
        "Aug  4 05:14:15 192.0.2.1 myproc[8710]: a\\b",
        "Nov 14 22:13:20 localhost app:",
        "Nov 14 22:13:20 localhost User logged in",
        "Feb  8 00:20:10 localhost %SYS-5-CONFIG_I: x",
    ];
    assert_eq!(text(&out).lines().take(5).collect::<Vec<_>>(), expected);
    assert_eq!(out.lines, 6);
    // A datagram with a newline where names stand is one line all the same; the fuzz target found that it was two.
    let mut out = drive(&options(Format::Classic, Escape::Newlines, TooLong::Truncate));
    out.datagram(b"<13>Nov 27 10:00:00 h app [;\na]: x", 0, &Peer::Local);
    assert_eq!(text(&out), "Nov 27 10:00:00 h app [;\\na]: x\n");
    // Names that are longer than any make no line of their own.
    let options = SyslogOptions {
        framing: LineOptions { max_line_bytes: 4000, ..raw().framing },
        ..options(Format::Classic, Escape::Newlines, TooLong::Truncate)
    };
    let mut out = drive(&options);
    let message = format!("<13>1 - {} a - - - x", "h".repeat(2000));
    out.datagram(message.as_bytes(), 0, &Peer::Ip(([192, 0, 2, 9], 5).into()));
    assert_eq!(text(&out), format!("Jan  1 00:00:00 192.0.2.9 {message}\n"));
}

/// A message and how it is framed.
#[derive(Debug, Clone)]
struct Sent {
    bytes: Vec<u8>,
    framed: Vec<u8>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let special = proptest::sample::select(&b"\\\n\0<7 \xff"[..]);
    let byte = prop_oneof![6 => Just(b'x'), 7 => special];
    let body = proptest::collection::vec(byte, 0..60);
    (body, 0usize..6).prop_map(|(body, kind)| {
        let plain = |b: &u8| !matches!(b, b'\n' | 0);
        let mut bytes = b"<13>".to_vec();
        match kind {
            // With a count all bytes may come; what is taken off its end is made sure not to be there.
            0..3 => bytes.extend(body.iter().copied().chain([b'.'])),
            _ => bytes.extend(body.iter().copied().filter(plain)),
        }
        let end: &[u8] = [&b""[..], b"\n", b"\r\n", b"\n", b"\0", b"\r\n"][kind];
        let mut framed = Vec::new();
        if kind < 3 {
            framed.extend_from_slice(format!("{} ", bytes.len() + end.len()).as_bytes());
        }
        framed.extend_from_slice(&bytes);
        framed.extend_from_slice(end);
        Sent { bytes, framed }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Any split, any mixture: each message is one record, and with `escape = "full"` its bytes can be had back.
    #[test]
    fn any_split_gives_the_same_messages(
        all in proptest::collection::vec(sent(), 0..14),
        pieces in proptest::collection::vec(prop_oneof![1usize..6, 1usize..300, Just(4000usize)], 1..6),
        full in any::<bool>(),
    ) {
        let escape = if full { Escape::Full } else { Escape::Newlines };
        let input: Vec<u8> = all.iter().flat_map(|s| s.framed.clone()).collect();
        let out = run(&options(Format::Raw, escape, TooLong::Truncate), &input, &pieces);
        prop_assert!(!out.closed);
        let bytes = out.bytes();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').map(|l| &l[..l.len() - 1]).collect();
        prop_assert_eq!(lines.len(), all.len());
        for (line, sent) in lines.iter().zip(&all) {
            if full {
                prop_assert_eq!(&taken_back(line), &sent.bytes);
            } else {
                let escaped: Vec<u8> = sent.bytes.iter().flat_map(|b| if *b == b'\n' { b"\\n".to_vec() } else { vec![*b] }).collect();
                prop_assert_eq!(*line, &escaped[..]);
            }
        }
    }

    /// Whatever comes, in whatever pieces, ends in the same way.
    #[test]
    fn any_split_of_anything_gives_the_same(
        input in proptest::collection::vec(prop_oneof![
            Just(b"<13>".to_vec()), Just(b"12 <13>hello".to_vec()), Just(b"\n".to_vec()), Just(b"\0".to_vec()), Just(b"\r".to_vec()),
            Just(b"9".to_vec()), Just(b" ".to_vec()), Just(b"z".to_vec()), Just(b"x\x9c".to_vec()), proptest::collection::vec(any::<u8>(), 0..200),
        ], 0..12),
        pieces in proptest::collection::vec(1usize..50, 1..6),
        format in prop_oneof![Just(Format::Raw), Just(Format::Json), Just(Format::Classic)],
        which in 0usize..2,
    ) {
        let input: Vec<u8> = input.concat();
        let options = options(format, Escape::Newlines, [TooLong::Truncate, TooLong::Drop][which]);
        // The first bytes are looked at for other protocols in pieces as they come; this is about the rest.
        let input = [b"<13>the first message is as long as what is looked at for others, that is 64\n", &input[..]].concat();
        let whole = run(&options, &input, &[usize::MAX]);
        let split = run(&options, &input, &pieces);
        prop_assert_eq!(whole.bytes(), split.bytes());
        prop_assert_eq!((whole.lines, whole.closed, whole.truncated), (split.lines, split.closed, split.truncated));
        prop_assert_eq!(whole.dropped.1.lines, split.dropped.1.lines);
    }
}

/// The messages of app `app` go to stream 1.
fn routed(max_line_bytes: usize) -> SyslogOptions {
    let to = |name: &str, index| Route { name: name.into(), index, format: Format::Raw };
    let routes = Arc::new(Routes::new(to("default", 0), [to("app", 1)]));
    let rules = Arc::new(Rules::of([(0, "app".to_string(), to("app", 1))]));
    let writing = writing::Options { escape: Escape::Newlines, routes, rules };
    SyslogOptions { framing: LineOptions { max_line_bytes, ..raw().framing }, writing, ..raw() }
}

/// The stream that this message gets, ended by `end`, sent with a count or without or as a datagram.
fn stream_of(options: &SyslogOptions, message: &[u8], end: &[u8], how: usize, pieces: &[usize]) -> Option<u16> {
    let whole = [message, end].concat();
    let mut drive = drive(options);
    match how {
        0 => drive.feed(&[format!("{} ", whole.len()).as_bytes(), &whole].concat(), pieces, false),
        1 => drive.feed(&whole, pieces, false),
        _ => drive.datagram(&whole, 0, &Peer::Local),
    }
    drive.finish(End::Clean);
    assert_eq!(drive.kept.len(), 1);
    drive.kept[0].stream
}

#[test]
fn a_message_that_fits_without_its_terminator_goes_where_all_of_it_says() {
    let message = format!("<13>1 - {} app - - - x", "h".repeat(MAX - 20));
    assert_eq!(message.len(), MAX);
    for (end, how) in [("\r\n", 1), ("\r\n", 0), ("\n", 0), ("\r\n", 2), ("\n", 1)] {
        for pieces in [vec![usize::MAX], vec![1], vec![100, 29]] {
            let stream = stream_of(&routed(MAX), message.as_bytes(), end.as_bytes(), how, &pieces);
            assert_eq!(stream, Some(1), "{end:?} {how} {pieces:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The first 512 bytes of a message decide; of one that is too long, only those that are kept.
    #[test]
    fn a_message_goes_where_what_is_kept_of_it_says(
        max in 128usize..620,
        behind in 0usize..60,
        host in 0usize..640,
        long in prop_oneof![3 => (0usize..6).prop_map(|n| n as isize - 3), 1 => -60isize..60],
        end in prop_oneof![Just(&b""[..]), Just(&b"\n"[..]), Just(&b"\r\n"[..]), Just(&b"\0"[..])],
        how in 0usize..3,
        pieces in proptest::collection::vec(prop_oneof![1usize..6, 1usize..300, Just(4000usize)], 1..6),
    ) {
        // The name is near the last byte that is looked at.
        let host = if behind < 50 { max.saturating_sub(22 + behind) } else { host };
        let mut message = format!("<13>1 - {} app - - - ", "h".repeat(host)).into_bytes();
        let len = (max as isize + long) as usize;
        message.resize(len.max(message.len()), b'x');
        let options = routed(max);
        let known = if message.len() > max { max - MARKER_ROOM } else { message.len() };
        let expected = route::find(&options.writing.rules, &message[..known.min(512)]).map(|route| route.index);
        prop_assert_eq!(stream_of(&options, &message, end, how, &pieces), expected);
    }
}
