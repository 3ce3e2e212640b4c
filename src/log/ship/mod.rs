//! What is shipped elsewhere: positions in streams, the note of them, and the reader that goes through what is durable, never further.

pub mod lag;
pub mod note;
pub mod reader;
pub mod rounds;
pub mod sources;
pub mod status;

/// How far a shard of a stream was shipped: everything before this place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment; 0: before the first.
    pub sequence: u64,
    /// Bytes of its text, as it is without compression.
    pub offset: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.sequence, self.offset)
    }
}

impl Position {
    /// Reads back what [`std::fmt::Display`] writes; `None`: it is no position.
    #[must_use]
    pub fn parse(text: &str) -> Option<Position> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
        let (sequence, offset) = text.split_once(' ')?;
        Some(Position { sequence: number(sequence)?, offset: number(offset)? })
    }
}

/// A shard of a stream.
pub type Source = (String, u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_as_written() {
        let position = Position { sequence: 7, offset: u64::MAX };
        assert_eq!(Position::parse(&position.to_string()), Some(position));
        for bad in ["", "7", "7 ", " 7", "7 8 9", "-1 2", "+1 2", "7\n8", "x 1", "18446744073709551616 0"] {
            assert_eq!(Position::parse(bad), None, "{bad:?}");
        }
    }
}
