//! Drives one connection in memory as a reactor does, for the tests, fuzz targets and benchmarks of sessions.

use super::memory::tail::{TailHandle, TailStore};
use super::{AckLevel, Around, End, Found, Frame, Input, Landing, Reply, Session, Sink, Step, Turn, Window};
use crate::host::peer::Peer;
use crate::metrics::accounting::{Reason, Tally};
use crate::metrics::stats::AnswerCells;
use std::io;

/// The sizes of chunk, scratch buffer and tail budget, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A chunk.
    pub chunk: usize,
    /// The scratch buffer.
    pub scratch: usize,
    /// The budget for partial lines.
    pub tails: usize,
    /// The longest that a partial line gets.
    pub longest: usize,
}

/// Records that a session found together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where they go; `None`: to the listener's own stream.
    pub stream: Option<u16>,
    /// Their frame.
    pub frame: Frame,
    /// Their bytes, terminators included.
    pub bytes: Vec<u8>,
    /// How many.
    pub lines: u32,
}

/// See the module documentation.
pub struct Drive<S> {
    /// The session.
    pub session: S,
    /// The conditions around it.
    pub around: Around,
    /// What it found.
    pub kept: Vec<Kept>,
    /// Records that it dropped, and why the last.
    pub dropped: (Option<Reason>, Tally),
    /// Records that it cut.
    pub truncated: Tally,
    /// It wanted the connection closed.
    pub closed: bool,
    /// Times that something needed a fresh chunk.
    pub fresh: u32,
    /// What it said.
    pub said: Vec<u8>,
    /// The answers, by their code.
    pub answers: AnswerCells,
    /// Whether [`Drive::kept`] is kept; a benchmark counts only.
    pub keeps: bool,
    /// All lines so far.
    pub lines: u64,
    /// Frames whose records have not reached their level.
    pub held: Vec<(Frame, u64)>,
    /// Bytes of the chunk that are filled.
    pub filled: usize,
    /// Parts that a chunk describes. Few, so that tests meet the end of them.
    pub most_parts: usize,
    /// How many the present one has,
    parts: usize,
    /// and what its last one belongs to: more of that joins it.
    last: Option<(Option<u16>, Frame)>,
    store: TailStore,
    tail: TailHandle,
    chunk: Vec<u8>,
    scratch: Vec<u8>,
}

/// Bytes of a receive that are worth a turn where the chunk is not fresh.
const WORTH: usize = 64;

impl<S: Session> Drive<S> {
    /// A connection that has received nothing.
    ///
    /// # Errors
    /// There is no memory for its tail.
    pub fn new(session: S, sizes: Sizes) -> io::Result<Drive<S>> {
        Ok(Drive {
            session,
            around: Around { is_lane: true, ..Around::default() },
            kept: Vec::new(),
            dropped: (None, Tally::default()),
            truncated: Tally::default(),
            closed: false,
            fresh: 0,
            said: Vec::new(),
            answers: AnswerCells::default(),
            keeps: true,
            lines: 0,
            held: Vec::new(),
            filled: 0,
            most_parts: 3,
            parts: 0,
            last: None,
            store: TailStore::new(sizes.tails, sizes.longest, 1)?,
            tail: TailHandle::default(),
            chunk: vec![0xaa; sizes.chunk],
            scratch: vec![0xbb; sizes.scratch],
        })
    }

