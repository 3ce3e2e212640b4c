//! What the keeper is told of: segments that were made or sealed. So it need not list directories to find them.

use crate::log::names::SegmentId;
use crate::pipeline::sleep::Waker;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// So many are remembered while the keeper has no time. With more it reads the directories instead.
const MOST: usize = 65_536;

/// What has happened since the keeper listened last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Segments to look at, by stream.
    pub segments: BTreeSet<(String, SegmentId)>,
    /// The directories are to be read again.
    pub all: bool,
}

/// See the module documentation.
pub struct SegmentEvents {
    told: Mutex<Heard>,
    keeper: Waker,
}

impl SegmentEvents {
    /// For a keeper that this wakes.
    #[must_use]
    pub fn new(keeper: Waker) -> SegmentEvents {
        SegmentEvents { told: Mutex::default(), keeper }
    }

    /// A segment in the directory of a stream was made: the keeper hears of it when it looks next.
    pub fn made(&self, dir: &Path, id: SegmentId) {
        let Some(stream) = dir.file_name().and_then(|name| name.to_str()) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.segments.len() >= MOST {
            *told = Heard { all: true, ..Heard::default() };
        }
        told.segments.insert((stream.to_string(), id));
    }

    /// A segment was sealed, or could not be: the keeper looks now.
    pub fn sealed(&self, dir: &Path, id: SegmentId) {
        self.made(dir, id);
        self.wake();
    }

    /// Somebody has asked for a look at everything.
    pub fn read_again(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.wake();
    }

    /// Wakes the keeper.
    pub fn wake(&self) {
        (self.keeper)();
    }

    /// What was told since the last call.
    #[must_use]
    pub fn hear(&self) -> Heard {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_too_much_to_remember_is_read_again() {
        let events = SegmentEvents::new(Arc::new(|| ()));
        let tell = |sequence| events.made(Path::new("/data/web"), SegmentId { shard: 0, sequence });
        (0..MOST as u64).for_each(tell);
        let heard = events.hear();
        assert_eq!((heard.segments.len(), heard.all), (MOST, false));
        assert_eq!(events.hear(), Heard::default());
        (0..=MOST as u64).for_each(tell);
        let heard = events.hear();
        assert_eq!((heard.segments.len(), heard.all), (1, true));
    }
}
