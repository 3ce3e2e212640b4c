use super::*;
use crate::metrics::accounting::Reason;
use crate::session::drive::{Drive, Sizes};
use crate::session::write::Escape;
use crate::session::{End, Refusal, Turn};
use proptest::prelude::*;

const MAX: usize = 128;
const OPEN: &str =
    "1 open 86 relp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog\n";

fn options(ack: AckLevel, too_long: TooLong) -> RelpOptions {
    RelpOptions {
        listener: "r".into(),
        framing: syslog::framing(MAX, too_long, false),
        writing: writing::Options::plain(Format::Raw, Escape::Newlines),
        ack,
    }
}

fn drive(options: &RelpOptions) -> Drive<Relp> {
    let profile = RelpProtocol::new(options.clone(), Patience::default()).profile;
    let sizes =
        Sizes { chunk: profile.least_chunk, scratch: profile.scratch, tails: 1 << 16, longest: profile.longest_tail };
    Drive::new(Relp::new(options, &Peer::Local), sizes).unwrap()
}

fn durable() -> Drive<Relp> {
    drive(&options(AckLevel::Durable, TooLong::Truncate))
}

/// Messages with numbers from there on.
fn messages(first: u32, texts: &[&str]) -> String {
    texts.iter().zip(first..).map(|(text, txnr)| format!("{txnr} syslog {} {text}\n", text.len())).collect()
}

fn said(drive: &mut Drive<Relp>) -> String {
    drive.speak();
    String::from_utf8(std::mem::take(&mut drive.said)).unwrap()
}

fn opened() -> String {
    let offers =
        format!("200 OK\nrelp_version=0\nrelp_software=logweir,{}\ncommands=syslog", env!("CARGO_PKG_VERSION"));
    format!("1 rsp {} {offers}\n", offers.len())
}

#[test]
fn a_session_from_open_to_close() {
    for pieces in [vec![usize::MAX], vec![1], vec![3, 50]] {
        let mut out = durable();
        out.feed(OPEN.as_bytes(), &pieces, false);
        assert_eq!(said(&mut out), opened());
        out.feed(messages(2, &["<13>one", "<13>two\n", "<13>a\nb", ""]).as_bytes(), &pieces, false);
        assert_eq!(said(&mut out), "", "nothing is said before it is true");
        out.feed(b"6 close 0\n", &pieces, false);
        assert_eq!(said(&mut out), "", "answers are in order");
        out.reach(AckLevel::Durable);
        let answers = "2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 6 200 OK\n5 rsp 6 200 OK\n6 rsp 0\n0 serverclose 0\n";
        assert_eq!(said(&mut out), answers);
        assert_eq!(out.bytes(), b"<13>one\n<13>two\n<13>a\\nb\n\n");
        assert!(out.session.state(0).is_over);
        out.finish(End::Clean);
        assert_eq!((said(&mut out).as_str(), out.dropped.1.lines, out.used_bytes()), ("", 0, 0));
    }
}

#[test]
fn an_answer_is_given_at_its_level_and_no_earlier() {
    for (ack, reached) in [
        (AckLevel::Received, None),
        (AckLevel::Written, Some(AckLevel::Written)),
        (AckLevel::Durable, Some(AckLevel::Durable)),
    ] {
        let mut out = drive(&options(ack, TooLong::Truncate));
        out.feed([OPEN, &messages(2, &["x"])].concat().as_bytes(), &[usize::MAX], false);
        if let Some(level) = reached {
            assert_eq!(said(&mut out), opened());
            out.reach(level);
            assert_eq!(said(&mut out), "2 rsp 6 200 OK\n");
        } else {
            assert_eq!(said(&mut out), format!("{}2 rsp 6 200 OK\n", opened()));
        }
    }
}

#[test]
fn transaction_numbers_wrap_to_one() {
    let mut out = durable();
    out.feed(OPEN.as_bytes(), &[usize::MAX], true);
    out.session.jump_to(header::LAST_TXNR);
    out.said.clear();
    out.feed(b"999999999 syslog 1 a\n1 syslog 1 b\n2 syslog 1 c\n", &[5], true);
    assert_eq!(said(&mut out), "999999999 rsp 6 200 OK\n1 rsp 6 200 OK\n2 rsp 6 200 OK\n");
}

/// librelp sends a message that is not answered again, for ever: rsyslog/rsyslog#2633.
#[test]
fn a_message_that_is_too_long_is_cut_or_dropped_and_answered() {
    for (too_long, lines) in [(TooLong::Truncate, 2), (TooLong::Drop, 1)] {
        for pieces in [vec![usize::MAX], vec![7]] {
            let mut out = drive(&options(AckLevel::Durable, too_long));
            out.feed([OPEN, &messages(2, &[&"x".repeat(1000), "next"])].concat().as_bytes(), &pieces, true);
            assert_eq!(said(&mut out), format!("{}2 rsp 6 200 OK\n3 rsp 6 200 OK\n", opened()));
            assert_eq!((out.lines, out.truncated.lines + out.dropped.1.lines), (lines, 1));
        }
    }
}

