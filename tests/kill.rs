//! kill -9 at random moments. Per connection: what is on disk is a gap-free prefix, and at least the last count replied.

mod common;

use common::{Server, await_that, scratch};
use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kills in `cargo test`; LOGWEIR_KILLS asks for more.
const KILLS: u64 = 12;

/// How a server is run, and what is sent to it.
struct Case {
    ack: &'static str,
    engine: &'static str,
    io: &'static str,
    longest_line: u64,
}

const CASE: Case = Case { ack: "durable", engine: "auto", io: "auto", longest_line: 80 };

fn rounds(Case { ack, engine, io, longest_line }: Case) {
    let dir = scratch();
    let data = dir.path().join("data");
    let kills: u64 = std::env::var("LOGWEIR_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(KILLS);
    let segment = (longest_line * 4096).next_multiple_of(1024);
    let config = format!(
        "engine = \"{engine}\"\n[storage]\nio = \"{io}\"\nsegment_size = \"{segment}B\"\nsync_interval = \"10ms\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\nack = \"{ack}\""
    );
    let mut on_disk: HashMap<u32, u64> = HashMap::new();
    for round in 0..kills {
        let mut server = Server::with_config(&data, &config);
        let address = server.address("lines");
        let replied: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for (i, replied) in replied.iter().enumerate() {
                let stream = TcpStream::connect(address).unwrap();
                scope.spawn(move || common::acked_client(stream, round as u32 * 4 + i as u32, longest_line, replied));
            }
            // A random moment: a random number of acknowledged lines.
            let moment = (round * 7919 + 13) % (1_000_000 / longest_line);
            await_that("acknowledgements", || replied.iter().map(|r| r.load(Ordering::SeqCst)).sum::<u64>() > moment);
            server.kill();
        });
        let mut server = Server::with_config(&data, &config);
        assert!(server.stop().success());
        let out = common::cat(&data);
        on_disk.clear();
        for line in common::lines_of(&out) {
            let (connection, number) = logweir::bench::lines::parse_numbered(line).expect("a line that was not sent");
            let next = on_disk.entry(connection).or_insert(0);
            assert_eq!(number, *next, "round {round}, connection {connection}: a gap, a double or out of order");
            *next += 1;
        }
        for (i, replied) in replied.iter().enumerate() {
            let connection = round as u32 * 4 + i as u32;
            let (there, said) = (on_disk.get(&connection).copied().unwrap_or(0), replied.load(Ordering::SeqCst));
            assert!(there >= said, "round {round}: {said} were acknowledged as {ack}, {there} are there");
        }
        // What was checked is taken away, or the directory grows with each round.
        for entry in std::fs::read_dir(data.join("default")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn durable_lines_survive_kills() {
    rounds(CASE);
}

#[test]
fn written_lines_survive_kills() {
    rounds(Case { ack: "written", ..CASE });
}

#[test]
fn durable_lines_survive_kills_with_epoll() {
    rounds(Case { engine: "epoll", ..CASE });
}

/// Lines so long that batches are large enough for direct writes.
#[test]
fn written_lines_survive_kills_with_direct_writes() {
    rounds(Case { ack: "written", io: "direct", longest_line: 40_000, ..CASE });
}
