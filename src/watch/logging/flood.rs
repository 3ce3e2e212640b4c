//! Keeps a flood of events of one kind (a full disk under many streams, for example) from becoming a flood of log lines.

use super::outlet::{Line, STDERR};
use crate::host::clock::{Clock, SystemClock};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines of one kind may be written at once: enough for one of each listener or stream.
const AT_ONCE: u32 = 300;
/// After those, one line in this time.
const THEN_EVERY_NS: u64 = 10_000_000_000;

/// How many lines of a kind were written lately. A kind is a place in the code.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    since_ns: u64,
}

impl Bucket {
    fn take(&mut self, now_ns: u64) -> bool {
        let more = now_ns.saturating_sub(self.since_ns) / THEN_EVERY_NS;
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(AT_ONCE)).min(AT_ONCE);
            self.since_ns = now_ns;
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

/// See the module documentation.
pub struct Flood {
    clock: SystemClock,
    kinds: Mutex<HashMap<Identifier, Bucket>>,
}

impl Flood {
    /// Nothing was written yet.
    pub fn new() -> Flood {
        Flood { clock: SystemClock::new(), kinds: Mutex::default() }
    }

    fn takes(&self, kind: Identifier) -> bool {
        let now_ns = self.clock.mono_ns();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.entry(kind).or_insert(Bucket { left: AT_ONCE, since_ns: now_ns }).take(now_ns)
    }
}

/// This is not a filter of the subscriber, because a layer's filter must give the same answer for every event of a kind.
impl<'a> MakeWriter<'a> for Flood {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::new()
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        if self.takes(metadata.callsite()) {
            return Line::new();
        }
        STDERR.leave_out();
        Line::left_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_do_not_answer_for_each_other() {
        struct Kind(&'static Metadata<'static>);
        impl tracing::Callsite for Kind {
            fn set_interest(&self, _interest: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                self.0
            }
        }
        let flood = Flood::new();
        let kind = |callsite: &'static Kind| tracing::callsite::Identifier(callsite);
        static ONE: Kind = Kind(&tracing::metadata! {
            name: "one", target: "", level: tracing::Level::INFO, fields: &[], callsite: &ONE, kind: tracing::metadata::Kind::EVENT
        });
        static OTHER: Kind = Kind(&tracing::metadata! {
            name: "other", target: "", level: tracing::Level::INFO, fields: &[], callsite: &OTHER, kind: tracing::metadata::Kind::EVENT
        });
        assert_eq!((0..1000).filter(|_| flood.takes(kind(&ONE))).count(), AT_ONCE as usize);
        assert!(flood.takes(kind(&OTHER)));
    }

    #[test]
    fn many_at_once_then_few() {
        let mut bucket = Bucket { left: AT_ONCE, since_ns: 0 };
        assert_eq!((0..1000).filter(|_| bucket.take(5)).count(), AT_ONCE as usize);
        assert_eq!((1..=100).filter(|i| bucket.take(i * THEN_EVERY_NS / 10)).count(), 10);
        assert_eq!((0..1000).filter(|_| bucket.take(u64::MAX)).count(), AT_ONCE as usize);
    }
}
