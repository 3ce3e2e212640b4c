//! Somebody else in the data directory: appends to what is being written, cuts it, moves it away, puts a backup back, loses a
//! state file. Nothing acknowledged is cut, nothing is removed that was not noted, and it is said and counted.

mod common;

use common::{Server, await_that, lines_of, logweir, scratch};
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

fn config(engine: &str, io: &str, more: &str) -> String {
    format!(
        "engine = \"{engine}\"\n[placement]\nshards = 1\n[storage]\nio = \"{io}\"\n{more}\n\
         [listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n"
    )
}

fn start(data: &Path) -> Server {
    start_with(data, "commit_log = \"off\"")
}

/// What is answered by the commit log is not in the segment yet, nor synced there: these tests are about what is.
fn start_with(data: &Path, storage: &str) -> Server {
    Server::with_config(data, &config("auto", "auto", storage))
}

/// A client that waits until its lines are durable.
struct Client {
    stream: TcpStream,
    counts: BufReader<TcpStream>,
    sent: usize,
}

impl Client {
    fn of(server: &Server) -> Client {
        let stream = server.connect();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        Client { counts: BufReader::new(stream.try_clone().unwrap()), stream, sent: 0 }
    }

    fn durable(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.sent += lines_of(bytes).len();
        let mut count = String::new();
        while count.trim().parse() != Ok(self.sent) {
            count.clear();
            assert!(self.counts.read_line(&mut count).unwrap() > 0, "the server has hung up");
        }
    }
}

fn current(data: &Path) -> PathBuf {
    // A rotation may be under way.
    let found = || common::current(data).filter(|path| path.extension().is_some_and(|e| e == "active"));
    await_that("an active segment", || found().is_some());
    found().unwrap()
}

/// As `echo mark >> current-0` does.
fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn has(text: &[u8], lines: &[&str]) {
    let found = lines_of(text);
    for line in lines {
        assert!(found.contains(&line.as_bytes()), "{line} is missing in {}", String::from_utf8_lossy(text));
    }
}

fn verify(data: &Path) -> (i32, String) {
    let output = logweir(&["verify", "--data-dir", data.to_str().unwrap()]);
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The symlink follows the segments a little later.
fn await_another(data: &Path, before: &Path) {
    await_that("another segment is current", || current(data) != before);
}

fn changes(server: &Server) -> f64 {
    server.metrics().sum("logweir_foreign_changes_total", "")
}

#[test]
fn lines_that_others_append_take_none_of_ours_along() {
    for engine in ["epoll", "auto"] {
        for io in ["append", "dontcache", "direct"] {
            let dir = scratch();
            let data = dir.path().join("data");
            let mut server = Server::with_config(&data, &config(engine, io, ""));
            let mut client = Client::of(&server);
            let large: Vec<u8> = (0..9_000).flat_map(|i| format!("large {i:0>93}\n").into_bytes()).collect();
            client.durable(b"before\n");
            let first = current(&data);
            append(&first, b"mark\n");
            client.durable(&large);
            await_another(&data, &first); // one that was touched is written no more
            let second = current(&data);
            append(&second, b"no newline");
            client.durable(b"one\ntwo\nthree\nfour\n");
            await_another(&data, &second);
            await_that("both are counted", || changes(&server) == 2.0);
            server.metrics().check_accounts();
            let listing = fs::read(current(&data)).unwrap();
            append(&current(&data), b"at the end\n");
            assert!(server.stop().success(), "all of ours is durable");
            let text = common::cat(&data);
            has(&text, &["before", "mark", "one", "two", "three", "four", "at the end"]);
            assert_eq!(text.windows(6).filter(|w| w == b"large ").count(), 9_000, "{engine} {io}");
            let sealed = |n| fs::read(data.join(format!("default/000-000000000{n}.log"))).unwrap();
            assert_eq!(sealed(1), b"before\nmark\n");
            assert!(sealed(2) == [&large[..], b"no newline"].concat());
            assert_eq!(sealed(3), [&listing[..], b"at the end\n"].concat());
            let (code, said) = verify(&data);
            assert_eq!(code, 1, "{said}");
            assert_eq!(said.matches("behind its end").count(), 3, "{said}");
        }
    }
}

#[test]
fn what_is_appended_while_the_server_is_away_stays() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    Client::of(&server).durable(b"one\ntwo\n");
    server.kill();
    append(&current(&data), b"mark\nand no newline");
    let mut server = start(&data);
    Client::of(&server).durable(b"three\n");
    assert!(server.stop().success());
    has(&common::cat(&data), &["one", "two", "mark", "three"]);
    assert_eq!(
        fs::read(data.join("default/000-0000000001.torn")).unwrap(),
        b"and no newline",
        "it was moved, not deleted"
    );
}

