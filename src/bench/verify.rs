//! Compares the lines in a data directory with what `bench send --sequence` sent.

use super::lines::parse_numbered;
use crate::host::output::say;
use crate::log::cat::{copy_lines, segments};
use crate::log::content::{ContentReader, OnDisk, open_text};
use clap::Args;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The options of `bench verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directory.
    #[arg(short, long, default_value = "./logweir-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The stream to check.
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    stream: String,
    /// How many lines should be there. Without it, only the lines that are there are checked.
    #[arg(short = 'n', long)]
    lines: Option<u64>,
}

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Lines.
    pub lines: u64,
    /// Lines that are not as sent.
    pub corrupted: u64,
    /// Numbers that are there again.
    pub doubled: u64,
    /// Numbers that are missing below the highest of their connection.
    pub missing: u64,
    /// Lines whose number is lower than one before, and that are not doubled.
    pub reordered: u64,
    seen: BTreeMap<u32, Seen>,
    rest: Vec<u8>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    /// All below this were seen.
    next: u64,
    /// Those above `next` that were seen already.
    ahead: std::collections::BTreeSet<u64>,
}

impl Found {
    /// Takes one line in.
    pub fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some((connection, number)) = parse_numbered(line) else {
            self.corrupted += 1;
            return;
        };
        let seen = self.seen.entry(connection).or_default();
        if number < seen.next || seen.ahead.contains(&number) {
            self.doubled += 1;
        } else if number == seen.next {
            self.reordered += u64::from(!seen.ahead.is_empty());
            seen.next += 1;
            while seen.ahead.remove(&seen.next) {
                seen.next += 1;
            }
        } else {
            self.reordered += u64::from(seen.ahead.last().is_some_and(|last| number < *last));
            seen.ahead.insert(number);
        }
    }

    /// Counts the gaps; call at the end.
    pub fn finish(&mut self) {
        for seen in self.seen.values() {
            if let Some(last) = seen.ahead.last() {
                self.missing += last + 1 - seen.next - seen.ahead.len() as u64;
            }
        }
    }

    /// True if all is as sent (and complete, where `expected` says how many there should be).
    #[must_use]
    pub fn is_good(&self, expected: Option<u64>) -> bool {
        self.corrupted + self.doubled + self.missing + self.reordered == 0 && expected.is_none_or(|n| n == self.lines)
    }
}

impl Write for Found {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            if self.rest.is_empty() {
                self.line(&bytes[start..newline]);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(&bytes[start..newline]);
                self.line(&whole);
            }
            start = newline + 1;
        }
        self.rest.extend_from_slice(&bytes[start..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs and reports.
pub fn run(args: &VerifyArgs) -> io::Result<ExitCode> {
    let dir = args.data_dir.join(&args.stream);
    let mut found = Found::default();
    for id in segments(&dir)? {
        if let Some((text, _)) = open_text(&OnDisk, &dir, id)? {
            copy_lines(&mut ContentReader::new(&*text, 0), &mut found)?;
        }
    }
    found.finish();
    let Found { lines, corrupted, doubled, missing, reordered, .. } = &found;
    say!(
        "verified lines={lines} connections={} missing={missing} doubled={doubled} corrupted={corrupted} reordered={reordered}",
        found.seen.len()
    );
    if let Some(expected) = args.lines.filter(|n| n != lines) {
        say!("expected {expected} lines");
    }
    Ok(if found.is_good(args.lines) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::super::lines::numbered;
    use super::*;

    fn check(numbers: &[u64]) -> Found {
        let mut found = Found::default();
        for n in numbers {
            let mut line = Vec::new();
            numbered(1, *n, 60, &mut line);
            found.write_all(&line).unwrap();
        }
        found.finish();
        found
    }

    #[test]
    fn each_kind_of_damage_shows() {
        assert!(check(&[0, 1, 2]).is_good(Some(3)));
        assert!(!check(&[0, 1, 2]).is_good(Some(4)));
        assert_eq!(check(&[0, 2]).missing, 1);
        assert_eq!(check(&[0, 1, 1]).doubled, 1);
        assert_eq!((check(&[0, 2, 1]).reordered, check(&[0, 2, 1]).missing), (1, 0));
        let mut found = Found::default();
        found.write_all(b"nonsense\n").unwrap();
        assert_eq!(found.corrupted, 1);
    }
}
