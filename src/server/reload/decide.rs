//! The first step of a reload: decides what can change and what cannot. It changes nothing.

use super::super::live::{Live, SPARE_STREAMS};
use super::{Proposal, Report};
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::host::address::Address;
use crate::intake::listener::ListenerOptions;
use crate::intake::reactor::ListenerRun;
use crate::server::sandbox::certificate_files;

impl Live {
    /// Reports the changed options that need a restart.
    pub(super) fn fixed(&self, new: &Options, report: &mut Report) {
        let old = &self.options;
        let fixed = [
            ("data_dir", new.data_dir != old.data_dir),
            ("engine", new.engine != old.engine),
            ("[placement]", new.placement != old.placement),
            ("buffer.memory", new.buffer_bytes != old.buffer_bytes),
            ("admin.address", new.admin != old.admin),
            ("storage.sealed_dir", new.sealed_dir != old.sealed_dir),
            ("storage.commit_log", new.commit_log != old.commit_log),
            ("storage.file_mode or file_group", new.files != old.files),
            ("[log]", new.log != old.log),
            (
                "limits.max_connections (more than at the start)",
                new.max_connections > self.connections.most().max(old.max_connections),
            ),
        ];
        report.restart.extend(fixed.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_string()));
    }

    pub(super) fn propose(&self, new: &Options, report: &mut Report) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        // Present listeners come first, so that a new one cannot take what they need.
        let place_of = |l: &ListenerOptions| self.runs.iter().position(|r| r.options.name == l.name);
        let (known, others): (Vec<_>, Vec<_>) = new.listeners.iter().partition(|l| place_of(l).is_some());
        let mut accepted: Vec<ListenerOptions> = Vec::new();
        let mut places = self.runs.len();
        for listener in known.into_iter().chain(others) {
            let place = place_of(listener);
            let running = place.map(|p| &self.runs[p]);
            let refused = self.refuses(listener, &new.streams, running, places).or_else(|| {
                let all: Vec<ListenerOptions> = accepted.iter().chain([listener]).cloned().collect();
                self.options.memory.holds(&new.needs_of(&all)).err()
            });
            if let Some(why) = refused {
                report.restart.push(format!("listener.{} ({why})", listener.name));
                accepted.extend(running.filter(|r| !r.is_gone).map(|r| r.options.clone()));
                continue;
            }
            accepted.push(listener.clone());
            // A socket file that somebody has removed is made again.
            let is_lost = place.is_some_and(|p| self.sources[p].is_lost());
            if !is_lost && running.is_some_and(|r| !r.is_gone && r.options == *listener) {
                continue;
            }
            let place = place.unwrap_or_else(|| {
                places += 1;
                places - 1
            });
            proposals.push(Proposal { place, options: listener.clone(), source: None });
        }
        proposals
    }

    /// Why a listener needs a restart to change; `None`: it does not.
    pub(super) fn refuses(
        &self,
        new: &ListenerOptions,
        streams: &[StreamSettings],
        running: Option<&ListenerRun>,
        places: usize,
    ) -> Option<&'static str> {
        let other_format = |stream: usize| match (self.options.streams.get(stream), streams.get(stream)) {
            (Some(running), Some(new)) => running.format != new.format,
            _ => false,
        };
        let indices: Vec<usize> = new.routes.all().map(|route| usize::from(route.index)).collect();
        // One that says itself how it writes does so whatever its streams say.
        let mixed = !new.has_own_format && indices.iter().any(|stream| other_format(*stream));
        if let Some(paths) = &self.confinement.paths {
            let is_new = running.is_none_or(|r| r.is_gone || r.options.address != new.address);
            let made = match &new.address {
                Address::Unix(path) | Address::UnixDatagram(path) if is_new => Some(path),
                _ => None,
            };
            if made.is_some_and(|path| !paths.can_make(path)) {
                return Some("its socket is in a directory that was not configured at the start");
            }
            if certificate_files(new).any(|file| !paths.can_read(file)) {
                return Some("its certificate is in a directory that was not configured at the start");
            }
        }
        if mixed {
            return Some("the `format` of its stream");
        }
        if indices.iter().any(|stream| *stream >= self.streams_most()) {
            return Some("too many new streams");
        }
        match running.map(|r| &r.options) {
            None if places >= self.metrics.accounting.listeners() => Some("too many new listeners"),
            None if new.address == Address::Stdin => Some("standard input"),
            // While the old socket listens, the kernel does not let another have the port.
            Some(old) if has_same_port(&old.address, &new.address) => Some("the same port at another IP address"),
            Some(old) if old.profile().name != new.profile().name => Some("its `protocol`"),
            // Acknowledgements that are on their way are of the kind that was promised.
            Some(old) if (old.level, old.ack_on_receipt) != (new.level, new.ack_on_receipt) => {
                Some("its `ack` or `reply`")
            }
            Some(old) if old.class != new.class => Some("its `when_full`"),
            Some(old) if (old.address == Address::Stdin) != (new.address == Address::Stdin) => Some("standard input"),
            _ => None,
        }
    }

    pub(super) fn streams_most(&self) -> usize {
        self.streams_at_start + SPARE_STREAMS
    }

    /// Places of listeners that are no longer in the file.
    pub(super) fn removed(&self, new: &Options) -> Vec<usize> {
        let is_there = |run: &ListenerRun| new.listeners.iter().any(|l| l.name == run.options.name);
        (0..self.runs.len()).filter(|p| !self.runs[*p].is_gone && !is_there(&self.runs[*p])).collect()
    }
}

fn has_same_port(old: &Address, new: &Address) -> bool {
    let ((Address::Tcp(old), Address::Tcp(new)) | (Address::Udp(old), Address::Udp(new))) = (old, new) else {
        return false;
    };
    old != new && old.port() == new.port() && new.port() != 0
}
