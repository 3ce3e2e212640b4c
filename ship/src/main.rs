//! `logweir-ship`: ships what a logweir server has made durable to another engine. It reads the server's configuration and its files, and
//! never asks the server.

mod kafka;
mod run;
mod sources;
mod watch;

use clap::Parser;
use logweir::config::Overrides;
use logweir::log::data_dir::{self, STATE_DIR};
use logweir::log::real_disk::RealDisk;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Ships durable lines to the targets of a configuration ([ship.NAME]).
#[derive(Debug, Parser)]
#[command(name = "logweir-ship", version)]
struct Args {
    /// The server's configuration.
    #[arg(short, long, env = "LOGWEIR_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// The server's data directory, where the configuration does not say it.
    #[arg(short, long, env = "LOGWEIR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// End once everything that is durable now has been shipped.
    #[arg(long)]
    once: bool,
    /// The target, where there are several.
    target: Option<String>,
}

/// A fenced shipper is not to be started again.
const FENCED: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match ship(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "logweir-ship: {error}");
            match error.downcast_ref::<run::ShipError>() {
                Some(run::ShipError::Target(kafka::TargetError::Fenced)) => ExitCode::from(FENCED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn ship(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut overrides = Overrides::default();
    if let Some(dir) = &args.data_dir {
        overrides.set.push(("data_dir".into(), dir.to_string_lossy().into_owned(), "--data-dir".into()));
    }
    let options = logweir::config::load(Some(&args.config), &overrides)?;
    let names = || options.ship.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
    let target = match (&args.target, options.ship.as_slice()) {
        (_, []) => return Err("the configuration has no [ship.NAME]".into()),
        (None, [only]) => only,
        (None, _) => return Err(format!("name one of the targets: {}", names()).into()),
        (Some(name), all) => all
            .iter()
            .find(|target| target.name == *name)
            .ok_or_else(|| format!("there is no [ship.{name}]; there are: {}", names()))?,
    };
    let node = data_dir::node_id(&RealDisk::new(), &options.data_dir)?;
    let node: String = node.iter().map(|byte| format!("{byte:02x}")).collect();
    let _lock = lock(&options.data_dir, &target.name)?;
    let (end, ending) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, ending.try_clone()?)?;
    }
    Ok(run::run(&options.data_dir, &node, target, &run::Signals { end: end.as_fd(), once: args.once })?)
}

/// One shipper for each target.
fn lock(dir: &std::path::Path, target: &str) -> Result<std::fs::File, Box<dyn std::error::Error>> {
    let dir = dir.join(STATE_DIR).join("ship");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{target}.lock"));
    let file = std::fs::File::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(format!("another shipper of {target} runs (it holds the lock on {})", path.display()).into())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}
