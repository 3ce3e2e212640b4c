//! Brings log lines to standard error: a bounded queue and one thread. So no serving thread ever waits for the reader of the
//! log or for its disk. Lines that find no room or cannot be written are dropped and counted.

use crate::host::mutants::mutant;
use crossbeam_queue::ArrayQueue;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// How many lines may wait.
const LINES: usize = 1024;
/// How many bytes may wait.
const BYTES: usize = 1 << 20;
/// The longest line; the rest is cut off.
const LONGEST: usize = 16 << 10;
/// Time between two tries while standard error takes nothing.
const AGAIN: Duration = Duration::from_millis(20);
/// Time between two lines that say how many others were dropped.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// See the module documentation.
pub struct Outlet {
    queue: OnceLock<ArrayQueue<Vec<u8>>>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Lines that were not read in time.
    lost: AtomicU64,
    /// Lines that were too many of their kind.
    left_out: AtomicU64,
    thread: OnceLock<Thread>,
}

/// The outlet of this process.
pub static STDERR: Outlet = Outlet {
    queue: OnceLock::new(),
    waiting: AtomicUsize::new(0),
    waiting_bytes: AtomicUsize::new(0),
    lost: AtomicU64::new(0),
    left_out: AtomicU64::new(0),
    thread: OnceLock::new(),
};

impl Outlet {
    /// Puts a line in the queue; never waits.
    pub fn push(&self, mut line: Vec<u8>) {
        if mutant!("log_written_by_whoever_says_it") {
            let _ = io::stderr().write_all(&line);
            return;
        }
        if line.len() > LONGEST {
            line.truncate(LONGEST);
            line.push(b'\n');
        }
        let len = line.len();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let fits = self.waiting_bytes.fetch_add(len, Ordering::AcqRel) + len <= BYTES;
        if !fits || self.queue.get_or_init(|| ArrayQueue::new(LINES)).push(line).is_err() {
            self.gone(len);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    /// Counts a line that was too many of its kind.
    pub fn leave_out(&self) {
        if self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            self.wake(); // it says so after a while
        }
    }

    /// How many lines were not read in time, and how many were too many of their kind.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64) {
        (self.lost.load(Ordering::Relaxed), self.left_out.load(Ordering::Relaxed))
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn gone(&self, len: usize) {
        self.waiting_bytes.fetch_sub(len, Ordering::AcqRel);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Starts the thread that writes. Without it, lines wait.
    ///
    /// # Errors
    /// The thread cannot be started, or there is no descriptor for it.
    pub fn start(&'static self) -> io::Result<()> {
        // Not the handle of the standard library: it has a lock, and a thread that waits in it would make others wait.
        let mut file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let body = move || {
            let (mut said, mut since) = ((0, 0), Duration::ZERO);
            loop {
                while let Some(line) = self.queue.get().and_then(ArrayQueue::pop) {
                    if write(&mut file, &line).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.gone(line.len());
                }
                if self.dropped() == said {
                    since = Duration::ZERO;
                    std::thread::park();
                } else if since < SAY_EVERY {
                    let pause = SAY_EVERY / 60;
                    std::thread::park_timeout(pause);
                    since += pause;
                } else {
                    let (lost, left_out) = self.dropped();
                    tracing::warn!(
                        not_read = lost - said.0,
                        too_many_of_a_kind = left_out - said.1,
                        "lines of this log are missing"
                    );
                    (said, since) = ((lost, left_out), Duration::ZERO);
                }
            }
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(body)?;
        let _ = self.thread.set(thread.thread().clone()); // there is only one start
        self.wake();
        Ok(())
    }

    /// Waits until everything is written, for so long at most.
    pub fn finish(&self, most: Duration) {
        let step = Duration::from_millis(1);
        let mut left = most;
        while self.waiting.load(Ordering::Acquire) > 0 && !left.is_zero() {
            if self.thread.get().is_none() {
                return self.write_out();
            }
            std::thread::park_timeout(step);
            left = left.saturating_sub(step);
        }
    }

    /// Writes the lines that wait if no thread does: a command has failed before the server ran.
    fn write_out(&self) {
        while let Some(line) = self.queue.get().and_then(ArrayQueue::pop) {
            let _ = io::stderr().write_all(&line); // there is nobody left to tell
            self.gone(line.len());
        }
    }
}

/// Writes the whole line, however long the other end takes. It is an error if the other end is gone.
fn write(file: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match file.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => line = &line[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Somebody has made the other end of it non-blocking.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::park_timeout(AGAIN),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// One line on its way into the queue: whole when dropped.
pub struct Line(Option<Vec<u8>>);

impl Line {
    /// An empty one.
    pub fn new() -> Line {
        Line(Some(Vec::with_capacity(256)))
    }

    /// One that goes nowhere.
    pub fn left_out() -> Line {
        Line(None)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.iter_mut().for_each(|line| line.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(line) = self.0.take().filter(|line| !line.is_empty()) {
            STDERR.push(line);
        }
    }
}
