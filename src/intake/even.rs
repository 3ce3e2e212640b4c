//! What to move from who has more to who has less: connections between reactors, senders of datagrams between sockets.

/// The largest of `shares` that evens out `mine` and `theirs` when it moves: after it, and with what one window measures
/// wrong, mine must still not be the smaller one by much.
#[must_use]
pub fn fitting<T>(mine: u64, theirs: u64, shares: impl Iterator<Item = (T, u64)>) -> Option<T> {
    let difference = mine.saturating_sub(theirs);
    let fits = |bytes: u64| bytes > 0 && bytes * 8 <= difference * 5 && bytes * 64 >= mine;
    shares.filter(|(_, bytes)| fits(*bytes)).max_by_key(|(_, bytes)| *bytes).map(|(id, _)| id)
}
