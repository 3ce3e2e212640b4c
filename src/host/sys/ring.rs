//! An io_uring, and the memory that the kernel reads and writes through it, with one owner.
//!
//! It is sound because of one rule. Memory goes to the kernel by being moved into this type, and no other code gets a reference
//! to it before the last completion of the operation. Provided buffers can be read only from the completion that names them
//! until [`Ring::give_back`]. The bytes of a send and the memory of a write come back with its completion. When the ring is
//! dropped, it cancels every operation and waits for its end. If that fails, the memory is leaked rather than freed.

use super::arena::Piece;
use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use memmap2::{MmapMut, MmapRaw};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Operations that may be queued between two submissions; more cause one in between.
const SUBMISSIONS: u32 = 512;
/// Completions that may wait to be looked at; more are kept by the kernel (`IORING_FEAT_NODROP`), which ends multishots.
const COMPLETIONS: u32 = 4096;
/// The one group of provided buffers.
const GROUP: u16 = 0;
/// Completions that a batching wait asks for, and how long it waits for so many. Longer was not better; shorter wakes more
/// often (docs/decisions.md).
const BATCH: usize = 64;
const BATCH_WAIT: Duration = Duration::from_micros(50);
/// Time that the kernel gets at the end to complete what was cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(2);
const CANCEL_STEP: Duration = Duration::from_millis(20);

/// Kinds of operations. One of each kind may be under way for one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`Ring::accept_multi`]
    Accept,
    /// [`Ring::recv_multi`]
    Recv,
    /// [`Ring::poll_multi`]
    Poll,
    /// [`Ring::watch_waker`]
    Wake,
    /// [`Ring::send`]
    Send,
    /// [`Ring::cancel`]
    Cancel,
    /// [`Ring::write`]
    Write,
}

const OPS: [Op; 7] = [Op::Accept, Op::Recv, Op::Poll, Op::Wake, Op::Send, Op::Cancel, Op::Write];

fn token(op: Op, index: u32) -> u64 {
    (op as u64) << 32 | u64::from(index)
}

/// A completion.
#[derive(Debug)]
pub struct Done {
    /// What was done.
    pub op: Op,
    /// For whom: the index that the operation was given.
    pub index: u32,
    /// As the system call would return it; negative: an errno.
    pub result: i32,
    /// More completions of this operation follow.
    pub more: bool,
    /// The provided buffer that was filled; to be given back.
    pub buffer: Option<u16>,
    /// The connection, where the operation was an accept.
    pub accepted: Option<OwnedFd>,
    /// The bytes of a send that is over, and whether all of them were sent.
    pub sent: Option<(Vec<u8>, bool)>,
    /// The memory of a write that is over.
    pub written: Option<Piece>,
}

/// See the module documentation. All operations take effect with the next [`Ring::wait`]; descriptors must stay open until then.
pub struct Ring {
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    /// Bytes of sends that are under way, and where they begin, by index.
    sends: ManuallyDrop<HashMap<u32, (Vec<u8>, usize)>>,
    /// Memory of writes that are under way, by index.
    writes: ManuallyDrop<HashMap<u32, Piece>>,
    /// Operations whose last completion has not been seen.
    under_way: usize,
    /// What found no place in the submission queue.
    backlog: VecDeque<Entry>,
    enabled: bool,
    /// `IORING_FEAT_MIN_TIMEOUT` (Linux 6.12)
    has_min_wait: bool,
}

