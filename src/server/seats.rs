//! The reactors: what each is made of, and its start.

use super::build::resource;
use super::pin::{Place, spawn};
use super::{Certificates, StartError};
use crate::chunk::Chunk;
use crate::clock::Clock;
use crate::config::Options;
use crate::control::{Control, Notice};
use crate::metrics::accounting::Ledger;
use crate::net::{Engine, ListenerId};
use crate::reactor::{AddressLimit, ConnectionLimit, ListenerRun, Reactor, Setup};
use crate::session::tail::TailStore;
use crate::shard::Shard;
use crate::spread::Spread;
use std::collections::HashMap;
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
    pub addresses: &'a [Arc<AddressLimit>],
    pub certificates: &'a Certificates,
    pub tcp: &'a mut HashMap<ListenerId, Vec<socket2::Socket>>,
}

impl Seats<'_> {
    /// Starts all reactors, each with one of these engines.
    pub fn fill<E: Engine + Send + 'static>(&mut self, engines: Vec<E>) -> Result<(), StartError> {
        let per_shard = self.options.placement.reactors_per_shard;
        for (number, mut engine) in engines.into_iter().enumerate() {
            for (id, sockets) in &mut *self.tcp {
                if let Some(socket) = sockets.pop() {
                    engine.listen(*id, socket).map_err(resource("watch a listener"))?;
                }
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
        let listeners = self.options.listeners.iter().zip(self.addresses).enumerate();
        let discard = if memory.discards {
            Some(Box::new(Chunk::new(memory.chunk_bytes).map_err(resource("map a buffer"))?))
        } else {
            None
        };
        Ok(Setup {
            engine,
            index,
            shard: Arc::clone(&self.shards[shard]),
            control: Arc::clone(self.control),
            clock: Arc::clone(self.clock),
            listeners: listeners
                .map(|(i, (options, addresses))| ListenerRun {
                    options: options.clone(),
                    addresses: Arc::clone(addresses),
                    tls: self.certificates.of(i),
                })
                .collect(),
            handshakes_per_second: self.options.tls_handshakes_per_second,
            upstream: Arc::clone(&self.upstream[number]),
            evictions: Arc::clone(&self.evictions[number]),
            connections: Arc::clone(self.connections),
            spread: Arc::clone(self.spread),
            number,
            tails: TailStore::new(memory.tail_budget, memory.tail_reserve).map_err(resource("map tails"))?,
            discard,
            linger: self.options.linger,
            notices: self.notices.clone(),
        })
    }
}