#[test]
fn a_file_that_others_cut_is_given_up_and_no_later_line_is_lost() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    let mut client = Client::of(&server);
    // As logrotate with copytruncate does, again and again; here it leaves what was in the segment before.
    for round in 0..5 {
        let touched = current(&data);
        let left = fs::metadata(&touched).unwrap().len();
        client.durable(format!("before {round}\n").as_bytes());
        OpenOptions::new().write(true).open(&touched).unwrap().set_len(left).unwrap();
        client.durable(format!("after {round}\n").as_bytes());
        await_another(&data, &touched);
        assert_eq!(changes(&server), f64::from(round + 1));
    }
    assert_eq!(server.get("/readyz").0, 200, "the disk has not failed");
    server.metrics().check_accounts();
    has(&common::cat(&data), &["after 0", "after 1", "after 2", "after 3", "after 4"]);
    assert!(!server.stop().success(), "lines that were durable are gone: that is not called clean");
    let (code, said) = verify(&data);
    assert_eq!(code, 1, "{said}");
    let server = start(&data);
    assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 5.0);
    has(&common::cat(&data), &["after 0", "after 4"]);
}

/// What only the commit log and memory have goes to the next segment, whatever others do to this one.
#[test]
fn a_foreign_change_takes_nothing_that_the_commit_log_has() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start_with(&data, "commit_log = \"1MiB\"\nsync_interval = \"1h\"");
    let logs = || server.metrics().sum("logweir_commit_logs", "");
    if !common::is_awaited(|| logs() == 1.0) {
        return common::skipped("a_foreign_change_takes_nothing_that_the_commit_log_has", "no commit log here");
    }
    let mut client = Client::of(&server);
    client.durable(b"before\n");
    assert!(server.metrics().sum("logweir_commit_log_records_total", "") >= 1.0);
    server.cat();
    let touched = current(&data);
    OpenOptions::new().write(true).open(&touched).unwrap().set_len(0).unwrap();
    client.durable(b"after\n");
    await_another(&data, &touched);
    has(&server.cat(), &["before", "after"]);
    assert!(!server.stop().success(), "the file was changed");
    let server = start(&data);
    assert_eq!(lines_of(&server.cat()).len(), 2, "and the next start brings nothing again");
}

#[test]
fn a_file_that_others_move_or_replace_is_given_up_and_no_later_line_is_lost() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    let mut client = Client::of(&server);
    client.durable(b"moved\n");
    let (first, aside) = (current(&data), dir.path().join("current-0.1"));
    fs::rename(&first, &aside).unwrap();
    client.durable(b"after the move\n");
    await_another(&data, &first);
    let second = current(&data);
    fs::write(dir.path().join("other"), b"somebody's own\n").unwrap();
    fs::rename(dir.path().join("other"), &second).unwrap();
    client.durable(b"after the replacement\n");
    await_another(&data, &second);
    let third = current(&data);
    fs::remove_file(&third).unwrap();
    client.durable(b"after the deletion\n");
    await_another(&data, &third);
    assert_eq!(changes(&server), 3.0);
    assert_eq!(server.get("/readyz").0, 200);
    // The last one at its sealing: what is there under its name is not ours to rename.
    fs::rename(current(&data), dir.path().join("last")).unwrap();
    assert!(server.stop().success());
    let moved = fs::read(&aside).unwrap();
    assert!(moved.starts_with(b"moved\n"), "nobody touches it any more: {moved:?}");
    assert!(fs::read(&second).unwrap().starts_with(b"somebody's own\n"), "nor what stands in its place");
    assert_eq!(common::cat(&data), b"somebody's own\n", "the rest was moved or deleted by others");
    assert!(fs::read(dir.path().join("last")).unwrap().starts_with(b"after the deletion\n"));
    let (code, said) = verify(&data);
    assert_eq!(code, 1, "{said}");
}

