//! Documents: a message or body, or a part of one, that is gathered in leased memory and read as the chunks have room.

use super::room::{Lease, NoRoom};

/// Bytes that wait, in the order in which they came. Their memory is leased as they come. Declared lengths are never believed: only
/// bytes that are there take room.
#[derive(Debug)]
pub struct Document {
    /// Never more than is leased. Behind the content it may hold what was there before.
    bytes: Vec<u8>,
    /// Handled up to here,
    at: usize,
    /// and there is content up to here.
    end: usize,
    leased: usize,
    /// The memory was leased by somebody else, and nothing is added to it.
    is_adopted: bool,
    lease: Lease,
}

/// Memory is leased in steps, so that the ledger is not asked for each receive.
const STEP: usize = 16 << 10;

impl Document {
    /// An empty one, which leases nothing yet.
    #[must_use]
    pub fn new(lease: Lease) -> Document {
        Document { bytes: Vec::new(), at: 0, end: 0, leased: 0, is_adopted: false, lease }
    }

    /// One for which so much is leased at once: up to that it always takes more.
    ///
    /// # Errors
    /// There is not so much.
    pub fn with_room(lease: Lease, bytes: usize) -> Result<Document, NoRoom> {
        let mut document = Document::new(lease);
        document.reserve(bytes)?;
        Ok(document)
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes > self.leased {
            let wanted = bytes.next_multiple_of(STEP);
            self.lease.grow(wanted - self.leased)?;
            self.leased = wanted;
        }
        Ok(())
    }

    /// Memory for so many bytes in all, which are leased. It is doubled as that of vectors is, but never beyond the lease.
    fn allocate(&mut self, wanted: usize) {
        if wanted > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).clamp(wanted, self.leased.max(wanted));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// There is no room for them, now or at all; nothing is added.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.make_room(bytes.len());
        let end = self.end + bytes.len();
        self.reserve(end)?;
        self.allocate(end);
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    /// As [`Document::append`], but nothing beyond `most` bytes in all.
    ///
    /// # Errors
    /// As there.
    pub fn append_up_to(&mut self, most: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        let room = most.saturating_sub(self.rest().len());
        self.append(&bytes[..bytes.len().min(room)])
    }

    /// Takes these bytes for its whole content. Whoever has leased their memory keeps it as long as this document has them.
    pub fn adopt(&mut self, bytes: Vec<u8>) {
        (self.at, self.end, self.is_adopted) = (0, bytes.len(), true);
        self.bytes = bytes;
    }

    /// True where the content was adopted: nothing can be added.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    /// Bytes that are leased for it.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased
    }

    /// Makes sure that so much more can be written behind the content.
    ///
    /// # Errors
    /// There is no room for it, now or at all.
    pub fn make_sure(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.make_room(bytes);
        self.reserve(self.end + bytes)
    }

    /// Lets `fill` write up to `most` bytes behind those that are there, as far as the lease goes; it says how many it wrote.
    ///
    /// # Errors
    /// Those of `fill`; nothing is added then.
    pub fn fill<E>(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.make_room(most);
        let most = most.min(self.leased - self.end);
        let end = self.end + most;
        self.allocate(end);
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        let filled = fill(&mut self.bytes[self.end..end])?.min(most);
        self.end += filled;
        Ok(filled)
    }

    /// What was gone through makes room for so much more.
    fn make_room(&mut self, wanted: usize) {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
        } else if self.at >= STEP && self.end + wanted > self.leased {
            self.bytes.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
    }

    /// The bytes that were not handled yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    /// True where everything was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// So many more bytes were gone through.
    ///
    /// # Panics
    /// If there are fewer: a bug of the caller.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.end - self.at, "gone through more than there is");
        self.at += bytes;
    }

    /// Forgets what lies behind the first so many bytes that were not handled yet.
    pub fn keep(&mut self, bytes: usize) {
        self.end = self.end.min(self.at + bytes);
    }

    /// Forgets the content. The lease stays for what comes next.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_adopted) {
            self.bytes = Vec::new();
        }
        (self.at, self.end) = (0, 0);
    }

    /// True if others need the memory. Then the holder of the document must end.
    #[must_use]
    pub fn is_called_in(&self) -> bool {
        self.lease.is_called_in()
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::{Owner, Room};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_and_never_more_is_held_than_was_leased(
            steps in proptest::collection::vec((0usize..40_000, 0usize..60_000), 1..40),
        ) {
            let room = Room::new(1 << 20);
            let mut document = Document::new(Lease::new(&room, Owner::default(), 0));
            let (mut next, mut seen) = (0u32, 0u32);
            for (adds, takes) in steps {
                let bytes: Vec<u8> = (next..next + adds as u32).map(|i| i as u8).collect();
                if document.append(&bytes).is_ok() {
                    next += adds as u32;
                }
                let takes = takes.min(document.rest().len());
                prop_assert!(document.rest()[..takes].iter().zip(seen..).all(|(b, i)| *b == i as u8));
                document.advance(takes);
                seen += takes as u32;
                prop_assert!(document.bytes.capacity() <= document.leased && document.leased <= room.used());
                prop_assert_eq!(document.is_empty(), next == seen);
            }
        }
    }

    #[test]
    fn what_finds_no_room_changes_nothing() {
        let room = Room::new(128 << 10);
        let mut document = Document::with_room(Lease::new(&room, Owner::default(), 0), 10).unwrap();
        document.append(b"abc").unwrap();
        assert_eq!(document.append(&[0; 1 << 20]), Err(NoRoom::Never));
        assert_eq!(document.rest(), b"abc");
        let filled = document.fill(100, |to| {
            to[..2].copy_from_slice(b"de");
            Ok::<_, ()>(2)
        });
        assert_eq!((filled, document.rest()), (Ok(2), &b"abcde"[..]));
        assert_eq!(document.fill(100, |_| Err(7)), Err(7));
        assert_eq!(document.rest(), b"abcde");
        drop(document);
        assert_eq!(room.used(), 0);
    }
}
