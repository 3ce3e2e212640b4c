//! Ships to one target, round by round, whatever the target is: what is durable, with the positions behind it, and then the note of that.

use super::note::{self, Positions};
use super::sources::{Sources, Takes};
use super::{Position, Source};
use crate::host::clock::Clock;
use crate::host::mutants::mutant;
use crate::log::LogError;
use crate::log::content::Files;
use crate::log::disk::Disk;
use std::io;
use std::path::Path;

/// Bytes of one transaction at most (and a piece), and of what is read at once.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of a transaction.
    pub transaction: u64,
    /// Of what is read at once.
    pub read: usize,
}

/// The local note is replaced no more often, where there is always more to ship.
const NOTE_EVERY_NS: u64 = 1_000_000_000;

/// A target that takes lines and positions together.
pub trait Target {
    /// What can go wrong.
    type Error;
    /// Where the lines of a shard go.
    type Place;
    /// Where the lines of a shard go.
    ///
    /// # Errors
    /// The target's.
    fn place(&mut self, source: &Source) -> Result<Self::Place, Self::Error>;
    /// Begins a transaction.
    ///
    /// # Errors
    /// The target's.
    fn begin(&mut self) -> Result<(), Self::Error>;
    /// Hands a line over, and when it was written.
    ///
    /// # Errors
    /// The target's.
    fn send(&mut self, place: &Self::Place, line: &[u8], wall_ns: Option<u64>) -> Result<(), Self::Error>;
    /// Ends the transaction: lines and these positions are there together, or neither is. Returns the positions that have come there since this
    /// was asked last: these, or those of earlier transactions, where the target is not waited for.
    ///
    /// # Errors
    /// The target's: neither is there, or nobody knows.
    fn commit(&mut self, moved: &Positions) -> Result<Positions, Self::Error>;
    /// Waits until everything is there, and returns the positions that have come there since.
    ///
    /// # Errors
    /// The target's.
    fn settle(&mut self) -> Result<Positions, Self::Error>;
}

/// What ends shipping for now.
#[derive(Debug, thiserror::Error)]
pub enum RoundError<E> {
    /// The target.
    #[error(transparent)]
    Target(E),
    /// The note.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Reading.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// The target has no positions, though the note says that it got lines.
    #[error("the target has forgotten its positions")]
    Forgotten,
}

/// What shipping needs of the machine.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Files to read.
    pub files: &'a dyn Files,
    /// Where the note is written.
    pub disk: &'a dyn Disk,
    /// Its clock.
    pub clock: &'a dyn Clock,
    /// Where the server's files are.
    pub data_dir: &'a Path,
    /// The name of the target.
    pub target: &'a str,
}

/// What one round has carried.
#[derive(Debug, Default)]
pub struct Sent {
    moved: Positions,
    /// What the target has now.
    there: Positions,
    /// Lines that the target has now.
    pub lines: u64,
    /// Their bytes, with newlines.
    pub bytes: u64,
}

/// See the module documentation.
pub struct Rounds<'a> {
    machine: Machine<'a>,
    sizes: Sizes,
    sources: Sources,
    /// How far the target has everything.
    shipped: Positions,
    /// What the note says, and since when.
    noted: Option<(u64, Positions)>,
}

