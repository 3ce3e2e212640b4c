//! How much of a text stands in a JSON string as it is, looked through as many bytes at once as this machine can.

/// Bytes of the registers that every x86-64 and ARM has.
const LANES: usize = 16;
/// Most strings are names and numbers: only what is longer than this is looked through in blocks,
const SHORT: usize = 2 * LANES;
/// of so many bytes.
const BLOCK: usize = 64;

/// How many bytes at the start of `bytes` stand in a JSON string as they are (RFC 8259 section 7), and whether all of those are ASCII.
/// With `ASCII` it ends at what is not: nearly all of nearly all logs.
#[inline]
#[must_use]
pub fn plain_prefix<const ASCII: bool>(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut is_ascii) = (0, true);
    while let Some(lanes) = bytes[at..].first_chunk() {
        let found = Found::of(lanes);
        if let Some((plain, is_ascii_too)) = found.first::<ASCII>() {
            return (at + plain, is_ascii & is_ascii_too);
        }
        is_ascii &= found.high == 0;
        at += LANES;
        if at == SHORT {
            let (more, is_ascii_too) = plain_blocks::<ASCII>(&bytes[at..]);
            (at, is_ascii) = (at + more, is_ascii & is_ascii_too);
        }
    }
    let rest = &bytes[at..];
    // What is shorter is filled up with bytes that are plain.
    let mut lanes = [b' '; LANES];
    match rest.len() {
        0 => return (at, is_ascii),
        8.. => {
            lanes[..8].copy_from_slice(&rest[..8]);
            lanes[8..].copy_from_slice(&rest[rest.len() - 8..]);
        }
        4.. => {
            lanes[..4].copy_from_slice(&rest[..4]);
            lanes[4..8].copy_from_slice(&rest[rest.len() - 4..]);
        }
        _ => {
            (lanes[0], lanes[1], lanes[2]) = (rest[0], rest[rest.len() / 2], rest[rest.len() - 1]);
        }
    }
    let found = Found::of(&lanes);
    if found.first::<ASCII>().is_none() {
        return (bytes.len(), is_ascii & (found.high == 0));
    }
    let ends = |b: &u8| *b < 0x20 || matches!(b, b'"' | b'\\') || ASCII && *b >= 0x80;
    let plain = rest.iter().position(ends).unwrap_or(rest.len());
    (at + plain, is_ascii & rest[..plain].is_ascii())
}

/// What was found in a register: a bit for each byte, the first in the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// Bytes that must be escaped.
    special: u32,
    /// Bytes that are not ASCII.
    high: u32,
}

impl Found {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn of(lanes: &[u8; LANES]) -> Found {
        // SAFETY: every x86-64 has SSE2; nothing else makes the call unsafe.
        unsafe { Found::of_sse2(lanes) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse2")]
    #[inline]
    fn of_sse2(lanes: &[u8; LANES]) -> Found {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        };
        // SAFETY: 16 bytes are there to be read, however they are aligned. AddressSanitizer would say if not (`.ci/run`).
        let bytes = unsafe { _mm_loadu_si128(lanes.as_ptr().cast()) };
        let is = |b: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b as i8));
        let is_control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        let special = _mm_or_si128(is_control, _mm_or_si128(is(b'"'), is(b'\\')));
        Found { special: _mm_movemask_epi8(special) as u32, high: _mm_movemask_epi8(bytes) as u32 }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn of(lanes: &[u8; LANES]) -> Found {
        Found::by_words(lanes)
    }

    /// On any machine. Only the lowest bit of `special` is exact.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn by_words(lanes: &[u8; LANES]) -> Found {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        // A byte of the result has its highest bit set where the byte is below `n`; exact for bytes below 128, which others are
        // not taken for: their own highest bit is asked for too (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
        let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
        let equal = |word: u64, b: u8| below(word ^ (ONES * u64::from(b)), 1);
        // The highest bits of the bytes, gathered in one.
        let bits = |word: u64| ((word & HIGH) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        let mut found = Found { special: 0, high: 0 };
        for (i, eight) in lanes.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*eight);
            let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
            found.special |= (bits(special) as u32) << (8 * i);
            found.high |= (bits(word) as u32) << (8 * i);
        }
        found
    }

    /// Where the first byte is that does not stand for itself, and whether all before it are ASCII.
    #[inline(always)]
    fn first<const ASCII: bool>(self) -> Option<(usize, bool)> {
        let ends = if ASCII { self.special | self.high } else { self.special };
        let before = (ends & ends.wrapping_neg()).wrapping_sub(1);
        (ends != 0).then(|| (ends.trailing_zeros() as usize, self.high & before == 0))
    }
}