#[test]
fn what_is_no_relp_or_out_of_turn_ends_the_connection_and_what_was_taken_is_answered() {
    let cases = [
        ("<13>plain syslog\n".to_string(), 0),
        ("1 syslog 1 x\n".into(), 0),
        ([OPEN, &messages(2, &["a", "b"]), "9 syslog 1 c\n"].concat(), 2),
        ([OPEN, &messages(2, &["a"]), "2 syslog 1 c\n"].concat(), 1),
        ([OPEN, "2 open 0\n"].concat(), 0),
        ([OPEN, "2 syslog 3 abcd\n"].concat(), 1),
        ([OPEN, "2 starttls 9999 x\n"].concat(), 0),
    ];
    for (input, lines) in cases {
        for pieces in [vec![usize::MAX], vec![1]] {
            let mut out = durable();
            out.feed(input.as_bytes(), &pieces, true);
            assert!(out.closed, "{input}");
            assert_eq!((out.lines, out.dropped.0), (lines, Some(Reason::Unexpected)), "{input}");
            assert_eq!(
                said(&mut out).matches("200 OK\n").count() as u64,
                lines + u64::from(input.starts_with("1 open")),
                "{input}"
            );
        }
    }
    let mut out = durable();
    out.feed([OPEN, "2 starttls 0\n"].concat().as_bytes(), &[usize::MAX], true);
    assert_eq!(said(&mut out), format!("{}2 rsp 34 500 this command is not known here\n0 serverclose 0\n", opened()));
    assert!(out.session.state(0).is_over);
}

/// rsyslog forgets a message that is refused, so nothing is said of what is dropped: it comes again.
#[test]
fn what_is_dropped_for_want_of_a_buffer_is_never_answered() {
    for ack in [AckLevel::Received, AckLevel::Durable] {
        let mut out = drive(&options(ack, TooLong::Truncate));
        out.feed(OPEN.as_bytes(), &[usize::MAX], true);
        out.said.clear();
        out.around.refuse = Some(Refusal::Overloaded);
        out.feed(messages(2, &["a", "b"]).as_bytes(), &[usize::MAX], false);
        out.finish(End::Broken(Reason::BufferFull));
        assert_eq!(said(&mut out), "");
    }
}

#[test]
fn a_client_that_never_waits_is_made_to() {
    let mut out = durable();
    out.feed(OPEN.as_bytes(), &[usize::MAX], true);
    let many: String = (2..5000).map(|txnr| format!("{txnr} syslog 0\n")).collect();
    let mut at = 0;
    while out.turn() == Turn::Receive {
        at += out.step(&many.as_bytes()[at..], usize::MAX);
    }
    assert!(out.lines < 1200, "{} messages are unanswered", out.lines);
    out.feed(&many.as_bytes()[at..], &[usize::MAX], true);
    assert_eq!(out.lines, 4998);
}

#[test]
fn an_orderly_end_says_goodbye_and_half_a_message_is_dropped() {
    let mut out = durable();
    out.feed([OPEN, &messages(2, &["a"]), "3 syslog 10 half"].concat().as_bytes(), &[usize::MAX], true);
    out.finish(End::Broken(Reason::Shutdown));
    assert_eq!(said(&mut out), format!("{}2 rsp 6 200 OK\n0 serverclose 0\n", opened()));
    assert_eq!((out.lines, out.dropped.1.lines, out.used_bytes()), (1, 1, 0));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages_and_answers(
        texts in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(&b"ab\n\0 7<\\"[..]), 0..300), 0..20),
        pieces in proptest::collection::vec(prop_oneof![1usize..5, 1usize..400, Just(4000usize)], 1..6),
    ) {
        let frame = |(i, text): (usize, &Vec<u8>)| {
            [format!("{} syslog {}", i + 2, text.len()).as_bytes(), if text.is_empty() { b"" } else { b" " }, text, b"\n"].concat()
        };
        let input: Vec<u8> = [OPEN.as_bytes().to_vec(), texts.iter().enumerate().flat_map(frame).collect()].concat();
        let run = |pieces: &[usize]| {
            let mut out = durable();
            out.feed(&input, pieces, true);
            out.reach(AckLevel::Durable);
            (said(&mut out), out.bytes(), out.truncated, out.closed)
        };
        let (whole, split) = (run(&[usize::MAX]), run(&pieces));
        prop_assert_eq!(&whole, &split);
        let answers: String = (0..texts.len()).map(|i| format!("{} rsp 6 200 OK\n", i + 2)).collect();
        prop_assert_eq!(whole.0, opened() + &answers);
        prop_assert_eq!(whole.1.iter().filter(|b| **b == b'\n').count(), texts.len());
    }

    #[test]
    fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..300), opens in any::<bool>(), piece in 1usize..50) {
        let mut out = durable();
        let input = [if opens { OPEN.as_bytes() } else { b"" }, &bytes[..]].concat();
        out.feed(&input, &[piece], true);
        out.finish(End::Clean);
        prop_assert_eq!(out.used_bytes(), 0);
    }
}
