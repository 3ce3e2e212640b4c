//! Measures the disk and file system of a directory: large appends in each file mode, and small durable groups in each way that
//! leaves files plain. It counts the CPU time of the whole machine. The choice of `storage.io` is based on these figures
//! (docs/decisions.md).

use super::compare::machine_cpu;
use crate::host::output::say;
use crate::host::sys::{self, Piece};
use clap::Args;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The options of `bench disk`.
#[derive(Debug, Args)]
pub struct DiskArgs {
    /// The directory to write to. The files are deleted again.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// How many rounds. Each measures every mode in turn, and the medians are printed.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many MiB each mode appends in a round.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=8192))]
    mib: u32,
    /// How many small durable groups each way writes in a round.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    groups: u32,
}

/// Bytes of a batch: what the writer gathers when it is busy.
pub(crate) const BATCH: usize = 1 << 20;
/// Bytes of one direct write.
const DIRECT_PIECE: usize = 512 << 10;
/// Alignment of direct writes.
const BLOCK: usize = 4096;
/// Bytes of a small group.
pub(crate) const GROUP: usize = 4000;
/// Time between two syncs of large appends, in bytes: `storage.sync_bytes`.
pub(crate) const SYNC_BYTES: usize = 64 << 20;

/// How large batches are written.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Append,
    DontCache,
    /// `O_DIRECT` at explicit offsets, one write at a time, from an aligned copy of the batch: records do not end at block
    /// boundaries, so what is behind the last whole block waits for the next batch.
    Direct,
}

/// How small groups are made durable.
#[derive(Debug, Clone, Copy)]
enum Group {
    /// `write`, `fdatasync`; blocks reserved with KEEP_SIZE: what logweir does.
    Reserved,
    /// The same without a reserve.
    Unreserved,
    /// `pwritev2` with `RWF_DSYNC` into the reserve.
    Dsync,
    /// Over blocks that were written before: fast, and a reader sees NULs or old lines behind the end.
    Overwrite,
    /// The same past the page cache: one write with `O_DIRECT` and `O_DSYNC`, which no journal has to hear of.
    PastCache,
    /// The same through io_uring: nothing blocks, and the time until it completes is what counts.
    Ring,
}

const MODES: [(Mode, &str); 3] = [(Mode::Append, "append"), (Mode::DontCache, "dontcache"), (Mode::Direct, "direct")];
const GROUPS: [(Group, &str); 6] = [
    (Group::Reserved, "reserved, fdatasync"),
    (Group::Unreserved, "no reserve, fdatasync"),
    (Group::Dsync, "reserved, RWF_DSYNC"),
    (Group::Overwrite, "overwritten, fdatasync"),
    (Group::PastCache, "overwritten, O_DSYNC"),
    (Group::Ring, "the same, io_uring"),
];

/// Runs and reports.
pub fn run(args: &DiskArgs) -> io::Result<ExitCode> {
    let path = args.dir.join(format!("logweir-disk-{}", std::process::id()));
    let result = measure(args, &path);
    let removed = std::fs::remove_file(&path);
    result.and_then(|()| removed.or(Ok(())))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &DiskArgs, path: &Path) -> io::Result<()> {
    let mut large: Vec<Vec<(f64, f64)>> = vec![Vec::new(); MODES.len()];
    let mut small: Vec<Vec<(f64, f64, f64)>> = vec![Vec::new(); GROUPS.len()];
    let source = batch()?;
    for round in 0..=args.rounds {
        // The first round warms up.
        for (i, (mode, name)) in MODES.iter().enumerate() {
            match append(*mode, path, &source, args.mib as usize) {
                Ok(figures) if round > 0 => large[i].push(figures),
                Ok(_) => {}
                Err(error) if round == 0 => say!("{name}: not here: {error}"),
                Err(_) => {}
            }
        }
        for (i, (group, name)) in GROUPS.iter().enumerate() {
            let figures = match group {
                Group::PastCache | Group::Ring => overwritten(*group, path, &source, args.groups as usize),
                _ => groups(*group, path, &source, args.groups as usize).map(|(p50, p99)| (p50, p99, 0.0)),
            };
            match figures {
                Ok(figures) if round > 0 => small[i].push(figures),
                Ok(_) => {}
                Err(error) if round == 0 => say!("{name}: not here: {error}"),
                Err(_) => {}
            }
        }
    }
    say!(
        "appending {} MiB in batches of 1 MiB, checksummed, synced every 64 MiB; medians of {}",
        args.mib,
        args.rounds
    );
    for ((_, name), figures) in MODES.iter().zip(&large).filter(|(_, f)| !f.is_empty()) {
        say!("  {name:<24} {:>6.2} GB/s  {:.3} machine CPU s/GB", median(figures, |f| f.0), median(figures, |f| f.1));
    }
    say!("small durable groups of {GROUP} bytes, one after the other");
    for ((group, name), figures) in GROUPS.iter().zip(&small).filter(|(_, f)| !f.is_empty()) {
        let submitting = match group {
            Group::Ring => format!("  of which submitting {:.0} us", median(figures, |f| f.2)),
            _ => String::new(),
        };
        let (p50, p99) = (median(figures, |f| f.0), median(figures, |f| f.1));
        say!("  {name:<24} p50 {p50:>4.0} us  p99 {p99:>5.0} us{submitting}");
    }
    Ok(())
}

