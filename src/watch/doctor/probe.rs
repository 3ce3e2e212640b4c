//! `--probe`: measures what disk and loopback can do here, and what logweir can reach with that. The test file has no name, so
//! it is gone however the process ends.

use super::host::nameless_file;
use crate::bench::disk::{BATCH, GROUP, SYNC_BYTES, batch};
use crate::host::sys;
use crate::metrics::cells::BUCKETS_US;
use crate::watch::scrape::{short, short_bytes, short_time};
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes that are written.
pub const MOST_BYTES: usize = 512 << 20;
/// Longest time of each of the three parts.
const LONGEST: Duration = Duration::from_secs(4);
/// Small groups that are synced.
const SYNCS: usize = 1000;
/// The line that figures are given for.
const LINE: f64 = 500.0;

/// What was measured. Field names are those of `--json` and must not change.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// Where.
    pub directory: String,
    /// Bytes written in large batches.
    pub written_bytes: usize,
    /// Bytes a second, synced every 64 MiB as logweir does.
    pub disk_bytes_per_second: f64,
    /// With `RWF_DONTCACHE`.
    pub dont_cache: bool,
    /// Small appends of 4000 bytes with their fdatasync: how many in each bucket of `logweir_sync_seconds`.
    pub sync_counts: Vec<usize>,
    /// Median, 90th, 99th percentile and maximum, in seconds.
    pub sync_seconds: [f64; 4],
    /// Mean, in seconds.
    pub sync_mean_seconds: f64,
    /// Bytes a second over TCP, one connection on the loopback.
    pub loopback_bytes_per_second: f64,
    /// Lines of 500 bytes a second that the disk takes.
    pub disk_lines_per_second: f64,
    /// And the loopback.
    pub loopback_lines_per_second: f64,
    /// Durable answers a second that the syncs allow, by connections that each wait for one.
    pub durable_answers_per_second: Vec<(u32, f64)>,
}

/// Measures in the directory, or in the nearest one above it that exists.
///
/// # Errors
/// Nothing can be written there, or there is no room.
pub fn probe(dir: &Path, room: Option<u64>) -> io::Result<Probe> {
    // A quarter of what is free at most: a full disk is what one wants to be warned of, not helped to.
    let most = room.map_or(MOST_BYTES, |room| usize::try_from(room / 4).unwrap_or(MOST_BYTES).min(MOST_BYTES));
    if most < 4 * BATCH {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "less than 16 MiB are free"));
    }
    let (written_bytes, disk, dont_cache) = large(&scratch(dir)?, most)?;
    let mut times = small(&scratch(dir)?)?;
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() as f64 * q) as usize).min(times.len() - 1)];
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let mut sync_counts = vec![0; BUCKETS_US.len() + 1];
    for time in &times {
        sync_counts[BUCKETS_US.partition_point(|bound| (*bound as f64) < time * 1e6)] += 1;
    }
    let loopback = loopback()?;
    Ok(Probe {
        directory: dir.display().to_string(),
        written_bytes,
        disk_bytes_per_second: disk,
        dont_cache,
        sync_counts,
        sync_seconds: [at(0.5), at(0.9), at(0.99), at(1.0)],
        sync_mean_seconds: mean,
        loopback_bytes_per_second: loopback,
        disk_lines_per_second: disk / LINE,
        loopback_lines_per_second: loopback / LINE,
        durable_answers_per_second: [1, 16, 64, 256].map(|n| (n, f64::from(n) / mean)).into(),
    })
}

