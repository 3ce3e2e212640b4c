//! Atomics and queues for what threads share without locks. They are std's and crossbeam's. loom (`--cfg model_loom`) and
//! shuttle (`--cfg model_shuttle`) put their own here, and try different orders of the threads (`tests/interleavings.rs`).

#[cfg(not(any(model_loom, model_shuttle)))]
pub use crossbeam_queue::ArrayQueue;
#[cfg(model_loom)]
pub use loom::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(any(model_loom, model_shuttle))]
pub use model::ArrayQueue;
#[cfg(model_shuttle)]
pub use shuttle::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(not(any(model_loom, model_shuttle)))]
pub use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// A simple queue for loom and shuttle, which do not know crossbeam's. The tests are about how the queue is used, not how it is made.
#[cfg(any(model_loom, model_shuttle))]
mod model {
    #[cfg(model_loom)]
    use loom::sync::Mutex;
    #[cfg(model_shuttle)]
    use shuttle::sync::Mutex;
    use std::collections::VecDeque;
    use std::sync::PoisonError;

    /// A bounded queue for any number of producers and consumers.
    pub struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        most: usize,
    }

    impl<T> ArrayQueue<T> {
        /// With room for so many.
        #[must_use]
        pub fn new(most: usize) -> Self {
            ArrayQueue { items: Mutex::new(VecDeque::new()), most }
        }

        /// Puts one at the end.
        ///
        /// # Errors
        /// The item, where there is no room.
        pub fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
            if items.len() == self.most {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        /// Takes the first.
        pub fn pop(&self) -> Option<T> {
            self.items.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
        }

        /// How many there are.
        pub fn len(&self) -> usize {
            self.items.lock().unwrap_or_else(PoisonError::into_inner).len()
        }

        /// True where there is none.
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }
}
