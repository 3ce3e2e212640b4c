//! The answers that a connection is owed: each is due when so many records have reached the level, in the order of the
//! connection.

use super::AckLevel;
use super::sink::Frame;
use std::collections::VecDeque;

/// One answer, given or awaited.
#[derive(Debug)]
struct Entry<T> {
    /// What to say; `None`: the frame is not complete.
    say: Option<T>,
    level: AckLevel,
    /// Records of it that have not reached the listener's level,
    unreached: u64,
    /// and that are not known to be written.
    unwritten: u64,
}

impl<T> Entry<T> {
    fn is_due(&self) -> bool {
        let is_reached = match self.level {
            AckLevel::Received => true,
            AckLevel::Written => self.unwritten == 0 || self.unreached == 0,
            AckLevel::Durable => self.unreached == 0,
        };
        self.say.is_some() && is_reached
    }
}

/// The answers that a connection is still owed, each for a frame or for nothing. A frame is done when all its records have
/// reached its level, in whichever stream and chunk they are; its answer is given when all before it were.
///
/// At most one frame is open: the last.
#[derive(Debug)]
pub struct Owed<T> {
    queue: VecDeque<Entry<T>>,
    /// Number of the first in the queue.
    first: u32,
}

impl<T> Default for Owed<T> {
    fn default() -> Self {
        Owed { queue: VecDeque::new(), first: 0 }
    }
}

/// How many answers an idle connection keeps room for.
const FEW: usize = 4;

impl<T> Owed<T> {
    /// Memory of one answer, in bytes.
    pub const BYTES: usize = size_of::<Entry<T>>();

    /// How many are owed, an open frame's included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True where none is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Begins a frame. Its records are acknowledged together.
    pub fn open(&mut self, level: AckLevel) -> Frame {
        self.queue.push_back(Entry { say: None, level, unreached: 0, unwritten: 0 });
        Frame { number: self.first.wrapping_add(self.queue.len() as u32 - 1), level }
    }

    /// Adds this many records to the open frame.
    pub fn add(&mut self, records: u64) {
        if let Some(entry) = self.queue.back_mut() {
            entry.unreached += records;
            entry.unwritten += records;
        }
    }

    /// Takes the open frame back: it has no records.
    pub fn withdraw(&mut self) {
        if self.queue.back().is_some_and(|entry| entry.say.is_none()) {
            self.queue.pop_back();
        }
    }

    /// Completes the open frame. The answer is given when all its records have reached their level.
    pub fn close(&mut self, say: T) {
        if let Some(entry) = self.queue.back_mut() {
            entry.say = Some(say);
        }
    }

    /// Completes the open frame with an answer that does not wait for its records.
    pub fn close_at_once(&mut self, say: T) {
        if let Some(entry) = self.queue.back_mut() {
            (entry.say, entry.level) = (Some(say), AckLevel::Received);
        }
    }

    /// Has the open frame be answered without waiting for its records, and returns how many have not reached the listener's level.
    pub fn let_go(&mut self) -> u64 {
        let Some(entry) = self.queue.back_mut() else { return 0 };
        entry.level = AckLevel::Received;
        entry.unreached
    }

    /// Owes an answer that waits for no records, only for its turn.
    pub fn say(&mut self, say: T) {
        self.queue.push_back(Entry { say: Some(say), level: AckLevel::Received, unreached: 0, unwritten: 0 });
    }

    /// Notes that records of a frame have reached this level. Frames that were answered are forgotten.
    pub fn reached(&mut self, frame: u32, level: AckLevel, records: u64) {
        let place = frame.wrapping_sub(self.first) as usize;
        if let Some(entry) = self.queue.get_mut(place) {
            match level {
                AckLevel::Received => {}
                AckLevel::Written => entry.unwritten = entry.unwritten.saturating_sub(records),
                AckLevel::Durable => entry.unreached = entry.unreached.saturating_sub(records),
            }
        }
    }

    /// True if an answer can be given now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.queue.front().is_some_and(Entry::is_due)
    }

    /// Takes the next answer that can be given.
    pub fn next_due(&mut self) -> Option<T> {
        let due = if self.is_due() { self.queue.pop_front() } else { None }?;
        self.first = self.first.wrapping_add(1);
        if self.queue.is_empty() && self.queue.capacity() > FEW {
            self.queue = VecDeque::new(); // an idle connection holds nothing
        }
        due.say
    }

    /// Notes that no record will reach its level any more. `instead` changes each answer that was not given yet, and none waits any more.
    /// An open frame gets no answer, unless `open` gives one.
    pub fn fail(&mut self, mut instead: impl FnMut(&mut T), open: Option<T>) {
        if self.queue.back().is_some_and(|entry| entry.say.is_none()) {
            self.queue.pop_back();
            open.into_iter().for_each(|say| self.say(say));
        }
        for entry in &mut self.queue {
            if let Some(say) = &mut entry.say {
                instead(say);
            }
            entry.level = AckLevel::Received;
        }
    }

    /// Answers that wait for something else than records, in frames of their own: those of which `is_settled` says so are due.
    pub fn settle(&mut self, mut is_settled: impl FnMut(&mut T) -> bool) {
        for entry in &mut self.queue {
            if let Some(say) = &mut entry.say
                && is_settled(say)
            {
                entry.level = AckLevel::Received;
            }
        }
    }

    /// The last answer that is owed.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.queue.back_mut()?.say.as_mut()
    }

    /// Forgets all that are owed.
    pub fn clear(&mut self) {
        self.first = self.first.wrapping_add(self.queue.len() as u32);
        self.queue = VecDeque::new();
    }
}