fn median<T>(figures: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn batch() -> io::Result<Piece> {
    let mut memory = sys::pieces(1, BATCH + BLOCK, false, None)?.remove(0);
    memory.iter_mut().enumerate().for_each(|(i, b)| *b = if i % 250 == 249 { b'\n' } else { b'a' + (i % 23) as u8 });
    Ok(memory)
}

fn create(path: &Path, flags: i32) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path)
}

fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes as i64)?)
}

/// GB a second, and CPU seconds of the machine per GB.
fn append(mode: Mode, path: &Path, source: &Piece, mib: usize) -> io::Result<(f64, f64)> {
    let direct = matches!(mode, Mode::Direct);
    let file = create(path, if direct { OFlag::O_DIRECT.bits() } else { OFlag::O_APPEND.bits() })?;
    reserve(&file, mib << 20)?;
    let mut staging = sys::pieces(1, BATCH + BLOCK, false, None)?.remove(0);
    let (mut held, mut offset) = (0, 0);
    let (cpu, start) = (machine_cpu(), Instant::now());
    // Odd lengths, as batches of whole records have.
    for (i, len) in (0..mib).map(|i| (i, BATCH - 250 * (i % 7))) {
        let records = &source[i % 16..i % 16 + len];
        std::hint::black_box(crate::log::checksum::crc32c(records));
        if direct {
            staging[held..held + len].copy_from_slice(records);
            held += len;
            let whole = held / BLOCK * BLOCK;
            for piece in staging[..whole].chunks(DIRECT_PIECE) {
                file.write_all_at(piece, offset)?;
                offset += piece.len() as u64;
            }
            staging.copy_within(whole..held, 0);
            held -= whole;
        } else {
            let mut done = 0;
            while done < len {
                let rest = [IoSlice::new(&records[done..])];
                done += sys::append_vectored(file.as_fd(), &rest, matches!(mode, Mode::DontCache))?;
            }
        }
        if ((i + 1) * BATCH).is_multiple_of(SYNC_BYTES) {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    let gb = (mib << 20) as f64 / 1e9;
    Ok((gb / start.elapsed().as_secs_f64(), (machine_cpu() - cpu) / gb))
}

/// Median and 99th percentile, in microseconds.
fn groups(group: Group, path: &Path, source: &Piece, count: usize) -> io::Result<(f64, f64)> {
    let file = create(path, 0)?;
    let bytes = count * GROUP;
    match group {
        Group::Reserved | Group::Dsync => reserve(&file, bytes)?,
        Group::Overwrite => {
            for i in 0..count {
                file.write_all_at(&source[..GROUP], (i * GROUP) as u64)?;
            }
        }
        Group::Unreserved | Group::PastCache | Group::Ring => {}
    }
    file.sync_all()?;
    let mut times = Vec::with_capacity(count);
    for i in 0..count {
        let start = Instant::now();
        let offset = (i * GROUP) as u64;
        if let Group::Dsync = group {
            sys::write_synced(file.as_fd(), &source[..GROUP], offset)?;
        } else {
            file.write_all_at(&source[..GROUP], offset)?;
            file.sync_data()?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[count / 2], times[count * 99 / 100]))
}

/// Small groups over whole blocks that were written and synced before, past the page cache. Median, 99th percentile, and the median of what
/// submitting took, in microseconds.
fn overwritten(group: Group, path: &Path, source: &Piece, count: usize) -> io::Result<(f64, f64, f64)> {
    let blocks = create(path, 0)?;
    for i in 0..count {
        blocks.write_all_at(&source[..BLOCK], (i * BLOCK) as u64)?;
    }
    blocks.sync_all()?;
    let file = OpenOptions::new().write(true).custom_flags((OFlag::O_DIRECT | OFlag::O_DSYNC).bits()).open(path)?;
    let mut memory = sys::pieces(1, BLOCK, false, None)?;
    memory[0].copy_from_slice(&source[..BLOCK]);
    let mut ring = match group {
        Group::Ring => Some(sys::Ring::new(1, BLOCK)?),
        _ => None,
    };
    let (mut times, mut submitting) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for i in 0..count {
        let (start, offset) = (Instant::now(), (i * BLOCK) as u64);
        let Some(ring) = &mut ring else {
            file.write_all_at(&memory[0], offset)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
            continue;
        };
        let piece = memory.pop().ok_or_else(|| io::Error::other("a write gave no memory back"))?;
        ring.write(file.as_fd(), piece, BLOCK, offset, 0);
        ring.wait(Some(Duration::ZERO), false)?;
        submitting.push(start.elapsed().as_secs_f64() * 1e6);
        let done = loop {
            match ring.next_done() {
                Some(done) => break done,
                None => ring.wait(Some(Duration::from_secs(10)), false)?,
            }
        };
        if usize::try_from(done.result) != Ok(BLOCK) {
            return Err(io::Error::from_raw_os_error(-done.result.min(-1)));
        }
        memory.extend(done.written);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    submitting.sort_by(f64::total_cmp);
    Ok((times[count / 2], times[count * 99 / 100], submitting.get(count / 2).copied().unwrap_or(0.0)))
}
