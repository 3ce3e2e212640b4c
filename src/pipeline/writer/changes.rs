//! What a reload of the configuration changes in a running writer: new streams, and how streams are stored.

use super::Writer;
use super::batch::Gatherer;
use super::stream::{StreamOptions, StreamWriter};
use crate::log::segment::Segment;
use crate::log::stream_dir::StreamDir;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// One change.
pub enum Change {
    /// A stream behind those that there are, with its first segment.
    Open {
        /// Its directory.
        dir: Arc<StreamDir>,
        /// The segment, begun.
        active: Box<Segment>,
        /// How it is stored.
        options: StreamOptions,
    },
    /// A stream is stored in another way from now on.
    Alter {
        /// Index of the stream.
        stream: usize,
        /// How.
        options: StreamOptions,
    },
}

/// The queue of changes to one writer. The writer must be woken after a change is put in.
pub type Changes = Arc<ArrayQueue<Change>>;

impl Writer {
    pub(super) fn take_changes(&mut self, now: u64) {
        let mut any = false;
        while let Some(change) = self.changes.pop() {
            any = true;
            match change {
                Change::Open { dir, active, options } => {
                    let index = self.streams.len();
                    let stream = StreamWriter::begun(index, dir, options, *active, &mut *self.steward);
                    self.streams.push(stream);
                }
                Change::Alter { stream, options } => {
                    let stream = &mut self.streams[stream];
                    stream.dir.set_reserve_step(options.append.reserve_step);
                    stream.options = options;
                    stream.prepare_if_due(now, &mut *self.steward);
                }
            }
        }
        if any {
            self.gatherer.set_most(Gatherer::most_of(self.streams.iter().map(|s| s.options.segment_bytes)));
        }
    }

    /// Answers a ping, after taking over the changes that came before it. The watchdog and reloads wait for that.
    pub(super) fn answer_ping(&self) {
        let ping = self.control.pings(); // changes that came before it are in the queue
        if self.changes.is_empty() {
            self.shard.writer_answered.set(ping);
        }
    }
}
