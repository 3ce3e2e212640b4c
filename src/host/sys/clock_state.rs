//! Asks whether the kernel takes its clock for synchronised.

/// What `adjtimex(2)` says of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// Somebody (chrony, systemd-timesyncd, a hypervisor) keeps it right.
    pub is_synchronised: bool,
    /// The estimated error, in microseconds.
    pub error_us: i64,
}

/// Asks; changes nothing. `None`: not permitted (some containers).
#[must_use]
pub fn clock_state() -> Option<ClockState> {
    let mut answer = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `answer` is writable memory of the size of a timex; its `modes` is zero, so the call only reads the clock.
    let state = unsafe { libc::adjtimex(answer.as_mut_ptr()) };
    if state < 0 {
        return None;
    }
    // SAFETY: it was zeroed before the call, and all-zero bytes are a valid `timex`: plain integers only.
    let answer = unsafe { answer.assume_init() };
    let is_synchronised = state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0;
    Some(ClockState { is_synchronised, error_us: answer.esterror })
}

#[cfg(test)]
mod tests {
    #[test]
    fn asking_changes_nothing_and_does_not_fail_oddly() {
        assert_eq!(super::clock_state().is_some(), super::clock_state().is_some());
    }
}
