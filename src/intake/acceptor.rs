//! One thread that accepts connections for all reactors, where the kernel cannot spread them: Unix sockets have no
//! SO_REUSEPORT, and the service manager passes one socket, not one for each reactor. Each connection goes to the reactor with
//! the fewest.

use crate::host::peer::ListenerId;
use crate::intake::net::{Engine, EpollEngine, Event};
use crate::intake::spread::Handed;
use crate::intake::spread::Spread;
use crate::pipeline::control::Control;
use crossbeam_queue::ArrayQueue;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time before accepting is tried again after descriptors ran out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Milliseconds that an acceptor which is to end waits for room at a reactor, and that a change waits for room at an acceptor.
const TRIES_AT_THE_END: u32 = 1000;

/// What a reload of the configuration changes.
pub enum Change {
    /// Accept from this socket too.
    Listen(ListenerId, socket2::Socket),
    /// Accept what waits at this listener, and then no more.
    Stop(ListenerId),
}

/// Changes that may wait: more than a reload brings, and the sender waits for room.
const CHANGES: usize = 64;

/// Tells an acceptor what to do.
pub struct Handle {
    flag: Arc<AtomicBool>,
    changes: Arc<ArrayQueue<Change>>,
    waker: Box<dyn Fn() + Send + Sync>,
}

impl Handle {
    /// Gives it a change. Returns false if the acceptor does not run any more; its end is reported elsewhere.
    pub fn change(&self, mut change: Change) -> bool {
        for _ in 0..TRIES_AT_THE_END {
            match self.changes.push(change) {
                Ok(()) => {
                    (self.waker)();
                    return true;
                }
                Err(back) => change = back,
            }
            (self.waker)();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        false
    }

    /// Lets it hand over the connections in its accept queues, close them, and end.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::SeqCst);
        (self.waker)();
    }
}

/// The acceptor of all listeners whose sockets are shared by the reactors.
pub struct Acceptor {
    engine: EpollEngine,
    listeners: Vec<ListenerId>,
    spread: Arc<Spread>,
    stop: Arc<AtomicBool>,
    changes: Arc<ArrayQueue<Change>>,
}

impl Acceptor {
    /// An acceptor for these sockets.
    ///
    /// # Errors
    /// They cannot be watched.
    pub fn new(sockets: Vec<(ListenerId, socket2::Socket)>, spread: Arc<Spread>) -> io::Result<(Acceptor, Handle)> {
        let mut engine = EpollEngine::new(0)?;
        let listeners = sockets.iter().map(|(id, _)| *id).collect();
        for (id, socket) in sockets {
            engine.listen(id, socket)?;
        }
        let flag = Arc::new(AtomicBool::new(false));
        let changes = Arc::new(ArrayQueue::new(CHANGES));
        let handle = Handle { flag: Arc::clone(&flag), changes: Arc::clone(&changes), waker: engine.waker() };
        Ok((Acceptor { engine, listeners, spread, stop: flag, changes }, handle))
    }

    /// Runs until stopped.
    ///
    /// # Errors
    /// The engine broke.
    pub fn run(mut self, control: &Control) -> io::Result<()> {
        let mut events = Vec::new();
        let mut failed: Vec<ListenerId> = Vec::new();
        loop {
            let timeout = (!failed.is_empty()).then_some(ACCEPT_AGAIN);
            self.engine.wait(timeout, &mut events)?;
            let stopping = self.stop.load(Ordering::SeqCst);
            failed.drain(..).for_each(|id| self.engine.retry_accept(id));
            self.take_changes(&mut events);
            if stopping {
                for id in std::mem::take(&mut self.listeners) {
                    self.engine.stop_listening(id, &mut events);
                }
            }
            for event in events.drain(..) {
                match event {
                    Event::Accepted { listener, socket, peer } => {
                        self.hand_on(Handed { listener, socket, peer, moved: None }, control);
                    }
                    Event::AcceptFailed { listener, error } => {
                        tracing::warn!(%error, "cannot accept on a Unix socket; trying again shortly");
                        failed.push(listener);
                    }
                    _ => {}
                }
            }
            if stopping {
                return Ok(());
            }
        }
    }

    fn take_changes(&mut self, events: &mut Vec<Event>) {
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Stop(id) => {
                    self.engine.stop_listening(id, events);
                    self.listeners.retain(|other| *other != id);
                }
                Change::Listen(id, socket) => match self.engine.listen(id, socket) {
                    Ok(()) => self.listeners.push(id),
                    Err(error) => {
                        tracing::error!(%error, "a new socket cannot be watched: nothing is accepted from it")
                    }
                },
            }
        }
    }

    fn hand_on(&mut self, mut handed: Handed, control: &Control) {
        let mut tries_at_the_end = 0;
        while let Err(back) = self.spread.hand(None, handed) {
            // The inbox of the least loaded reactor holds a thousand: it is stuck, and so is accepting.
            handed = back;
            tries_at_the_end += u32::from(self.stop.load(Ordering::SeqCst));
            if control.reactors_abandoned() || tries_at_the_end > TRIES_AT_THE_END {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}