impl Ring {
    /// A ring with `count` (a power of two, at most 32,768) provided buffers of `bytes` each. It belongs to the thread that
    /// first waits on it.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or lacks what is asked for (Linux 6.1: `IORING_SETUP_DEFER_TASKRUN`).
    pub fn new(count: u16, bytes: usize) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled() // the thread that enables it is the single issuer
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old"));
        }
        let buffers = Buffers::new(count, bytes)?;
        // SAFETY: the entries are a page-aligned mapping of `count` entries; `Ring` frees it only after the ring is gone.
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.entries.as_mut_ptr() as u64, count, GROUP, 0)? };
        let has_min_wait = ring.params().is_feature_min_timeout();
        let mut ring = Ring {
            has_min_wait,
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            sends: ManuallyDrop::default(),
            writes: ManuallyDrop::default(),
            under_way: 0,
            backlog: VecDeque::new(),
            enabled: false,
        };
        (0..count).for_each(|id| ring.buffers.provide(id));
        Ok(ring)
    }

    /// Accepts connections, non-blocking ones, until cancelled or failed; each completion brings one.
    pub fn accept_multi(&mut self, socket: BorrowedFd<'_>, index: u32) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(flags).build();
        self.push(entry.user_data(token(Op::Accept, index)));
    }

    /// Receives into provided buffers until cancelled, ended or out of buffers.
    pub fn recv_multi(&mut self, socket: BorrowedFd<'_>, index: u32) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
        self.push(entry.user_data(token(Op::Recv, index)));
    }

    /// Completes each time one of these events comes (poll(2)), until cancelled or failed: edge-triggered.
    pub fn poll_multi(&mut self, socket: BorrowedFd<'_>, events: u32, index: u32) {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events).multi(true).build();
        self.push(entry.user_data(token(Op::Poll, index)));
    }

    /// Completes with [`Op::Wake`] each time somebody writes to an eventfd.
    pub fn watch_waker(&mut self, eventfd: BorrowedFd<'_>) {
        let entry = opcode::PollAdd::new(Fd(eventfd.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(entry.user_data(token(Op::Wake, 0)));
    }

    /// Sends all of `bytes` from `from` on, however long that takes; its completion gives them back.
    ///
    /// # Panics
    /// If a send is under way for this index: a bug of the caller.
    pub fn send(&mut self, socket: BorrowedFd<'_>, bytes: Vec<u8>, from: usize, index: u32) {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let rest = &bytes[from..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        // A vector's bytes stay where they are when the vector moves, and nobody touches them while they are in the map.
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), rest.as_ptr(), len).flags(flags).build();
        assert!(!self.sends.contains_key(&index), "one send at a time per index");
        self.sends.insert(index, (bytes, from));
        self.push(entry.user_data(token(Op::Send, index)));
    }

    /// Writes the first `len` bytes of a piece of memory to a file at an offset (pwrite(2)); its completion gives the memory back. With
    /// `O_DIRECT` the memory is aligned to pages, and `len` and `offset` must be to the device's blocks.
    ///
    /// # Panics
    /// If a write is under way for this index, or the piece is shorter: a bug of the caller.
    pub fn write(&mut self, file: BorrowedFd<'_>, memory: Piece, len: usize, offset: u64, index: u32) {
        let bytes = &memory[..len];
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // The mapping stays where it is when its owner moves, and nobody touches it while that is in the map.
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), len).offset(offset).build();
        assert!(!self.writes.contains_key(&index), "one write at a time per index");
        self.writes.insert(index, memory);
        self.push(entry.user_data(token(Op::Write, index)));
    }

    /// Ends an operation early; it completes all the same.
    pub fn cancel(&mut self, op: Op, index: u32) {
        let entry = opcode::AsyncCancel::new(token(op, index)).build();
        self.push(entry.user_data(token(Op::Cancel, index)));
    }

    fn push(&mut self, entry: Entry) {
        self.under_way += 1;
        self.backlog.push_back(entry);
        self.move_backlog();
    }

    fn move_backlog(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: what the entry points to is owned by this struct until the operation's last completion: provided
            // buffers, the bytes of sends and the memory of writes. Accept, poll and cancel point to nothing.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits what was asked for, waits for a completion, at most `timeout` (`None`: for ever), and runs what the kernel has
    /// put off (`IORING_SETUP_DEFER_TASKRUN`). No system call where there is nothing to submit, wait for or run.
    ///
    /// With `batch` (Linux 6.12) it waits for 64 completions, but for no more than 50 µs, and only then for any.
    ///
    /// # Errors
    /// The ring is broken, or another thread owns it.
    pub fn wait(&mut self, timeout: Option<Duration>, batch: bool) -> io::Result<()> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        loop {
            self.move_backlog();
            let (to_submit, is_due) = {
                let queue = self.ring.submission();
                (queue.len(), queue.taskrun() || queue.cq_overflow())
            };
            let ready = !self.ring.completion().is_empty();
            let no_wait = ready || !self.backlog.is_empty() || timeout == Some(Duration::ZERO);
            if no_wait && to_submit == 0 && !is_due && self.backlog.is_empty() {
                return Ok(());
            }
            let limit = if no_wait { Duration::ZERO } else { timeout.unwrap_or(Duration::from_secs(3600)) };
            let limit = Timespec::new().sec(limit.as_secs()).nsec(limit.subsec_nanos());
            let result = if no_wait {
                // With nothing to wait for, the kernel still runs what it has put off: GETEVENTS.
                let submitter = self.ring.submitter();
                // SAFETY: no argument is passed, and without one the call touches no memory of ours.
                unsafe { submitter.enter::<libc::sigset_t>(to_submit as u32, 0, ENTER_GETEVENTS, None) }
            } else {
                let args = SubmitArgs::new().timespec(&limit);
                if batch && self.has_min_wait {
                    let args = args.min_wait_usec(BATCH_WAIT.subsec_micros());
                    self.ring.submitter().submit_with_args(BATCH, &args)
                } else {
                    self.ring.submitter().submit_with_args(1, &args)
                }
            };
            match result {
                Ok(_) => {}
                // ETIME: nothing came. EBUSY, EAGAIN: completions must be taken first, or memory is short for now.
                Err(e) => match e.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(e),
                },
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether completions wait already, or what makes them does.
    pub fn is_due(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// The next completion.
    pub fn next_done(&mut self) -> Option<Done> {
        let entry = self.ring.completion().next()?;
        let more = cqueue::more(entry.flags());
        self.under_way -= usize::from(!more);
        let buffer = cqueue::buffer_select(entry.flags());
        if let Some(id) = buffer {
            self.buffers.taken(id);
        }
        let (op, result) = (OPS[(entry.user_data() >> 32) as usize % OPS.len()], entry.result());
        let accepted = (op == Op::Accept && result >= 0).then(|| {
            // SAFETY: the kernel made this descriptor for this completion of an accept, which is seen once.
            unsafe { OwnedFd::from_raw_fd(result) }
        });
        let index = entry.user_data() as u32;
        let sent = if op == Op::Send { self.sends.remove(&index) } else { None };
        let sent = sent.map(|(bytes, from)| {
            let is_whole = usize::try_from(result).is_ok_and(|n| from + n == bytes.len());
            (bytes, is_whole)
        });
        let written = if op == Op::Write { self.writes.remove(&index) } else { None };
        Some(Done { op, index, result, more, buffer, accepted, sent, written })
    }

    /// The first `len` bytes of a buffer that a completion named.
    ///
    /// # Panics
    /// If none did, or it was given back: a bug of the caller.
    #[must_use]
    pub fn buffer(&self, id: u16, len: usize) -> &[u8] {
        self.buffers.read(id, len)
    }

    /// Provided buffers that no completion looked at so far has taken.
    #[must_use]
    pub fn buffers_left(&self) -> usize {
        self.buffers.left
    }

    /// Lets the kernel fill a buffer again.
    ///
    /// # Panics
    /// If it was not taken by a completion: a bug of the caller.
    pub fn give_back(&mut self, id: u16) {
        assert!(std::mem::take(&mut self.buffers.held[usize::from(id)]), "buffer {id} was not taken");
        self.buffers.left += 1;
        self.buffers.provide(id);
    }
}

/// `IORING_ENTER_GETEVENTS` (`include/uapi/linux/io_uring.h`).
const ENTER_GETEVENTS: u32 = 1;

impl Ring {
    /// Cancels everything and waits for it to end, for no longer than [`CANCEL_TIME`].
    fn cancel_all(&mut self) {
        if !self.enabled {
            return;
        }
        // Failures of the waits do not matter: the count shows whether something goes on.
        for _ in 0..CANCEL_TIME.as_millis() / CANCEL_STEP.as_millis() {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(entry.user_data(token(Op::Cancel, 0)));
            let _ = self.wait(Some(CANCEL_STEP), false);
            // Deferred work is run a few pieces at a time: as long as completions come, there may be more.
            while self.next_done().is_some() {
                while self.next_done().is_some() {}
                let _ = self.wait(Some(Duration::ZERO), false);
            }
            if self.under_way == 0 {
                return;
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.cancel_all();
        // SAFETY: dropped here and nowhere else, the ring first; it is not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if self.enabled && self.under_way > 0 {
            tracing::error!(self.under_way, "the kernel did not end its operations; their memory is leaked");
            return; // leaked: the kernel may still write to it
        }
        // SAFETY: as above; no operation is under way, so the kernel neither reads nor writes this memory any more.
        unsafe {
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.sends);
            ManuallyDrop::drop(&mut self.writes);
        }
    }
}

/// Buffers that the kernel chooses from (`io_uring_register_buf_ring(3)`).
struct Buffers {
    /// The ring through which they are handed to the kernel.
    entries: MmapRaw,
    memory: MmapRaw,
    bytes: usize,
    tail: u16,
    mask: u16,
    /// Filled by the kernel, and not given back to it: ours to read.
    held: Vec<bool>,
    /// Those that are not held.
    left: usize,
}

impl Buffers {
    fn new(count: u16, bytes: usize) -> io::Result<Buffers> {
        if !count.is_power_of_two() || count > 32_768 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the number of buffers must be a power of two"));
        }
        let map = |len| MmapMut::map_anon(len).map(MmapRaw::from);
        Ok(Buffers {
            entries: map(usize::from(count) * size_of::<BufRingEntry>())?,
            memory: map(usize::from(count) * bytes)?,
            bytes,
            tail: 0,
            mask: count - 1,
            held: vec![false; usize::from(count)],
            left: usize::from(count),
        })
    }

    fn provide(&mut self, id: u16) {
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        let place = usize::from(self.tail & self.mask);
        // SAFETY: `place` is below the number of entries that were mapped, zeroed, which is a valid entry; the kernel does not
        // read this one before the tail passes it. The id is below `count`: it came from the kernel or from `new`. The tail
        // is a u16 in the first entry, aligned to two bytes, and is read by the kernel with acquire order.
        unsafe {
            let entry = &mut *base.add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * self.bytes) as u64);
            entry.set_len(self.bytes as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn taken(&mut self, id: u16) {
        self.left -= usize::from(!std::mem::replace(&mut self.held[usize::from(id)], true));
    }

    fn read(&self, id: u16, len: usize) -> &[u8] {
        assert!(self.held[usize::from(id)] && len <= self.bytes, "buffer {id} is not ours to read");
        // SAFETY: the range lies in the mapping, whose bytes are initialised from the start; the kernel does not write to a
        // buffer that it has handed over before it is provided again, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(usize::from(id) * self.bytes), len) }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
