//! Header fields, any bytes: what is taken must be beyond doubt, since a proxy in front may have read it otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir_fuzz::{Setup, run_both, seed, text};

fuzz_target!(|data: &[u8]| {
    let Some((seed, fields)) = seed(data) else { return };
    // One head only: what lies behind an empty line would be the body.
    if fields.windows(4).any(|w| w == b"\r\n\r\n") || fields.starts_with(b"\r\n") || fields.ends_with(b"\r") {
        return;
    }
    let input = [&b"POST / HTTP/1.1\r\nHost: a\r\n"[..], fields, b"\r\n\r\n0\r\n\r\n"].concat();
    let out = run_both(&Setup::whole(), &seed, &input);
    let first = out.statuses.first().map(String::as_str);
    if matches!(first, None | Some("400" | "431" | "501" | "505")) {
        return;
    }
    let shown = text(fields);
    let (mut lengths, mut codings) = (0, 0);
    let body = fields.strip_suffix(b"\r\n").unwrap_or(fields);
    for line in text_lines(body) {
        assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "a bare line end was taken: {shown}");
        let colon = line.iter().position(|b| *b == b':').unwrap_or_else(|| panic!("no colon: {shown}"));
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(!name.is_empty() && name.iter().all(|b| is_token(*b)), "a bad name was taken: {shown}");
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit), "a bad length was taken: {shown}");
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            assert!(value.eq_ignore_ascii_case(b"chunked"), "a bad coding was taken: {shown}");
        }
        assert!(!name.eq_ignore_ascii_case(b"host"), "a second host was taken: {shown}");
    }
    assert!(lengths + codings <= 1, "the length was said twice: {shown}");
});

fn text_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
