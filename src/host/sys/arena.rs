//! One memory mapping that is cut into pieces of equal size, each with one owner. So buffers of one megabyte can be in huge
//! pages of two.

use memmap2::{Advice, MmapMut, MmapRaw};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A huge page (`/sys/kernel/mm/transparent_hugepage/hpage_pmd_size` on x86-64 and most of arm64).
const HUGE: usize = 2 << 20;
/// The smallest page there is; touching each of them touches every page.
const PAGE: usize = 4096;

/// One piece. The mapping lives as long as any of its pieces.
pub struct Piece {
    start: *mut u8,
    len: usize,
    mapping: Arc<MmapRaw>,
}

// SAFETY: a piece is the only owner of its range, as a `Box<[u8]>` is; the mapping is only kept alive by it.
unsafe impl Send for Piece {}
// SAFETY: as above; shared references give shared access to plain bytes only.
unsafe impl Sync for Piece {}

/// Maps `count` pieces of `bytes` each, rounded up to whole pages; none of them is touched before it is used. With `huge` the
/// kernel is asked for huge pages, and goes without where it has none; with `node` the memory comes from that node.
///
/// # Errors
/// The kernel refuses the mapping. It is no error if there are no huge pages, or no memory on the node.
pub fn pieces(count: usize, bytes: usize, huge: bool, node: Option<usize>) -> io::Result<Vec<Piece>> {
    let bytes = bytes.max(1).next_multiple_of(PAGE);
    let slack = if huge { HUGE } else { 0 };
    let mapping = Arc::new(MmapRaw::from(MmapMut::map_anon((count * bytes).max(PAGE) + slack)?));
    let base = mapping.as_mut_ptr();
    let offset = if huge { base.align_offset(HUGE) } else { 0 };
    if huge {
        let _ = mapping.advise_range(Advice::HugePage, offset, count * bytes);
    }
    // SAFETY: `offset` is at most `slack`, so the range ends within the mapping.
    let first = unsafe { base.add(offset) };
    if let Some(node) = node {
        super::numa::bind(first, count * bytes, node);
    }
    let piece = |i: usize| Piece {
        // SAFETY: `i` is below `count`, so this lies within the mapping; ranges of different pieces do not overlap.
        start: unsafe { first.add(i * bytes) },
        len: bytes,
        mapping: Arc::clone(&mapping),
    };
    Ok((0..count).map(piece).collect())
}

impl Piece {
    /// Touches all pages, so that the kernel provides the memory now. The content stays.
    pub fn fault_in(&mut self) {
        let offset = self.start as usize - self.mapping.as_mut_ptr() as usize;
        // Linux 5.14; before, each page is touched.
        if self.mapping.advise_range(Advice::PopulateWrite, offset, self.len).is_err() {
            for page in self.chunks_mut(PAGE) {
                // A write that changes nothing, which the compiler may not leave out.
                let first = std::hint::black_box(page[0]);
                page[0] = std::hint::black_box(first);
            }
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped as long as `mapping` lives, initialised with zeros by the kernel, and this piece is its
        // only owner, so the usual rules of references to `self` hold for it.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Piece of {} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_and_do_not_overlap() {
        for huge in [false, true] {
            let mut all = pieces(5, 10_000, huge, None).unwrap();
            for (piece, i) in all.iter_mut().zip(1..) {
                assert_eq!(piece.len(), 12_288);
                assert!(piece.iter().all(|b| *b == 0));
                piece.fill(i);
            }
            let last = all.pop().unwrap();
            drop(all);
            assert!(last.iter().all(|b| *b == 5), "a piece outlives the others");
            std::thread::spawn(move || drop(last)).join().unwrap();
        }
    }

    #[test]
    fn faulting_in_changes_nothing_and_makes_it_resident() {
        let mut piece = pieces(1, 1 << 20, false, None).unwrap().remove(0);
        piece[5] = 7;
        piece.fault_in();
        assert_eq!((piece[5], piece[6]), (7, 0));
        let (start, len) = (piece.as_ptr() as usize, piece.len());
        let mut resident = vec![0u8; len / PAGE];
        // SAFETY: the range is mapped, page-aligned, and the vector has a byte for each of its pages.
        let rc = unsafe { libc::mincore(start as *mut libc::c_void, len, resident.as_mut_ptr()) };
        assert_eq!(rc, 0);
        assert!(resident.iter().all(|r| r & 1 == 1));
    }
}
