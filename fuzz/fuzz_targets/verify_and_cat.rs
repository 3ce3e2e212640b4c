//! What reads the files: `verify` misses nothing that was changed, `cat` shows whole lines and all of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::log::cat::{Escaping, copy_lines};
use logweir::log::names::Kind;
use logweir::log::verify::{Problem, StreamReport, stream};
use logweir_fuzz::bytes::Bytes;
use logweir_fuzz::disk::{MemoryDisk, Names};
use logweir_fuzz::segments::{STREAM, Sound, directory, sound};
use logweir_fuzz::text;
use std::io::{self, Read, Write};
use std::path::Path;

fn verify(names: &Names) -> StreamReport {
    let disk = MemoryDisk::with(names, 0);
    let report = stream(&disk, Path::new(""), STREAM).expect("it can be listed");
    for found in &report.problems {
        assert!(found.from <= found.to, "{found:?}");
        assert!(found.file.starts_with("s/0"), "{found:?}");
    }
    let total: usize = names.values().map(Vec::len).sum();
    assert!(report.bytes_proven + report.bytes_unproven <= total as u64, "{report:?}");
    report
}

fn has(report: &StreamReport, segment: &Sound, kind: Kind, problem: Problem) -> bool {
    let file = format!("{STREAM}/{}", segment.id.file_name(kind));
    report.problems.iter().any(|p| p.file == file && p.problem == problem)
}

/// A sound directory has no problem, and one after any change to what is proven.
fn changes(input: &mut Bytes<'_>) {
    let (mut names, segments) = sound(input);
    let report = verify(&names);
    assert_eq!(report.problems, []);
    let (mut proven, mut lines, mut total) = (0, 0, 0);
    for segment in &segments {
        proven += segment.content.len() as u64;
        lines += segment.content.iter().filter(|b| **b == b'\n').count() as u64;
        total += names[&segment.path(segment.kind)].len() as u64;
    }
    assert_eq!((report.bytes_proven, report.bytes_unproven, report.lines), (proven, total - proven, lines));
    assert_eq!(report.segments, segments.len() as u64);

    let choice = usize::from(input.byte());
    let segment = &segments[choice % segments.len()];
    // The first may be taken away, and nothing names the last.
    let is_named = segment.id != segments[segments.len() - 1].id && segment.id != segments[0].id;
    let (path, trail) = (segment.path(segment.kind), segment.path(Kind::Trail));
    let is_sealed = segment.kind == Kind::Sealed;
    let len = segment.content.len();
    let content = names.get_mut(&path).expect("it is there");
    match choice / 4 % 6 {
        0 | 1 => {
            let bit = (usize::from(input.word()) << 8 | usize::from(input.byte())) % (len * 8);
            content[bit / 8] ^= 1 << (bit % 8);
            let at = bit as u64 / 8;
            let report = verify(&names);
            let covers = report.problems.iter().any(|p| p.problem == Problem::Changed && (p.from..p.to).contains(&at));
            assert_eq!(covers, is_sealed || at < segment.synced, "bit {bit} of {len} bytes: {:?}", report.problems);
            assert_eq!(covers, has(&report, segment, segment.kind, Problem::Changed));
            assert!(report.bytes_proven < proven, "it is not proven any more");
        }
        2 => {
            let left = input.below(len);
            content.truncate(left);
            let is_short = has(&verify(&names), segment, segment.kind, Problem::Short);
            assert_eq!(is_short, is_sealed || (left as u64) < segment.synced, "cut to {left} of {len}");
        }
        3 => {
            let most = usize::from(input.byte());
            let more = [b"m", input.slice(most)].concat();
            content.extend_from_slice(&more);
            let report = verify(&names);
            assert_eq!(has(&report, segment, segment.kind, Problem::Changed), is_sealed, "more than was written");
            assert_eq!(report.bytes_unproven, more.len() as u64);
        }
        4 => {
            names.remove(&path);
            let report = verify(&names);
            assert_eq!(
                has(&report, segment, Kind::Sealed, Problem::Missing),
                segment.synced > 0,
                "the segment is gone"
            );
            names.remove(&trail);
            let is_missed = has(&verify(&names), segment, Kind::Sealed, Problem::Missing);
            assert_eq!(is_missed, is_named, "so is its trail, but the next one names it");
        }
        _ => {
            names.remove(&trail);
            assert!(has(&verify(&names), segment, Kind::Trail, Problem::Missing), "its trail is gone");
        }
    }
}

/// Gives what it has in pieces.
struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.1.next().copied().unwrap_or(1).min(into.len()).min(self.0.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// What a terminal may see, the obvious way.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, b) in bytes.iter().enumerate() {
        let is_c1 = *b == 0xc2 && matches!(bytes.get(i + 1), Some(0x80..=0x9f));
        match b {
            b'\n' | b'\t' => out.push(*b),
            0..0x20 | 0x7f => out.extend(format!("\\x{b:02x}").bytes()),
            _ if is_c1 => out.extend(b"\\xc2"),
            _ => out.push(*b),
        }
    }
    out
}

fn lines(content: &[u8], sizes: &[usize]) {
    let whole = &content[..content.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1)];
    for pieces in [&[usize::MAX], sizes] {
        let mut out = Vec::new();
        let n = copy_lines(&mut Pieces(content, pieces.iter().cycle()), &mut out).expect("nothing fails");
        assert_eq!(text(&out), text(whole), "read in pieces of {pieces:?}");
        assert_eq!(n, whole.len() as u64);
        let mut shown = Vec::new();
        copy_lines(&mut Pieces(content, pieces.iter().cycle()), &mut Escaping::new(&mut shown)).expect("nothing fails");
        assert_eq!(text(&shown), text(&escaped(whole)), "on a terminal, read in pieces of {pieces:?}");
        let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!String::from_utf8_lossy(&shown).contains(is_control), "{}", text(&shown));
    }
    let mut shown = Vec::new();
    let mut escaping = Escaping::new(&mut shown);
    let (mut rest, mut sizes) = (content, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().copied().unwrap_or(1).min(rest.len()));
        escaping.write_all(piece).expect("nothing fails");
        rest = behind;
    }
    escaping.flush().expect("nothing fails");
    drop(escaping);
    assert_eq!(text(&shown), text(&escaped(content)), "on a terminal, written in pieces");
}

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let mut input = Bytes(rest);
    match choice % 4 {
        0 => drop(verify(&directory(&mut input))),
        1 => {
            let sizes = [usize::from(input.byte()) + 1, usize::from(input.byte() % 8) + 1];
            lines(input.0, &sizes);
        }
        _ => changes(&mut input),
    }
});
