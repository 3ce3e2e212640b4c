//! `logweir cat`

use crate::log::cat::{Escaping, copy_lines, open_segment, segments};
use crate::log::names::is_stream_name;
use clap::Args;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which lines.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The data directory.
    #[arg(short, long, env = "LOGWEIR_DATA_DIR", value_name = "DIR", default_value = "./logweir-data")]
    data_dir: PathBuf,
    /// Only this stream; repeat for several. Without it, all streams, one after the other.
    #[arg(short, long, value_name = "NAME")]
    stream: Vec<String>,
}

/// Prints whole lines: streams by name, in each the segments by shard and sequence.
pub fn run(args: &CatArgs) -> ExitCode {
    let out = io::stdout().lock();
    let result = if out.is_terminal() { print(args, &mut Escaping::new(out)) } else { print(args, &mut { out }) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS, // `logweir cat | head`
        Err(error) => {
            eprintln!("logweir: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &CatArgs, out: &mut impl Write) -> io::Result<()> {
    for stream in streams(args)? {
        let dir = args.data_dir.join(&stream);
        for id in segments(&dir).map_err(|e| named(&e, "stream", &dir))? {
            if let Some((mut file, path)) = open_segment(&dir, id)? {
                copy_lines(&mut file, out).map_err(|e| match e.kind() {
                    io::ErrorKind::BrokenPipe => e,
                    _ => named(&e, "file", &path),
                })?;
            }
        }
    }
    out.flush()
}

fn streams(args: &CatArgs) -> io::Result<Vec<String>> {
    if !args.stream.is_empty() {
        return match args.stream.iter().find(|s| !is_stream_name(s)) {
            Some(bad) => Err(io::Error::other(format!("\"{bad}\" is not the name of a stream"))),
            None => Ok(args.stream.clone()),
        };
    }
    let entries = std::fs::read_dir(&args.data_dir).map_err(|e| named(&e, "data directory", &args.data_dir))?;
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|name| is_stream_name(name)).collect();
    names.sort();
    Ok(names)
}

fn named(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