    /// What the next turn needs.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.session.state(self.tail.len()).turn
    }

    /// Bytes in the tail.
    #[must_use]
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Bytes of blocks that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.store.used_bytes()
    }

    /// One turn, with at most `n` bytes of `input`. How many it took.
    ///
    /// # Panics
    /// If a fresh chunk is not large enough, or the session broke the rules of its seam.
    pub fn step(&mut self, input: &[u8], n: usize) -> usize {
        if self.turn() == Turn::Wait {
            return 0;
        }
        self.push_if_described();
        let allowance = self.store.allowance(&self.tail, self.around.is_lane);
        let landing = self.session.landing(self.tail.len());
        let (gap, most) = landing.bounds();
        let memory = match landing {
            Landing::Chunk { .. } => {
                if self.chunk.len() - self.filled < gap + WORTH {
                    self.push();
                }
                self.chunk.len() - self.filled
            }
            Landing::Scratch { .. } => self.scratch.len(),
        };
        assert!(memory > gap, "there is room behind the gap of {gap}");
        let most = most.min(memory - gap).min(allowance);
        let n = if self.turn() == Turn::Receive { most.min(n).min(input.len()) } else { 0 };
        match landing {
            Landing::Chunk { .. } => {
                self.chunk[self.filled + gap..][..n].copy_from_slice(&input[..n]);
                let step = self.enter(|session, window, _| session.input(Input::Chunk { start: gap, len: n }, window));
                assert!(!matches!(step, Step::Full(_)), "what lies in the chunk has room there");
            }
            Landing::Scratch { .. } => {
                self.scratch[gap..gap + n].copy_from_slice(&input[..n]);
                let mut at = 0;
                loop {
                    let (was_fresh, lines) = (self.filled == 0, self.lines);
                    let step = self.enter(|session, window, scratch| {
                        let space = &mut scratch[..gap + most.max(n)];
                        session.input(Input::Scratch { space, start: gap + at, len: n - at }, window)
                    });
                    let Step::Full(taken) = step else { break };
                    assert!(taken > 0 || !was_fresh || self.lines > lines || at == n, "a fresh chunk takes something");
                    at += taken;
                    self.push();
                    self.fresh += 1;
                    if at == n {
                        break;
                    }
                }
            }
        }
        n
    }

    /// One datagram.
    pub fn datagram(&mut self, bytes: &[u8], cut: usize, sender: &Peer) {
        let (mut at, mut bytes) = (0, bytes.to_vec());
        loop {
            self.push_if_described();
            let input = Input::Datagram { bytes: &mut bytes[at..], cut, sender };
            let Step::Full(taken) = self.enter(|session, window, _| session.input(input, window)) else { return };
            at += taken;
            self.push();
            self.fresh += 1;
        }
    }

    /// A chunk that describes no part more has no room.
    fn push_if_described(&mut self) {
        if self.parts >= self.most_parts {
            self.push();
        }
    }

    /// The next records go into a fresh chunk.
    fn push(&mut self) {
        (self.filled, self.parts, self.last) = (0, 0, None);
    }

    fn enter(&mut self, call: impl FnOnce(&mut S, &mut Window<'_>, &mut [u8]) -> Step) -> Step {
        let sink = Sink::new(&mut self.chunk[self.filled..], self.most_parts - self.parts);
        let mut window = Window::new(sink, self.store.tail(&mut self.tail), self.around);
        let step = call(&mut self.session, &mut window, &mut self.scratch);
        self.closed |= step == Step::Close;
        let (found, _) = window.close();
        self.take(&found);
        step
    }

    fn take(&mut self, found: &Found) {
        for part in found.parts() {
            let bytes = &self.chunk[self.filled..self.filled + part.bytes];
            let of = Some((part.stream, part.frame));
            self.parts += usize::from(self.last != of);
            self.last = of;
            self.lines += u64::from(part.lines);
            self.held.push((part.frame, u64::from(part.lines)));
            if self.keeps {
                let ends = bytes.iter().filter(|b| **b == b'\n').count();
                assert!(ends == part.lines as usize && bytes.ends_with(b"\n"), "whole records, one a line");
                let (bytes, lines) = (bytes.to_vec(), part.lines);
                self.kept.push(Kept { stream: part.stream, frame: part.frame, bytes, lines });
            }
            self.filled += part.bytes;
        }
        if let Some((reason, tally)) = found.dropped {
            self.dropped.0 = Some(reason);
            self.dropped.1.add(tally);
        }
        self.truncated.add(found.truncated);
    }

    /// All of `input`, in pieces of these sizes (again and again), each followed by what there is to say. `settle`: every record has
    /// reached its level then.
    ///
    /// # Panics
    /// If it goes on for ever.
    pub fn feed(&mut self, input: &[u8], pieces: &[usize], settle: bool) {
        let (mut at, mut still) = (0, 0);
        for piece in pieces.iter().cycle() {
            let state = self.session.state(self.tail.len());
            if (at == input.len() && state.turn == Turn::Receive) || state.is_over || self.closed {
                return;
            }
            let n = self.step(&input[at..], (*piece).max(1));
            at += n;
            if settle || state.turn == Turn::Wait {
                self.reach(AckLevel::Durable);
            }
            self.speak();
            still = if n == 0 { still + 1 } else { 0 };
            if state.turn == Turn::Wait && !settle && still > 1 {
                return; // it waits for what the caller holds back
            }
            assert!(still < 10_000, "it goes on for ever");
        }
    }

    /// Tells it that everything found so far has reached this level.
    pub fn reach(&mut self, level: AckLevel) {
        for (frame, records) in &self.held {
            self.session.reached(frame.number, level, *records);
        }
        if level == AckLevel::Durable {
            self.held.clear();
        }
    }

    /// So many records have reached their level, the first first.
    pub fn reach_some(&mut self, mut records: u64) {
        while records > 0 && !self.held.is_empty() {
            let (frame, held) = &mut self.held[0];
            let n = records.min(*held);
            self.session.reached(frame.number, AckLevel::Durable, n);
            (records, *held) = (records - n, *held - n);
            if *held == 0 {
                self.held.remove(0);
            }
        }
    }

    /// Collects what it has to send now.
    pub fn speak(&mut self) {
        let wall_ns = self.around.wall_ns;
        self.session.output(&mut Reply { out: &mut self.said, wall_ns, answers: &self.answers });
    }

    /// Ends its input.
    pub fn finish(&mut self, end: End) {
        let room = self.session.state(self.tail.len()).finish_room;
        self.push_if_described();
        if self.chunk.len() - self.filled < room {
            self.push();
        }
        let _ = self.enter(|session, window, _| {
            session.finish(end, window);
            Step::Continue
        });
    }

    /// The bytes of all records, whatever their stream.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.kept.iter().flat_map(|kept| kept.bytes.iter().copied()).collect()
    }

    /// The bytes of the records of one stream.
    #[must_use]
    pub fn bytes_of(&self, stream: Option<u16>) -> Vec<u8> {
        self.kept.iter().filter(|kept| kept.stream == stream).flat_map(|kept| kept.bytes.iter().copied()).collect()
    }
}
