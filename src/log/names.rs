//! The names of streams and segments.

/// Longest name of a stream, in bytes.
pub const STREAM_NAME_MAX: usize = 64;

/// True for `[a-z0-9_-]{1,64}`: what a stream may be called. Never built from what clients send.
#[must_use]
pub fn is_stream_name(name: &str) -> bool {
    (1..=STREAM_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// Which segment of a stream: shard, then a sequence that never comes back. Ordered as `cat` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The shard that wrote it.
    pub shard: u16,
    /// Counted from 1 in each stream and shard.
    pub sequence: u64,
}

/// What a file in a stream's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `NAME.log`
    Sealed,
    /// `NAME.log.active`
    Active,
    /// `NAME.log.zst`: sealed, and compressed since.
    Compressed,
    /// `NAME.trail`
    Trail,
    /// `NAME.torn`
    Torn,
}

impl SegmentId {
    /// The file's name, such as `000-0000000001.log.active`.
    #[must_use]
    pub fn file_name(self, kind: Kind) -> String {
        let ending = match kind {
            Kind::Sealed => "log",
            Kind::Active => "log.active",
            Kind::Compressed => "log.zst",
            Kind::Trail => "trail",
            Kind::Torn => "torn",
        };
        format!("{:03}-{:010}.{ending}", self.shard, self.sequence)
    }

    /// Reads a file name back; `None` for anything logweir does not write.
    #[must_use]
    pub fn parse(name: &str) -> Option<(SegmentId, Kind)> {
        let (stem, ending) = name.split_once('.')?;
        let kind = match ending {
            "log" => Kind::Sealed,
            "log.active" => Kind::Active,
            "log.zst" => Kind::Compressed,
            "trail" => Kind::Trail,
            "torn" => Kind::Torn,
            _ => return None,
        };
        let (shard, sequence) = stem.split_once('-')?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(shard) || !digits(sequence) {
            return None;
        }
        let id = SegmentId { shard: shard.parse().ok()?, sequence: sequence.parse().ok()? };
        // With more zeros than we write it is another file, beside the one whose name the numbers give.
        (id.file_name(kind) == name).then_some((id, kind))
    }
}

/// The name of the link to the active segment of a shard.
#[must_use]
pub fn current_link(shard: u16) -> String {
    format!("current-{shard}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for kind in [Kind::Sealed, Kind::Active, Kind::Compressed, Kind::Trail, Kind::Torn] {
            for id in [SegmentId { shard: 0, sequence: 1 }, SegmentId { shard: 1234, sequence: u64::MAX }] {
                assert_eq!(SegmentId::parse(&id.file_name(kind)), Some((id, kind)));
            }
        }
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in [
            "",
            "x",
            "current-0",
            "000-0000000001",
            "000-1.log",
            "000-0000000001.log.gz",
            "+00-0000000001.log",
            "99999-0000000001.log",
        ] {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_with_more_zeros_than_ours_is_foreign() {
        for name in ["0000-0000000001.log.active", "000-00000000001.log", "00-0000000001.trail"] {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn stream_names_are_an_allow_list() {
        assert!(is_stream_name("web-1_a"));
        for bad in ["", ".", "..", "a/b", "A", "a b", "é", ".logweir", &"a".repeat(65)] {
            assert!(!is_stream_name(bad), "{bad}");
        }
    }
}
