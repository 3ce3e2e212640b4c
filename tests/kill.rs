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
    /// Where HTTP requests go; `None`: plain lines.
    http: Option<&'static str>,
}

const CASE: Case = Case { ack: "durable", engine: "auto", io: "auto", longest_line: 80, http: None };

fn rounds(Case { ack, engine, io, longest_line, http }: Case) {
    let dir = scratch();
    let data = dir.path().join("data");
    let kills: u64 = std::env::var("LOGWEIR_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(KILLS);
    let segment = (longest_line * 4096).next_multiple_of(1024);
    let (protocol, name) = if http.is_some() { ("protocol = \"http\"", "web") } else { ("reply = \"count\"", "lines") };
    let config = format!(
        "engine = \"{engine}\"\n[storage]\nio = \"{io}\"\nsegment_size = \"{segment}B\"\nsync_interval = \"10ms\"\n[listener.{name}]\naddress = \"tcp://127.0.0.1:0\"\n{protocol}\nack = \"{ack}\""
    );
    let mut on_disk: HashMap<u32, u64> = HashMap::new();
    for round in 0..kills {
        let mut server = Server::with_config(&data, &config);
        let address = server.address(name);
        let replied: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for (i, replied) in replied.iter().enumerate() {
                let stream = TcpStream::connect(address).unwrap();
                let number = round as u32 * 4 + i as u32;
                scope.spawn(move || match http {
                    Some(path) => common::http::acked_client(stream, path, number, longest_line, replied),
                    None => common::acked_client(stream, number, longest_line, replied),
                });
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

#[test]
fn a_204_survives_kills() {
    rounds(Case { http: Some("/"), longest_line: 300, ..CASE });
}

#[test]
fn a_204_survives_kills_with_epoll_and_direct_writes() {
    rounds(Case { engine: "epoll", io: "direct", http: Some("/"), longest_line: 9000, ..CASE });
}

/// `ack=written` of one request on a listener whose level is durable: survives a kill, if not a power cut.
#[test]
fn a_204_for_written_survives_kills() {
    rounds(Case { http: Some("/?ack=written"), longest_line: 300, ..CASE });
}
