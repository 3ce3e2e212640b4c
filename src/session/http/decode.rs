//! Content codings: stages between a body and the lines in it, in memory that is leased from one budget.
//!
//! Output goes straight into the chunk, as much as fits; what a decoder holds meanwhile is leased. Memory grows with the
//! bytes received or with the window that a frame really needs, never beyond the budget, whatever a client declares.

use super::head::Coding;
use super::problem::{self, Problem};
use super::snappy::Snappy;
use super::zstandard::Zstandard;
use flate2::{Decompress, FlushDecompress, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What zlib takes for inflating: a window of 32 KiB and its tables (zlib's `zconf.h`: about 7 KiB), rounded up.
const INFLATE_BYTES: usize = 48 << 10;
/// Output below which the ratio is not looked at: small bodies of one repeated line compress very well.
const RATIO_FROM: u64 = 1 << 20;
/// Output bytes for one byte of input at most. Logs reach 10 to 50, one line repeated with gzip 300; bombs have 1000 and more.
const MAX_RATIO: u64 = 400;

/// Memory for decoding, shared by all reactors. Touched when a body begins or ends.
#[derive(Debug)]
pub struct Budget {
    free: AtomicUsize,
    all: usize,
}

/// The same one, not one as large.
impl PartialEq for Budget {
    fn eq(&self, other: &Budget) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Budget {}

impl Budget {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { free: AtomicUsize::new(bytes), all: bytes })
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.all
    }

    fn take(&self, bytes: usize) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes)).is_ok()
    }
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Lease {
    /// An empty one.
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Lease {
        Lease { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is not so much in all (then the body can never be decoded here), or not now.
    pub fn grow(&mut self, bytes: usize) -> Result<(), &'static Problem> {
        if self.bytes + bytes > self.budget.all {
            return Err(&problem::WINDOW_TOO_LARGE);
        }
        if !self.budget.take(bytes) {
            return Err(&problem::OVERLOADED);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

enum Inner {
    /// gzip, perhaps of several members; `true`: between two of them.
    Gzip(Box<Decompress>, bool),
    /// Not begun: with or without zlib's header.
    Deflate(Option<Box<Decompress>>, bool),
    Zstd(Box<Zstandard>),
    Snappy(Box<Snappy>),
}

/// The decoder of one body.
pub struct Decoder {
    inner: Inner,
    lease: Lease,
    taken: u64,
    made: u64,
    most: u64,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of input used up.
    pub taken: usize,
    /// Bytes of output made.
    pub made: usize,
}

impl Decoder {
    /// A decoder for a body that becomes `most` bytes at most.
    ///
    /// # Errors
    /// There is no memory for it, now or at all.
    pub fn new(coding: Coding, budget: &Arc<Budget>, most: u64) -> Result<Decoder, &'static Problem> {
        let mut lease = Lease::new(budget);
        let inner = match coding {
            Coding::Gzip => {
                lease.grow(INFLATE_BYTES)?;
                Inner::Gzip(Box::new(Decompress::new_gzip(15)), false)
            }
            Coding::Deflate | Coding::Identity => {
                lease.grow(INFLATE_BYTES)?;
                Inner::Deflate(None, false)
            }
            Coding::Zstd => Inner::Zstd(Box::default()),
            Coding::Snappy => Inner::Snappy(Box::default()),
        };
        Ok(Decoder { inner, lease, taken: 0, made: 0, most })
    }

    /// Decodes from `input` into `output` as far as either goes. `last`: nothing follows behind `input`.
    ///
    /// # Errors
    /// The input is malformed, or its output breaks a limit.
    pub fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Progress, &'static Problem> {
        let progress = match &mut self.inner {
            Inner::Gzip(inflate, between) => {
                if *between && !input.is_empty() {
                    // RFC 1952 section 2.2: a file is a series of members.
                    **inflate = Decompress::new_gzip(15);
                    *between = false;
                }
                if *between { Progress { taken: 0, made: 0 } } else { inflate_step(inflate, between, input, output)? }
            }
            Inner::Deflate(inflate, over) => {
                if *over && !input.is_empty() {
                    return Err(&problem::BAD_CODING);
                }
                match (inflate, input) {
                    (Some(inflate), _) if !*over => inflate_step(inflate, over, input, output)?,
                    (inflate @ None, [first, ..]) => {
                        // RFC 1950: compression method 8, window of at most 32 KiB. Raw DEFLATE never begins so: block
                        // type 3 would be an error, and a stored block has its reserved bits clear.
                        let has_header = first & 0x0f == 8 && first >> 4 <= 7;
                        let made = inflate.insert(Box::new(Decompress::new(has_header)));
                        inflate_step(made, over, input, output)?
                    }
                    _ => Progress { taken: 0, made: 0 },
                }
            }
            Inner::Zstd(zstd) => zstd.step(input, output, last, &mut self.lease)?,
            Inner::Snappy(snappy) => snappy.step(input, output, last, &mut self.lease)?,
        };
        self.taken += progress.taken as u64;
        self.made += progress.made as u64;
        let is_bomb = self.made > RATIO_FROM && self.made / MAX_RATIO > self.taken;
        if self.made > self.most || is_bomb {
            return Err(&problem::DECODED_TOO_LARGE);
        }
        Ok(progress)
    }

    /// True where everything that was begun is ended: a body that stops elsewhere was cut off.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.inner {
            Inner::Gzip(_, over) | Inner::Deflate(_, over) => *over || self.taken == 0,
            Inner::Zstd(zstd) => zstd.is_whole(),
            Inner::Snappy(snappy) => snappy.is_whole(),
        }
    }
}

fn inflate_step(
    inflate: &mut Decompress,
    over: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<Progress, &'static Problem> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    match inflate.decompress(input, output, FlushDecompress::None) {
        Ok(Status::StreamEnd) => *over = true,
        Ok(Status::Ok | Status::BufError) => {}
        Err(_) => return Err(&problem::BAD_CODING),
    }
    let taken = (inflate.total_in() - before_in) as usize;
    Ok(Progress { taken, made: (inflate.total_out() - before_out) as usize })
}
