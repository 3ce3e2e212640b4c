//! `logweir cat`: prints the lines in a data directory.

use super::moment::moment;
use super::select::{Out, Select, each_line, named};
use crate::host::output::complain;
use crate::log::cat::{copy_lines, copy_range, segments};
use crate::log::content::{ContentReader, OnDisk, open_text};
use crate::log::timeline::{self, Period};
use clap::Args;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The options of `cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    #[command(flatten)]
    select: Select,
    /// Print only lines written since this time. It may be how long ago (15m, -2h, "3 days ago"), a time (2026-11-21T10:00:00Z,
    /// "2026-11-21 10:00", 10:00), a day (2026-11-21, today, yesterday) or @SECONDS. A time without a zone is local time.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    since: Option<u64>,
    /// Print only lines written until this time. It has the same forms.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    until: Option<u64>,
}

/// Prints whole lines: streams by name, in each the segments by shard and sequence.
pub fn run(args: &CatArgs) -> ExitCode {
    match print(args, &mut Out::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS, // `logweir cat | head`
        Err(error) => {
            complain!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &CatArgs, out: &mut impl Write) -> io::Result<()> {
    let is_plain = args.since.is_none() && args.until.is_none() && !args.select.json;
    for stream in args.select.streams()? {
        let dir = args.select.data_dir.join(&stream);
        for id in segments(&dir).map_err(|e| named(&e, "stream", &dir))? {
            let printed = match is_plain {
                true => whole(&dir, id, out),
                false => in_time(args, &stream, &dir, id, out),
            };
            printed.map_err(|e| match e.kind() {
                io::ErrorKind::BrokenPipe => e,
                _ => named(&e, "segment", &dir.join(id.file_name(crate::log::names::Kind::Sealed))),
            })?;
        }
    }
    out.flush()
}

fn whole(dir: &Path, id: crate::log::names::SegmentId, out: &mut impl Write) -> io::Result<()> {
    let Some((content, _)) = open_text(&OnDisk, dir, id)? else { return Ok(()) };
    copy_lines(&mut ContentReader::new(&*content, 0), out).map(drop)
}

fn in_time(
    args: &CatArgs,
    stream: &str,
    dir: &Path,
    id: crate::log::names::SegmentId,
    out: &mut impl Write,
) -> io::Result<()> {
    let Some(segment) = timeline::open(&OnDisk, dir, id)? else { return Ok(()) };
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let period = Period { since_ns: args.since, until_ns: args.until, now_ns };
    for span in segment.spans.iter().filter(|span| period.holds(span.wall_ns)) {
        if args.select.json {
            each_line(&*segment.content, id, *span, |line| line.write_json(stream, out))?;
        } else {
            copy_range(&*segment.content, span.from, span.to, out)?;
        }
    }
    Ok(())
}