#[test]
fn what_is_written_over_and_was_not_synced_is_written_again() {
    let dir = scratch();
    let data = dir.path().join("data");
    let text = config("auto", "auto", "sync_interval = \"1h\"\nsync_bytes = \"1GiB\"")
        + "[listener.plain]\naddress = \"tcp://127.0.0.1:0\"\n";
    let server = Server::with_config(&data, &text);
    common::send_all(server.address("plain"), b"written and not synced\n");
    await_that("it is written", || server.metrics().sum("logweir_written_lines", "") == 1.0);
    // As `cp` does: longer than ours, and ours is gone.
    fs::write(current(&data), "something else altogether, and longer\n").unwrap();
    Client::of(&server).durable(b"one\n");
    assert_eq!(changes(&server), 1.0);
    assert_eq!(server.metrics().sum("logweir_at_risk_lines_total", ""), 1.0, "said, not called durable");
    server.metrics().check_accounts();
    has(&server.cat(), &["one"]);
}

#[test]
fn a_trail_that_others_change_costs_no_line() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::with_config(&data, &config("auto", "auto", "sync_interval = \"10ms\""));
    let mut client = Client::of(&server);
    client.durable(b"one\n");
    append(&data.join("default/000-0000000001.trail"), b"mark");
    let mut sent = 1;
    await_that("another segment", || {
        client.durable(b"more\n");
        sent += 1;
        !current(&data).ends_with("000-0000000001.log.active")
    });
    assert!(server.stop().success());
    assert_eq!(lines_of(&common::cat(&data)).len(), sent);
}

#[test]
fn files_of_others_under_our_names_stay_as_they_are() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    let mut client = Client::of(&server);
    client.durable(b"one\n");
    // The next names, as a backup may have them that was put back; and a file where the symlink is made.
    let taken: Vec<PathBuf> = (3..6).map(|n| data.join(format!("default/000-000000000{n}.log.active"))).collect();
    taken.iter().for_each(|path| fs::write(path, "from a backup\n").unwrap());
    let link = data.join("default/current-0");
    fs::remove_file(&link).unwrap();
    fs::write(&link, "made by logrotate\n").unwrap();
    for _ in 0..2 {
        let before = server.metrics().sum("logweir_rotations_total", "");
        server.signal(Signal::SIGUSR1);
        await_that("a rotation", || server.metrics().sum("logweir_rotations_total", "") > before);
        client.durable(b"more\n");
    }
    assert!(server.stop().success());
    assert_eq!(fs::read(&link).unwrap(), b"made by logrotate\n");
    taken.iter().for_each(|path| assert_eq!(fs::read(path).unwrap(), b"from a backup\n"));
    // The next start takes them for what a crash has left, and loses nothing.
    let mut server = start(&data);
    assert!(server.stop().success());
    let text = common::cat(&data);
    assert_eq!(lines_of(&text).iter().filter(|l| **l == b"from a backup").count(), 3);
    has(&text, &["one", "more"]);
}

#[test]
fn what_others_write_into_an_unused_segment_stays() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    append(&current(&data), b"mark\n");
    append(&data.join("default/000-0000000002.log.active"), b"into the spare\n");
    assert!(server.stop().success());
    let mut server = start(&data);
    assert!(server.stop().success());
    has(&common::cat(&data), &["mark", "into the spare"]);
}

