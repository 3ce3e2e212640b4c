//! The start on a full disk: each step that writes is repeated until there is room. Meanwhile the server says that it is not ready, and
//! why; nothing is lost.

use super::error::StartError;
use crate::log::LogError;
use crate::pipeline::control::{Control, Notice};
use crate::server::service::Manager;
use signal_hook::consts::{SIGHUP, SIGUSR1};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// What the service manager is asked for with each try, so that it does not take the wait for a hang.
const MORE_TIME: Duration = Duration::from_secs(60);

/// See the module documentation.
pub struct Patience<'a> {
    /// Where readiness is asked for.
    pub control: &'a Control,
    /// The service manager.
    pub manager: Manager,
    /// Signals.
    pub notices: &'a Receiver<Notice>,
}

impl Patience<'_> {
    /// Repeats a step until the disk has room for it. A step can be repeated wherever it was interrupted.
    ///
    /// # Errors
    /// Any other error. [`StartError::EndedOnFullDisk`] once a signal ends the server, or a thread of it has died.
    pub fn until_there_is_room<T, E: Into<StartError>>(
        &self,
        mut step: impl FnMut() -> Result<T, E>,
    ) -> Result<T, StartError> {
        let mut waits = false;
        let result = loop {
            match step().map_err(Into::into) {
                Err(StartError::Log(error)) if error.is_full() => {
                    if !std::mem::replace(&mut waits, true) {
                        self.begin(&error);
                    }
                    self.manager.more_time_to_start(MORE_TIME);
                    if self.is_over() {
                        break Err(StartError::EndedOnFullDisk(error));
                    }
                }
                other => break other,
            }
        };
        if waits {
            self.control.disk_full(false);
            if result.is_ok() {
                tracing::info!("there is room again: the start goes on");
            }
        }
        result
    }

    fn begin(&self, error: &LogError) {
        tracing::error!(%error, "no room on the disk to start: not ready until there is; what a crash has left stays as it is meanwhile");
        self.manager.status("waits for room on the disk");
        self.control.disk_full(true);
    }

    /// Waits. True: the server is to end.
    fn is_over(&self) -> bool {
        match self.notices.recv_timeout(AGAIN) {
            // A reload or a rotation means nothing before the start.
            Err(RecvTimeoutError::Timeout) | Ok(Notice::Signal(SIGHUP | SIGUSR1)) => false,
            Ok(_) | Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}
