//! Content codings: the stages between an encoded body and the lines in it. Their memory is leased from one budget.
//!
//! Output goes straight into the chunk, as much as fits, and what the decoder holds meanwhile is leased. Memory grows with the
//! bytes received or with the window that a frame really needs. It never grows beyond the budget, whatever a client declares.

use super::head::Coding;
use super::problem::{self, Problem};
use super::snappy::Snappy;
use super::zstandard::Zstandard;
use crate::session::memory::room::{Lease, NoRoom};
use flate2::{Decompress, FlushDecompress, Status};

/// What zlib takes for inflating: a window of 32 KiB and its tables (zlib's `zconf.h`: about 7 KiB), rounded up.
const INFLATE_BYTES: usize = 48 << 10;
/// Output below which the ratio is not looked at: small bodies of one repeated line compress very well.
const RATIO_FROM: u64 = 1 << 20;
/// Output bytes for one byte of input at most. Logs reach 10 to 50, one line repeated with gzip 300; bombs have 1000 and more.
const MAX_RATIO: u64 = 400;

impl From<NoRoom> for &'static Problem {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Never => &problem::WINDOW_TOO_LARGE,
            NoRoom::Now => &problem::NO_ROOM,
        }
    }
}

enum Inner {
    /// As it comes.
    Plain,
    /// Not known before its first two bytes.
    Guess,
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
    pub fn new(coding: Coding, mut lease: Lease, most: u64) -> Result<Decoder, &'static Problem> {
        let inner = match coding {
            Coding::Gzip => {
                lease.grow(INFLATE_BYTES)?;
                Inner::Gzip(Box::new(Decompress::new_gzip(15)), false)
            }
            Coding::Identity => Inner::Plain,
            Coding::Guess => {
                lease.grow(INFLATE_BYTES)?;
                Inner::Guess
            }
            Coding::Deflate => {
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
        if matches!(self.inner, Inner::Guess) {
            self.inner = match input {
                // RFC 1952 section 2.3.1; RFC 1950 section 2.2, whose header is a multiple of 31.
                [0x1f, 0x8b, ..] => Inner::Gzip(Box::new(Decompress::new_gzip(15)), false),
                [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0 => Inner::Deflate(None, false),
                // RFC 8878 section 3.1.1.
                [0x28, 0xb5, ..] => Inner::Zstd(Box::default()),
                [] | [0x1f | 0x28 | 0x78] if !last => Inner::Guess,
                _ => Inner::Plain,
            };
        }
        let progress = match &mut self.inner {
            Inner::Guess => Progress { taken: 0, made: 0 },
            Inner::Plain => {
                let n = input.len().min(output.len());
                output[..n].copy_from_slice(&input[..n]);
                Progress { taken: n, made: n }
            }
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

    /// True if others need the memory that it holds.
    #[must_use]
    pub fn is_called_in(&self) -> bool {
        self.lease.is_called_in()
    }

    /// Decodes what is decoded as a whole: a snappy block, once all of it is in `input`. Returns it, and how much of `input` was used up. Its
    /// memory stays leased here.
    ///
    /// # Errors
    /// As [`Decoder::step`].
    pub fn whole_block(&mut self, input: &[u8], last: bool) -> Result<(usize, Option<Vec<u8>>), &'static Problem> {
        let Inner::Snappy(_) = self.inner else { return Ok((0, None)) };
        let taken = self.step(input, &mut [], last)?.taken;
        let Inner::Snappy(snappy) = &mut self.inner else { return Ok((taken, None)) };
        let block = snappy.whole_block();
        self.made += block.as_ref().map_or(0, |block| block.len() as u64);
        if self.made > self.most { Err(&problem::DECODED_TOO_LARGE) } else { Ok((taken, block)) }
    }

    /// Bytes that are leased for it.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.lease.bytes()
    }

    /// True while what has come is too little to tell how it is encoded.
    #[must_use]
    pub fn is_guessing(&self) -> bool {
        matches!(self.inner, Inner::Guess)
    }

    /// True if nothing is unfinished. A body that ends elsewhere was cut off.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.inner {
            Inner::Plain | Inner::Guess => true,
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
