use super::*;

#[test]
fn what_begins_is_told_apart_by_its_first_bytes() {
    let cases: [(&[u8], Begins); 24] = [
        (b"", Begins::Undecided),
        (b"1", Begins::Undecided),
        (b"123456789", Begins::Undecided),
        (b"12 ", Begins::Undecided),
        (b"12 <", Begins::Counted(2, 12)),
        (b"123456789 <", Begins::Counted(9, 123_456_789)),
        (b"1234567890", Begins::Text(false)),
        (b"0 <14>", Begins::Text(false)),
        (b"012 <14>", Begins::Text(false)),
        (b"12 m", Begins::Text(false)),
        (b"2026-11-27T", Begins::Text(false)),
        (b"<", Begins::Undecided),
        (b"<191", Begins::Undecided),
        (b"<14>", Begins::Text(true)),
        (b"<192>", Begins::Text(false)),
        (b"<a", Begins::Text(false)),
        (b"<1234", Begins::Text(false)),
        (b"\n", Begins::Terminator(1)),
        (b"\0", Begins::Terminator(1)),
        (b"\r", Begins::Undecided),
        (b"\r\n", Begins::Terminator(2)),
        (b"zx\x9c", Begins::Compressed),
        (b"77 zx\xda", Begins::Compressed),
        (b"zxy", Begins::Text(false)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(look(bytes), expected, "{}", bytes.escape_ascii());
    }
}