/// The other way to answer: how many records of the connection have reached the level. This needs all of them in one stream, where
/// they reach it in their order.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    reached: u64,
    told: u64,
}

impl Count {
    /// Adds records that have reached the level.
    pub fn reached(&mut self, records: u64) {
        self.reached += records;
    }

    /// True if there is a count to tell.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.reached != self.told
    }

    /// The count, if it has changed since it was last told.
    pub fn next_due(&mut self) -> Option<u64> {
        let is_due = self.is_due();
        self.told = self.reached;
        is_due.then_some(self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn due(owed: &mut Owed<u32>) -> Vec<u32> {
        std::iter::from_fn(|| owed.next_due()).collect()
    }

    #[test]
    fn a_frame_waits_for_its_own_records_and_for_its_turn() {
        let mut owed = Owed::default();
        let first = owed.open(AckLevel::Durable);
        owed.add(3);
        owed.close(1);
        owed.say(2);
        let third = owed.open(AckLevel::Durable);
        owed.add(3);
        owed.close(3);
        owed.reached(third.number, AckLevel::Durable, 3);
        assert!(due(&mut owed).is_empty(), "what others have reached is not the first one's");
        owed.reached(first.number, AckLevel::Written, 3);
        assert!(due(&mut owed).is_empty(), "written is not durable");
        owed.reached(first.number, AckLevel::Durable, 2);
        assert!(due(&mut owed).is_empty());
        owed.reached(first.number, AckLevel::Durable, 1);
        assert_eq!(due(&mut owed), [1, 2, 3]);
        owed.reached(first.number, AckLevel::Durable, 9);
        assert!(owed.is_empty());
    }

    #[test]
    fn written_comes_by_itself_or_with_more() {
        let mut owed = Owed::default();
        for (say, level) in [(1, AckLevel::Written), (2, AckLevel::Durable), (3, AckLevel::Received)] {
            let frame = owed.open(AckLevel::Written);
            owed.add(2);
            owed.close(say);
            owed.reached(frame.number, level, 2);
        }
        assert_eq!(due(&mut owed), [1, 2]);
        let open = owed.open(AckLevel::Received);
        owed.reached(open.number, AckLevel::Durable, 1);
        owed.reached(2, AckLevel::Written, 2);
        assert_eq!(due(&mut owed), [3], "an open frame has no answer yet");
    }

    #[test]
    fn what_fails_is_said_and_what_is_said_stays() {
        let mut owed = Owed::default();
        owed.say(1);
        owed.open(AckLevel::Durable);
        owed.add(1);
        owed.close(2);
        owed.open(AckLevel::Durable);
        owed.fail(|say| *say += 100 * u32::from(*say == 2), Some(3));
        assert_eq!(due(&mut owed), [1, 102, 3]);
        owed.open(AckLevel::Durable);
        owed.fail(|_| {}, None);
        assert!(owed.is_empty());
    }

    #[test]
    fn a_count_is_cumulative_and_told_once() {
        let mut count = Count::default();
        count.reached(3);
        count.reached(4);
        assert_eq!((count.next_due(), count.next_due()), (Some(7), None));
    }

    proptest! {
        /// However records come back, each frame is answered once, in order, and never before its last record.
        #[test]
        fn answers_come_in_order_and_never_early(
            sizes in proptest::collection::vec(0u64..5, 1..30),
            order in any::<u64>(),
        ) {
            let mut owed = Owed::default();
            let mut outstanding: Vec<(u32, usize)> = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                let frame = owed.open(AckLevel::Durable);
                owed.add(*size);
                owed.close(i as u32);
                outstanding.extend((0..*size).map(|_| (frame.number, i)));
            }
            let mut seed = order | 1;
            let mut said = Vec::new();
            loop {
                while let Some(i) = owed.next_due() {
                    prop_assert!(outstanding.iter().all(|(_, of)| *of != i as usize), "early");
                    said.push(i);
                }
                if outstanding.is_empty() { break }
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (frame, _) = outstanding.swap_remove(seed as usize % outstanding.len());
                owed.reached(frame, AckLevel::Durable, 1);
            }
            prop_assert_eq!(said, (0..sizes.len() as u32).collect::<Vec<_>>());
        }
    }
}