/// A file without a name. Where the file system has none (NFS), one that loses its name at once.
fn scratch(dir: &Path) -> io::Result<File> {
    nameless_file(dir, libc::O_APPEND).or_else(|_| {
        let path = dir.join(format!("logweir-probe-{}.tmp", std::process::id()));
        let file = File::options().append(true).read(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    })
}

fn large(file: &File, most: usize) -> io::Result<(usize, f64, bool)> {
    let source = batch()?;
    // Not every file system reserves; appends work without.
    let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, most as i64);
    let mut dont_cache = true;
    let (mut written, mut unsynced) = (0, 0);
    let start = Instant::now();
    while written + BATCH <= most && (start.elapsed() < LONGEST || written == 0) {
        let n = match sys::append_vectored(file.as_fd(), &[IoSlice::new(&source[..BATCH])], dont_cache) {
            Err(e) if dont_cache && matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                dont_cache = false;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        written += n;
        unsynced += n;
        if unsynced >= SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_data()?;
    Ok((written, written as f64 / start.elapsed().as_secs_f64(), dont_cache))
}

/// Seconds of each small append with its sync.
fn small(file: &File) -> io::Result<Vec<f64>> {
    let source = batch()?;
    let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, (SYNCS * GROUP) as i64);
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    let whole = Instant::now();
    while times.len() < SYNCS && (whole.elapsed() < LONGEST || times.is_empty()) {
        let start = Instant::now();
        let mut file = file;
        file.write_all(&source[..GROUP])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// Bytes a second through one connection, from this thread to another.
fn loopback() -> io::Result<f64> {
    const PART: usize = 256 << 10;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let receiving = std::thread::spawn(move || -> io::Result<u64> {
        let mut buffer = vec![0; PART];
        let mut received = 0;
        loop {
            match receiver.read(&mut buffer)? {
                0 => return Ok(received),
                n => received += n as u64,
            }
        }
    });
    let part = vec![b'x'; PART];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        sender.write_all(&part)?;
    }
    drop(sender);
    let received = receiving.join().map_err(|_| io::Error::other("the receiving thread failed"))??;
    Ok(received as f64 / start.elapsed().as_secs_f64())
}

impl Probe {
    /// In words, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("\nprobe of {}\n", crate::watch::scrape::printable(&self.directory));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  disk       {}/s  ({} MiB appended in batches of 1 MiB{}, synced every 64 MiB)",
            short_bytes(self.disk_bytes_per_second),
            self.written_bytes >> 20,
            if self.dont_cache { " with RWF_DONTCACHE" } else { "" }
        );
        let _ = writeln!(out, "  loopback   {}/s  (one TCP connection)", short_bytes(self.loopback_bytes_per_second));
        let [p50, p90, p99, max] = self.sync_seconds.map(short_time);
        let _ = writeln!(
            out,
            "  fdatasync  p50 {p50}  p90 {p90}  p99 {p99}  max {max}  ({GROUP} bytes appended before each, {} of them)",
            self.sync_counts.iter().sum::<usize>()
        );
        let most = self.sync_counts.iter().max().copied().unwrap_or(0).max(1);
        let first = self.sync_counts.iter().position(|n| *n > 0).unwrap_or(0);
        let last = self.sync_counts.iter().rposition(|n| *n > 0).unwrap_or(0);
        for (i, n) in self.sync_counts.iter().enumerate().take(last + 1).skip(first) {
            let name = match BUCKETS_US.get(i) {
                Some(bound) => format!("<= {}", short_time(*bound as f64 / 1e6)),
                None => format!("> {}", short_time(BUCKETS_US[BUCKETS_US.len() - 1] as f64 / 1e6)),
            };
            let bar = "#".repeat((n * 50).div_ceil(most));
            let _ = writeln!(out, "    {name:>12} {n:>5} {bar}");
        }
        let _ = writeln!(out, "what logweir can reach here at most");
        let least = self.disk_lines_per_second.min(self.loopback_lines_per_second);
        let by = if self.disk_lines_per_second < self.loopback_lines_per_second { "disk" } else { "loopback" };
        let _ = writeln!(
            out,
            "  lines of 500 B   {}/s for the disk, {}/s for the loopback: {}/s, limited by the {by} (sender and server share the CPUs)",
            short(self.disk_lines_per_second),
            short(self.loopback_lines_per_second),
            short(least)
        );
        let answers: Vec<String> = self
            .durable_answers_per_second
            .iter()
            .map(|(n, rate)| format!("{}/s at {n} connection{}", short(*rate), if *n == 1 { "" } else { "s" }))
            .collect();
        let _ = writeln!(
            out,
            "  durable answers  {} (one sync answers all that wait; CPU comes first)",
            answers.join(", ")
        );
        out
    }
}
