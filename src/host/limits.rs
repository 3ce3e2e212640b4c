//! How many descriptors the process may open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but connections: files and their trails of all streams, directories, listeners, engines,
/// the connections of the admin address, spares.
const OTHERS: u64 = 192;

/// Raises the soft limit of descriptors to the hard one and returns how many connections fit beside the files of so many
/// streams and shards and so many listening sockets.
#[must_use]
pub fn connections_that_fit(wanted: usize, streams: usize, shards: usize, listening: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    // Active, spare and sealing, each with a trail; a second descriptor of two of them for direct writes; directories.
    let files = (streams * shards * 10) as u64;
    let listening = (listening * 2) as u64; // each has a copy, for whoever takes it over
    let fit = limit.saturating_sub(OTHERS + files + listening).max(1);
    wanted.min(usize::try_from(fit).unwrap_or(usize::MAX))
}
