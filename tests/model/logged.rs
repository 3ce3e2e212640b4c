//! A reactor's commit log beside the model's writer: what the reactor does with it, without a reactor.

use crate::common::sim_disk::Chance;
use logweir::host::clock::Clock;
use logweir::log::LogError;
use logweir::log::commit::generation::Generation;
use logweir::log::commit::recover::{Around, Brought, recover};
use logweir::log::commit::{self, record::BLOCK};
use logweir::log::disk::Disk;
use logweir::metrics::accounting::{Ledger, Reason, Term};
use logweir::metrics::stats::CommitCells;
use logweir::pipeline::chunk::Chunk;
use logweir::pipeline::commit::{CommitLog, CommitWrite, Committed, Offer, Place, Stamp, StreamNames, Waiter};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// So small that it wraps all the time.
const BYTES: u64 = 12 * BLOCK as u64;

pub struct Logged {
    log: CommitLog,
    cells: CommitCells,
    clock: Arc<dyn Clock>,
    /// Writes under way.
    pending: Vec<CommitWrite>,
    ledger: Arc<Ledger>,
}

/// Brings what the last run has left in its log into segments, and returns the number of the new run. A second time brings nothing.
pub fn recovered(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, data: &Path) -> Result<u64, LogError> {
    let around = Around { disk, clock, data_dir: data, sealed_dir: None, node: [0; 16] };
    let (last, _) = recover(&around)?;
    assert_eq!(recover(&around)?, (last, Brought::default()), "once is enough");
    Ok(last + 1)
}

impl Logged {
    pub fn begin(
        (disk, clock, data): (&Arc<dyn Disk>, &Arc<dyn Clock>, &Path),
        generation: u64,
        first: BTreeMap<(String, u16), u64>,
        ledger: Arc<Ledger>,
    ) -> Result<Logged, LogError> {
        Generation { number: generation, is_empty: false, first }.begin(&**disk, data)?;
        let path = commit::path(data, 0);
        let make = (disk.size_of(&path).ok() != Some(BYTES)).then_some(BYTES);
        let names = Arc::new(StreamNames::new(1));
        names.admit(0, "s");
        let log = CommitLog::new(Place {
            file: disk.fixed(&path, make).map_err(|error| LogError::Io { what: "open", path, error })?,
            bytes: BYTES,
            generation,
            reactor: 0,
            shard: 0,
            names,
            progress: Arc::default(),
            direct_ns: 0,
        });
        let (log, clock) = (log.unwrap(), Arc::clone(clock));
        Ok(Logged { log, cells: CommitCells::default(), clock, pending: Vec::new(), ledger })
    }

    fn stamp(&self) -> Stamp {
        Stamp { mono_ns: self.clock.mono_ns(), wall_ns: self.clock.wall_ns() }
    }

    /// True: the log makes it durable; false: it goes the direct way.
    pub fn offer(&mut self, chunk: &mut Chunk) -> bool {
        let stamp = self.stamp();
        match self.log.offer(chunk, chunk.number, stamp) {
            Offer::Write(write) => self.pending.push(write),
            Offer::Wait | Offer::Direct => return false,
        }
        true
    }

    /// One of the writes under way ends, whichever.
    pub fn settle(&mut self, which: usize) {
        if self.pending.is_empty() {
            return;
        }
        let CommitWrite { slot, file, memory, len, offset } = self.pending.remove(which % self.pending.len());
        let result = file.write_at(&memory[..len], offset);
        self.log.completed(Committed { slot, memory, result }, self.clock.mono_ns(), &self.cells);
    }

    /// A chunk has come back from the writer.
    pub fn returned(&mut self, chunk: &Chunk) {
        self.log.returned(chunk.number, chunk.failed, self.clock.mono_ns());
    }

    /// Who is to be told that their lines are durable; the others are told that they are not. True in second place: the writer is to sync.
    pub fn tell(&mut self) -> (Vec<Waiter>, bool) {
        let mut durable = Vec::new();
        while let Some(told) = self.log.next_told() {
            let fate = if told.is_durable { Term::Durable } else { Term::Dropped(Reason::DiskFailed) };
            let mut entry = self.ledger.entry();
            for (listener, tally) in &told.lines {
                entry.add(*listener, Term::Left, *tally);
                entry.add(*listener, fate, *tally);
            }
            durable.extend(told.waiters.into_iter().filter(|_| told.is_durable));
        }
        let now = self.clock.mono_ns();
        self.log.free(now);
        let stamp = self.stamp();
        self.pending.extend(self.log.mark(stamp));
        (durable, self.log.wants_sync(now))
    }

    /// The process dies. Without power, each sector of what is under way may be there or not.
    pub fn crash(self, chance: &mut Chance, has_power: bool) {
        for CommitWrite { file, memory, len, offset, .. } in self.pending {
            let all = chance.below(2) == 0;
            for (i, sector) in memory[..len].chunks(512).enumerate() {
                if if has_power { all } else { chance.below(2) == 0 } {
                    let _ = file.write_at(sector, offset + i as u64 * 512);
                }
            }
        }
    }

    /// The time to drain is over.
    pub fn give_up(&mut self) {
        let mut entry = self.ledger.entry();
        for (listener, tally) in self.log.give_up_told() {
            entry.add(listener, Term::Left, tally);
            entry.add(listener, Term::Dropped(Reason::Shutdown), tally);
        }
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.log.has_told()
    }
}
