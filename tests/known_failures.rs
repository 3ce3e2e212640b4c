//! Failures that happened once, each by name.

mod common;

use common::{Server, await_that, logweir, scratch, send_all};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// Found in review: whole lines and a short unterminated end filled the chunk to its last byte, the end's newline did not
/// fit, and the reactor died.
#[test]
fn a_datagram_as_large_as_a_chunk_is_taken_in() {
    let dir = scratch();
    let socket = dir.path().join("s");
    let config = format!(
        "[buffer]\nmemory = \"2MiB\"\n[listener.d]\naddress = \"unixgram://{}\"\nmax_line_bytes = \"8KiB\"",
        socket.display()
    );
    let mut server = Server::with_config(&dir.path().join("data"), &config);
    let sender = UnixDatagram::unbound().unwrap();
    let fd = socket2::SockRef::from(&sender);
    fd.set_send_buffer_size(1 << 20).unwrap();
    let mut sent = 0;
    for size in (120_000..200_000).step_by(997) {
        let mut datagram: Vec<u8> = b"0123456789012345678901234567890\n".repeat(size / 32);
        datagram.extend(std::iter::repeat_n(b'e', size % 32));
        match sender.send_to(&datagram, &socket) {
            Ok(_) => sent += 1,
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(sent > 10, "{sent} datagrams");
    sender.send_to(b"the last\n", &socket).unwrap();
    await_that("the last line", || server.cat().ends_with(b"the last\n"));
    server.metrics().check_accounts();
    assert!(server.stop().success());
}

/// Found in review: the temporary names of two shards' state files were the same.
#[test]
fn many_shards_start_and_rotate_side_by_side() {
    for _ in 0..3 {
        let dir = scratch();
        let data = dir.path().join("data");
        let args =
            ["--set", "placement.shards=8", "--set", "placement.reactors_per_shard=1", "--set", "buffer.memory=128MiB"];
        let mut server = Server::start(&data, &args);
        for _ in 0..4 {
            (0..16).for_each(|i| send_all(server.address("lines"), format!("line {i}\n").as_bytes()));
            server.signal(nix::sys::signal::Signal::SIGUSR1);
        }
        assert!(server.stop().success());
        assert_eq!(common::lines_of(&common::cat(&data)).len(), 64);
        let states = data.join(".logweir/sequence");
        for shard in 0..8 {
            let number = std::fs::read_to_string(states.join(format!("default.{shard}"))).unwrap();
            assert!(number.trim().parse::<u64>().is_ok(), "{number:?}");
        }
    }
}

/// Found in review: the connection that held the lane for partial lines went over the greatest length and fell silent; the
/// lane was never free again.
#[test]
fn a_silent_line_that_is_too_long_does_not_keep_the_lane() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = "[buffer]\nmemory = \"2MiB\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"16KiB\"\ntoo_long = \"drop\"\nline_timeout = \"500ms\"\nidle_timeout = \"0s\"";
    let server = Server::with_config(&data, config);
    let mut first = server.connect();
    first.write_all(b"begun").unwrap();
    await_that("one partial line", || server.metrics().sum("logweir_partial_line_bytes", "") > 0.0);
    // Others spend the budget; the first gets the lane, outgrows every length, and says no more.
    let mut others: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for other in &mut others {
        other.write_all(&[b'o'; 12_000]).unwrap();
    }
    await_that("a spent budget", || server.metrics().sum("logweir_partial_line_waits_total", "") > 0.0);
    let _ = first.write_all(&[b'f'; 60_000]);
    let mut late = server.connect();
    late.write_all(b"a whole line\n").unwrap();
    await_that("the whole line", || server.metrics().sum("logweir_durable_lines_total", "") >= 1.0);
    // And the silent one is closed for not ending its line.
    first.set_read_timeout(Some(common::PATIENCE)).unwrap();
    assert!(!matches!(first.read(&mut [0; 8]), Ok(n) if n > 0));
    server.metrics().check_accounts();
}

/// Found in review: a client that stayed connected and silent, or did not read its answers, held up SIGTERM to the last
/// second, and the end was then called unclean though every line was durable.
#[test]
fn clients_that_stay_do_not_hold_up_an_orderly_end() {
    let dir = scratch();
    let socket = dir.path().join("s");
    let config = format!(
        "shutdown_timeout = \"1h\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n[listener.deaf]\naddress = \"unix://{}\"\nreply = \"count\"\nack = \"received\"",
        socket.display()
    );
    let mut server = Server::with_config(&dir.path().join("data"), &config);
    let mut silent: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    for client in &mut silent {
        client.write_all(b"one\ntwo\n").unwrap();
    }
    // Answers until the socket takes no more: the client never reads them.
    let mut deaf = UnixStream::connect(&socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let mut sent = 0.0;
    for _ in 0..30_000 {
        if deaf.write(b"x\n").is_ok() {
            sent += 1.0;
            if sent % 50.0 == 0.0 {
                await_that("the lines", || server.metrics().sum("logweir_received_lines_total", "deaf") >= sent);
            }
        }
    }
    await_that("all lines", || server.metrics().sum("logweir_received_lines_total", "") == sent + 40.0);
    assert!(server.stop().success(), "everything was durable");
    drop((silent, deaf));
}

/// Found in review: a count went on past lines that had been dropped in between, so a client took those for durable.
#[test]
fn counts_never_go_past_a_dropped_line() {
    let dir = scratch();
    let config = "[listener.lines]\nreply = \"count\"\ntoo_long = \"drop\"";
    let path = dir.path().join("l.toml");
    std::fs::write(&path, config).unwrap();
    let output = logweir(&["check", "--config-only", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\ntoo_long = \"close\"\nmax_line_bytes = \"1KiB\"";
    let server = Server::with_config(&dir.path().join("data"), config);
    let mut client = server.connect();
    client.write_all(&[b"one\ntwo\n".to_vec(), vec![b'x'; 3000], b"\nthree\n".to_vec()].concat()).unwrap();
    let mut last = String::new();
    for line in BufReader::new(client).lines() {
        match line {
            Ok(line) => last = line,
            Err(_) => break,
        }
    }
    assert_eq!(last, "2", "what came before is counted, then the connection ends");
}

/// Found in review: files that are not logweir's in the data directory refused the start, or were deleted.
#[test]
fn foreign_files_in_the_data_directory_are_left_alone() {
    let dir = scratch();
    let data = dir.path().join("data");
    std::fs::create_dir_all(data.join("default/x.tmp")).unwrap();
    std::fs::write(data.join("readme"), "not a stream").unwrap();
    std::fs::write(data.join("default/notes.tmp"), "keep me").unwrap();
    std::fs::write(data.join("default/000-0000000001.log"), "sealed\n").unwrap();
    std::fs::write(data.join("default/000-0000000001.log.active"), "active\n").unwrap();
    let mut server = Server::start(&data, &[]);
    assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 1.0, "reported");
    send_all(server.address("lines"), b"new\n");
    assert!(server.stop().success());
    assert_eq!(std::fs::read(data.join("default/notes.tmp")).unwrap(), b"keep me");
    assert_eq!(std::fs::read(data.join("default/000-0000000001.log")).unwrap(), b"sealed\n");
    assert!(data.join("default/000-0000000002.log").exists());
}

/// Found by an outsider: each tiny line with a sync of its own cost 96 bytes of trail.
#[test]
fn tiny_lines_with_a_sync_each_make_no_trail_larger_than_they_are() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = "[placement]\nshards = 1\n[storage]\ncommit_log = \"off\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n";
    let mut server = Server::with_config(&data, config);
    let mut client = server.connect();
    let mut counts = BufReader::new(client.try_clone().unwrap()).lines();
    let since = std::time::Instant::now();
    let lines = 5_000;
    for n in 1..=lines {
        client.write_all(b"\n").unwrap();
        assert_eq!(counts.next().unwrap().unwrap(), n.to_string());
    }
    // Ten records a second, two more for each flush, and what a slow machine adds.
    let records = 20 + 15 * since.elapsed().as_secs();
    let size = |n: usize| std::fs::metadata(data.join(format!("default/000-000000000{n}.trail"))).unwrap().len();
    server.kill();
    assert!(size(1) <= 80 + 48 * records, "{} bytes of trail", size(1));
    let mut server = Server::with_config(&data, config);
    assert_eq!(server.cat(), b"\n".repeat(lines), "recovery finds the durable end");
    assert!(server.stop().success());
    let output = logweir(&["verify", "--json", "--data-dir", data.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("\"bytes_unproven\": 0"), "{said}");
}

/// Found by the same: recovery had a whole trail in memory, whatever the server was allowed.
#[test]
fn a_trail_larger_than_the_memory_is_recovered_and_verified() {
    use logweir::log::names::SegmentId;
    use logweir::log::trail::{Header, Record, What};
    let dir = scratch();
    let data = dir.path().join("data");
    std::fs::create_dir_all(data.join("default")).unwrap();
    // As versions before this one wrote it: a write and a mark for each line.
    let (lines, id) = (700_000_u64, SegmentId { shard: 0, sequence: 1 });
    let header = Header { boot: [1; 16], node: [1; 16], mount: 1, id, previous: 0, wall_ns: 1 };
    let crc = logweir::log::checksum::crc32c(b"\n");
    let mut trail = header.encode_whole(std::iter::empty());
    for offset in 0..lines {
        let write = Record { what: What::Write, offset, len: 1, lines: 1, crc, wall_ns: offset, mono_ns: offset };
        let mark = Record { what: What::Sync, offset: offset + 1, len: 0, lines: 0, crc: 0, ..write };
        [write, mark].iter().for_each(|record| record.append_to(&mut trail));
    }
    std::fs::write(data.join("default/000-0000000001.trail"), &trail).unwrap();
    std::fs::write(data.join("default/000-0000000001.log.active"), b"\n".repeat(lines as usize)).unwrap();
    let server = Server::start(&data, &["--set", "buffer.memory=16MiB", "--set", "placement.shards=1"]);
    assert_eq!(server.metrics().sum("logweir_recovered_lines", ""), lines as f64);
    assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 0.0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < (trail.len() as u64) / 1024, "{peak_kib} KiB at most, with a trail of {} bytes", trail.len());
    let output = logweir(&["verify", "--data-dir", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
