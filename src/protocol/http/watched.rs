//! Requests that are answered before their records are durable, because their clients ask for that later.

use super::api::Watcher;
use super::session::Http;
use crate::host::mutants::mutant;
use crate::session::{AckLevel, Frame};

impl Http {
    /// Has the open frame answered without waiting for its records, and tells `watcher` when they have reached the level.
    pub(super) fn watch(&mut self, frame: Frame, watcher: Option<Box<dyn Watcher>>) {
        let Some(mut watcher) = watcher else { return };
        if self.request.dropped {
            return; // it is refused
        }
        let left = self.answers.let_go();
        if left == 0 || mutant!("number_true_at_once") {
            watcher.reached();
        } else {
            self.watched.push((frame.number, left, watcher));
        }
    }

    /// Notes that records of a frame have reached a level.
    pub(super) fn tell_watchers(&mut self, frame: u32, level: AckLevel, records: u64) {
        if self.watched.is_empty() || level != AckLevel::Durable {
            return;
        }
        self.watched.retain_mut(|(number, left, watcher)| {
            if *number != frame {
                return true;
            }
            *left = left.saturating_sub(records);
            if *left == 0 {
                watcher.reached();
            }
            *left > 0
        });
    }
}
