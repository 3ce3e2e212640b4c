//! RELP, any bytes behind an `open` or without: whole and in pieces the same, each message is answered once, and never before it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::host::peer::Peer;
use logweir::protocol::relp::{Relp, RelpOptions, RelpProtocol};
use logweir::session::drive::{Drive, Sizes};
use logweir::session::lines::TooLong;
use logweir::session::syslog::framing;
use logweir::session::syslog::writing::Options;
use logweir::session::write::{Escape, Format};
use logweir::session::{AckLevel, End, Patience, Protocol};
use logweir_fuzz::seed;

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    let [choice, input @ ..] = rest else { return };
    let too_long = if choice & 1 > 0 { TooLong::Truncate } else { TooLong::Drop };
    let framing = framing(200, too_long, false);
    let writing = Options::plain(Format::Raw, Escape::Newlines);
    let options = RelpOptions { listener: "f".into(), framing, writing, ack: AckLevel::Durable };
    let profile = RelpProtocol::new(options.clone(), Patience::default()).profile().clone();
    let (scratch, longest) = (profile.scratch, profile.longest_tail);
    let sizes = Sizes { chunk: profile.least_chunk, scratch, tails: 1 << 16, longest };
    let opened: &[u8] = if choice & 2 > 0 { b"1 open 15 commands=syslog\n" } else { b"" };
    let input = [opened, input].concat();
    let run = |pieces: &[usize]| {
        let mut drive = Drive::new(Relp::new(&options, &Peer::Local), sizes).unwrap();
        drive.feed(&input, pieces, true);
        if !drive.closed {
            drive.finish(End::Clean);
        }
        drive.reach(AckLevel::Durable);
        drive.speak();
        assert_eq!(drive.used_bytes(), 0);
        let said = String::from_utf8(drive.said.clone()).expect("answers are text");
        let answers = said.lines().filter(|line| line.ends_with(" rsp 6 200 OK")).count() as u64;
        assert!(answers >= drive.lines && answers <= drive.lines + drive.dropped.1.lines, "{said}");
        (drive.bytes(), drive.lines, drive.dropped.1.lines, drive.truncated, drive.closed, said)
    };
    let pieces: Vec<usize> = seed.iter().map(|b| 1 + usize::from(*b)).collect();
    let (whole, split) = (run(&[usize::MAX]), run(&pieces));
    assert_eq!(whole, split, "in pieces of {pieces:?}");
});
