//! Room for unfinished lines and requests: which connections wait for it, which may go on all the same, and which one ends so
//! that the others can. This is what the reactor does.

use super::parts::between::Between;
use super::parts::conns::Conn;
use super::parts::relief::{PAUSE_NS, Starved};
use super::state::Reactor;
use crate::host::mutants::mutant;
use crate::host::peer::ListenerId;
use crate::intake::net::Engine;
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::ConnId;
use crate::session::Waiting;
use crate::session::memory::room::{GRACE_NS, Weight};
use crate::session::memory::tail::BLOCK;

impl<E: Engine> Reactor<E> {
    /// Lets those who wait for room try again when there is some for them; else the oldest partial line gets the lane.
    pub(super) fn feed_starved(&mut self) {
        if self.between.relief.starved.is_empty() {
            return;
        }
        if std::mem::replace(&mut self.between.relief.fed, self.between.tails.given_back())
            != self.between.tails.given_back()
        {
            let Between { tails, relief, .. } = &mut self.between;
            let (conns, ready, now) = (&mut self.conns, &mut self.queue.ready, self.now);
            relief.starved.retain(|Starved { id, .. }| {
                let Some(conn) = conns.get(*id) else { return false };
                conn.is_starved = tails.allowance(&conn.tail, false) == 0;
                if !conn.is_starved {
                    ready.push(conn.listener, *id, now);
                }
                conn.is_starved
            });
        }
        if let Some(place) = self.lane_candidate()
            && let Some(Starved { id, .. }) = self.between.relief.starved.remove(place)
            && let Some(conn) = self.conns.get(id)
        {
            conn.is_starved = false;
            self.queue.ready.push(conn.listener, id, self.now);
            (self.between.relief.lane, self.between.relief.lane_found) = (Some(id), conn.tail.charged());
        }
    }

    /// Which of the starved gets the lane, if it is free: the oldest of the client that holds the least. So a client that holds much
    /// delays only itself.
    fn lane_candidate(&mut self) -> Option<usize> {
        if self.between.relief.lane.is_some() {
            return None;
        }
        let mut first: Option<((usize, u64), usize)> = None;
        for (place, Starved { id, .. }) in self.between.relief.starved.iter().enumerate() {
            let begun = |c: &Conn| !c.tail.is_empty() || c.waiting() == Waiting::Line;
            let Some(conn) = self.conns.get(*id).filter(|c| begun(c) && c.times.line_since > 0) else { continue };
            let key = (self.between.tails.shares(&conn.tail).by_client, conn.times.line_since);
            if first.is_none_or(|(before, _)| key < before) {
                first = Some((key, place));
            }
        }
        first.map(|(_, place)| place)
    }

    /// True if [`Reactor::feed_starved`] would do something.
    pub(super) fn can_feed(&mut self) -> bool {
        !self.between.relief.starved.is_empty()
            && (self.between.relief.fed != self.between.tails.given_back() || self.lane_candidate().is_some())
    }

    /// When the first of those who wait for room, and for nothing else, has waited long enough for somebody else to end.
    pub(super) fn relief_due_at(&self) -> Option<u64> {
        let mut waiting = self.between.relief.starved.iter();
        let first = waiting.find_map(|s| Some(s.since_ns.max(self.went_on_at(s.listener)?)));
        first.map(|since| (since + GRACE_NS).max(self.between.relief.relieved_ns + PAUSE_NS))
    }

    /// Since when the connections of a listener do not wait for a chunk. `None`: they wait for one now, which is not their fault.
    fn went_on_at(&self, listener: ListenerId) -> Option<u64> {
        let lane = &self.lanes.all[self.lanes.of[usize::from(listener)]];
        (!lane.blocked).then_some(lane.unblocked_ns)
    }

    /// Ends the greatest holder if a connection has waited long enough, or got no memory for decoding.
    pub(super) fn relieve(&mut self) {
        if self.relief_due_at().is_some_and(|at| at <= self.now) && !mutant!("holders_never_end") {
            self.between.relief.relieved_ns = self.now;
            let (mut freed, wanted) = (0, self.between.tails.useful());
            for (id, blocks) in self.heaviest_first() {
                self.end_for_others(id, blocks * BLOCK);
                freed += blocks;
                if freed >= wanted {
                    break; // many small ones are in the way as much as a large one
                }
            }
        }
        if let Some((owner, bytes)) = self.between.relief.decoding.relieve(self.now) {
            let name = &self.listeners[usize::from(owner.listener)].options.name;
            tracing::debug!(
                listener = name,
                bytes,
                "a request must give its decoding memory back, because others need it"
            );
            self.seat.spread.wake_all();
        }
        if self.between.relief.is_called() {
            self.between.relief.called_in = self.between.relief.decoding.called_in();
            let called: Vec<ConnId> =
                self.conns.iter().filter(|(_, c)| c.state().is_called_in).map(|(id, _)| id).collect();
            called.into_iter().for_each(|id| self.end_for_others(id, 0));
        }
    }

    /// The connections whose partial lines hold the most while others wait, and the blocks of the budget that they hold.
    fn heaviest_first(&self) -> Vec<(ConnId, usize)> {
        let weight = |c: &Conn| {
            let since = c.times.holds_since.max(self.went_on_at(c.listener)?);
            Weight::of(self.between.tails.shares(&c.tail), c.tail.charged(), since, self.now)
        };
        let weighed = self.conns.iter().filter_map(|(id, c)| Some((weight(c)?, id, c.tail.charged())));
        let mut weighed: Vec<_> = weighed.collect();
        weighed.sort_unstable_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
        weighed.into_iter().map(|(_, id, blocks)| (id, blocks)).collect()
    }

    fn end_for_others(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.conns.get(id) else { return };
        let name = &self.listeners[usize::from(conn.listener)].options.name;
        self.told.ended_for_others(self.now, (conn.listener, name), &conn.peer, bytes);
        self.break_off(id, Reason::NoRoom, Some(Refused::NoRoom));
        if let Some(conn) = self.conns.get(id) {
            self.answers.mark(conn, id);
        }
    }
}
