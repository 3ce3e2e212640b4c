//! Feeds the service manager's watchdog, but only while every reactor and every writer answers.

use super::threads::Threads;
use crate::pipeline::control::Control;
use crate::server::service::Manager;
use std::time::{Duration, Instant};

/// The watchdog. Without one nothing here is ever due.
pub struct Watchdog {
    manager: Manager,
    every: Option<Duration>,
    due: Instant,
    /// The last ping.
    asked: u64,
    /// The thread that did not answer, so that this is logged only once.
    silent: Option<String>,
}

/// How many pings to send within the time of the manager. Answers to a ping are checked when the next one is sent.
const QUESTIONS: u32 = 4;

impl Watchdog {
    /// The watchdog of a server that has just started: the first ping is due at once.
    pub fn new(manager: Manager) -> Watchdog {
        let every = manager.watchdog().map(|w| w / QUESTIONS);
        Watchdog { manager, every, due: Instant::now(), asked: 0, silent: None }
    }

    /// When the next ping is due.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }

    /// Checks the answers to the last ping, feeds the watchdog if all are there, and sends the next ping.
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
