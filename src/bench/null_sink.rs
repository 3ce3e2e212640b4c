//! The null sink shows what this machine can do at all. It has two threads, which receive into chunks, pass them through a
//! ring, and append them to a preallocated file with the server's flags. It has no framing, trail, sync or limits, and its file
//! is of no use.
//!
//! It shares no code with the server's engine and writer, so that it does not get slower when they do.

use super::null_sink_udp;
use crate::host::output::say;
use crate::host::sys;
use crate::pipeline::chunk::memory_of_chunk;
use crate::settings::units::Size;
use clap::Args;
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::Parker;
use memmap2::MmapMut;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::fcntl::FallocateFlags;
use nix::sys::socket::MsgFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The options of `bench null-sink`.
#[derive(Debug, Args)]
pub struct NullSinkArgs {
    /// The address to listen on.
    #[arg(short, long, default_value = "127.0.0.1:5171", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Receive datagrams at this address instead, until nothing has come for a second.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "listen")]
    udp: Option<SocketAddr>,
    /// The queue of its socket, as far as net.core.rmem_max allows (64KiB to 1GiB).
    #[arg(long, default_value = "16MiB", value_name = "SIZE", requires = "udp", value_parser = Size::parse)]
    receive_buffer: Size,
    /// The directory for its one file, which stays there.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Write through the page cache, without RWF_DONTCACHE.
    #[arg(long)]
    page_cache: bool,
}

pub(super) const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 8;
const RESERVE: u64 = 64 << 20;
/// A chunk with less room than this goes to the writer.
const LEAST_ROOM: usize = CHUNK / 16;

/// A chunk that is not full goes to the writer after so long without anything to receive.
const LINGER: std::time::Duration = std::time::Duration::from_millis(5);

struct Buffer {
    memory: MmapMut,
    len: usize,
}

/// Runs until every connection that came has gone.
pub fn run(args: &NullSinkArgs) -> io::Result<ExitCode> {
    if let Some(at) = args.udp {
        let file = OpenOptions::new().append(true).create_new(true).open(args.dir.join("null-sink.log"))?;
        let appender = Appender { file, len: 0, reserved: 0, dont_cache: !args.page_cache };
        null_sink_udp::run(at, args.receive_buffer.0 as usize, appender)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut sockets, address) = crate::intake::net::listen::bind_tcp(args.listen, 1)?;
    let listener = sockets.remove(0);
    say!("null sink on {address}, {} of chunks", Size((CHUNKS * memory_of_chunk(CHUNK)) as u64));
    let path = args.dir.join("null-sink.log");
    let bytes = sink(&listener, &path, !args.page_cache)?;
    say!("null sink bytes={bytes}");
    Ok(ExitCode::SUCCESS)
}

fn sink(listener: &socket2::Socket, path: &Path, dont_cache: bool) -> io::Result<u64> {
    let file = OpenOptions::new().append(true).create_new(true).open(path)?;
    let free = Arc::new(ArrayQueue::new(CHUNKS));
    let full = Arc::new(ArrayQueue::<Buffer>::new(CHUNKS));
    for _ in 0..CHUNKS {
        let _ = free.push(Buffer { memory: MmapMut::map_anon(CHUNK)?, len: 0 });
    }
    let (to_writer, to_reader) = (Parker::new(), Parker::new());
    let (wake_writer, wake_reader) = (to_writer.unparker().clone(), to_reader.unparker().clone());
    let done = Arc::new(AtomicBool::new(false));
    let (free2, full2, done2) = (Arc::clone(&free), Arc::clone(&full), Arc::clone(&done));
    let writer = std::thread::spawn(move || -> io::Result<u64> {
        let mut appender = Appender { file, len: 0, reserved: 0, dont_cache };
        loop {
            let ending = done2.load(Ordering::SeqCst);
            match full2.pop() {
                Some(buffer) => {
                    appender.append(&buffer.memory[..buffer.len])?;
                    let _ = free2.push(buffer);
                    wake_reader.unpark();
                }
                None if ending => return Ok(appender.len),
                None => to_writer.park(),
            }
        }
    });
    receive(
        listener,
        &free,
        |buffer| {
            let _ = full.push(buffer);
            wake_writer.unpark();
        },
        || to_reader.park(),
    )?;
    done.store(true, Ordering::SeqCst);
    wake_writer.unpark();
    writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
}

/// Appends as the server does.
pub(super) struct Appender {
    file: File,
    len: u64,
    reserved: u64,
    dont_cache: bool,
}

impl Appender {
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.len + bytes.len() as u64 > self.reserved {
            let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = nix::fcntl::fallocate(&self.file, keep, self.reserved as i64, RESERVE as i64); // speed only
            self.reserved += RESERVE;
        }
        let large = bytes.len() as u64 >= crate::log::segment::LARGE_FROM_BYTES;
        while !bytes.is_empty() {
            match sys::append_vectored(self.file.as_fd(), &[IoSlice::new(bytes)], self.dont_cache && large) {
                Ok(n) => {
                    bytes = &bytes[n..];
                    self.len += n as u64;
                }
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => self.dont_cache = false,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn receive(
    listener: &socket2::Socket,
    free: &ArrayQueue<Buffer>,
    push: impl Fn(Buffer),
    wait: impl Fn(),
) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    listener.set_nonblocking(true)?;
    let fd = listener.as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE)?;
    let mut sockets: Vec<Option<socket2::Socket>> = Vec::new();
    let (mut open, mut came) = (0, false);
    let mut ready: Vec<usize> = Vec::new();
    let mut ended: Vec<bool> = Vec::new();
    let mut current: Option<Buffer> = None;
    while open > 0 || !came {
        let begun = current.as_ref().is_some_and(|b| b.len > 0);
        let timeout = match (ready.is_empty(), begun) {
            (false, _) => Some(std::time::Duration::ZERO),
            (true, true) => Some(LINGER),
            (true, false) => None,
        };
        poll.poll(&mut events, timeout)?;
        if events.is_empty() && ready.is_empty() && begun {
            current.take().into_iter().for_each(&push);
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(true)?;
                    let fd = socket.as_raw_fd();
                    poll.registry().register(&mut SourceFd(&fd), Token(sockets.len()), Interest::READABLE)?;
                    sockets.push(Some(socket));
                    ended.push(false);
                    (open, came) = (open + 1, true);
                }
            } else {
                ended[event.token().0] |= event.is_read_closed();
                ready.push(event.token().0);
            }
        }
        ready.sort_unstable();
        ready.dedup();
        let mut again = Vec::new();
        for i in ready.drain(..) {
            let Some(socket) = &sockets[i] else { continue };
            let mut buffer = match current.take() {
                Some(buffer) => buffer,
                None => loop {
                    match free.pop() {
                        Some(mut buffer) => {
                            buffer.len = 0;
                            break buffer;
                        }
                        None => wait(),
                    }
                },
            };
            let at = buffer.len;
            match nix::sys::socket::recv(socket.as_raw_fd(), &mut buffer.memory[at..], MsgFlags::empty()) {
                Ok(0) => {
                    sockets[i] = None;
                    open -= 1;
                }
                Ok(n) => {
                    buffer.len += n;
                    if at + n == CHUNK || ended[i] {
                        again.push(i);
                    }
                }
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            if CHUNK - buffer.len < LEAST_ROOM { push(buffer) } else { current = Some(buffer) }
        }
        ready = again;
    }
    if let Some(buffer) = current {
        push(buffer);
    }
    Ok(())
}
