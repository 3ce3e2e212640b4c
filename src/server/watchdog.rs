//! Feeds the service manager's watchdog, but only while every reactor and every writer answers.

use super::threads::Threads;
use crate::pipeline::control::Control;
use crate::server::service::Manager;
use std::time::{Duration, Instant};

/// See the module. Without a watchdog nothing here ever falls due.
pub struct Watchdog {
    manager: Manager,
    every: Option<Duration>,
    due: Instant,
    /// The last question.
    asked: u64,
    /// Who did not answer, to be said once.
    silent: Option<String>,
}

/// Questions within the manager's time: an answer is looked at when the next question is asked.
const QUESTIONS: u32 = 4;

impl Watchdog {
    /// For a server that has just started: the first question is due at once.
    pub fn new(manager: Manager) -> Watchdog {
        let every = manager.watchdog().map(|w| w / QUESTIONS);
        Watchdog { manager, every, due: Instant::now(), asked: 0, silent: None }
    }

    /// When the next question is due.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }

    /// Looks at the answers, and asks again.
    pub fn turn(&mut self, threads: &Threads, control: &Control, status: impl FnOnce() -> String) {
        let Some(every) = self.every else { return };
        self.due = Instant::now() + every;
        match threads.silent(self.asked) {
            None => {
                if self.silent.take().is_some() {
                    tracing::info!("every thread answers again");
                }
                self.manager.alive(&status());
            }
            Some(thread) => {
                if self.silent.as_ref() != Some(&thread) {
                    tracing::warn!(
                        thread,
                        "no sign of life from a thread; the service manager restarts the server if that lasts"
                    );
                }
                self.silent = Some(thread);
            }
        }
        self.asked = threads.ping(control);
    }
}
