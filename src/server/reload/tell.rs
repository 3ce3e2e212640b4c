//! The last step of a reload: tells the threads. Nothing can fail from here on.

use super::super::build::stored;
use super::super::live::Live;
use super::super::sources::access;
use super::super::threads::Threads;
use super::{NewStream, Proposal, Report};
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::host::peer::ListenerId;
use crate::intake::acceptor;
use crate::intake::net::listen;
use crate::intake::reactor::{AddressLimit, Change, ListenerRun};
use crate::pipeline::writer;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::time::Duration;

impl Live {
    pub(super) fn change_streams(&mut self, new: &Options, streams: Vec<NewStream>, report: &mut Report) {
        let shards = self.shards.clone();
        let wake = || shards.iter().for_each(|s| (s.writer)());
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
                    tell(changes, writer::Change::Alter { stream: index, options }, wake);
                }
                *old = settings;
            }
        }
        for NewStream { settings, begun } in streams {
            report.changed.push(format!("stream {} is new", settings.name));
            self.commit_logs.admit(self.options.streams.len(), &settings.name);
            for (changes, (dir, active)) in self.writer_changes.iter().zip(begun) {
                let options = stored(&settings, self.modes);
                tell(changes, writer::Change::Open { dir, active: Box::new(active), options }, wake);
            }
            self.options.streams.push(settings);
        }
        self.change_targets(new, report);
        let kept = self.options.streams.iter().map(|s| super::super::housekeeping::kept(s, &self.options)).collect();
        *self.kept.write().unwrap_or_else(std::sync::PoisonError::into_inner) = kept;
        self.shards.iter().for_each(|s| (s.writer)());
    }

    /// What shippers bring where: here that says what they hold.
    fn change_targets(&mut self, new: &Options, report: &mut Report) {
        let of = |options: &Options, name: &str| options.ship.iter().find(|target| target.name == name).cloned();
        for target in &new.ship {
            match of(&self.options, &target.name) {
                None => report.changed.push(format!("ship.{} is new", target.name)),
                Some(old) if old != *target => report.changed.push(format!("ship.{} is another", target.name)),
                Some(_) => {}
            }
        }
        for gone in self.options.ship.iter().filter(|target| of(new, &target.name).is_none()) {
            report.changed.push(format!("ship.{} is gone: nothing is held for it any more", gone.name));
        }
        self.options.ship.clone_from(&new.ship);
    }

    pub(super) fn limits(&mut self, new: &Options, report: &mut Report) {
        let of = |o: &Options| {
            (
                o.shutdown_timeout,
                o.drain_delay,
                o.tls_handshakes_per_second,
                o.ipv6_prefix,
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
        old.ipv6_prefix = new.ipv6_prefix;
        self.runs.iter().for_each(|r| r.addresses.set(r.options.max_connections_per_address, new.ipv6_prefix));
        old.max_connections = new.max_connections.min(self.connections.most());
    }

    pub(super) fn change_listeners(
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
            let old = self.runs.get(place).map(|r| r.options.socket).filter(|old| *old != options.socket);
            let socket = old.map(|_| (options.address.clone(), access(options.socket)));
            let addresses = match is_known {
                true => Arc::clone(&self.runs[place].addresses),
                false => Arc::new(AddressLimit::new(limit, self.options.ipv6_prefix)),
            };
            addresses.set(limit, self.options.ipv6_prefix);
            let run = ListenerRun { options, addresses, tls, is_gone: false };
            if is_known {
                self.runs[place] = run;
            } else {
                self.metrics.add_listeners(std::iter::once(name.clone()));
                self.runs.push(run);
            }
            changed.push(place);
            let Some(mut source) = source else {
                if let Some(error) = socket.and_then(|(address, access)| listen::give(&address, access).err()) {
                    report.restart.push(format!("listener.{name}.socket_mode, socket_owner or socket_group ({error})"));
                }
                report.changed.push(format!("listener {name} has other options"));
                continue;
            };
            report.changed.push(format!("listener {name} listens on {}", source.address));
            source.keep(&name, self.manager);
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

    /// Tells the threads to close the sockets of a listener, once their queues are empty.
    pub(super) fn give_up(&mut self, place: usize, handed_on: &[usize], stopped: &mut Vec<usize>) {
        let source = &mut self.sources[place];
        source.kept_as.drain(..).for_each(|name| self.manager.forget(&name));
        source.let_go();
        if !handed_on.contains(&place) {
            source.remove_file();
        }
        source.file = None;
        stopped.push(place);
    }

    pub(super) fn tell_reactors(&mut self, changed: &[usize], stopped: &[usize], opened: &[usize]) {
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
        let wake = || self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::pipeline::shard::ReactorPort::wake);
        for round in [first, second] {
            self.changes.iter().zip(round).for_each(|(changes, change)| tell(changes, change, wake));
            wake();
        }
    }

    pub(super) fn tell_acceptor(&mut self, stopped: &[usize], opened: &[usize], threads: &mut Threads) {
        for place in stopped {
            if let Some(acceptor) = &threads.acceptor {
                tell_it(acceptor, acceptor::Change::Stop(*place as ListenerId));
            }
        }
        let mut sockets = Vec::new();
        for place in opened {
            let id = *place as ListenerId;
            self.sources[*place].handed(id).into_iter().for_each(|(to, handed)| self.spread.place(to, handed));
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

/// Puts a change into the queue of a thread. If the queue is full, it wakes the thread until there is room. It gives up on a thread that
/// does not run for seconds; the watchdog looks after that.
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

/// How many milliseconds a change waits for room.
const TRIES: u32 = 5000;
