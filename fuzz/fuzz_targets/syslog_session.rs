//! Syslog, any bytes, every format: whole and in pieces the same. And what a message says of itself is a piece of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::host::peer::Peer;
use logweir::protocol::syslog::{Syslog, SyslogOptions, SyslogProtocol};
use logweir::session::drive::{Drive, Sizes};
use logweir::session::lines::TooLong;
use logweir::session::syslog::writing::Options;
use logweir::session::syslog::{framing, message};
use logweir::session::write::{Escape, Format};
use logweir::session::{End, Patience, Protocol};
use logweir_fuzz::seed;

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    let [choice, input @ ..] = rest else { return };
    let format = [Format::Raw, Format::Json, Format::Classic][usize::from(choice % 3)];
    let escape = if format != Format::Json && choice & 16 > 0 { Escape::Full } else { Escape::Newlines };
    let too_long = [TooLong::Truncate, TooLong::Drop, TooLong::Close][usize::from(choice >> 5) % 3];
    let framing = framing(200, too_long, choice & 8 > 0);
    let options = SyslogOptions { listener: "f".into(), framing, writing: Options::plain(format, escape) };
    let profile = SyslogProtocol::new(options.clone(), Patience::default()).profile().clone();
    let (scratch, longest) = (profile.scratch, profile.longest_tail);
    let sizes = Sizes { chunk: profile.least_chunk, scratch, tails: 1 << 16, longest };
    // What is looked at for other protocols comes in pieces as it comes; this is about the rest.
    let input = [b"<13>the first message is as long as what is looked at for others, that is 64\n", input].concat();
    let run = |pieces: &[usize]| {
        let mut drive = Drive::new(Syslog::new(&options, &Peer::Local), sizes).unwrap();
        drive.feed(&input, pieces, false);
        if !drive.closed {
            drive.finish(End::Clean);
        }
        assert_eq!(drive.used_bytes(), 0);
        (drive.bytes(), drive.lines, drive.dropped.1.lines, drive.truncated, drive.closed)
    };
    let pieces: Vec<usize> = seed.iter().map(|b| 1 + usize::from(*b)).collect();
    let (whole, split) = (run(&[usize::MAX]), run(&pieces));
    assert_eq!(whole, split, "in pieces of {pieces:?}");
    let mut drive = Drive::new(Syslog::new(&options, &Peer::Local), sizes).unwrap();
    drive.datagram(rest, 0, &Peer::Local);
    assert!(drive.lines + drive.dropped.1.lines <= 1, "a datagram is one message");
    if format == Format::Json {
        for line in whole.0.split_inclusive(|b| *b == b'\n') {
            let value: serde_json::Value = serde_json::from_slice(line).expect("a line is an object");
            assert!(value["msg"].is_string() && value["attrs"].is_object());
        }
    }
    assert!(rest.ends_with(message::parse(rest).msg));
});
