//! Reads the configuration again while the server runs. What can change without a restart changes; for the rest it says that a
//! restart is needed.
//!
//! First it decides everything and opens everything new. If anything fails, the server stays as it was. Only then does it tell
//! the threads.

mod decide;
mod open;
mod tell;

use super::error::StartError;
use super::live::Live;
use super::sources::Source;
use super::threads::Threads;
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::intake::listener::ListenerOptions;
use crate::log::segment::Segment;
use crate::log::stream_dir::StreamDir;
use std::sync::Arc;
use std::time::Duration;

/// How long a reload waits for the threads. A thread that is busy for longer takes the change over when it is done.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(1);

/// The result of a reload, in words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What has changed.
    pub changed: Vec<String>,
    /// What the file says and needs a restart.
    pub restart: Vec<String>,
}

/// A listener that is new or will change.
struct Proposal {
    place: usize,
    options: ListenerOptions,
    /// Its new sockets, if it needs any.
    source: Option<Source>,
}

/// A new stream, with its first segment for each shard.
struct NewStream {
    settings: StreamSettings,
    begun: Vec<(Arc<StreamDir>, Segment)>,
}

impl Live {
    /// Takes over a configuration that was read for this server ([`crate::config::load_for`]).
    ///
    /// # Errors
    /// Something new cannot be opened. Nothing has changed then.
    pub fn reload(&mut self, new: Options, threads: &mut Threads) -> Result<Report, StartError> {
        let mut report = Report::default();
        self.fixed(&new, &mut report);
        let mut proposals = self.propose(&new, &mut report);
        let gone = self.removed(&new);
        let certificates = self.certificates_for(&proposals)?;
        let handed_on = self.open_sources(&mut proposals, &gone)?;
        let streams = self.open_streams(&new, &mut report).inspect_err(|_| {
            let opened = proposals.iter().filter_map(|p| p.source.as_ref());
            opened.filter(|s| !s.is_inherited).for_each(Source::remove_file);
        })?;

        self.certificates.replace(certificates);
        self.certificates.reload();
        if let Err(error) = self.certificates.watch() {
            tracing::error!(%error, "certificates are not watched");
        }
        self.change_streams(&new, streams, &mut report);
        self.limits(&new, &mut report);
        self.change_listeners(proposals, &gone, &handed_on, threads, &mut report);
        threads.events.read_again();
        threads.go_round(&self.control, TAKEN_OVER_WITHIN);
        Ok(report)
    }
}
