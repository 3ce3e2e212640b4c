//! Ships to one target: reads what is durable, sends it with the positions behind it, notes that, and waits for more.

use crate::beat::Beat;
use crate::kafka::{Target, TargetError};
use crate::watch::Watch;
use logweir::config::ship::{ShipTarget, Start};
use logweir::host::clock::SystemClock;
use logweir::log::LogError;
use logweir::log::content::OnDisk;
use logweir::log::names::is_stream_name;
use logweir::log::real_disk::RealDisk;
use logweir::log::ship::note;
use logweir::log::ship::rounds::{Machine, RoundError, Rounds, Sizes};
use logweir::log::ship::status::Doing;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of transactions, and of what is read at once.
const SIZES: Sizes = Sizes { transaction: 64 << 20, read: 256 << 10 };
/// Bytes of memory that reading takes at most, where no line is longer than a piece; and the program itself.
pub const MEMORY: u64 = 2 * SIZES.read as u64 + (12 << 20);
/// What comes together within this time goes together.
const GATHER: Duration = Duration::from_millis(20);
/// Between two tries, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Why a shipper ends.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The files.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Reading.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// The target has forgotten everything.
    #[error(
        "the target has no positions of this node, though the note {0} says that it got lines: its topic of positions was deleted, or it is another cluster. \
         Delete the note to ship everything again"
    )]
    Forgotten(String),
}

/// What the rest of the program tells a shipper.
pub struct Signals<'a> {
    /// Readable once it is to end.
    pub end: BorrowedFd<'a>,
    /// End when everything durable has been shipped.
    pub once: bool,
}

/// Ships until it is told to end.
///
/// # Errors
/// Something that trying again does not mend.
pub fn run(
    data_dir: &Path,
    node: &str,
    options: &ShipTarget,
    beat: &Beat,
    signals: &Signals<'_>,
) -> Result<(), ShipError> {
    let mut backoff = BACKOFF.0;
    let mut complaint = String::new();
    let watch = &mut Watch::new()?;
    loop {
        let begun = Instant::now();
        match connected(data_dir, node, options, (beat, &mut complaint), signals, watch) {
            Err(ShipError::Target(error)) if !error.is_final() => {
                if begun.elapsed() > BACKOFF.1 {
                    backoff = BACKOFF.0;
                }
                beat.say(|status| {
                    status.doing = Doing::Connecting;
                    status.errors += 1;
                    status.retries += 1;
                });
                let text = error.to_string();
                // One line for each change of state, not for each try.
                if text != complaint {
                    tracing::warn!(target_name = options.name, %error, "not shipping; trying again until it works");
                    complaint = text;
                }
                if watch.wait_only(signals.end, jittered(backoff))? {
                    return Ok(());
                }
                backoff = (backoff * 2).min(BACKOFF.1);
            }
            other => return other,
        }
    }
}

/// Between half of a time and all of it, so that not all shippers come back at once.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    time.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

fn connected(
    data_dir: &Path,
    node: &str,
    options: &ShipTarget,
    (beat, complaint): (&Beat, &mut String),
    signals: &Signals<'_>,
    watch: &mut Watch,
) -> Result<(), ShipError> {
    let (disk, clock) = (RealDisk::new(), SystemClock::new());
    let mut target = Target::open(options, node)?;
    let shipped = target.positions()?;
    tracing::info!(target_name = options.name, shards = shipped.len(), "shipping");
    beat.say(|status| status.doing = Doing::Shipping);
    let machine = Machine { files: &OnDisk, disk: &disk, clock: &clock, data_dir, target: &options.name };
    let taking = options.clone();
    let begins = (shipped, Box::new(move |stream: &str| taking.takes(stream)) as _, options.start == Start::Now);
    let failed = |target: &Target, error| match error {
        RoundError::Target(error) => ShipError::Target(target.explain(error)),
        RoundError::Log(error) => ShipError::Log(error),
        RoundError::Io(error) => ShipError::Io(error),
        RoundError::Forgotten => ShipError::Forgotten(note::path(data_dir, &options.name).display().to_string()),
    };
    let mut rounds = Rounds::begin(machine, SIZES, &mut target, begins).map_err(|error| failed(&target, error))?;
    loop {
        // Also where there is always something to ship.
        if watch.wait_only(signals.end, Duration::ZERO)? {
            return rounds.end(&mut target).map_err(|error| failed(&target, error));
        }
        watch_all(watch, data_dir, options)?;
        match rounds.round(&mut target).map_err(|error| failed(&target, error))? {
            Some(sent) => {
                complaint.clear(); // what comes after this is another change
                beat.say(|status| {
                    status.lines += sent.lines;
                    status.bytes += sent.bytes;
                    status.transactions += 1;
                });
            }
            None if signals.once => return Ok(()),
            None => {
                if watch.wait(signals.end, None)? || watch.wait_only(signals.end, GATHER)? {
                    return Ok(());
                }
            }
        }
    }
}

fn watch_all(watch: &mut Watch, data_dir: &Path, options: &ShipTarget) -> Result<(), ShipError> {
    watch.add(data_dir)?;
    for entry in std::fs::read_dir(data_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| is_stream_name(name) && options.takes(name)) && entry.path().is_dir() {
            watch.add(&entry.path())?;
        }
    }
    Ok(())
}
