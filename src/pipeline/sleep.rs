//! How a writer sleeps until another thread wakes it. It is behind a trait, so that the simulation can put its own scheduler
//! here.

use crossbeam_utils::sync::Parker;
use std::sync::Arc;
use std::time::Duration;

/// Wakes one sleeper, from any thread; a call while it is awake makes its next sleep return at once.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// One end of a sleeper and its [`Waker`].
pub trait Sleep: Send {
    /// Sleeps until woken, at most so long (`None`: for ever).
    fn sleep(&self, at_most: Option<Duration>);
}

impl Sleep for Parker {
    fn sleep(&self, at_most: Option<Duration>) {
        match at_most {
            None => self.park(),
            Some(at_most) => self.park_timeout(at_most),
        }
    }
}

/// A sleeper that parks its thread, and what wakes it.
#[must_use]
pub fn parking() -> (Box<dyn Sleep>, Waker) {
    let parker = Parker::new();
    let unparker = parker.unparker().clone();
    (Box::new(parker), Arc::new(move || unparker.unpark()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_before_the_sleep_is_not_lost() {
        let (sleeper, wake) = parking();
        wake();
        sleeper.sleep(None);
        let waker = std::thread::spawn(move || wake());
        sleeper.sleep(None);
        waker.join().unwrap();
        sleeper.sleep(Some(Duration::ZERO));
    }
}