/// As [`plain_prefix`], in whole blocks. The code is the same for all machines; the compiler makes it once for each x86-64 (or ARM), and
/// once for those with AVX2.
fn plain_blocks<const ASCII: bool>(bytes: &[u8]) -> (usize, bool) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: this machine has AVX2, as was just asked (the answer is kept); nothing else makes the call unsafe. A wrong answer
        // would end every test that writes JSON with SIGILL.
        return unsafe { blocks_avx2::<ASCII>(bytes) };
    }
    blocks::<LANES, ASCII>(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blocks_avx2<const ASCII: bool>(bytes: &[u8]) -> (usize, bool) {
    blocks::<32, ASCII>(bytes)
}

/// With registers of so many bytes.
#[inline(always)]
fn blocks<const WIDTH: usize, const ASCII: bool>(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut high) = (0, [0u8; WIDTH]);
    for block in bytes.as_chunks::<BLOCK>().0 {
        // Without a branch, and each lane for itself.
        let (mut special, mut block_high) = ([0u8; WIDTH], [0u8; WIDTH]);
        for lanes in block.as_chunks::<WIDTH>().0 {
            for ((special, high), byte) in special.iter_mut().zip(&mut block_high).zip(lanes) {
                // Without a comparison: those make the compiler leave its vectors.
                let equals = |b: u8| 1u8.saturating_sub(byte ^ b);
                let is_high = if ASCII { byte & 0x80 } else { 0 };
                *special |= 0x20u8.saturating_sub(*byte) | equals(b'"') | equals(b'\\') | is_high;
                *high |= byte;
            }
        }
        if special.iter().fold(0, |all, one| all | one) != 0 {
            break;
        }
        high.iter_mut().zip(block_high).for_each(|(all, one)| *all |= one);
        at += BLOCK;
    }
    (at, high.iter().fold(0, |all, one| all | one) < 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there to be found, byte by byte.
    fn expected<const ASCII: bool>(bytes: &[u8]) -> (usize, bool) {
        let ends = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\' || (ASCII && *b >= 0x80);
        let plain = bytes.iter().position(ends).unwrap_or(bytes.len());
        (plain, bytes[..plain].is_ascii())
    }

    #[test]
    fn what_must_be_escaped_is_found_wherever_it_stands() {
        // Registers, blocks, registers again, and what fills none.
        const MOST: usize = SHORT + 2 * BLOCK + LANES + 9;
        let step = if cfg!(miri) { 17 } else { 1 };
        for b in (0..=255u8).step_by(step) {
            for at in (0..MOST).step_by(step) {
                let mut bytes = [b'a'; MOST];
                bytes[at] = b;
                for len in [MOST, at + 1, at + 2, at + 5, at + 9] {
                    let bytes = &mut bytes[..len.min(MOST)];
                    assert_eq!(plain_prefix::<true>(bytes), expected::<true>(bytes), "{b} at {at} of {len}");
                    assert_eq!(plain_prefix::<false>(bytes), expected::<false>(bytes), "{b} at {at} of {len}");
                }
                bytes[MOST - 1] = b'"';
                assert_eq!(plain_prefix::<false>(&bytes), expected::<false>(&bytes), "{b} at {at}, and a quote");
            }
        }
        for len in 0..40 {
            for at in 0..len {
                let mut bytes = vec![b' '; len];
                bytes[at] = b'\\';
                assert_eq!(plain_prefix::<true>(&bytes), (at, true));
            }
        }
    }

    #[test]
    fn every_width_of_registers_finds_the_same() {
        const LEN: usize = 3 * BLOCK + 5;
        let step = if cfg!(miri) { 17 } else { 1 };
        for b in (0..=255u8).step_by(step) {
            for at in (0..LEN).step_by(step) {
                let mut bytes = [b'a'; LEN];
                bytes[at] = b;
                let whole = |(plain, _): (usize, bool)| {
                    let end = plain / BLOCK * BLOCK;
                    (end, bytes[..end].is_ascii())
                };
                let (ascii, any) = (whole(expected::<true>(&bytes)), whole(expected::<false>(&bytes)));
                assert_eq!([plain_blocks::<true>(&bytes), blocks::<16, true>(&bytes)], [ascii, ascii], "{b} at {at}");
                assert_eq!([plain_blocks::<false>(&bytes), blocks::<16, false>(&bytes)], [any, any], "{b} at {at}");
                let lanes = bytes.first_chunk().unwrap();
                let (one, other) = (Found::of(lanes), Found::by_words(lanes));
                assert_eq!(
                    (one.first::<true>(), one.first::<false>()),
                    (other.first::<true>(), other.first::<false>())
                );
            }
        }
    }
}
