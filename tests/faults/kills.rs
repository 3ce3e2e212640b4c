//! kill -9 at random moments, and again at random moments while the next server recovers.

use crate::common::ledger::{self, Account, Dice, Findings, Watch, clear, row};
use crate::common::{self, BINARY, Server, await_that, scratch};
use crate::load::{Client, ENGINES, MODES, accounts, await_commit_log, config, under_load};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Kills for each way to run a server in `cargo test`; LOGWEIR_KILLS asks for more.
const KILLS: u64 = 1;
/// Kills of the servers that recover, after each of those.
const KILLS_IN_RECOVERY: u64 = 2;

/// What is sent, and at which level it is acknowledged.
struct Case {
    test: &'static str,
    listener: &'static str,
    ack: &'static str,
}

/// Starts a server and kills it so long after that, whatever it does then; right after `cut`.
pub fn killed_early(data: &Path, config: &Path, after: Duration, cut: impl FnOnce()) {
    let mut child = Command::new(BINARY)
        .args([
            "serve",
            "--admin",
            "127.0.0.1:0",
            "--data-dir",
            data.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    ledger::pass(after);
    cut();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn rounds(Case { test, listener, ack }: Case) {
    let kills = ledger::times("LOGWEIR_KILLS", KILLS);
    for (which, (engine, io)) in ENGINES.iter().flat_map(|e| MODES.iter().map(move |io| (e, io))).enumerate() {
        let dir = scratch();
        let data = dir.path().join("data");
        let text = config(engine, io, ack, "segment_size = \"2MiB\"\nsync_interval = \"10ms\"\n");
        let (mut found, mut memory, mut cap) = (Findings::default(), ledger::Memory::default(), 0);
        let mut logged = 0;
        for round in 0..kills {
            let mut dice = Dice::new(test, (which as u64) << 20 | round);
            // Lines so long that batches are large enough for direct writes, and short ones.
            let longest = [80, 3000, 40_000][dice.below(3) as usize];
            let clients: Vec<Client> =
                (0..4).map(|i| Client { durable: ack == "durable", ..Client::new(listener, i, longest) }).collect();
            let begun = Instant::now();
            let mut server = Server::with_config(&data, &text);
            let start_time = begun.elapsed();
            cap = ledger::memory_cap(&server.introduction);
            let watch = Watch::over(server.admin.unwrap(), server.pid());
            logged += u64::from(ack == "durable" && await_commit_log(&server));
            let moment = dice.below(1_000_000 / longest);
            let before = under_load(&mut server, &clients, |server| {
                await_that("acknowledgements", || ledger::acked_in_all(accounts(&clients)) > moment);
                let before = ledger::acked_now(accounts(&clients));
                server.kill();
                before
            });
            memory = memory.most(watch.end().memory);
            for _ in 0..KILLS_IN_RECOVERY {
                let after = Duration::from_micros(dice.below(start_time.as_micros() as u64 * 5 / 4));
                killed_early(&data, &data.with_extension("toml"), after, || {});
            }
            let mut server = Server::with_config(&data, &text);
            assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 0.0, "round {round}");
            assert!(server.stop().success());
            let now = ledger::check(&data, accounts(&clients), &before);
            now.must_be_clean(&format!("{test}, {engine}, {io}, round {round}"));
            found.add(&now);
            clear(&data);
        }
        assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
        let variant = format!("{listener}, {ack}, {engine}, {io}");
        let note = format!("and {} kills during recovery; {logged} with a commit log", kills * KILLS_IN_RECOVERY);
        row("kill -9", &variant, kills, &found, Some((memory, cap)), &note);
    }
}

#[test]
fn durable_lines_survive_kills() {
    rounds(Case { test: "durable_lines", listener: "lines", ack: "durable" });
}

#[test]
fn written_lines_survive_kills() {
    rounds(Case { test: "written_lines", listener: "lines", ack: "written" });
}

#[test]
fn a_204_survives_kills() {
    rounds(Case { test: "a_204", listener: "web", ack: "durable" });
}

#[test]
fn a_204_for_written_survives_kills() {
    rounds(Case { test: "a_204_for_written", listener: "web", ack: "written" });
}

#[test]
fn a_200_of_relp_survives_kills() {
    rounds(Case { test: "a_200_of_relp", listener: "relp", ack: "durable" });
}

/// `ack=written` of one request on a listener whose level is durable: survives a kill, if not a power cut.
#[test]
fn a_204_for_written_on_a_durable_listener_survives_kills() {
    let kills = ledger::times("LOGWEIR_KILLS", 4);
    let dir = scratch();
    let data = dir.path().join("data");
    let text = config("auto", "auto", "durable", "segment_size = \"2MiB\"\nsync_interval = \"10ms\"\n");
    let mut found = Findings::default();
    for round in 0..kills {
        let mut dice = Dice::new("a_204_for_written_on_a_durable_listener", round);
        let pages: Vec<Account> = (0..4).map(|i| Account::new(i, 300)).collect();
        let mut server = Server::with_config(&data, &text);
        let address = server.address("web");
        let before = std::thread::scope(|scope| {
            for account in &pages {
                let stream = std::net::TcpStream::connect(address).unwrap();
                scope.spawn(move || common::http::acked_client(stream, "/?ack=written", account));
            }
            let moment = dice.below(3000);
            await_that("acknowledgements", || ledger::acked_in_all(&pages) > moment);
            let before = ledger::acked_now(&pages);
            server.kill();
            before
        });
        assert!(Server::with_config(&data, &text).stop().success());
        let now = ledger::check(&data, &pages, &before);
        now.must_be_clean(&format!("round {round}"));
        found.add(&now);
        clear(&data);
    }
    row("kill -9", "web, ?ack=written, auto, auto", kills, &found, None, "");
}
