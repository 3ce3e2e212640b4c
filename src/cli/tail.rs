//! `logweir tail`: prints the last lines, and follows new ones.

use super::follow::{Follow, Listing};
use super::select::{Out, Select, named};
use crate::host::output::complain;
use clap::Args;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Time between two looks for new lines.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The options of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    select: Select,
    /// Go on printing lines as they are written, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines of each stream to print first.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    lines: usize,
}

/// Prints the last lines of each stream, its shards merged by the time of writing, and those that follow.
pub fn run(args: &TailArgs) -> ExitCode {
    match print(args, &mut Out::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &TailArgs, out: &mut impl Write) -> io::Result<()> {
    let mut streams: BTreeMap<String, Follow> = BTreeMap::new();
    let mut shown: Option<String> = None;
    let mut is_first = true;
    let mut listing = Listing::new();
    loop {
        let mut is_more = false;
        let names = match listing.get(&args.select.data_dir, || args.select.streams()) {
            // It is made by the server when it starts.
            Err(e) if args.follow && e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let several = names.len() > 1;
        for name in names {
            let dir = args.select.data_dir.join(&name);
            if !streams.contains_key(&name) {
                // Of a stream that came while we followed, all lines are new.
                match Follow::begin(&dir, is_first.then_some(args.lines)) {
                    Err(e) if args.follow && e.kind() == io::ErrorKind::NotFound => continue,
                    other => drop(streams.insert(name.clone(), other.map_err(|e| named(&e, "stream", &dir))?)),
                }
            }
            let Some(stream) = streams.get_mut(&name) else { continue };
            let lines = stream.next_lines().map_err(|e| named(&e, "stream", &dir))?;
            is_more |= !lines.is_empty();
            for line in lines {
                if args.select.json {
                    line.write_json(&name, out)?;
                    continue;
                }
                if several && shown.as_ref() != Some(&name) {
                    let between = if shown.is_some() { "\n" } else { "" };
                    writeln!(out, "{between}==> {name} <==")?;
                    shown = Some(name.clone());
                }
                out.write_all(&line.bytes)?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()?;
        is_first = false;
        if !args.follow {
            return Ok(());
        }
        if crate::host::output::reader_is_gone() {
            return Ok(());
        }
        if !is_more {
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
}
