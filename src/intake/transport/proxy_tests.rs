//! PROXY headers that are right and wrong, in one piece and in many.

use super::*;
use crate::intake::transport::Identity;
use proptest::prelude::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

fn v4_body() -> Vec<u8> {
    vec![192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x02, 0x02] // ports 12345 and 514
}

fn v6_body() -> Vec<u8> {
    let mut body = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    body.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    body.extend([0x30, 0x39, 0x02, 0x02]);
    body
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut tlv = vec![kind];
    tlv.extend((value.len() as u16).to_be_bytes());
    tlv.extend(value);
    tlv
}

fn with_checksum(broken: bool) -> Vec<u8> {
    let body = [v4_body(), tlv(0x02, b"logs.example"), tlv(TLV_CRC32C, &[0; 4]), tlv(0x04, &[0; 3])].concat();
    let mut header = v2(0x21, 0x11, &body);
    let crc = crc32c(&header) ^ u32::from(broken);
    let at = V2_FIXED + 12 + 3 + 12 + 3;
    header[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    header
}

fn v1_max() -> Vec<u8> {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(V1_MAX - 2, b'x');
    line.extend(b"\r\n");
    line
}

fn valid() -> Vec<(Vec<u8>, Source)> {
    let client = |text: &str| Source::Client(text.parse().unwrap());
    vec![
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 514\r\n".to_vec(), client("192.0.2.7:12345")),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), client("255.255.255.255:65535")),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), client("0.0.0.0:0")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 514\r\n".to_vec(), client("[2001:db8::7]:12345")),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n".to_vec(), client("[::ffff:192.0.2.7]:1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Local),
        (b"PROXY UNKNOWN what ever \xff stands here\r\n".to_vec(), Source::Local),
        (v1_max(), Source::Local),
        (v2(0x20, 0x00, b""), Source::Local),
        (v2(0x20, 0x77, b"ignored"), Source::Local),
        (v2(0x21, 0x00, b"ignored too"), Source::Local),
        (v2(0x21, 0x11, &v4_body()), client("192.0.2.7:12345")),
        (v2(0x21, 0x12, &v4_body()), client("192.0.2.7:12345")),
        (v2(0x21, 0x21, &v6_body()), client("[2001:db8::7]:12345")),
        (v2(0x21, 0x22, &v6_body()), client("[2001:db8::7]:12345")),
        (v2(0x21, 0x31, &[1; 216]), Source::Local),
        (v2(0x21, 0x32, &[1; 216]), Source::Local),
        (v2(0x21, 0x11, &[v4_body(), tlv(0xea, b"vpce-1")].concat()), client("192.0.2.7:12345")),
        (v2(0x21, 0x11, &[v4_body(), tlv(0x04, &vec![0; V2_MAX - 15])].concat()), client("192.0.2.7:12345")),
        (with_checksum(false), client("192.0.2.7:12345")),
    ]
}

