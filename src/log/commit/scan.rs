//! Finds the records of a commit log that are needed: of one generation, from what was still needed when the last of them was written, up
//! to the first that is not whole. Who waited for that one, or for one behind it, was not answered.

use super::record::{self, BLOCK, Head};
use crate::host::mutants::mutant;
use crate::log::disk::{DiskFile, read_full};
use std::collections::BTreeMap;
use std::io;

/// Bytes read at a time.
const READ: usize = 64 * BLOCK;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub head: Head,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// The highest generation of any whole record of a log; 0: there is none.
///
/// # Errors
/// Reading failed.
pub fn last_generation(file: &dyn DiskFile) -> io::Result<u64> {
    let mut last = 0;
    each(file, |_| true, |found| last = last.max(found.head.generation))?;
    Ok(last)
}

/// The records of a generation that are needed, in sequence.
///
/// # Errors
/// Reading failed.
pub fn needed(file: &dyn DiskFile, generation: u64) -> io::Result<Vec<Found>> {
    let is_it = |of: u64| of == generation || mutant!("generation_not_compared");
    let mut all = BTreeMap::new();
    each(file, is_it, |found| {
        all.insert(found.head.sequence, found);
    })?;
    let from = all.values().map(|found| found.head.freed_to).max().unwrap_or(0);
    let in_sequence = (from..).map_while(|sequence| all.get(&sequence).copied());
    Ok(in_sequence.collect())
}

/// Calls `take` with each whole record of a generation that `wants` chooses.
fn each(file: &dyn DiskFile, wants: impl Fn(u64) -> bool, mut take: impl FnMut(Found)) -> io::Result<()> {
    let (mut buffer, mut memory, mut at) = (vec![0; READ], Vec::new(), 0);
    loop {
        let n = read_full(file, &mut buffer, at)?;
        for (block, bytes) in buffer[..n].chunks(BLOCK).enumerate() {
            let Some((_, len)) = record::glance(bytes).filter(|(generation, _)| wants(*generation)) else { continue };
            let offset = at + (block * BLOCK) as u64;
            memory.resize(len, 0);
            if read_full(file, &mut memory, offset)? < len {
                continue;
            }
            if let Some((head, _)) = record::decode(&memory) {
                take(Found { head, offset, len });
            }
        }
        if n < buffer.len() {
            return Ok(());
        }
        at += n as u64;
    }
}

/// Reads the bytes of a record again.
///
/// # Errors
/// Reading failed, or it is not there any more.
pub fn read(file: &dyn DiskFile, found: &Found) -> io::Result<Vec<u8>> {
    let mut memory = vec![0; found.len];
    let n = read_full(file, &mut memory, found.offset)?;
    memory.truncate(n);
    record::decode(&memory).ok_or(io::ErrorKind::InvalidData)?;
    Ok(memory)
}
