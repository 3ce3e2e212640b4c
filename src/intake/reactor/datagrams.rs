//! Receives datagrams, many at once, and counts those that were lost before.

use super::parts::lanes::Rest;
use super::serve::Served;
use super::state::Reactor;
use crate::intake::net::{Datagram, Engine, LeaseMark, Outcome};
use crate::metrics::accounting::Reason;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::{Input, Sink, Step};

/// A queue that is never empty is looked at again after this time.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

impl<E: Engine> Reactor<E> {
    /// Receives datagrams, as many at once as there is room for, and lets the session have them one by one.
    pub(super) fn serve_datagrams(&mut self, id: ConnId, listener: usize) -> Served {
        if self.has_space(listener, None).is_none() {
            return Served::NoChunk;
        }
        let Some(mut scratch) = self.between.scratch.take() else { return Served::NoChunk };
        self.between.batch.clear();
        let outcome = self.engine.recv_batch(id, scratch.free(), &mut self.between.batch);
        self.count_lost(id, !matches!(outcome, Outcome::Bytes { more: true, .. }));
        let Outcome::Bytes { len, more } = outcome else {
            self.put_back(scratch, LeaseMark::Scratch);
            return self.without_input(id, &outcome).unwrap_or(Served::Done(0));
        };
        self.count_input(id, len);
        self.take_batch(id, scratch, len, more)
    }

    /// Counts what the kernel has dropped of this socket's queue since the last look: where the queue is empty now, and else now and then.
    /// Asked for each batch it would cost most when there is most to do.
    fn count_lost(&mut self, id: ConnId, is_drained: bool) {
        let now = self.now;
        let Some(conn) = self.conns.get(id) else { return };
        if !is_drained && now - conn.looked_for_drops < LOOK_AGAIN_NS {
            return;
        }
        conn.looked_for_drops = now;
        let dropped = self.engine.dropped(id);
        let Some(conn) = self.conns.get(id) else { return };
        let lost = dropped.wrapping_sub(std::mem::replace(&mut conn.dropped_by_kernel, dropped));
        self.stats().lost_datagrams.add(u64::from(lost));
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
                        let mut sink = Sink::new(&mut []);
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
