//! Time, and the identity of this boot. They are behind a trait so that tests can set both.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Identifies one boot of the kernel (`/proc/sys/kernel/random/boot_id`, 16 bytes).
pub type BootId = [u8; 16];

/// Where logweir reads time. Read once per turn of a loop, never per line.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds of a clock that never goes back; its zero means nothing.
    fn mono_ns(&self) -> u64;
    /// Nanoseconds since 1970, as the machine believes. It may jump either way. It is only shown, and used for retention by age, which
    /// does not trust it after a jump (`keeper`).
    fn wall_ns(&self) -> u64;
    /// The identity of this boot.
    fn boot_id(&self) -> BootId;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    boot: BootId,
}

impl SystemClock {
    /// Reads the boot id; where `/proc` is missing it is all zeros, which recovery takes for "another boot".
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        SystemClock { start: Instant::now(), boot: parse_uuid(&text).unwrap_or_default() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn mono_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn wall_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
    }
    fn boot_id(&self) -> BootId {
        self.boot
    }
}

/// The 16 bytes of a textual UUID, or `None` where it is not one.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> = text.trim().chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if digits.len() != 32 {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_and_nonsense_is_not() {
        assert_eq!(parse_uuid("00000000-0000-0000-0000-0000000000ff\n").unwrap()[15], 255);
        assert_eq!(parse_uuid("boot"), None);
        assert_eq!(parse_uuid("00"), None);
    }

    #[test]
    fn this_boot_has_one_identity() {
        assert_eq!(SystemClock::new().boot_id(), SystemClock::new().boot_id());
    }
}
