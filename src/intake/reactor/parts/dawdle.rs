//! Decides how long a reactor may wait before it receives again, to save wake-ups.
//!
//! It does so only while no listener acknowledges lines and while little comes, and for short times. A quiet server sleeps
//! until something comes; a busy one does not pause. The pause is a part of the time for which lines linger in the open chunk
//! anyway.

use super::listeners::ListenerRun;
use std::time::Duration;

/// Longest pause. At most half of `buffer.linger`, so that no line waits longer than it says.
pub const MOST: Duration = Duration::from_millis(10);
/// A shorter one saves less than it costs.
pub const LEAST_NS: u64 = 300_000;
/// A pause is so short that no more comes in it, at the pace of the last turn. A Unix socket holds 208 KiB with what the kernel adds to
/// each write, about 270 short lines that are written one by one; its sender should not meet the end of that. (One whose pace grows at
/// once may, for as long as one pause.)
pub const LINES: u64 = 130;
/// The same in bytes.
pub const BYTES: u64 = 32 << 10;

/// What a reactor remembers for it.
#[derive(Debug, Default)]
pub struct Dawdler {
    /// Zero: somebody waits for answers here, or for room in a queue of few datagrams.
    pub most_ns: u64,
    /// Bytes received up to the last turn.
    pub received: u64,
    /// Lines found since the last turn.
    pub lines: u64,
    /// When the last turn began.
    pub turned_ns: u64,
}

impl Dawdler {
    /// For these listeners.
    pub fn new(listeners: &[ListenerRun], linger: Duration) -> Dawdler {
        // Who asks for a page waits that much longer.
        let somebody_waits = |l: &ListenerRun| {
            let o = &l.options;
            // `net.unix.max_dgram_qlen` is 10 on many systems.
            o.profile().makes_records && (o.is_datagram() || o.profile().answers || o.has_stage())
        };
        let most = if listeners.iter().any(somebody_waits) { Duration::ZERO } else { (linger / 2).min(MOST) };
        Dawdler { most_ns: most.as_nanos() as u64, ..Dawdler::default() }
    }

    /// How long to pause behind a turn that began at `now`, with so many bytes received in all; `None`: not at all.
    pub fn pause(&mut self, now: u64, received: u64) -> Option<Duration> {
        let bytes = received.wrapping_sub(std::mem::replace(&mut self.received, received));
        let interval = now.saturating_sub(std::mem::replace(&mut self.turned_ns, now));
        let lines = std::mem::take(&mut self.lines);
        if bytes == 0 || interval >= 2 * self.most_ns {
            return None;
        }
        let by_lines = interval.saturating_mul(LINES) / lines.max(1);
        let by_bytes = interval.saturating_mul(BYTES) / bytes;
        let pause = self.most_ns.min(by_lines).min(by_bytes);
        (pause >= LEAST_NS).then(|| Duration::from_nanos(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Turns at this pace, each as long after the one before as the pause was: the longest pause.
    fn settled(lines_per_ms: u64, line: u64) -> Option<u64> {
        let mut it = Dawdler { most_ns: 10 * MS, turned_ns: MS, ..Dawdler::default() };
        let (mut now, mut received, mut pause) = (MS, 0, None);
        for _ in 0..50 {
            let interval = pause.map_or(MS / 20, |p: Duration| p.as_nanos() as u64);
            now += interval;
            let lines = (lines_per_ms * interval / MS).max(1);
            (it.lines, received) = (lines, received + lines * line);
            pause = it.pause(now, received);
            if let Some(pause) = pause {
                let comes = lines_per_ms * pause.as_nanos() as u64 / MS;
                assert!(comes <= 2 * LINES && comes * line <= 2 * BYTES, "{comes} lines of {line} in {pause:?}");
            }
        }
        pause.map(|p| p.as_nanos() as u64)
    }

    #[test]
    fn a_pause_is_as_short_as_the_pace_asks() {
        assert_eq!(settled(10, 250), Some(10 * MS));
        assert!(settled(50, 20).is_some_and(|p| p <= 3 * MS));
        assert_eq!(settled(1_000, 250), None, "and none where there is no time to lose");
    }

    #[test]
    fn who_is_quiet_sleeps() {
        let mut it = Dawdler { most_ns: 10 * MS, ..Dawdler::default() };
        it.lines = 1;
        assert_eq!(it.pause(100 * MS, 250), None, "the first line after a while");
        assert_eq!(it.pause(101 * MS, 250), None, "nothing came");
    }
}
