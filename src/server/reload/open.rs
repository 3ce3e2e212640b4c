//! The second step of a reload: opens everything new, or nothing.

use super::super::certificates::Certificate;
use super::super::error::StartError;
use super::super::live::Live;
use super::super::sources::Source;
use super::{NewStream, Proposal, Report};
use crate::config::Options;
use crate::intake::listener::ListenerOptions;
use crate::intake::reactor::ListenerRun;
use crate::log::commit::recover::Around;
use crate::log::segment::Segment;
use crate::log::stream_dir::StreamDir;
use std::sync::Arc;

impl Live {
    pub(super) fn certificates_for(&self, proposals: &[Proposal]) -> Result<Vec<Certificate>, StartError> {
        let mut all: Vec<ListenerOptions> = self.runs.iter().map(|r| r.options.clone()).collect();
        for proposal in proposals {
            match all.get_mut(proposal.place) {
                Some(old) => *old = proposal.options.clone(),
                None => all.push(proposal.options.clone()),
            }
        }
        all.iter().map(|options| self.certificates.of_options(options)).collect()
    }

    /// Opens the sockets of listeners that are new or get another address. If a listener takes the address of another, it gets that one's
    /// sockets; the result has the places of the listeners that give sockets up.
    pub(super) fn open_sources(&self, proposals: &mut [Proposal], gone: &[usize]) -> Result<Vec<usize>, StartError> {
        let moves = |p: &Proposal| {
            let is_same = |run: &ListenerRun| !run.is_gone && run.options.address == p.options.address;
            !self.runs.get(p.place).is_some_and(is_same) || self.sources[p.place].is_lost()
        };
        let moving = proposals.iter().filter(|p| moves(p)).map(|p| p.place).filter(|p| *p < self.runs.len());
        let given_up: Vec<usize> = moving
            .chain(gone.iter().copied())
            .filter(|p| !self.sources[*p].copies.is_empty() && !self.sources[*p].is_lost())
            .collect();
        let mut handed_on = Vec::new();
        let mut opened: Vec<usize> = Vec::new();
        for index in 0..proposals.len() {
            if !moves(&proposals[index]) {
                continue;
            }
            let options = &proposals[index].options;
            let from = given_up.iter().find(|p| self.runs[**p].options.address == options.address);
            let source = match from {
                Some(from) => self.hand_on(*from, options).inspect(|_| handed_on.push(*from)),
                None => Source::open(options, self.changes.len(), &mut Vec::new()).inspect(|_| opened.push(index)),
            };
            match source {
                Ok(source) => proposals[index].source = Some(source),
                Err(error) => {
                    opened.iter().filter_map(|i| proposals[*i].source.as_ref()).for_each(Source::remove_file);
                    return Err(error);
                }
            }
        }
        Ok(handed_on)
    }

    pub(super) fn hand_on(&self, from: usize, to: &ListenerOptions) -> Result<Source, StartError> {
        let copy = || {
            let sockets =
                || self.sources[from].copies.iter().map(socket2::Socket::try_clone).collect::<Result<Vec<_>, _>>();
            let mut source = Source::take_over(&to.address, sockets()?)?;
            (source.copies, source.file) = (sockets()?, self.sources[from].file.clone());
            source.share_counts(&self.sources[from]);
            Ok(source)
        };
        copy().map_err(|error| StartError::Listen { name: to.name.clone(), address: to.address.clone(), error })
    }

    pub(super) fn open_streams(&self, new: &Options, report: &mut Report) -> Result<Vec<NewStream>, StartError> {
        let around = Around {
            disk: &self.disk,
            clock: &self.clock,
            data_dir: &self.options.data_dir,
            sealed_dir: self.options.sealed_dir.as_deref(),
            node: self.node,
        };
        let mut streams = Vec::new();
        for settings in new.streams.iter().skip(self.options.streams.len()) {
            if self.options.streams.len() + streams.len() >= self.streams_most() {
                report.restart.push(format!("stream.{} (too many new streams)", settings.name));
                continue;
            }
            let begin = |shard: &Arc<crate::pipeline::shard::Shard>| {
                let dir = around.stream_dir(&settings.name, shard.index, settings.reserve_step)?;
                let active = dir.begin_first()?;
                Ok::<_, StartError>((Arc::new(dir), active))
            };
            let mut begun: Vec<(Arc<StreamDir>, Segment)> = Vec::new();
            for shard in &self.shards {
                match begin(shard) {
                    Ok(one) => begun.push(one),
                    Err(error) => {
                        // Remove the new segments again, because no writer uses them and they hold room.
                        let others = streams.iter().flat_map(|s: &NewStream| &s.begun);
                        others.chain(&begun).for_each(|(dir, active)| drop(dir.discard(active)));
                        return Err(error);
                    }
                }
            }
            streams.push(NewStream { settings: settings.clone(), begun });
        }
        Ok(streams)
    }
}
