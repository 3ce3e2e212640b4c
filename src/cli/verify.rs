//! `logweir verify`: compares the files with their checksums.

use crate::host::output::complain;
use crate::log::names::is_stream_name;
use crate::log::verify::{OnDisk, StreamReport, stream, streams};
use crate::settings::units::Size;
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code where `verify` could not look; 1 is for damage.
const COULD_NOT_LOOK: u8 = 2;

/// The options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directory.
    #[arg(short, long, env = "LOGWEIR_DATA_DIR", value_name = "DIR", default_value = "./logweir-data")]
    data_dir: PathBuf,
    /// Look only at this stream. Repeat it for several.
    #[arg(short, long, value_name = "NAME")]
    stream: Vec<String>,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Whole<'a> {
    /// Nothing is wrong.
    ok: bool,
    problems: usize,
    streams: &'a [StreamReport],
}

/// Looks at every file; fails where something is wrong.
pub fn run(args: &VerifyArgs) -> ExitCode {
    match look(args).and_then(|reports| print(args, &reports)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // It could not print what it has found. If the reader has gone, that does not matter.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(COULD_NOT_LOOK),
        Err(error) => {
            complain!("{error}");
            ExitCode::from(COULD_NOT_LOOK)
        }
    }
}

fn look(args: &VerifyArgs) -> io::Result<Vec<StreamReport>> {
    let dir = args.data_dir.display();
    let names = if args.stream.is_empty() {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("data directory {dir}: {e}"));
        streams(&OnDisk, &args.data_dir).map_err(named)?
    } else {
        args.stream.clone()
    };
    let one = |name: &String| {
        if !is_stream_name(name) {
            return Err(io::Error::other(format!("\"{name}\" is not the name of a stream")));
        }
        match stream(&OnDisk, &args.data_dir, name) {
            // A file that somebody put into the data directory is none of ours.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory && args.stream.is_empty() => Ok(None),
            Err(e) => Err(io::Error::new(e.kind(), format!("stream {name} in {dir}: {e}"))),
            Ok(report) => Ok(Some(report)),
        }
    };
    names.iter().filter_map(|name| one(name).transpose()).collect()
}

/// True if nothing is wrong.
fn print(args: &VerifyArgs, reports: &[StreamReport]) -> io::Result<bool> {
    let problems: usize = reports.iter().map(|r| r.problems.len()).sum();
    let mut out = io::stdout().lock();
    if args.json {
        let whole = Whole { ok: problems == 0, problems, streams: reports };
        serde_json::to_writer_pretty(&mut out, &whole)?;
        writeln!(out)?;
    } else {
        for report in reports {
            describe(report, &mut out)?;
        }
        match problems {
            0 => writeln!(out, "ok: everything that has a checksum matches it, nothing is missing in between")?,
            n => writeln!(out, "DAMAGE: {n} problem{}", if n == 1 { "" } else { "s" })?,
        }
    }
    out.flush()?;
    Ok(problems == 0)
}

fn describe(report: &StreamReport, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}: {} segments", report.stream, report.segments)?;
    if report.active > 0 {
        write!(out, " ({} active)", report.active)?;
    }
    if report.compressed > 0 {
        write!(out, " ({} compressed)", report.compressed)?;
    }
    write!(out, ", {} lines, {} proven", report.lines, Size(report.bytes_proven))?;
    if report.bytes_unproven > 0 {
        write!(out, ", {} without a checksum yet or any more", Size(report.bytes_unproven))?;
    }
    if report.torn_files > 0 {
        write!(out, ", {} .torn files left by crashes", report.torn_files)?;
    }
    if report.foreign_files > 0 {
        write!(out, ", {} files that are not logweir's", report.foreign_files)?;
    }
    writeln!(out)?;
    for found in &report.problems {
        writeln!(out, "  {}: {}", found.file, found.detail)?;
    }
    Ok(())
}