fn malformed() -> Vec<Vec<u8>> {
    let mut old_version = v2(0x21, 0x11, &v4_body());
    old_version[12] = 0x11;
    let mut too_long = V2_SIGNATURE.to_vec();
    too_long.extend([0x21, 0x11, 0x10, 0x01]);
    let mut lines: Vec<Vec<u8>> = [
        "hello\n",
        "P\n",
        "PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\r\n\r\n\0\r\nQUIX\n",
    ]
    .iter()
    .map(|l| l.as_bytes().to_vec())
    .collect();
    lines.extend([
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat(), // 108 bytes
        b"PROXY TCP4 1.2.3.4 \xff 1 2\r\n".to_vec(),
        old_version,
        v2(0x22, 0x11, &v4_body()),
        v2(0x21, 0x13, &v4_body()),
        v2(0x21, 0x41, &v4_body()),
        v2(0x21, 0x01, b""),
        v2(0x21, 0x11, &v4_body()[..11]),
        v2(0x21, 0x21, &v6_body()[..35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x11, &[v4_body(), vec![4]].concat()),
        v2(0x21, 0x11, &[v4_body(), vec![4, 0]].concat()),
        v2(0x21, 0x11, &[v4_body(), vec![4, 0, 1]].concat()),
        v2(0x21, 0x11, &[v4_body(), tlv(TLV_CRC32C, &[0; 3])].concat()),
        with_checksum(true),
        too_long,
    ]);
    lines
}

/// What comes out, in pieces of these sizes (again and again).
fn run(wire: &[u8], cuts: &[usize]) -> (Result<Vec<u8>, StageError>, Option<Source>, Proxy) {
    let mut proxy = Proxy::new(Box::new(Identity));
    let mut out = Vec::new();
    let mut at = 0;
    let mut failure = None;
    for cut in cuts.iter().cycle() {
        if at == wire.len() || failure.is_some() {
            break;
        }
        let piece = &wire[at..wire.len().min(at + cut)];
        at += piece.len();
        let mut space = vec![0; proxy.held() + piece.len()];
        let held = proxy.held();
        space[held..].copy_from_slice(piece);
        match proxy.decode(&mut space, piece.len(), piece.len()) {
            Ok(n) => out.extend_from_slice(&space[..n]),
            Err(e) => failure = Some(e),
        }
    }
    let source = proxy.take_source();
    (failure.map_or(Ok(out), Err), source, proxy)
}

#[test]
fn every_good_header_is_taken_off_wherever_it_is_cut() {
    for (header, source) in valid() {
        let text = String::from_utf8_lossy(&header).into_owned();
        let wire = [header.as_slice(), b"one\ntwo\n"].concat();
        for cuts in [&[usize::MAX / 2][..], &[1], &[2, 3], &[header.len()], &[header.len() + 3, 1], &[11, 1, 4, 100]] {
            let (out, found, mut proxy) = run(&wire, cuts);
            assert_eq!(out.unwrap(), b"one\ntwo\n", "{text}");
            assert_eq!(found, Some(source), "{text}");
            assert_eq!(proxy.take_source(), None, "only once");
            assert!(proxy.is_clean_end() && !proxy.is_opening() && !proxy.pending());
        }
        for end in 1..header.len() {
            let (out, found, proxy) = run(&header[..end], &[end]);
            assert_eq!((out, found), (Ok(Vec::new()), None), "{text}");
            assert!(!proxy.is_clean_end() && proxy.is_opening(), "{text} cut at {end}");
        }
    }
    assert!(run(b"", &[1]).2.is_clean_end(), "nothing was sent");
}

#[test]
fn bad_headers_are_errors_wherever_they_are_cut() {
    for header in malformed() {
        let text = String::from_utf8_lossy(&header).into_owned();
        let (whole, source, mut proxy) = run(&header, &[header.len()]);
        let error = whole.expect_err(&text);
        assert!(matches!(error, StageError::NoProxyHeader | StageError::BadProxyHeader(_)), "{text}: {error}");
        assert_eq!(source, None);
        assert!(!proxy.is_clean_end());
        assert_eq!(proxy.decode(&mut [b'x'], 1, 1), Err(error.clone()), "it stays so");
        for cuts in [&[1][..], &[3, 7], &[15, 1]] {
            assert_eq!(run(&header, cuts).0, Err(error.clone()), "{text}");
        }
    }
}

#[test]
fn a_header_takes_memory_as_it_comes_not_as_it_says() {
    let mut start = V2_SIGNATURE.to_vec();
    start.extend([0x21, 0x11, 0x10, 0x00]);
    let (_, _, proxy) = run(&start, &[1]);
    let State::Header(held) = &proxy.state else { panic!("not complete") };
    assert!(held.capacity() <= 64, "{}", held.capacity());
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(
        start in prop::sample::select(vec![
            b"".to_vec(), b"PROXY ".to_vec(), b"PROXY TCP4 ".to_vec(), V2_SIGNATURE.to_vec(), v2(0x21, 0x11, &v4_body()),
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(1usize..40, 1..5),
    ) {
        let wire = [start, bytes].concat();
        let (whole, source, _) = run(&wire, &[wire.len().max(1)]);
        let (cut, cut_source, _) = run(&wire, &cuts);
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(source, cut_source);
    }
}
