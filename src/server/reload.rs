//! The configuration read again while the server runs: what can change changes, what cannot says so.
//!
//! First everything is decided and everything new is opened; whatever fails then leaves the server as it was. Only then are
//! the threads told.

use super::StartError;
use super::build::stored;
use super::live::{Live, SPARE_STREAMS};
use super::sources::Source;
use super::threads::Threads;
use crate::acceptor;
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::config::listener::ListenerOptions;
use crate::config::renumber::renumbered;
use crate::log::segment::Segment;
use crate::log::stream_dir::StreamDir;
use crate::net::ListenerId;
use crate::net::listen::Address;
use crate::reactor::{AddressLimit, Change, ListenerRun};
use crate::sandbox::certificate_files;
use crate::writer;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::time::Duration;

/// How long a reload waits for the threads to take it over: one that is at work for longer does so when it is done.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(1);

/// What came of it, for people.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is different from now on.
    pub changed: Vec<String>,
    /// What the file says and only a restart brings.
    pub restart: Vec<String>,
}

/// What becomes of a listener.
struct Proposal {
    place: usize,
    options: ListenerOptions,
    /// Its sockets, where they are to be others than now.
    source: Option<Source>,
}

/// A stream that is new, with its first segment for each shard.
struct NewStream {
    settings: StreamSettings,
    begun: Vec<(Arc<StreamDir>, Segment)>,
}

impl Live {
    /// Takes a configuration over that has been checked.
    ///
    /// # Errors
    /// Something new cannot be had: nothing has changed then.
    pub fn reload(&mut self, new: Options, threads: &mut Threads) -> Result<Report, StartError> {
        let new = renumbered(new, &self.options);
        let mut report = Report::default();
        self.fixed(&new, &mut report);
        let mut proposals = self.propose(&new, &mut report);
        let gone = self.removed(&new);
        let certificates = self.certificates_for(&proposals)?;
        let streams = self.open_streams(&new, &mut report)?;
        let handed_on = self.open_sources(&mut proposals, &gone)?;

        self.certificates.replace(certificates);
        self.certificates.reload();
        if let Err(error) = self.certificates.watch() {
            tracing::error!(%error, "certificates are not watched");
        }
        self.change_streams(&new, streams, &mut report);
        self.limits(&new, &mut report);
        self.change_listeners(proposals, &gone, &handed_on, threads, &mut report);
        (threads.keep)();
        threads.go_round(&self.control, TAKEN_OVER_WITHIN);
        Ok(report)
    }

