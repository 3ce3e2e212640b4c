//! Bodies in chunks, any bytes, next to a reader that does it the obvious way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir_fuzz::{Setup, lines_of, run_both, seed, text};

enum Read {
    Whole(Vec<u8>),
    Bad,
    /// More would have to come.
    Short,
}

fn read(mut input: &[u8]) -> Read {
    let mut body = Vec::new();
    loop {
        let digits = input.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if digits > 15 || (digits == 0 && !input.is_empty()) {
            return Read::Bad;
        }
        let size = u64::from_str_radix(std::str::from_utf8(&input[..digits]).expect("digits"), 16).unwrap_or(0);
        match &input[digits..] {
            [] | [b'\r'] => return Read::Short,
            [b'\r', b'\n', rest @ ..] => input = rest,
            _ => return Read::Bad,
        }
        if size == 0 {
            return trailers(input, body);
        }
        if (input.len() as u64) < size {
            return Read::Short;
        }
        let (content, rest) = input.split_at(size as usize);
        body.extend_from_slice(content);
        match rest {
            [] | [b'\r'] => return Read::Short,
            [b'\r', b'\n', rest @ ..] => input = rest,
            _ => return Read::Bad,
        }
    }
}

fn trailers(mut input: &[u8], body: Vec<u8>) -> Read {
    let mut all = 0;
    loop {
        let line = input.iter().take_while(|b| **b != b'\r').count();
        let is_plain = input[..line].iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
        all += line;
        if !is_plain || (line > 0 && matches!(input[0], b' ' | b'\t' | b':')) || all > 2048 {
            return Read::Bad;
        }
        match &input[line..] {
            [] | [b'\r'] => return Read::Short,
            [b'\r', b'\n', ..] if line == 0 => return Read::Whole(body),
            [b'\r', b'\n', rest @ ..] => input = rest,
            _ => return Read::Bad,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, chunks)) = seed(data) else { return };
    let head = &b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    let out = run_both(&Setup::whole(), &seed, &[head, chunks].concat());
    let shown = text(chunks);
    assert_eq!(out.statuses.len(), 1, "{shown}");
    let status = out.statuses[0].as_str();
    match read(chunks) {
        Read::Whole(body) => {
            assert_eq!(status, "204", "{shown}");
            assert_eq!(text(&out.default), text(&lines_of(&body)), "{shown}");
        }
        Read::Bad => assert!(matches!(status, "400" | "431"), "{status}: {shown}"),
        Read::Short => assert_eq!(status, "400", "{shown}"),
    }
});
