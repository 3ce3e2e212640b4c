//! Encoded bodies: what real encoders make must come out as it was, and anything else must do no harm.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir_fuzz::{MAX_DECODED, Setup, lines_of, run_both, seed, text};
use std::io::Write;

fn encode(coder: u8, body: &[u8]) -> Vec<u8> {
    let fast = flate2::Compression::fast();
    match coder {
        0 => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), fast);
            e.write_all(body).expect("memory");
            e.finish().expect("memory")
        }
        1 => {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), fast);
            e.write_all(body).expect("memory");
            e.finish().expect("memory")
        }
        2 => zstd::bulk::compress(body, 1).expect("memory"),
        3 => snap::raw::Encoder::new().compress_vec(body).expect("memory"),
        4 => {
            let mut e = flate2::write::DeflateEncoder::new(Vec::new(), fast);
            e.write_all(body).expect("memory");
            e.finish().expect("memory")
        }
        5 => {
            let mut e = snap::write::FrameEncoder::new(Vec::new());
            e.write_all(body).expect("memory");
            e.into_inner().expect("memory")
        }
        6 => zstd::stream::encode_all(body, 1).expect("memory"),
        _ => [encode(0, &body[..body.len() / 2]), encode(0, &body[body.len() / 2..])].concat(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, body)) = seed(data) else { return };
    let coder = seed[0] >> 5;
    let coding = ["gzip", "deflate", "zstd", "snappy", "deflate", "snappy", "zstd", "gzip"][usize::from(coder)];
    let send = |encoded: &[u8]| {
        let length = encoded.len();
        let head =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n");
        let behind = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        run_both(&Setup::whole(), &seed, &[head.as_bytes(), encoded, behind].concat())
    };
    if seed[2] & 2 == 0 {
        let out = send(body);
        assert!(out.default.len() as u64 <= MAX_DECODED + MAX_DECODED / 100, "more than was allowed");
        assert!(matches!(out.statuses[0].as_str(), "204" | "400" | "413" | "415" | "503"), "{:?}", out.statuses);
    } else {
        let out = send(&encode(coder, body));
        // A frame of snappy of nothing, and the like: nothing was sent.
        assert_eq!(out.statuses, ["204", "200"], "{coding} {coder}: {}", text(body));
        assert_eq!(text(&out.default), text(&lines_of(body)), "{coding} {coder}");
    }
});
