//! What `cat` and `tail` share: which streams they read, and how they print a line.

use crate::log::cat::Escaping;
use crate::log::content::{Content, ContentReader};
use crate::log::names::{Kind, SegmentId, is_stream_name};
use crate::log::timeline::Span;
use clap::Args;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Options that `cat` and `tail` share: which streams, and in which form.
#[derive(Debug, Args)]
pub struct Select {
    /// The data directory.
    #[arg(short, long, env = "LOGWEIR_DATA_DIR", value_name = "DIR", default_value = "./logweir-data")]
    pub data_dir: PathBuf,
    /// Print only this stream. Repeat it for several. Without it, all streams.
    #[arg(short, long, value_name = "NAME")]
    pub stream: Vec<String>,
    /// Print each line as a JSON object: t (when it was written, RFC 3339), stream, segment, offset and line. Bytes that are not UTF-8
    /// become U+FFFD, and `lossy` is then true.
    #[arg(long)]
    pub json: bool,
}

impl Select {
    /// The streams, sorted by name.
    ///
    /// # Errors
    /// A name that cannot be one, or the data directory cannot be listed.
    pub fn streams(&self) -> io::Result<Vec<String>> {
        if let Some(bad) = self.stream.iter().find(|s| !is_stream_name(s)) {
            return Err(io::Error::other(format!("\"{bad}\" is not the name of a stream")));
        }
        let listed = crate::host::sys::names(&self.data_dir);
        let mut names = listed.map_err(|e| named(&e, "data directory", &self.data_dir))?;
        names.retain(|name| is_stream_name(name) && self.data_dir.join(name).is_dir());
        names.sort();
        if self.stream.is_empty() {
            return Ok(names);
        }
        match self.stream.iter().find(|wanted| !names.contains(wanted)) {
            None => Ok(self.stream.clone()),
            Some(missing) => {
                let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
                let message =
                    format!("there is no stream \"{missing}\" in {}; there are: {there}", self.data_dir.display());
                Err(io::Error::new(io::ErrorKind::NotFound, message))
            }
        }
    }
}

/// An error with the file or directory that it is about.
pub fn named(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

/// Where lines are printed. On a terminal, control bytes are made visible.
pub enum Out {
    /// A file or pipe.
    Plain(StdoutLock<'static>),
    /// A terminal.
    Terminal(Escaping<StdoutLock<'static>>),
}

impl Out {
    /// Standard output.
    pub fn new() -> Out {
        let out = io::stdout().lock();
        if out.is_terminal() { Out::Terminal(Escaping::new(out)) } else { Out::Plain(out) }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Out::Plain(out) => out.write(bytes),
            Out::Terminal(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Out::Plain(out) => out.flush(),
            Out::Terminal(out) => out.flush(),
        }
    }
}

/// One line, with its segment and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since 1970; `None`: not known yet.
    pub wall_ns: Option<u64>,
    /// In which segment.
    pub id: SegmentId,
    /// From which byte.
    pub offset: u64,
    /// Without its newline.
    pub bytes: Vec<u8>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    stream: &'a str,
    segment: String,
    offset: u64,
    line: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
}

impl Line {
    /// Writes the line as one JSON object and a newline.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_json(&self, stream: &str, out: &mut impl Write) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.bytes);
        let shown = Shown {
            t: self.wall_ns.map(rfc3339),
            stream,
            segment: self.id.file_name(Kind::Sealed).trim_end_matches(".log").to_string(),
            offset: self.offset,
            lossy: matches!(line, Cow::Owned(_)),
            line,
        };
        serde_json::to_writer(&mut *out, &shown)?;
        out.write_all(b"\n")
    }
}

/// Bytes that are read at once at most.
const READ: usize = 256 << 10;

/// Calls `show` with each whole line of a span, and returns where the last one ends. A line without its newline is not shown.
///
/// # Errors
/// Reading or `show` failed.
pub fn each_line(
    content: &dyn Content,
    id: SegmentId,
    span: Span,
    mut show: impl FnMut(Line) -> io::Result<()>,
) -> io::Result<u64> {
    let len = span.to - span.from;
    let buffer = usize::try_from(len).map_or(READ, |len| len.min(READ));
    let mut reader = BufReader::with_capacity(buffer, ContentReader::new(content, span.from).take(len));
    let (mut at, mut bytes) = (span.from, Vec::new());
    loop {
        bytes.clear();
        let n = reader.read_until(b'\n', &mut bytes)?;
        if n == 0 || bytes.pop() != Some(b'\n') {
            return Ok(at);
        }
        show(Line { wall_ns: span.wall_ns, id, offset: at, bytes: std::mem::take(&mut bytes) })?;
        at += n as u64;
    }
}

fn rfc3339(wall_ns: u64) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_what_it_could_not_keep() {
        let line = Line {
            wall_ns: Some(1_795_255_200_000_001_000),
            id: SegmentId { shard: 0, sequence: 7 },
            offset: 5,
            bytes: b"a\"\xff\x1b".to_vec(),
        };
        let mut out = Vec::new();
        line.write_json("web", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"t\":\"2026-11-21T10:00:00.000001Z\",\"stream\":\"web\",\"segment\":\"000-0000000007\",\"offset\":5,\
             \"line\":\"a\\\"\u{fffd}\\u001b\",\"lossy\":true}\n"
        );
    }
}
