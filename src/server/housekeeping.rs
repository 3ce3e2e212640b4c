//! Starts the housekeeping thread, and tells it how to keep each stream.

use super::error::StartError;
use super::error::resource;
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::config::ship::{ShipTarget, Start};
use crate::host::clock::Clock;
use crate::log::LogError;
use crate::log::archive::Shelf;
use crate::log::data_dir::stream_dirs;
use crate::log::disk::Disk;
use crate::log::retention::Limits;
use crate::pipeline::commit::Clearance;
use crate::pipeline::control::Control;
use crate::pipeline::keeper::events::SegmentEvents;
use crate::pipeline::keeper::{Keeper, KeptCounts, KeptStream, KeptStreams, TargetHold};
use crate::pipeline::sleep::Sleep;
use crate::pipeline::writer::stream::trail_most;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// How a stream is kept.
pub fn kept(settings: &StreamSettings, options: &Options) -> KeptStream {
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // Each shard's segment, and its trail.
    let one = settings.segment_bytes.saturating_add(trail_most(settings.segment_bytes));
    let being_written = one.saturating_mul(options.placement.shards as u64);
    let targets = options.ship.iter().filter(|target| target.takes(&settings.name));
    let hold = |target: &ShipTarget| TargetHold {
        name: target.name.clone(),
        holds: target.hold,
        begins_now: target.start == Start::Now,
        at_most: target.hold_at_most,
    };
    KeptStream {
        name: settings.name.clone(),
        shelf: shelf(&settings.name, settings.compress, options),
        limits: Limits {
            max_age_ns: settings.retention.max_age.map(nanos),
            max_bytes: settings.retention.max_bytes.map(|most| most.saturating_sub(being_written)),
            min_free: settings.retention.min_free,
        },
        targets: targets.map(hold).collect(),
    }
}

fn shelf(stream: &str, compress: Option<i32>, options: &Options) -> Shelf {
    let home = options.sealed_dir.as_ref().map(|dir| dir.join(stream));
    Shelf { dir: options.data_dir.join(stream), home, compress }
}

/// Makes the symlinks to what was moved to `sealed_dir` again, also for streams that have no directory here any more.
///
/// # Errors
/// A directory cannot be listed, or a symlink not made.
pub fn find_again(disk: &dyn Disk, options: &Options) -> Result<(), LogError> {
    let Some(home) = &options.sealed_dir else { return Ok(()) };
    for dir in stream_dirs(disk, home)? {
        if let Some(stream) = dir.file_name().and_then(|name| name.to_str()) {
            shelf(stream, None, options).find_again(disk)?;
        }
    }
    Ok(())
}

/// Starts the thread.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    control: &Arc<Control>,
    data_dir: &Path,
    (told, clearance): ((KeptStreams, KeptCounts, Arc<SegmentEvents>), Clearance),
    sleeper: Box<dyn Sleep>,
) -> Result<JoinHandle<()>, StartError> {
    // Descriptors that are kept for rotation would be gone to clients once housekeeping had used them.
    let patient = disk.that_can_wait().unwrap_or_else(|| Arc::clone(disk));
    let keeper = Keeper::new(patient, Arc::clone(clock), Arc::clone(control), data_dir, told, clearance);
    let body = move || {
        crate::host::sys::lowest_priority();
        if catch_unwind(AssertUnwindSafe(|| keeper.run(&*sleeper))).is_err() {
            // No line depends on it, but nothing is deleted or compressed any more.
            tracing::error!("housekeeping died of a bug: restart the server before the disk is full");
        }
    };
    std::thread::Builder::new().name("keeper".into()).spawn(body).map_err(resource("start housekeeping"))
}
