use super::*;
use crate::log::content::OnDisk;
use crate::log::trail::{Header, Record};
use proptest::prelude::*;

const STREAM: &str = "web";

fn id(sequence: u64) -> SegmentId {
    SegmentId { shard: 0, sequence }
}

fn record(what: What, offset: u64, len: u64, wall_ns: u64) -> Record {
    Record { what, offset, len, lines: 1, crc: 0, wall_ns, mono_ns: 0 }
}

/// The files of a stream, made by hand.
struct Stream(tempfile::TempDir);

impl Stream {
    fn new() -> Stream {
        let stream = Stream(tempfile::tempdir().unwrap());
        std::fs::create_dir(stream.dir()).unwrap();
        stream
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join(STREAM)
    }

    /// As retention notes it.
    fn retired(&self, highest: u64) {
        let path = mark_path(self.0.path(), STREAM, 0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{highest}\n")).unwrap();
    }

    fn put(&self, sequence: u64, kind: Kind, text: &str, records: &[Record]) {
        let header =
            Header { boot: [1; 16], node: [0; 16], mount: 1, id: id(sequence), previous: sequence - 1, wall_ns: 0 };
        std::fs::write(self.dir().join(id(sequence).file_name(Kind::Trail)), header.encode_whole(records.iter()))
            .unwrap();
        std::fs::write(self.dir().join(id(sequence).file_name(kind)), text).unwrap();
    }

    fn rename(&self, sequence: u64, from: Kind, to: Kind) {
        let path = |kind| self.dir().join(id(sequence).file_name(kind));
        std::fs::rename(path(from), path(to)).unwrap();
    }

    fn remove(&self, sequence: u64, kind: Kind) {
        std::fs::remove_file(self.dir().join(id(sequence).file_name(kind))).unwrap();
    }

    fn reader(&self, at: Position) -> ShardReader {
        ShardReader::new(self.0.path(), STREAM, 0, at, [1; 16])
    }
}

/// Everything that there is now.
fn all(reader: &mut ShardReader, most: usize) -> String {
    let (mut text, mut buffer) = (String::new(), Vec::new());
    while let Some(taken) = reader.take(&OnDisk, most, &mut buffer).unwrap() {
        assert_eq!(taken.times.last().unwrap().to, buffer.len());
        let is_over = taken.to == Position { sequence: taken.from.sequence + 1, offset: 0 };
        assert!(is_over || taken.to.offset - taken.from.offset == buffer.len() as u64);
        text += std::str::from_utf8(&buffer).unwrap();
    }
    text
}

#[test]
fn nothing_is_taken_that_was_not_synced() {
    let stream = Stream::new();
    let writes = [record(What::Write, 0, 4, 1), record(What::Sync, 4, 0, 2), record(What::Write, 4, 4, 3)];
    stream.put(1, Kind::Active, "one\ntwo\n", &writes);
    let mut reader = stream.reader(Position::default());
    assert_eq!(all(&mut reader, 100), "one\n");
    stream.put(1, Kind::Active, "one\ntwo\n", &[&writes[..], &[record(What::Sync, 8, 0, 4)]].concat());
    let mut again = stream.reader(reader.at());
    assert_eq!(all(&mut again, 100), "two\n");
    assert_eq!(again.at(), Position { sequence: 1, offset: 8 });
}

#[test]
fn it_goes_through_sealing_rotation_and_retention() {
    let stream = Stream::new();
    stream.put(1, Kind::Active, "one\ntwo\n", &[record(What::Synced, 0, 4, 1), record(What::Write, 4, 4, 2)]);
    let mut reader = stream.reader(Position::default());
    assert_eq!(all(&mut reader, 100), "one\n");
    // Sealed without room for a note of it: the name says so.
    stream.rename(1, Kind::Active, Kind::Sealed);
    stream.put(3, Kind::Active, "three\n", &[record(What::Synced, 0, 6, 3)]);
    assert_eq!(all(&mut reader, 100), "two\nthree\n");
    assert_eq!(reader.take_lost(), None);
    // A spare that never had a line is gone, and its name does not come back.
    stream.rename(3, Kind::Active, Kind::Sealed);
    stream.put(4, Kind::Active, "", &[]);
    assert_eq!(all(&mut reader, 100), "");
    stream.remove(4, Kind::Active);
    stream.put(5, Kind::Sealed, "five\n", &[record(What::Synced, 0, 5, 4)]);
    assert_eq!(all(&mut reader, 100), "five\n");
    assert_eq!(reader.take_lost(), None);
}

#[test]
fn what_was_deleted_before_it_was_read_is_said() {
    let stream = Stream::new();
    stream.put(9, Kind::Sealed, "nine\n", &[record(What::Synced, 0, 5, 1)]);
    let from = Position { sequence: 7, offset: 3 };
    let mut reader = stream.reader(from);
    assert_eq!(all(&mut reader, 100), "nine\n");
    assert_eq!(reader.take_lost(), Some(Lost { from, next: 9 }));
}

#[test]
fn what_was_read_to_its_end_may_be_deleted() {
    let stream = Stream::new();
    stream.put(7, Kind::Sealed, "seven\n", &[record(What::Synced, 0, 6, 1)]);
    let mut reader = stream.reader(Position::default());
    assert_eq!(all(&mut reader, 100), "seven\n");
    assert_eq!(reader.at(), Position { sequence: 8, offset: 0 });
    stream.remove(7, Kind::Sealed);
    stream.retired(7);
    // No segment had the name 8: a try that failed took it.
    stream.put(9, Kind::Sealed, "nine\n", &[record(What::Synced, 0, 5, 1)]);
    let mut again = stream.reader(reader.at());
    assert_eq!((all(&mut again, 100).as_str(), again.take_lost()), ("nine\n", None));
    // The same, but retention had more to take.
    stream.retired(8);
    assert_eq!(all(&mut reader, 100), "nine\n");
    assert_eq!(reader.take_lost(), Some(Lost { from: Position { sequence: 8, offset: 0 }, next: 9 }));
}

/// A directory whose listing misses some files, as one may while they are renamed.
struct Misses(u64);

impl Files for Misses {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = OnDisk.list(dir)?;
        names.retain(|name| SegmentId::parse(name).is_none_or(|(id, _)| id.sequence != self.0));
        Ok(names)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>> {
        OnDisk.open(path)
    }
}

#[test]
fn a_segment_that_a_listing_misses_is_not_passed_over() {
    let stream = Stream::new();
    for sequence in 1..=3 {
        stream.put(sequence, Kind::Sealed, &format!("{sequence}\n"), &[record(What::Synced, 0, 2, 1)]);
    }
    let (mut reader, mut buffer, mut read) = (stream.reader(Position::default()), Vec::new(), Vec::new());
    while reader.take(&Misses(2), 100, &mut buffer).unwrap().is_some() {
        read.extend_from_slice(&buffer);
    }
    assert_eq!(read, b"1\n2\n3\n");
}

#[test]
fn of_a_suspect_segment_nothing_comes_behind_its_last_mark() {
    let stream = Stream::new();
    let records = [record(What::Synced, 0, 4, 1), record(What::Write, 4, 4, 2), record(What::Suspect, 4, 0, 3)];
    stream.put(1, Kind::Active, "one\ntwo\n", &records);
    let mut reader = stream.reader(Position::default());
    assert_eq!(all(&mut reader, 100), "one\n");
    stream.put(2, Kind::Active, "two\n", &[record(What::Synced, 0, 4, 4)]);
    assert_eq!(all(&mut reader, 100), "two\n");
}

/// They are not written again, unlike those that somebody waits for.
#[test]
fn lines_of_a_commit_log_in_a_suspect_segment_are_waited_for() {
    let stream = Stream::new();
    let mut records = vec![record(What::Synced, 0, 4, 1), record(What::Logged, 4, 4, 2), record(What::Write, 4, 4, 2)];
    records.push(record(What::Suspect, 4, 0, 3));
    stream.put(1, Kind::Active, "one\ntwo\n", &records);
    stream.put(2, Kind::Active, "three\n", &[record(What::Synced, 0, 6, 4)]);
    let mut reader = stream.reader(Position::default());
    assert_eq!(all(&mut reader, 100), "one\n");
    // The next start finds them sound.
    std::fs::remove_file(stream.dir().join(id(1).file_name(Kind::Active))).unwrap();
    stream.put(1, Kind::Sealed, "one\ntwo\n", &records[..3]);
    assert_eq!(all(&mut reader, 100), "two\nthree\n");
    // Or it does not, and has brought them from the commit log into another.
    stream.rename(2, Kind::Active, Kind::Sealed);
    let mut reader = stream.reader(Position { sequence: 1, offset: 4 });
    stream.put(1, Kind::Sealed, "one\n", &records[..1]);
    stream.put(3, Kind::Active, "two\n", &[record(What::Synced, 0, 4, 5)]);
    assert_eq!(all(&mut reader, 100), "three\ntwo\n");
}

/// Found by the simulation: a power cut had taken the marks of syncs from the trail, and the sync of the next start failed.
#[test]
fn a_suspect_segment_of_another_boot_is_waited_for() {
    let stream = Stream::new();
    stream.put(1, Kind::Active, "one\ntwo\n", &[record(What::Suspect, 0, 0, 3)]);
    stream.put(2, Kind::Active, "three\n", &[record(What::Synced, 0, 6, 4)]);
    let mut same = stream.reader(Position::default());
    assert_eq!(all(&mut same, 100), "three\n", "the server has written again what it promised");
    let mut other = ShardReader::new(stream.0.path(), STREAM, 0, Position::default(), [2; 16]);
    assert_eq!(all(&mut other, 100), "");
    stream.rename(1, Kind::Active, Kind::Sealed);
    assert_eq!(all(&mut other, 100), "one\ntwo\nthree\n");
}

#[test]
fn what_others_have_appended_is_not_taken() {
    let stream = Stream::new();
    let records = [record(What::Synced, 0, 4, 1), record(What::Foreign, 4, 0, 2), record(What::End, 4, 0, 2)];
    stream.put(1, Kind::Sealed, "one\nforeign\n", &records);
    assert_eq!(all(&mut stream.reader(Position::default()), 100), "one\n");
}

#[test]
fn each_line_has_the_time_of_its_write() {
    let stream = Stream::new();
    stream.put(1, Kind::Sealed, "a\nb\nc\n", &[record(What::Synced, 0, 2, 5), record(What::Synced, 2, 2, 6)]);
    let (mut reader, mut buffer) = (stream.reader(Position::default()), Vec::new());
    let timed = |to, wall_ns| Timed { to, wall_ns };
    let taken = reader.take(&OnDisk, 2, &mut buffer).unwrap().unwrap();
    assert_eq!(taken.times, [timed(2, Some(5))]);
    let taken = reader.take(&OnDisk, 100, &mut buffer).unwrap().unwrap();
    assert_eq!(taken.times, [timed(2, Some(6)), timed(4, None)]);
}

proptest! {
    /// However much is taken at once, and wherever it begins again: the same lines, each once.
    #[test]
    fn any_cut_gives_the_same_lines(lengths in prop::collection::vec(0..30usize, 1..40), most in 1..60usize, again in 1..5usize) {
        let stream = Stream::new();
        let (mut texts, mut whole) = (vec![String::new(); 4], String::new());
        for (i, length) in lengths.iter().enumerate() {
            let line = format!("{i}{}\n", "x".repeat(*length));
            texts[i * 4 / lengths.len()] += &line;
            whole += &line;
        }
        for (i, text) in texts.iter().enumerate() {
            let records = [record(What::Synced, 0, text.len() as u64, 1)];
            stream.put(i as u64 + 1, if i == 3 { Kind::Active } else { Kind::Sealed }, text, &records);
        }
        let (mut reader, mut buffer, mut read, mut taken) = (stream.reader(Position::default()), Vec::new(), String::new(), 0);
        while reader.take(&OnDisk, most, &mut buffer).unwrap().is_some() {
            read += std::str::from_utf8(&buffer).unwrap();
            taken += 1;
            if taken % again == 0 {
                reader = stream.reader(reader.at());
            }
        }
        prop_assert_eq!(read, whole);
    }
}
