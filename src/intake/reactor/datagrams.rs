//! Receives datagrams, many at once, and counts those that were lost before.

use super::parts::lanes::Rest;
use super::serve::Served;
use super::state::Reactor;
use crate::host::peer::Peer;
use crate::intake::net::{Datagram, Engine, Kind, LeaseMark, Outcome};
use crate::metrics::accounting::Reason;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::{ANY_PARTS, Input, Sink, Step};

/// A queue that does not get empty is looked at after this time.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// The least memory that the kernel takes for a datagram: its own two structures beside the bytes (`SKB_TRUESIZE`, Linux 6.1: 576).
const LEAST_HELD: usize = 512;
/// Datagrams that may wait in a Unix socket: some more than `net.unix.max_dgram_qlen` is anywhere.
const UNIX_QUEUE: usize = 4096;

impl<E: Engine> Reactor<E> {
    /// Receives datagrams, as many at once as there is room for, and lets the session have them one by one.
    pub(super) fn serve_datagrams(&mut self, id: ConnId, listener: usize) -> Served {
        if self.conns.get(id).is_some_and(|conn| conn.leaving == Some(0)) {
            // What came since belongs to nobody. Whoever does not pause would keep the socket for ever.
            return self.without_input(id, &Outcome::Empty).unwrap_or(Served::Done(0));
        }
        if self.has_space(listener, None).is_none() {
            return Served::NoChunk;
        }
        let Some(mut scratch) = self.between.scratch.take() else { return Served::NoChunk };
        self.between.batch.clear();
        let outcome = self.engine.recv_batch(id, scratch.free(), &mut self.between.batch);
        if !matches!(outcome, Outcome::Bytes { more: true, .. }) {
            self.count_lost(id); // asked for each batch it would cost most when there is most to do
        }
        if let Some(left) = self.conns.get(id).and_then(|conn| conn.leaving.as_mut()) {
            *left = left.saturating_sub(self.between.batch.len());
        }
        let Outcome::Bytes { len, more } = outcome else {
            self.put_back(scratch, LeaseMark::Scratch);
            return self.without_input(id, &outcome).unwrap_or(Served::Done(0));
        };
        self.count_input(id, len);
        self.even_out(id, more);
        self.take_batch(id, scratch, len, more)
    }

    /// Counts who has sent the batch, and has the kernel give a busy sender to another socket where that helps.
    fn even_out(&mut self, id: ConnId, more: bool) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(place) = conn.place.as_mut().filter(|_| conn.leaving.is_none()) else { return };
        let batch = &self.between.batch;
        let sender = |place: usize| match batch.get(place)?.sender {
            Peer::Ip(sender) => Some(sender),
            Peer::Local => None,
        };
        let Some((sender, socket)) = place.received(batch.len(), sender, more, self.now) else { return };
        let listener = &self.listeners[usize::from(conn.listener)].options.name;
        tracing::info!(listener, %sender, socket, "a busy sender goes to another reactor from now on");
        self.stats().steered.add(1);
    }

    /// A datagram socket is given up: only what waits in it now is read yet.
    pub(super) fn leave(&mut self, id: ConnId) {
        let Some(kind) = self.conns.get(id).filter(|conn| conn.leaving.is_none()).map(|conn| conn.kind) else { return };
        if !kind.is_datagram() {
            return;
        }
        self.count_lost(id);
        let most = self.engine.queue(id).map_or(UNIX_QUEUE, |queue| queue.held as usize / LEAST_HELD + 1);
        if let Some(conn) = self.conns.get(id) {
            conn.leaving = Some(most);
        }
    }

    /// Counts what the kernel has dropped of a socket's queue since the last look.
    fn count_lost(&mut self, id: ConnId) {
        // One that is given up may be another listener's.
        if self.conns.get(id).is_none_or(|conn| conn.leaving.is_some()) {
            return;
        }
        let (Some(queue), Some(conn)) = (self.engine.queue(id), self.conns.get(id)) else { return };
        let lost = conn.counted.as_ref().map_or(0, |counted| counted.count(queue.dropped));
        if let (1.., Some(place)) = (lost, &mut conn.place) {
            place.lost(u64::from(lost));
        }
        self.stats().lost_datagrams.add(u64::from(lost));
    }

    /// Something waits in a socket: it is looked at in a while, whether or not somebody has found its queue empty until then.
    pub(super) fn will_look_for_drops(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.kind == Kind::Udp && !std::mem::replace(&mut conn.looks_for_drops, true) {
            self.timers.drops.push(self.now + LOOK_AGAIN_NS, id);
        }
    }

    /// Looks at the sockets that are due.
    pub(super) fn look_for_drops(&mut self) {
        while let Some((_, id)) = self.timers.drops.pop_due(self.now) {
            self.count_lost(id);
            let Some(conn) = self.conns.get(id) else { continue };
            conn.looks_for_drops = false;
            if conn.queued {
                self.will_look_for_drops(id);
            }
        }
    }

    /// Lets the session have the datagrams of the batch.
    pub(super) fn take_batch(&mut self, id: ConnId, mut scratch: Box<Chunk>, received: usize, more: bool) -> Served {
        let mut batch = std::mem::take(&mut self.between.batch);
        let mut served = if more { Served::More(received) } else { Served::Done(received) };
        let mut place = 0;
        while place < batch.len() {
            let Some(listener) = self.conns.get(id).filter(|c| !c.ended).map(|c| usize::from(c.listener)) else {
                break;
            };
            let Some((mut chunk, mark)) = self.space(listener, None) else {
                let rest = Rest::of_datagrams(id, scratch.free(), &batch[place..]);
                self.lanes.keep_rest(listener, rest);
                served = Served::Stuck;
                break;
            };
            if chunk.room() == 0 {
                self.retire(chunk, mark); // it cannot describe more runs
                continue;
            }
            let Datagram { start, len, cut, sender } = batch[place];
            let input = Input::Datagram { bytes: &mut scratch.free()[start..start + len], cut, sender: &sender };
            let Some(entered) = self.enter(id, &mut chunk, mark, input) else {
                self.put_back(chunk, mark);
                break;
            };
            match entered.step {
                // Its rest comes again with a fresh chunk, which holds the longest record.
                Step::Full(taken) if taken > 0 || entered.is_found || !chunk.is_empty() => {
                    (batch[place].start, batch[place].len) = (start + taken, len - taken);
                    self.retire(chunk, mark);
                }
                step => {
                    place += 1;
                    if let Step::Full(_) = step {
                        // Were a chunk too small for its longest record, waiting would not help.
                        let mut sink = Sink::new(&mut [], ANY_PARTS);
                        sink.drop_record(Reason::TooLong, len as u64);
                        self.book(id, &mut chunk, &sink.found(), mark);
                    }
                    self.put_back(chunk, mark);
                    // A rule that one sender broke ends his datagram. The socket is everybody's.
                    served = self.entered(id, Step::Continue, mark, &entered, received, more);
                }
            }
        }
        self.put_back(scratch, LeaseMark::Scratch);
        batch.clear();
        self.between.batch = batch;
        served
    }
}
