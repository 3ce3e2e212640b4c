//! Which of the datagrams that the kernel has dropped are counted already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many of the datagrams that the kernel has dropped from a socket's queue are counted. All who have the socket share it, so that each
/// is counted once: when a reload gives the socket to another listener, two reactors have it for a while.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<AtomicU32>);

impl Counted {
    /// These are somebody else's to count.
    #[must_use]
    pub fn all_before(dropped: u32) -> Counted {
        Counted(Arc::new(AtomicU32::new(dropped)))
    }

    /// The kernel has dropped so many by now. How many of them are to be counted; from now on they are. The kernel's number begins anew
    /// after the largest there is.
    #[must_use]
    pub fn count(&self, dropped: u32) -> u32 {
        // Whoever looked later may have been here first: then none is left. Nothing but the number is shared, so no order is needed.
        let newer = |counted: u32| Some(dropped).filter(|_| dropped.wrapping_sub(counted) as i32 > 0);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer);
        before.map_or(0, |counted| dropped.wrapping_sub(counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_whoever_looks_and_in_whatever_order() {
        let one = Counted::all_before(7);
        let other = one.clone();
        assert_eq!((one.count(7), other.count(10), one.count(9), one.count(12)), (0, 3, 0, 2));
        let at_the_end = Counted::all_before(u32::MAX - 1);
        assert_eq!((at_the_end.count(2), at_the_end.count(u32::MAX), at_the_end.count(3)), (4, 0, 1));
    }
}
