use super::*;

#[test]
fn what_begins_is_told_apart_by_its_first_bytes() {
    let cases: [(&[u8], Frame); 24] = [
        (b"", Frame::Undecided),
        (b"1", Frame::Undecided),
        (b"123456789", Frame::Undecided),
        (b"12 ", Frame::Undecided),
        (b"12 <", Frame::Counted(2, 12)),
        (b"123456789 <", Frame::Counted(9, 123_456_789)),
        (b"1234567890", Frame::Text(false)),
        (b"0 <14>", Frame::Text(false)),
        (b"012 <14>", Frame::Text(false)),
        (b"12 m", Frame::Text(false)),
        (b"2026-11-27T", Frame::Text(false)),
        (b"<", Frame::Undecided),
        (b"<191", Frame::Undecided),
        (b"<14>", Frame::Text(true)),
        (b"<192>", Frame::Text(false)),
        (b"<a", Frame::Text(false)),
        (b"<1234", Frame::Text(false)),
        (b"\n", Frame::Terminator(1)),
        (b"\0", Frame::Terminator(1)),
        (b"\r", Frame::Undecided),
        (b"\r\n", Frame::Terminator(2)),
        (b"zx\x9c", Frame::Compressed),
        (b"77 zx\xda", Frame::Compressed),
        (b"zxy", Frame::Text(false)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(look(bytes), expected, "{}", bytes.escape_ascii());
    }
}