    /// What only a restart changes.
    fn fixed(&self, new: &Options, report: &mut Report) {
        let old = &self.options;
        let fixed = [
            ("data_dir", new.data_dir != old.data_dir),
            ("engine", new.engine != old.engine),
            ("[placement]", new.placement != old.placement),
            ("buffer.memory", new.buffer_bytes != old.buffer_bytes),
            ("admin.address", new.admin != old.admin),
            ("storage.sealed_dir", new.sealed_dir != old.sealed_dir),
            ("[log]", new.log != old.log),
            (
                "limits.max_connections (more than at the start)",
                new.max_connections > self.connections.most().max(old.max_connections),
            ),
        ];
        report.restart.extend(fixed.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_string()));
    }

    fn propose(&self, new: &Options, report: &mut Report) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        // Those that there are come first: nobody new takes what they need.
        let place_of = |l: &ListenerOptions| self.runs.iter().position(|r| r.options.name == l.name);
        let (known, others): (Vec<_>, Vec<_>) = new.listeners.iter().partition(|l| place_of(l).is_some());
        let mut accepted: Vec<ListenerOptions> = Vec::new();
        let mut places = self.runs.len();
        for listener in known.into_iter().chain(others) {
            let place = place_of(listener);
            let running = place.map(|p| &self.runs[p]);
            let refused = self.refuses(listener, running, places).or_else(|| {
                let all: Vec<ListenerOptions> = accepted.iter().chain([listener]).cloned().collect();
                self.options.memory.holds(&new.needs_of(&all)).err()
            });
            if let Some(why) = refused {
                report.restart.push(format!("listener.{} ({why})", listener.name));
                accepted.extend(running.filter(|r| !r.is_gone).map(|r| r.options.clone()));
                continue;
            }
            accepted.push(listener.clone());
            if running.is_some_and(|r| !r.is_gone && r.options == *listener) {
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

    /// Why a listener cannot be as it should without a restart.
    fn refuses(&self, new: &ListenerOptions, running: Option<&ListenerRun>, places: usize) -> Option<&'static str> {
        let other_format =
            |stream: u16, format| self.options.streams.get(usize::from(stream)).is_some_and(|s| s.format != format);
        let mixed = match &new.http {
            Some(http) => http.streams.iter().any(|c| other_format(c.index, c.format)),
            None => other_format(new.stream, new.lines.format),
        };
        let streams = new.http.iter().flat_map(|h| h.streams.iter().map(|c| c.index)).chain([new.stream]);
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
        if streams.max().is_some_and(|s| usize::from(s) >= self.streams_most()) {
            return Some("too many new streams");
        }
        match running.map(|r| &r.options) {
            None if places >= self.metrics.accounting.listeners() => Some("too many new listeners"),
            None if new.address == Address::Stdin => Some("standard input"),
            Some(old) if old.http.is_some() != new.http.is_some() => Some("its `protocol`"),
            // Acknowledgements that are on their way are of the kind that was promised.
            Some(old) if (old.level, old.ack_on_receipt) != (new.level, new.ack_on_receipt) => {
                Some("its `ack` or `reply`")
            }
            Some(old) if old.class != new.class => Some("its `when_full`"),
            Some(old) if (old.address == Address::Stdin) != (new.address == Address::Stdin) => Some("standard input"),
            _ => None,
        }
    }

    fn streams_most(&self) -> usize {
        self.streams_at_start + SPARE_STREAMS
    }

    /// Places of listeners that the file has no more.
    fn removed(&self, new: &Options) -> Vec<usize> {
        let is_there = |run: &ListenerRun| new.listeners.iter().any(|l| l.name == run.options.name);
        (0..self.runs.len()).filter(|p| !self.runs[*p].is_gone && !is_there(&self.runs[*p])).collect()
    }

    fn certificates_for(&self, proposals: &[Proposal]) -> Result<Vec<super::certificates::Certificate>, StartError> {
        let mut all: Vec<ListenerOptions> = self.runs.iter().map(|r| r.options.clone()).collect();
        for proposal in proposals {
            match all.get_mut(proposal.place) {
                Some(old) => *old = proposal.options.clone(),
                None => all.push(proposal.options.clone()),
            }
        }
        all.iter().map(|options| self.certificates.of_options(options)).collect()
    }

    /// Opens the sockets of listeners that are new or move. What a listener gives up goes to the one that takes its address:
    /// the places of those.
    fn open_sources(&self, proposals: &mut [Proposal], gone: &[usize]) -> Result<Vec<usize>, StartError> {
        let moves = |p: &Proposal| {
            self.runs.get(p.place).is_none_or(|run| run.is_gone || run.options.address != p.options.address)
        };
        let moving = proposals.iter().filter(|p| moves(p)).map(|p| p.place).filter(|p| *p < self.runs.len());
        let given_up: Vec<usize> =
            moving.chain(gone.iter().copied()).filter(|p| !self.sources[*p].copies.is_empty()).collect();
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

    fn hand_on(&self, from: usize, to: &ListenerOptions) -> Result<Source, StartError> {
        let copy = || {
            let sockets =
                || self.sources[from].copies.iter().map(socket2::Socket::try_clone).collect::<Result<Vec<_>, _>>();
            let mut source = Source::take_over(&to.address, sockets()?)?;
            (source.copies, source.path) = (sockets()?, self.sources[from].path.clone());
            Ok(source)
        };
        copy().map_err(|error| StartError::Listen { name: to.name.clone(), address: to.address.to_string(), error })
    }

    fn open_streams(&self, new: &Options, report: &mut Report) -> Result<Vec<NewStream>, StartError> {
        let mut streams = Vec::new();
        for settings in new.streams.iter().skip(self.options.streams.len()) {
            if self.options.streams.len() + streams.len() >= self.streams_most() {
                report.restart.push(format!("stream.{} (too many new streams)", settings.name));
                continue;
            }
            let begin = |shard: &Arc<crate::shard::Shard>| {
                let dir = StreamDir::open(
                    Arc::clone(&self.disk),
                    Arc::clone(&self.clock),
                    &self.options.data_dir,
                    self.node,
                    &settings.name,
                    shard.index,
                    settings.reserve_step,
                )?;
                let dir = match &self.options.sealed_dir {
                    Some(sealed) => dir.with_state_in(sealed)?,
                    None => dir,
                };
                let active = dir.begin_first()?;
                Ok((Arc::new(dir), active))
            };
            let begun = self.shards.iter().map(begin).collect::<Result<_, StartError>>()?;
            streams.push(NewStream { settings: settings.clone(), begun });
        }
        Ok(streams)
    }

    fn change_streams(&mut self, new: &Options, streams: Vec<NewStream>, report: &mut Report) {
        for (index, (old, new)) in self.options.streams.iter_mut().zip(&new.streams).enumerate() {
            // Those of which lines may be on their way in the other manner stay as they are.
            let settings = StreamSettings { io: old.io, format: old.format, ..new.clone() };
            if (old.io, old.format) != (new.io, new.format) {
                report.restart.push(format!("stream.{} (`io` or `format`)", old.name));
            }
            if *old != settings {
                report.changed.push(format!("stream {} is stored as it says now", old.name));
                for changes in &self.writer_changes {
                    let options = stored(&settings, self.modes);
                    tell(changes, writer::Change::Alter { stream: index, options }, || {});
                }
                *old = settings;
            }
        }
        for NewStream { settings, begun } in streams {
            report.changed.push(format!("stream {} is new", settings.name));
            for (changes, (dir, active)) in self.writer_changes.iter().zip(begun) {
                let options = stored(&settings, self.modes);
                tell(changes, writer::Change::Open { dir, active: Box::new(active), options }, || {});
            }
            self.options.streams.push(settings);
        }
        let kept = self.options.streams.iter().map(|s| super::housekeeping::kept(s, &self.options)).collect();
        *self.kept.write().unwrap_or_else(std::sync::PoisonError::into_inner) = kept;
        self.shards.iter().for_each(|s| (s.writer)());
    }

    fn limits(&mut self, new: &Options, report: &mut Report) {
        let of = |o: &Options| {
            (
                o.shutdown_timeout,
                o.drain_delay,
                o.tls_handshakes_per_second,
                o.linger,
                o.max_connections.min(self.connections.most()),
            )
        };
        if of(&self.options) != of(new) {
            report.changed.push("limits and times".into());
        }
        self.connections.set_most(new.max_connections);
        let (old, new) = (&mut self.options, new);
        (old.shutdown_timeout, old.drain_delay) = (new.shutdown_timeout, new.drain_delay);
        (old.tls_handshakes_per_second, old.linger) = (new.tls_handshakes_per_second, new.linger);
        old.max_connections = new.max_connections.min(self.connections.most());
    }

    fn change_listeners(
        &mut self,
        proposals: Vec<Proposal>,
        gone: &[usize],
        handed_on: &[usize],
        threads: &mut Threads,
        report: &mut Report,
    ) {
        let mut changed: Vec<usize> = gone.to_vec();
        let mut stopped: Vec<usize> = Vec::new();
        let mut opened: Vec<usize> = Vec::new();
        for place in gone {
            self.runs[*place].is_gone = true;
            report.changed.push(format!("listener {} is gone: its connections end", self.runs[*place].options.name));
            self.give_up(*place, handed_on, &mut stopped);
        }
        // All are given up before any is opened anew: one may have taken what another had.
        for Proposal { place, source, .. } in &proposals {
            if source.is_some() && *place < self.runs.len() {
                self.give_up(*place, handed_on, &mut stopped);
            }
        }
        for Proposal { place, options, source } in proposals {
            let (name, limit) = (options.name.clone(), options.max_connections_per_address);
            let tls = self.certificates.of(place);
            let is_known = place < self.runs.len();
            let addresses = match is_known {
                true => Arc::clone(&self.runs[place].addresses),
                false => Arc::new(AddressLimit::new(limit)),
            };
            addresses.set_most(limit);
            let run = ListenerRun { options, addresses, tls, is_gone: false };
            if is_known {
                self.runs[place] = run;
            } else {
                self.metrics.add_listeners(std::iter::once(name.clone()));
                self.runs.push(run);
            }
            changed.push(place);
            let Some(source) = source else {
                report.changed.push(format!("listener {name} has other options"));
                continue;
            };
            report.changed.push(format!("listener {name} listens on {}", source.address));
            self.manager.keep(&name, source.copies.iter());
            match self.sources.get_mut(place) {
                Some(old) => *old = source,
                None => self.sources.push(source),
            }
            opened.push(place);
        }
        self.options.listeners = self.runs.iter().filter(|r| !r.is_gone).map(|r| r.options.clone()).collect();
        self.tell_reactors(&changed, &stopped, &opened);
        self.tell_acceptor(&stopped, &opened, threads);
    }

    /// A listener's sockets are to be closed, once nobody waits in their queues.
    fn give_up(&mut self, place: usize, handed_on: &[usize], stopped: &mut Vec<usize>) {
        let source = &mut self.sources[place];
        self.manager.forget(&self.runs[place].options.name);
        source.copies.clear();
        if !handed_on.contains(&place) {
            source.remove_file();
        }
        source.path = None;
        stopped.push(place);
    }

    fn tell_reactors(&mut self, changed: &[usize], stopped: &[usize], opened: &[usize]) {
        let change = || Change {
            listeners: Vec::new(),
            stopped: Vec::new(),
            sockets: Vec::new(),
            handshakes_per_second: self.options.tls_handshakes_per_second,
            linger: self.options.linger,
        };
        // Everybody knows the listeners before anybody accepts for them.
        let first: Vec<Change> = self
            .changes
            .iter()
            .map(|_| Change {
                listeners: changed.iter().map(|p| (*p as ListenerId, self.runs[*p].clone())).collect(),
                stopped: stopped.iter().map(|p| *p as ListenerId).collect(),
                ..change()
            })
            .collect();
        let mut second: Vec<Change> = self.changes.iter().map(|_| change()).collect();
        for place in opened {
            for change in &mut second {
                change.sockets.extend(self.sources[*place].per_reactor.pop().map(|s| (*place as ListenerId, s)));
            }
        }
        let wake = || self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::shard::ReactorPort::wake);
        for round in [first, second] {
            self.changes.iter().zip(round).for_each(|(changes, change)| tell(changes, change, wake));
            wake();
        }
    }

    fn tell_acceptor(&mut self, stopped: &[usize], opened: &[usize], threads: &mut Threads) {
        for place in stopped {
            if let Some(acceptor) = &threads.acceptor {
                tell_it(acceptor, acceptor::Change::Stop(*place as ListenerId));
            }
        }
        let mut sockets = Vec::new();
        for place in opened {
            let id = *place as ListenerId;
            if let Some(handed) = self.sources[*place].handed(id) {
                let _ = self.spread.hand(None, handed); // far fewer than an inbox holds
            }
            sockets.extend(self.sources[*place].shared.drain(..).map(|socket| (id, socket)));
        }
        if let Some(acceptor) = &threads.acceptor {
            sockets.into_iter().for_each(|(id, socket)| tell_it(acceptor, acceptor::Change::Listen(id, socket)));
        } else if !sockets.is_empty()
            && let Err(error) = threads.start_acceptor(sockets, &self.spread, &self.control, &self.notices)
        {
            tracing::error!(%error, "no acceptor can be started: nothing is accepted on the new sockets");
        }
    }
}

fn tell_it(acceptor: &acceptor::Handle, change: acceptor::Change) {
    if !acceptor.change(change) {
        tracing::error!("the acceptor takes no changes any more: restart the server");
    }
}

/// Puts a change in a thread's queue; where there is no room, the thread is woken until there is. One that does not go round for
/// seconds is the watchdog's business.
fn tell<T>(changes: &ArrayQueue<T>, mut change: T, wake: impl Fn()) {
    for _ in 0..TRIES {
        match changes.push(change) {
            Ok(()) => return,
            Err(back) => change = back,
        }
        wake();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    tracing::error!("a thread takes no changes any more: restart the server");
}

/// Milliseconds that a change waits for room.
const TRIES: u32 = 5000;