impl<'a> Rounds<'a> {
    /// Goes on behind `shipped`, which the target says. One that has nothing begins at the beginning, or `at_the_end`.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub fn begin<T: Target>(
        machine: Machine<'a>,
        sizes: Sizes,
        target: &mut T,
        (mut shipped, takes, at_the_end): (Positions, Takes, bool),
    ) -> Result<Rounds<'a>, RoundError<T::Error>> {
        let Machine { files, disk, data_dir, clock, .. } = machine;
        let noted = note::read(disk, data_dir, machine.target)?;
        if mutant!("shipped_from_the_note") {
            shipped = noted.clone().unwrap_or_default();
        }
        if shipped.is_empty() && noted.as_ref().is_some_and(|noted| !noted.is_empty()) {
            return Err(RoundError::Forgotten);
        }
        let is_new = shipped.is_empty() && noted.is_none();
        let mut sources = Sources::new(data_dir, takes, clock.boot_id());
        sources.look(files, &shipped, is_new && at_the_end)?;
        if is_new {
            shipped = sources.positions();
            if !shipped.is_empty() {
                // The target has them before the note does: a note alone would say that it has forgotten something.
                target.begin().map_err(RoundError::Target)?;
                target.commit(&shipped).map_err(RoundError::Target)?;
                target.settle().map_err(RoundError::Target)?;
            }
        }
        Ok(Rounds { machine, sizes, sources, shipped, noted: None })
    }

    /// One transaction, and the note behind it. `None`: there is nothing to ship; that is noted too.
    ///
    /// # Errors
    /// See [`RoundError`]. Where the target is then, only the target knows.
    pub fn round<T: Target>(&mut self, target: &mut T) -> Result<Option<Sent>, RoundError<T::Error>> {
        // What is new from here on is shipped from its beginning, wherever the target began.
        self.sources.look(self.machine.files, &self.shipped, false)?;
        let sent = self.ship(target)?;
        if let Some(sent) = &sent {
            self.shipped.extend(sent.there.clone());
        }
        self.note(sent.is_none())?;
        Ok(sent)
    }

    /// Waits until the target has what it was given, and notes that: the last thing to do.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub fn end<T: Target>(&mut self, target: &mut T) -> Result<(), RoundError<T::Error>> {
        self.settle(target)?;
        Ok(self.note(true)?)
    }

    fn settle<T: Target>(&mut self, target: &mut T) -> Result<(), RoundError<T::Error>> {
        self.shipped.extend(target.settle().map_err(RoundError::Target)?);
        Ok(())
    }

    fn ship<T: Target>(&mut self, target: &mut T) -> Result<Option<Sent>, RoundError<T::Error>> {
        let Machine { files, clock, .. } = self.machine;
        let (mut sent, mut buffer) = (Sent::default(), Vec::new());
        while sent.bytes < self.sizes.transaction
            && let Some(piece) = self.sources.take(files, self.sizes.read, &mut buffer)?
        {
            if sent.moved.is_empty() {
                target.begin().map_err(RoundError::Target)?;
            }
            let place = target.place(&piece.source).map_err(RoundError::Target)?;
            let now_ns = clock.wall_ns();
            let mut times = piece.taken.times.iter().peekable();
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', &buffer).map(|at| at + 1) {
                while times.peek().is_some_and(|timed| timed.to < end) {
                    times.next();
                }
                // A time that is still to come is of a clock that was wrong: brokers refuse what is too far ahead.
                let wall_ns = times.peek().and_then(|timed| timed.wall_ns).map(|at| at.min(now_ns));
                target.send(&place, &buffer[from..end - 1], wall_ns).map_err(RoundError::Target)?;
                from = end;
                sent.lines += 1;
            }
            sent.bytes += buffer.len() as u64;
            sent.moved.insert(piece.source, piece.taken.to);
        }
        for (source, lost) in self.sources.take_lost() {
            tracing::error!(?source, ?lost, "lines were deleted before they were shipped; going on behind them");
        }
        if sent.moved.is_empty() {
            self.settle(target)?;
            sent.moved = self.sources.ended(&self.shipped);
            if sent.moved.is_empty() {
                return Ok(None);
            }
            target.begin().map_err(RoundError::Target)?;
        }
        if mutant!("noted_before_the_commit") {
            self.shipped.extend(sent.moved.clone());
            self.note(true)?;
        }
        sent.there = target.commit(&sent.moved).map_err(RoundError::Target)?;
        Ok(Some(sent))
    }

    /// Replaces the local note: `now`, or only if it was not for a while.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&mut self, now: bool) -> Result<(), LogError> {
        let Machine { disk, clock, data_dir, target, .. } = self.machine;
        let at_ns = clock.mono_ns();
        let is_due = match &self.noted {
            None => true,
            Some((at, noted)) => *noted != self.shipped && (now || at_ns.saturating_sub(*at) >= NOTE_EVERY_NS),
        };
        if is_due {
            note::write(disk, data_dir, target, &self.shipped)?;
            self.noted = Some((at_ns, self.shipped.clone()));
        }
        Ok(())
    }

    /// How far the target has a shard.
    #[must_use]
    pub fn shipped(&self, source: &Source) -> Option<Position> {
        self.shipped.get(source).copied()
    }
}
