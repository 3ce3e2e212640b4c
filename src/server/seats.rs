//! What each reactor is made of, and how it is started.

use super::certificates::Certificates;
use super::error::StartError;
use super::error::resource;
use super::pin::{Place, spawn};
use crate::config::Options;
use crate::host::clock::Clock;
use crate::host::peer::ListenerId;
use crate::intake::net::Engine;
use crate::intake::reactor::{
    AddressLimit, Books, Changes, ConnectionLimit, ListenerRun, MOST_APART, Reactor, Seat, Setup,
};
use crate::intake::spread::Spread;
use crate::metrics::accounting::Ledger;
use crate::pipeline::chunk::Chunk;
use crate::pipeline::control::{Control, Notice};
use crate::pipeline::shard::Shard;
use crate::session::memory::tail::TailStore;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// What reactors are made of.
pub struct Seats<'a> {
    pub options: &'a Options,
    pub shards: &'a [Arc<Shard>],
    pub control: &'a Arc<Control>,
    pub clock: &'a Arc<dyn Clock>,
    pub notices: &'a Sender<Notice>,
    pub upstream: &'a [Arc<Ledger>],
    pub evictions: &'a [Arc<Ledger>],
    pub connections: &'a Arc<ConnectionLimit>,
    pub spread: &'a Arc<Spread>,
    pub listeners: &'a [ListenerRun],
    pub changes: &'a [Changes],
    /// The admin address, which the first of them serves from the start.
    pub admin: Option<(ListenerId, socket2::Socket)>,
}

/// The listeners as reactors see them at the start.
pub fn listener_runs(options: &Options, certificates: &Certificates) -> Vec<ListenerRun> {
    let ipv6_prefix = options.ipv6_prefix;
    let run = |(i, options): (usize, &crate::intake::listener::ListenerOptions)| ListenerRun {
        options: options.clone(),
        addresses: Arc::new(AddressLimit::new(options.max_connections_per_address, ipv6_prefix)),
        tls: certificates.of(i),
        is_gone: false,
    };
    options.listeners.iter().enumerate().map(run).collect()
}

impl Seats<'_> {
    /// Starts all reactors, each with one of the engines.
    pub fn fill<E: Engine + Send + 'static>(&mut self, engines: Vec<E>) -> Result<(), StartError> {
        let per_shard = self.options.placement.reactors_per_shard;
        for (number, mut engine) in engines.into_iter().enumerate() {
            if let Some((id, socket)) = self.admin.take() {
                engine.listen(id, socket).map_err(resource("watch the admin address"))?;
            }
            let (shard, index) = (number / per_shard, number % per_shard);
            let reactor = Reactor::new(self.setup(engine, number, shard, index)?);
            let body = move || Notice::ReactorEnded(reactor.run().map_err(|e| e.to_string()));
            let plan = &self.options.placement.plan.shards[shard];
            let place = Place { cpus: &plan.reactors[index], node: plan.node };
            spawn(format!("reactor-{number}"), place, self.notices.clone(), body)
                .map_err(resource("start a reactor"))?;
        }
        Ok(())
    }

    fn setup<E: Engine>(&self, engine: E, number: usize, shard: usize, index: usize) -> Result<Setup<E>, StartError> {
        let memory = &self.options.memory;
        let discard = if memory.discards {
            Some(Box::new(Chunk::new(memory.chunk_bytes).map_err(resource("map a buffer"))?))
        } else {
            None
        };
        let scratch = match memory.scratch {
            0 => None,
            bytes => Some(Box::new(Chunk::new(bytes).map_err(resource("map a buffer"))?)),
        };
        let seat = Seat {
            index,
            number,
            spread: Arc::clone(self.spread),
            shard: Arc::clone(&self.shards[shard]),
            control: Arc::clone(self.control),
            clock: Arc::clone(self.clock),
            notices: self.notices.clone(),
            changes: Arc::clone(&self.changes[number]),
        };
        let (upstream, evictions) = (Arc::clone(&self.upstream[number]), Arc::clone(&self.evictions[number]));
        Ok(Setup {
            engine,
            seat,
            books: Books { upstream, evictions },
            listeners: self.listeners.to_vec(),
            handshakes_per_second: self.options.tls_handshakes_per_second,
            connections: Arc::clone(self.connections),
            tails: TailStore::new(memory.tail_budget, memory.tail_reserve, self.connections.most() + MOST_APART)
                .map_err(resource("map tails"))?,
            room: Arc::clone(&self.options.room),
            scratch,
            discard,
            linger: self.options.linger,
        })
    }
}
