//! What the rows share: a small configuration with all protocols that acknowledge, and clients that keep the ledger.

use crate::common::ledger::{self, Account};
use crate::common::{self, Server};
use crate::relp;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

pub const ENGINES: [&str; 2] = ["io_uring", "epoll"];
pub const MODES: [&str; 4] = ["append", "dontcache", "direct", "auto"];

/// Little memory, small segments, and five listeners: `lines` with counts, `web`, `apis`, `relp`, and `plain` without a promise.
pub fn config(engine: &str, io: &str, ack: &str, storage: &str) -> String {
    // So small that it is full now and then.
    let commit_log = if engine == "io_uring" { "1MiB" } else { "auto" };
    format!(
        "engine = \"{engine}\"
[buffer]
memory = \"16MiB\"
[limits]
max_connections = 64
[storage]
io = \"{io}\"
reserve_step = \"1MiB\"
commit_log = \"{commit_log}\"
{storage}
[listener.lines]
address = \"tcp://127.0.0.1:0\"
reply = \"count\"
ack = \"{ack}\"
max_line_bytes = \"64KiB\"
[listener.web]
protocol = \"http\"
address = \"tcp://127.0.0.1:0\"
max_line_bytes = \"64KiB\"
ack = \"{ack}\"
[listener.apis]
protocol = \"http\"
apis = [\"loki\", \"elasticsearch\", \"splunk\", \"otlp\"]
format = \"raw\"
address = \"tcp://127.0.0.1:0\"
max_line_bytes = \"64KiB\"
ack = \"{ack}\"
[listener.relp]
protocol = \"relp\"
address = \"tcp://127.0.0.1:0\"
max_line_bytes = \"64KiB\"
ack = \"{ack}\"
[listener.plain]
address = \"tcp://127.0.0.1:0\"
max_line_bytes = \"64KiB\"
"
    )
}

/// Who talks to which listener.
pub struct Client {
    pub listener: &'static str,
    pub account: Account,
    /// What is acknowledged to it is durable; otherwise written.
    pub durable: bool,
}

impl Client {
    pub fn new(listener: &'static str, connection: u32, longest: u64) -> Client {
        let unpromised = matches!(listener, "plain" | "lossy");
        Client { listener, account: Account { unpromised, ..Account::new(connection, longest) }, durable: true }
    }
}

/// Two connections with lines, two with HTTP, one with RELP, and three with APIs of other servers.
pub fn mixed(longest: u64) -> Vec<Client> {
    let listeners = ["lines", "web", "lines", "web", "relp", "apis", "apis", "apis"];
    listeners.iter().zip(0..).map(|(l, i)| Client::new(l, i, longest)).collect()
}

pub fn accounts(clients: &[Client]) -> impl Iterator<Item = &Account> + Clone {
    clients.iter().map(|c| &c.account)
}

/// Has the clients send until the server is gone, which `fault` sees to. Meanwhile what the server counts is held against the
/// ledger: it has received no more than was sent, and what it has acknowledged it counts as durable (or written).
pub fn under_load<T>(server: &mut Server, clients: &[Client], fault: impl FnOnce(&mut Server) -> T) -> T {
    let over = AtomicBool::new(false);
    let admin = server.admin.unwrap();
    await_commit_log(server);
    std::thread::scope(|scope| {
        for Client { listener, account, .. } in clients {
            let Ok(stream) = TcpStream::connect(server.address(listener)) else { continue }; // it may be gone already
            scope.spawn(move || match *listener {
                "relp" => relp::client(stream, account),
                "apis" => {
                    // Loki, OTLP, and Splunk and Elasticsearch, each in two ways.
                    let first = account.connection as usize % 3 * 2;
                    common::http::acked_client_of(stream, &common::apis::MAKERS[first..first + 2], account);
                }
                "web" => common::http::acked_client(stream, "/", account),
                _ => common::acked_client(stream, account),
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                hold_to_ledger(admin, clients);
                std::thread::park_timeout(std::time::Duration::from_millis(3));
            }
        });
        // A check that fails must not leave the clients at work for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fault(server)));
        server.kill();
        over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|wrong| std::panic::resume_unwind(wrong))
    })
}

fn hold_to_ledger(admin: std::net::SocketAddr, clients: &[Client]) {
    let acked = ledger::acked_in_all(accounts(clients)) as f64;
    let Some(metrics) = ledger::scrape(admin) else { return };
    let sent = accounts(clients).map(Account::sent).sum::<u64>() as f64;
    // Lines that were begun and not ended are counted as received and dropped; those of strangers are in no ledger.
    let begun = |reason: &str| metrics.sum("logweir_dropped_lines_total", reason);
    let cut = begun("\"reset\"") + begun("\"line_timeout\"") + begun("\"unterminated\"");
    let received = metrics.sum("logweir_received_lines_total", "") - cut;
    assert!(received <= sent, "received {received} of {sent} sent");
    let durable = metrics.sum("logweir_durable_lines_total", "");
    let written = metrics.sum("logweir_written_lines", "") + metrics.sum("logweir_at_risk_lines_total", "");
    let safe = if clients.iter().all(|c| c.durable) { durable } else { durable + written };
    assert!(safe >= acked, "acknowledged {acked}, but counted {durable} durable and {written} written");
}

/// Waits until small groups go to a commit log, where the configuration asks for one. Says whether they do.
pub fn await_commit_log(server: &Server) -> bool {
    let scrape = || server.admin.and_then(ledger::scrape);
    let is_asked_for = scrape().is_some_and(|m| m.sum("logweir_engine_info", "io_uring") > 0.0);
    let is_there = || scrape().is_none_or(|m| m.sum("logweir_commit_logs", "") > 0.0);
    is_asked_for && common::is_awaited(is_there) && scrape().is_some()
}

/// Sends exactly so many lines, ends the connection, and waits until the server has read them all.
pub fn send_exactly(server: &Server, listener: &str, account: &Account, lines: u64) {
    let mut stream = TcpStream::connect(server.address(listener)).unwrap();
    account.sent.store(lines, Ordering::SeqCst);
    let mut buffer = Vec::new();
    for number in 0..lines {
        account.line(number, &mut buffer);
        if buffer.len() > 1 << 16 || number + 1 == lines {
            stream.write_all(&buffer).unwrap();
            buffer.clear();
        }
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut buffer);
}
