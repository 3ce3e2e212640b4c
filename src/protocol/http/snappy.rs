//! snappy bodies, in both formats: framed (framing_format.txt of the snappy sources), and one raw block, which Prometheus and
//! Loki clients send. A block can only be decoded whole, so its bytes are kept in leased memory.

use super::decode::Progress;
use super::problem::{self, Problem};
use crate::log::checksum::crc32c;
use crate::session::memory::room::Lease;
use snap::raw::{Decoder, decompress_len};

/// How the framed format begins.
const STREAM_ID: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// Bytes of a frame's chunk before compression.
const CHUNK_MOST: usize = 65_536;
/// And after, with its checksum: `snap::raw::max_compress_len(CHUNK_MOST)` + 4.
const FRAME_MOST: usize = 76_490 + 4;
/// A block's output for each byte of it at most: a copy of 64 bytes takes 3 at least, a literal more.
const BLOCK_RATIO: usize = 32;

/// The decoder of one body.
#[derive(Default)]
pub struct Snappy {
    /// Not decoded yet: the beginning, a frame, or a whole block.
    kept: Vec<u8>,
    leased: usize,
    is_framed: Option<bool>,
    /// Decoded, and how much of it was handed out.
    out: Vec<u8>,
    at: usize,
    is_done: bool,
    skip: usize,
}

impl Snappy {
    /// See [`super::decode::Decoder::step`].
    pub fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        last: bool,
        lease: &mut Lease,
    ) -> Result<Progress, &'static Problem> {
        let mut taken = 0;
        loop {
            if self.at < self.out.len() {
                let n = (self.out.len() - self.at).min(output.len());
                output[..n].copy_from_slice(&self.out[self.at..self.at + n]);
                self.at += n;
                return Ok(Progress { taken, made: n });
            }
            let before = taken;
            let went_on = match self.is_framed {
                None => self.begin(input, &mut taken, last),
                Some(true) => self.frame(input, &mut taken, lease)?,
                Some(false) => self.block(input, &mut taken, last, lease)?,
            };
            if !went_on && before == taken {
                return Ok(Progress { taken, made: 0 });
            }
        }
    }

    /// Finds out which format it is.
    fn begin(&mut self, input: &[u8], taken: &mut usize, last: bool) -> bool {
        let n = (STREAM_ID.len() - self.kept.len()).min(input.len() - *taken);
        self.kept.extend_from_slice(&input[*taken..*taken + n]);
        *taken += n;
        let can_be = STREAM_ID.starts_with(&self.kept);
        let is_known = !can_be || self.kept.len() == STREAM_ID.len() || (last && !self.kept.is_empty());
        if is_known {
            self.is_framed = Some(can_be && self.kept.len() == STREAM_ID.len());
            if self.is_framed == Some(true) {
                self.kept.clear();
            }
        }
        is_known
    }

    /// Takes one frame, and decodes it once it is whole.
    fn frame(&mut self, input: &[u8], taken: &mut usize, lease: &mut Lease) -> Result<bool, &'static Problem> {
        let mut rest = &input[*taken..];
        if self.skip > 0 {
            let n = self.skip.min(rest.len());
            self.skip -= n;
            *taken += n;
            return Ok(n > 0);
        }
        if self.leased == 0 {
            lease.grow(FRAME_MOST + CHUNK_MOST)?;
            self.leased = FRAME_MOST + CHUNK_MOST;
        }
        if self.kept.len() < 4 {
            let n = (4 - self.kept.len()).min(rest.len());
            self.kept.extend_from_slice(&rest[..n]);
            *taken += n;
            rest = &rest[n..];
        }
        let &[kind, a, b, c, ..] = self.kept.as_slice() else { return Ok(false) };
        let len = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        match kind {
            0x00 | 0x01 if (4..=FRAME_MOST).contains(&len) => {}
            0xff if len == 6 => {}
            0x80..=0xfe => {
                self.kept.clear();
                self.skip = len;
                return Ok(true);
            }
            _ => return Err(&problem::BAD_CODING),
        }
        let n = (4 + len - self.kept.len()).min(rest.len());
        self.kept.extend_from_slice(&rest[..n]);
        *taken += n;
        if self.kept.len() < 4 + len {
            return Ok(false);
        }
        self.out.clear();
        self.at = 0;
        let body = &self.kept[4..];
        if kind == 0xff {
            if body != &STREAM_ID[4..] {
                return Err(&problem::BAD_CODING);
            }
        } else {
            let (sum, data) = body.split_at(4);
            if kind == 0x01 {
                self.out.extend_from_slice(data);
            } else {
                let len = decompress_len(data).ok().filter(|n| *n <= CHUNK_MOST).ok_or(&problem::BAD_CODING)?;
                self.out.resize(len, 0);
                Decoder::new().decompress(data, &mut self.out).map_err(|_| &problem::BAD_CODING)?;
            }
            let crc = crc32c(&self.out);
            let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
            if self.out.len() > CHUNK_MOST || sum != masked.to_le_bytes() {
                return Err(&problem::BAD_CODING);
            }
        }
        self.kept.clear();
        Ok(true)
    }

    /// Keeps the block's bytes, and decodes it when all are here.
    fn block(
        &mut self,
        input: &[u8],
        taken: &mut usize,
        last: bool,
        lease: &mut Lease,
    ) -> Result<bool, &'static Problem> {
        let rest = &input[*taken..];
        if self.is_done {
            return Ok(false);
        }
        // The vector doubles, so this is what it really takes.
        let needed = (self.kept.len() + rest.len()).next_power_of_two();
        if needed > self.leased {
            lease.grow(needed - self.leased)?;
            self.leased = needed;
        }
        self.kept.reserve_exact(needed - self.kept.len());
        self.kept.extend_from_slice(rest);
        *taken += rest.len();
        if !last {
            return Ok(false);
        }
        let len = decompress_len(&self.kept).map_err(|_| &problem::BAD_CODING)?;
        if len > self.kept.len() * BLOCK_RATIO {
            return Err(&problem::BAD_CODING);
        }
        lease.grow(len)?;
        self.out.resize(len, 0);
        Decoder::new().decompress(&self.kept, &mut self.out).map_err(|_| &problem::BAD_CODING)?;
        self.kept = Vec::new();
        self.is_done = true;
        Ok(true)
    }

    /// A block that was decoded and of which nothing was handed out. Its memory stays leased.
    pub fn whole_block(&mut self) -> Option<Vec<u8>> {
        let is_there = self.is_done && self.at == 0 && !self.out.is_empty();
        is_there.then(|| std::mem::take(&mut self.out))
    }

    /// True where nothing is unfinished.
    pub fn is_whole(&self) -> bool {
        let all_out = self.at == self.out.len();
        all_out && self.skip == 0 && self.kept.is_empty() && (self.is_framed != Some(false) || self.is_done)
    }
}
