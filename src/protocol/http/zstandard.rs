//! zstd bodies (RFC 8878). The memory for the window of a frame is leased once the header of the frame has told its size.

use super::decode::Progress;
use super::problem::{self, Problem};
use crate::session::memory::room::Lease;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// RFC 9659: in HTTP, windows are at most 8 MiB.
const WINDOW_MOST: u64 = 8 << 20;
/// What a decoder takes beside the window: its tables, and three blocks of 128 KiB (`ZSTD_estimateDStreamSize`), rounded up.
const BESIDE: usize = 640 << 10;
/// A frame header at most, with its magic number.
const HEADER_MOST: usize = 18;

/// The decoder of one body.
#[derive(Default)]
pub struct Zstandard {
    header: Vec<u8>,
    fed: usize,
    decoder: Option<Decoder<'static>>,
    inside: bool,
}

impl Zstandard {
    /// See [`super::decode::Decoder::step`].
    pub fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        last: bool,
        lease: &mut Lease,
    ) -> Result<Progress, &'static Problem> {
        let mut taken = 0;
        if self.decoder.is_none() {
            taken = input.len().min(HEADER_MOST - self.header.len());
            self.header.extend_from_slice(&input[..taken]);
            if self.header.is_empty() || (self.header.len() < HEADER_MOST && !last) {
                return Ok(Progress { taken, made: 0 });
            }
            self.inside = true;
            let window = window(&self.header).ok_or(&problem::BAD_CODING)?;
            if window > WINDOW_MOST {
                return Err(&problem::WINDOW_TOO_LARGE);
            }
            let log = (window.max(1024) as usize).next_power_of_two().ilog2();
            lease.grow((1 << log) + BESIDE)?;
            let mut decoder = Decoder::new().map_err(|_| &problem::OVERLOADED)?;
            decoder.set_parameter(DParameter::WindowLogMax(log)).map_err(|_| &problem::WINDOW_TOO_LARGE)?;
            self.decoder = Some(decoder);
        }
        let Some(decoder) = &mut self.decoder else { return Ok(Progress { taken, made: 0 }) };
        let mut made = 0;
        if self.fed < self.header.len() {
            let (used, put, inside) = run(decoder, &self.header[self.fed..], output, self.inside)?;
            self.fed += used;
            (made, self.inside) = (put, inside);
            if self.fed < self.header.len() {
                return Ok(Progress { taken, made });
            }
        }
        let (used, put, inside) = run(decoder, &input[taken..], &mut output[made..], self.inside)?;
        self.inside = inside;
        Ok(Progress { taken: taken + used, made: made + put })
    }

    /// True between two frames.
    pub fn is_whole(&self) -> bool {
        !self.inside
    }
}

/// One call: input used, output made, and whether a frame is unfinished.
fn run(
    decoder: &mut Decoder<'static>,
    input: &[u8],
    output: &mut [u8],
    inside: bool,
) -> Result<(usize, usize, bool), &'static Problem> {
    if output.is_empty() || (input.is_empty() && !inside) {
        return Ok((0, 0, inside));
    }
    let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
    let result = decoder.run(&mut from, &mut to);
    let hint = result.map_err(|e| {
        let is_window = e.to_string().contains("too much memory");
        if is_window { &problem::WINDOW_TOO_LARGE } else { &problem::BAD_CODING }
    })?;
    let used = from.pos();
    Ok((used, to.pos(), hint != 0))
}

/// The window that the first frame needs (RFC 8878 section 3.1.1.1); of a skippable frame: the least.
fn window(header: &[u8]) -> Option<u64> {
    let magic = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
    if magic & 0xffff_fff0 == 0x184d_2a50 {
        return Some(WINDOW_MOST / 4);
    }
    if magic != 0xfd2f_b528 {
        return None;
    }
    let descriptor = *header.get(4)?;
    if descriptor & 0x20 == 0 {
        let byte = u64::from(*header.get(5)?);
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let field = header.get(5 + dictionary..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*field.first()?),
        1 => u64::from(u16::from_le_bytes(field.get(..2)?.try_into().ok()?)) + 256,
        2 => u64::from(u32::from_le_bytes(field.get(..4)?.try_into().ok()?)),
        _ => u64::from_le_bytes(field.get(..8)?.try_into().ok()?),
    })
}
