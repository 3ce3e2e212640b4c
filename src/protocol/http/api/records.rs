//! Where the records of an API's body go.

use crate::host::mutants::mutant;
use crate::metrics::accounting::Reason;
use crate::protocol::http::forms::Forms;
use crate::protocol::http::problem::{self, Problem};
use crate::session::lines::{LineOptions, TooLong};
use crate::session::routes::{Route, Routes, Rules};
use crate::session::write::{Attr, Entry, Format, MARKER_ROOM, Message};
use crate::session::{Frame, Window};

/// The most that is written in one turn, in bytes: others have theirs.
const WORK_MOST: usize = 1 << 20;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// It was taken.
    Done,
    /// It was not, and no other will be in this turn. It must be put again in the next.
    Stop,
    /// It is too long. It was dropped and counted.
    TooLong,
}

/// Why no more records are taken in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The next one needs a fresh chunk.
    Full,
    /// Others have their turn.
    Later,
    /// The request may not go on.
    Never(&'static Problem),
}

/// How the records of a request are taken.
#[derive(Clone, Copy)]
pub struct Taking<'a> {
    /// How long a message may be, and what happens to longer ones.
    pub framing: &'a LineOptions,
    /// Bytes that a record takes at most as it is written.
    pub longest_record: usize,
    /// The streams that it may go to,
    pub routes: &'a Routes,
    /// and which.
    pub rules: &'a Rules,
    /// How it is written.
    pub forms: &'a Forms,
    /// The streams that the client's token is for; `None`: all.
    pub allowed: Option<&'a [u16]>,
    /// What it is acknowledged as.
    pub frame: Frame,
}

/// Takes the records of one request in one turn.
pub struct Records<'a, 'w> {
    taking: Taking<'a>,
    window: &'a mut Window<'w>,
    written: usize,
    stopped: Option<Stopped>,
}

impl<'a, 'w> Records<'a, 'w> {
    /// For one turn.
    pub fn new(taking: Taking<'a>, window: &'a mut Window<'w>) -> Records<'a, 'w> {
        Records { taking, window, written: 0, stopped: None }
    }

    /// The time: nanoseconds since 1970, and monotonic ones.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        (self.window.around.wall_ns, self.window.around.now_ns)
    }

    /// The stream of a record with these values of [`super::ATTRIBUTES`].
    #[must_use]
    pub fn route<V: AsRef<[u8]>>(&self, value: impl Fn(usize) -> V) -> &'a Route {
        self.taking.rules.find(value).unwrap_or(self.taking.routes.own())
    }

    /// Takes a record.
    pub fn put(&mut self, route: &Route, attrs: &[Attr<'_>], message: Message<'_>) -> Put {
        if self.stopped.is_some() {
            return Put::Stop;
        }
        if self.taking.allowed.is_some_and(|allowed| !allowed.contains(&route.index)) {
            return self.stop(Stopped::Never(&problem::FORBIDDEN));
        }
        if self.written > WORK_MOST {
            return self.stop(Stopped::Later);
        }
        let framing = self.taking.framing;
        let cut = match framing.too_long {
            _ if message.sent().len() <= framing.max_line_bytes => Some((message, 0)),
            TooLong::Truncate => message.cut(framing.max_line_bytes.saturating_sub(MARKER_ROOM)),
            TooLong::Drop | TooLong::Close => None,
        };
        let Some((message, cut)) = cut else { return self.drop(message) };
        let message = if route.format == Format::Json { message.looked_at() } else { message };
        let entry = Entry { attrs, message, cut, wall_ns: self.window.around.wall_ns };
        let sink = &mut self.window.sink;
        sink.to(Some(route.index), self.taking.frame);
        // However large the chunk is: what is too long does not depend on how full it was.
        let most = self.taking.longest_record;
        let room = sink.room().min(most);
        match self.taking.forms.of(route.format).render_entry(&entry, &mut sink.free()[..room]) {
            Some(len) => {
                sink.commit(len, 1);
                self.written += len;
                if cut > 0 {
                    sink.cut(cut as u64);
                }
                if route.format == Format::Json && entry.is_replaced() {
                    sink.replaced();
                }
                Put::Done
            }
            None if room < most && mutant!("record_lost_at_the_end_of_a_chunk") => Put::Done,
            None if room < most => self.stop(Stopped::Full),
            None => self.drop(message),
        }
    }

    /// Bytes that a record takes at most as it is written.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.taking.longest_record
    }

    /// Drops and counts a record of so many bytes, as it was sent, if it would be too long however it is written: then nothing of it need
    /// be looked at.
    pub fn is_hopeless(&mut self, bytes: usize) -> bool {
        let is_hopeless = bytes > self.taking.longest_record;
        if is_hopeless {
            self.window.sink.drop_record(Reason::TooLong, bytes as u64);
        }
        is_hopeless
    }

    fn stop(&mut self, why: Stopped) -> Put {
        self.stopped = Some(why);
        Put::Stop
    }

    fn drop(&mut self, message: Message<'_>) -> Put {
        self.window.sink.drop_record(Reason::TooLong, message.sent().len() as u64);
        Put::TooLong
    }

    /// Why no more were taken, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Bytes that were written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }
}
