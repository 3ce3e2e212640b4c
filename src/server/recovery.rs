//! What a crash has left in the segments is recovered before the server is ready.

use super::error::StartError;
use crate::host::clock::Clock;
use crate::log::data_dir;
use crate::log::disk::Disk;
use crate::log::recover::recover_each;
use crate::log::retired;
use crate::watch::render::RecoverySums;
use std::path::Path;
use std::time::Instant;

/// Recovers the segments of every stream in the data directory, and adds them to the sums: also those before one that fails.
///
/// # Errors
/// A file cannot be read or written, or there is damage and `strict` is set.
pub fn recover_segments(
    disk: &dyn Disk,
    clock: &dyn Clock,
    data_dir: &Path,
    strict: bool,
    sums: &mut RecoverySums,
) -> Result<(), StartError> {
    let start = Instant::now();
    for dir in data_dir::stream_dirs(disk, data_dir)? {
        if let Some(stream) = dir.file_name().and_then(|name| name.to_str()) {
            retired::check(disk, data_dir, stream)?;
        }
        recover_each(disk, clock, &dir, strict, |one| {
            sums.add(&one);
            let (stream, segment) = (dir.display(), one.id.sequence);
            if let Some(damage) = &one.damage {
                tracing::error!(%stream, segment, damage, "DAMAGE: durable bytes have changed; the file is kept as it is");
            }
            tracing::info!(%stream, segment, lines = one.lines, bytes = one.bytes, torn_bytes = one.torn_bytes, "recovered");
        })?;
    }
    if sums.segments > 0 {
        tracing::info!(
            segments = sums.segments,
            lines = sums.lines,
            ms = start.elapsed().as_millis() as u64,
            "recovery done"
        );
    }
    Ok(())
}
