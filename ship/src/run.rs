//! Ships to one target: reads what is durable, sends it with the positions behind it, notes that, and waits for more.

use crate::kafka::{Target, TargetError};
use crate::sources::Sources;
use crate::watch::Watch;
use logweir::config::ship::ShipTarget;
use logweir::log::LogError;
use logweir::log::disk::Disk;
use logweir::log::names::is_stream_name;
use logweir::log::real_disk::RealDisk;
use logweir::log::ship::note::{self, Positions};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one transaction, and of what is read at once.
const TRANSACTION_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 256 << 10;
/// What comes together within this time goes together.
const GATHER: Duration = Duration::from_millis(20);
/// The local note is replaced no more often.
const NOTE_EVERY: Duration = Duration::from_secs(1);
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
pub fn run(data_dir: &Path, node: &str, options: &ShipTarget, signals: &Signals<'_>) -> Result<(), ShipError> {
    let mut backoff = BACKOFF.0;
    let watch = &mut Watch::new()?;
    loop {
        let begun = Instant::now();
        match connected(data_dir, node, options, signals, watch) {
            Err(ShipError::Target(error)) if !error.is_final() => {
                if begun.elapsed() > BACKOFF.1 {
                    backoff = BACKOFF.0;
                }
                tracing::warn!(target_name = options.name, %error, seconds = backoff.as_secs_f32(), "not shipping; trying again");
                if watch.wait_only(signals.end, backoff)? {
                    return Ok(());
                }
                backoff = (backoff * 2).min(BACKOFF.1);
            }
            other => return other,
        }
    }
}

fn connected(
    data_dir: &Path,
    node: &str,
    options: &ShipTarget,
    signals: &Signals<'_>,
    watch: &mut Watch,
) -> Result<(), ShipError> {
    let disk = RealDisk::new();
    let mut target = Target::open(options, node)?;
    let mut shipped = target.positions()?;
    let noted = note::read(&disk, data_dir, &options.name)?;
    if shipped.is_empty() && noted.as_ref().is_some_and(|noted| !noted.is_empty()) {
        return Err(ShipError::Forgotten(note::path(data_dir, &options.name).display().to_string()));
    }
    tracing::info!(target_name = options.name, shards = shipped.len(), "shipping");
    let is_new = shipped.is_empty() && noted.is_none();
    let mut sources = Sources::new(data_dir, options);
    sources.look(&shipped, is_new)?;
    if is_new {
        shipped = sources.positions();
    }
    let mut noting = Noting { disk: &disk, data_dir, target: &options.name, at: None };
    loop {
        watch_all(watch, data_dir, options)?;
        sources.look(&shipped, is_new)?;
        let moved = ship_once(&mut target, &mut sources, &shipped).map_err(|error| match error {
            ShipError::Target(error) => ShipError::Target(target.explain(error)),
            other => other,
        })?;
        match moved {
            Some(moved) => {
                shipped.extend(moved);
                noting.note(&shipped, false)?;
            }
            None if signals.once => return noting.note(&shipped, true),
            None => {
                noting.note(&shipped, true)?;
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

/// One transaction. `None`: there is nothing to ship.
fn ship_once(target: &mut Target, sources: &mut Sources, shipped: &Positions) -> Result<Option<Positions>, ShipError> {
    let (mut moved, mut bytes, mut buffer) = (Positions::new(), 0, Vec::new());
    while bytes < TRANSACTION_BYTES
        && let Some(piece) = sources.take(READ_BYTES, &mut buffer)?
    {
        if moved.is_empty() {
            target.begin()?;
        }
        let place = target.place(&piece.source)?;
        let mut times = piece.taken.times.iter().peekable();
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', &buffer).map(|at| at + 1) {
            while times.peek().is_some_and(|timed| timed.to < end) {
                times.next();
            }
            let wall_ns = times.peek().and_then(|timed| timed.wall_ns);
            target.send(&place, &buffer[from..end - 1], wall_ns)?;
            from = end;
        }
        bytes += buffer.len();
        moved.insert(piece.source, piece.taken.to);
    }
    for (source, lost) in sources.take_lost() {
        tracing::error!(?source, ?lost, "lines were deleted before they were shipped; going on behind them");
    }
    if moved.is_empty() {
        moved = sources.ended(shipped);
        if moved.is_empty() {
            return Ok(None);
        }
        target.begin()?;
    }
    target.commit(&moved)?;
    Ok(Some(moved))
}

/// Replaces the local note now and then.
struct Noting<'a> {
    disk: &'a dyn Disk,
    data_dir: &'a Path,
    target: &'a str,
    at: Option<(Instant, Positions)>,
}

impl Noting<'_> {
    fn note(&mut self, shipped: &Positions, now: bool) -> Result<(), ShipError> {
        let is_due = match &self.at {
            None => true,
            Some((at, noted)) => noted != shipped && (now || at.elapsed() >= NOTE_EVERY),
        };
        if is_due {
            note::write(self.disk, self.data_dir, self.target, shipped)?;
            self.at = Some((Instant::now(), shipped.clone()));
        }
        Ok(())
    }
}
