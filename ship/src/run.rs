//! Ships to one target: reads what is durable, sends it with the positions behind it, notes that, and waits for more.

use crate::beat::Beat;
use crate::kafka::{Target, TargetError};
use crate::sources::Sources;
use crate::watch::Watch;
use logweir::config::ship::ShipTarget;
use logweir::log::LogError;
use logweir::log::disk::Disk;
use logweir::log::names::is_stream_name;
use logweir::log::real_disk::RealDisk;
use logweir::log::ship::note::{self, Positions};
use logweir::log::ship::status::Doing;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes of one transaction at most (and a piece), and of what is read at once.
const TRANSACTION_BYTES: usize = 64 << 20;
const READ_BYTES: usize = 256 << 10;
/// Bytes of memory that reading takes at most, where no line is longer than a piece; and the program itself.
pub const MEMORY: u64 = 2 * READ_BYTES as u64 + (12 << 20);
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
    let disk = RealDisk::new();
    let mut target = Target::open(options, node)?;
    let mut shipped = target.positions()?;
    let noted = note::read(&disk, data_dir, &options.name)?;
    if shipped.is_empty() && noted.as_ref().is_some_and(|noted| !noted.is_empty()) {
        return Err(ShipError::Forgotten(note::path(data_dir, &options.name).display().to_string()));
    }
    tracing::info!(target_name = options.name, shards = shipped.len(), "shipping");
    beat.say(|status| status.doing = Doing::Shipping);
    let is_new = shipped.is_empty() && noted.is_none();
    let mut sources = Sources::new(data_dir, options);
    sources.look(&shipped, is_new)?;
    if is_new {
        shipped = sources.positions();
        if !shipped.is_empty() {
            // The target has them before the note does: a note alone would say that it has forgotten something.
            target.begin()?;
            target.commit(&shipped).map_err(|error| target.explain(error))?;
        }
    }
    let mut noting = Noting { disk: &disk, data_dir, target: &options.name, at: None };
    loop {
        // Also where there is always something to ship.
        if watch.wait_only(signals.end, Duration::ZERO)? {
            return noting.note(&shipped, true);
        }
        watch_all(watch, data_dir, options)?;
        // What is new from here on is shipped from its beginning, wherever the target began.
        sources.look(&shipped, false)?;
        let sent = ship_once(&mut target, &mut sources, &shipped).map_err(|error| match error {
            ShipError::Target(error) => ShipError::Target(target.explain(error)),
            other => other,
        })?;
        match sent {
            Some(sent) => {
                complaint.clear(); // what comes after this is another change
                shipped.extend(sent.moved);
                beat.say(|status| {
                    status.lines += sent.lines;
                    status.bytes += sent.bytes;
                    status.transactions += 1;
                });
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

/// What one transaction has carried.
#[derive(Default)]
struct Sent {
    moved: Positions,
    lines: u64,
    bytes: u64,
}

/// One transaction. `None`: there is nothing to ship.
fn ship_once(target: &mut Target, sources: &mut Sources, shipped: &Positions) -> Result<Option<Sent>, ShipError> {
    let (mut sent, mut buffer) = (Sent::default(), Vec::new());
    while sent.bytes < TRANSACTION_BYTES as u64
        && let Some(piece) = sources.take(READ_BYTES, &mut buffer)?
    {
        if sent.moved.is_empty() {
            target.begin()?;
        }
        let place = target.place(&piece.source)?;
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_nanos() as u64);
        let mut times = piece.taken.times.iter().peekable();
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', &buffer).map(|at| at + 1) {
            while times.peek().is_some_and(|timed| timed.to < end) {
                times.next();
            }
            // A time that is still to come is of a clock that was wrong: brokers refuse what is too far ahead.
            let wall_ns = times.peek().and_then(|timed| timed.wall_ns).map(|at| at.min(now_ns));
            target.send(&place, &buffer[from..end - 1], wall_ns)?;
            from = end;
            sent.lines += 1;
        }
        sent.bytes += buffer.len() as u64;
        sent.moved.insert(piece.source, piece.taken.to);
    }
    for (source, lost) in sources.take_lost() {
        tracing::error!(?source, ?lost, "lines were deleted before they were shipped; going on behind them");
    }
    if sent.moved.is_empty() {
        sent.moved = sources.ended(shipped);
        if sent.moved.is_empty() {
            return Ok(None);
        }
        target.begin()?;
    }
    target.commit(&sent.moved)?;
    Ok(Some(sent))
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