/// `verify` goes on saying it, though the next start has made the segment whole.
#[test]
fn verify_tells_of_a_segment_that_others_have_changed_for_good() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    let mut client = Client::of(&server);
    client.durable(b"one\n");
    let first = current(&data);
    append(&first, b"mark\n");
    client.durable(b"two\n");
    await_that("it is sealed", || data.join("default/000-0000000001.log").exists());
    server.kill();
    // As a kill between the mark and the renaming leaves it.
    fs::rename(data.join("default/000-0000000001.log"), &first).unwrap();
    let mut server = start(&data);
    assert!(server.stop().success());
    assert_eq!(common::cat(&data), b"one\nmark\ntwo\n");
    let (code, said) = verify(&data);
    assert!(code == 1 && said.contains("behind 4 it is not ours"), "{said}");
}

/// A file that cannot be opened must not keep the others from being served.
#[test]
fn a_segment_that_may_not_be_written_to_is_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    if nix::unistd::geteuid().is_root() {
        return common::skipped("a_segment_that_may_not_be_written_to", "root may write to everything");
    }
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    Client::of(&server).durable(b"one\n");
    let first = current(&data);
    server.kill();
    fs::set_permissions(&first, fs::Permissions::from_mode(0o444)).unwrap();
    let mut server = start(&data);
    assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 1.0);
    Client::of(&server).durable(b"two\n");
    assert!(server.stop().success());
    has(&common::cat(&data), &["one", "two"]);
}

fn numbered(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).flat_map(|i| format!("{i:0>99}\n").into_bytes()).collect()
}

/// Of each sequence so far a segment of its own.
fn sealed(server: &Server, client: &mut Client, lines: std::ops::Range<usize>) {
    for line in lines {
        client.durable(&numbered(line, 1));
        let before = server.metrics().sum("logweir_rotations_total", "");
        server.signal(Signal::SIGUSR1);
        await_that("a rotation", || server.metrics().sum("logweir_rotations_total", "") > before);
    }
}

/// A partial restore: the note of the last sequence and the files are lost, the note of what retention took is there.
#[test]
fn a_name_does_not_come_back_below_what_retention_took() {
    let dir = scratch();
    let data = dir.path().join("data");
    let small = config("auto", "auto", "reserve_step = \"0B\"\nsync_interval = \"10ms\"");
    let mut server = Server::with_config(&data, &(small.clone() + "[retention]\nmax_age = \"1s\"\n"));
    let mut client = Client::of(&server);
    sealed(&server, &mut client, 0..5);
    await_that("retention", || server.metrics().sum("logweir_deleted_segments_total", "") >= 4.0);
    assert!(server.stop().success());
    fs::remove_dir_all(data.join(".logweir/sequence")).unwrap();
    fs::remove_dir_all(data.join("default")).unwrap();
    let mut server = Server::with_config(&data, &small);
    let mut client = Client::of(&server);
    sealed(&server, &mut client, 0..10);
    assert_eq!(server.cat(), numbered(0, 10));
    // The link follows a moment after the rotation.
    let name = || current(&data).file_name().unwrap().to_str().unwrap().to_string();
    await_that("a name beyond what retention took", || name().as_str() > "000-0000000015");
    assert!(server.stop().success());
    let mut server = Server::with_config(&data, &small);
    sealed(&server, &mut Client::of(&server), 10..12);
    assert_eq!(server.cat(), numbered(0, 12));
    assert_eq!(server.metrics().sum("logweir_deleted_segments_total", ""), 0.0);
    assert!(server.stop().success());
    assert_eq!(verify(&data).0, 0, "{}", verify(&data).1);
}

