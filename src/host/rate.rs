//! Limits log lines of one kind, so that a flood of events does not become a flood of log lines.

/// Time in which one line is written at most.
const WINDOW_NS: u64 = 10_000_000_000;

/// One kind of event.
#[derive(Debug, Default)]
pub struct RateLimit {
    next_ns: u64,
    missed: u64,
}

impl RateLimit {
    /// The first event is written.
    #[must_use]
    pub fn new() -> Self {
        RateLimit::default()
    }

    /// `Some` if this event may be written, with the number of events left out since the last one.
    pub fn allow(&mut self, now_ns: u64) -> Option<u64> {
        if now_ns < self.next_ns {
            self.missed += 1;
            return None;
        }
        self.next_ns = now_ns + WINDOW_NS;
        Some(std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let mut limit = RateLimit::new();
        assert_eq!(limit.allow(5), Some(0));
        assert_eq!(limit.allow(6), None);
        assert_eq!(limit.allow(7), None);
        assert_eq!(limit.allow(6 + WINDOW_NS), Some(2));
    }
}
