//! `logweir cat`: prints the lines in a data directory.

use super::moment::moment;
use super::select::{Out, Select, each_line, named};
use crate::host::clock::SystemClock;
use crate::host::output::complain;
use crate::log::cat::{copy_lines, copy_range, segments};
use crate::log::content::{ContentReader, OnDisk, open_text};
use crate::log::data_dir::STATE_DIR;
use crate::log::holds::Hold;
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
    /// Keep what is still to be printed from being deleted by max_age and max_bytes, for as long as this goes on: not once nothing was
    /// printed for 10 minutes, and not where min_free needs the room. It writes a file to DIR/.logweir/holds.
    #[arg(long)]
    hold: bool,
}

/// Where lines are printed, and what is held until they are.
struct Printing {
    out: Out,
    hold: Option<Hold>,
}

impl Write for Printing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        if let Some(hold) = &mut self.hold {
            let _ = hold.goes_on(); // what cannot be noted now is held for a while still
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints whole lines: streams by name, in each the segments by shard and sequence.
pub fn run(args: &CatArgs) -> ExitCode {
    match print(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS, // `logweir cat | head`
        Err(error) => {
            complain!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &CatArgs) -> io::Result<()> {
    let is_plain = args.since.is_none() && args.until.is_none() && !args.select.json;
    let streams = args.select.streams()?;
    let hold = args.hold.then(|| hold(args, &streams)).transpose()?;
    let out = &mut Printing { out: Out::new(), hold };
    for stream in streams {
        let dir = args.select.data_dir.join(&stream);
        for id in segments(&dir).map_err(|e| named(&e, "stream", &dir))? {
            if let Some(hold) = &mut out.hold {
                let _ = hold.is_at(&stream, id);
            }
            let printed = match is_plain {
                true => whole(&dir, id, out),
                false => in_time(args, &stream, &dir, id, out),
            };
            printed.map_err(|e| match e.kind() {
                io::ErrorKind::BrokenPipe => e,
                _ => named(&e, "segment", &dir.join(id.file_name(crate::log::names::Kind::Sealed))),
            })?;
        }
        if let Some(hold) = &mut out.hold {
            let _ = hold.is_done_with(&stream);
        }
    }
    out.flush()
}

/// Holds everything that is there of these streams.
fn hold(args: &CatArgs, streams: &[String]) -> io::Result<Hold> {
    let mut needs = Vec::new();
    for stream in streams {
        let dir = args.select.data_dir.join(stream);
        let ids = segments(&dir).map_err(|e| named(&e, "stream", &dir))?;
        needs.extend(ids.into_iter().map(|id| (stream.clone(), id)));
    }
    let state = args.select.data_dir.join(STATE_DIR);
    Hold::take(&state, "cat", Box::new(SystemClock::new()), needs)
        .map_err(|e| named(&e, "hold in", &state.join("holds")))
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