#[test]
fn a_segment_that_is_put_back_from_a_backup_stays_and_is_verified() {
    let dir = scratch();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let small = config("auto", "auto", "reserve_step = \"0B\"\nsync_interval = \"10ms\"");
    let mut server = Server::with_config(&data, &small);
    let mut client = Client::of(&server);
    sealed(&server, &mut client, 0..3);
    await_that("they are sealed", || data.join("default/000-0000000003.log").exists());
    fs::create_dir_all(&backup).unwrap();
    let files = ["000-0000000001.log", "000-0000000001.trail", "000-0000000002.log", "000-0000000002.trail"];
    let copy = |from: &Path, to: &Path| files.iter().for_each(|f| assert!(fs::copy(from.join(f), to.join(f)).is_ok()));
    copy(&data.join("default"), &backup);
    assert!(server.stop().success());
    let mut server = Server::with_config(&data, &(small.clone() + "[retention]\nmax_age = \"1s\"\n"));
    await_that("retention", || server.cat().is_empty());
    assert!(server.stop().success());
    // Retention is off now.
    let mut server = Server::with_config(&data, &small);
    copy(&backup, &data.join("default"));
    let mut client = Client::of(&server);
    sealed(&server, &mut client, 10..14);
    await_that("all are read", || server.cat() == [numbered(0, 2), numbered(10, 4)].concat());
    assert!(server.stop().success());
    let mut server = Server::with_config(&data, &small);
    sealed(&server, &mut Client::of(&server), 14..16);
    assert_eq!(server.cat(), [numbered(0, 2), numbered(10, 6)].concat(), "nor at the next start");
    assert!(server.stop().success());
    assert_eq!(verify(&data).0, 0, "{}", verify(&data).1);
    let path = data.join("default/000-0000000002.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, said) = verify(&data);
    assert!(code == 1 && said.contains("000-0000000002.log"), "what is below the mark is looked at too: {said}");
}

#[test]
fn notes_that_cannot_be_true_refuse_the_start_and_say_what_to_do() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = start(&data);
    Client::of(&server).durable(b"one\n");
    server.kill();
    let note = data.join(".logweir/retired/default.0");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    let refused = || {
        let args = ["serve", "--admin", "off", "--listen", "tcp://127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
        let output = logweir(&args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    fs::write(&note, "150\nretiring 1-9\n").unwrap();
    let said = refused();
    assert!(said.contains("is being deleted, and it was being written") && said.contains("retiring"), "{said}");
    fs::write(&note, "many\n").unwrap();
    let said = refused();
    assert!(said.contains("retired/default.0") && said.contains("delete it"), "{said}");
    fs::remove_file(&note).unwrap();
    let sequence = data.join(".logweir/sequence/default.0");
    fs::write(&sequence, "").unwrap();
    let said = refused();
    assert!(said.contains("sequence/default.0") && said.contains("delete it"), "{said}");
    fs::remove_file(&sequence).unwrap();
    let mut server = start(&data);
    assert_eq!(server.cat(), b"one\n");
    assert!(server.stop().success());
}

/// Nobody waits for an answer, nothing rotates, and still it is noticed soon: what is written behind the move is in the file that was moved.
#[test]
fn a_file_that_was_moved_is_noticed_at_the_next_sync_and_not_at_the_next_rotation() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--set", "storage.sync_interval=20ms"]);
    let durable = || server.metrics().sum("logweir_durable_lines_total", "");
    common::send_all(server.address("lines"), b"before\n");
    await_that("the line", || durable() == 1.0);
    let (first, aside) = (current(&data), dir.path().join("aside"));
    fs::rename(&first, &aside).unwrap();
    common::send_all(server.address("lines"), b"into the file that was moved\n");
    await_that("it is noticed", || changes(&server) == 1.0);
    assert_eq!(server.metrics().sum("logweir_rotations_total", ""), 0.0);
    common::send_all(server.address("lines"), b"after\n");
    await_that("what comes then is in another file", || server.cat() == b"after\n");
    assert_eq!(fs::read(&aside).unwrap(), b"before\ninto the file that was moved\n");
}
