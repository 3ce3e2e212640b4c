//! Clients that others have written, unchanged, at the APIs of one HTTP listener: every record is on disk as it was sent, in order, and
//! where a client sends again by itself, also through a restart of the server and while its disk is full.
//!
//! `.ci/run` installs those of Python (`.ci/api-clients.txt`) and says in `LOGWEIR_API_CLIENTS` where; `.ci/run --clients` also the
//! others (`.ci/more-clients`), and says it in `LOGWEIR_MORE_CLIENTS`.

mod common;

#[path = "api_clients/collector.rs"]
mod collector;
#[path = "api_clients/full.rs"]
mod full;
#[path = "api_clients/relays.rs"]
mod relays;
#[path = "api_clients/table.rs"]
mod table;

use common::image::{FileSystem, Image};
use common::ledger::pass;
use common::programs::run;
use common::{await_that, ran, scratch, skipped};
use full::{FullDisk, SMALL, await_quiet};
use std::time::Duration;
use table::{Again, CLIENTS, Client, In, Sending, a_port, check_all, message, messages, received, start};

const COUNT: usize = 200;

fn is_usual(client: &Client) -> bool {
    matches!(client.within, In::Python(_))
}

fn is_one_of_more(client: &Client) -> bool {
    !is_usual(client)
}

/// Runs a test with each of these clients that is here, and says which are not.
fn with_each(test: &str, which: fn(&Client) -> bool, least: Again, run: fn(&Client) -> Result<(), String>) {
    let rank = |again: Again| [Again::Nothing, Again::Unconnected, Again::Refused].iter().position(|a| *a == again);
    for client in CLIENTS.iter().filter(|client| which(client) && rank(client.again) >= rank(least)) {
        match run(client) {
            Ok(()) => ran(test, client.name),
            Err(why) => skipped(test, &why),
        }
    }
}

/// In order, and an answer means that it is durable.
fn sends(client: &Client) -> Result<(), String> {
    let dir = scratch();
    let server = start(&dir.path().join("data"), 0, client.set);
    let mut command = client.command(server.address("http").port(), COUNT)?;
    let said = run(&mut command, b"");
    if !client.reads_answers {
        await_quiet(&server, COUNT);
        check_all(&server, COUNT, client.of, client.name); // one may overtake another
        return Ok(());
    }
    assert_eq!(server.metrics().sum("logweir_durable_lines_total", ""), COUNT as f64, "{}: {said}", client.name);
    assert_eq!(messages(&server, client.of), (0..COUNT).map(message).collect::<Vec<_>>(), "{}", client.name);
    server.metrics().check_accounts();
    Ok(())
}

/// The second half is sent while nobody is there.
fn through_a_restart(client: &Client) -> Result<(), String> {
    let (dir, count) = (scratch(), 20 * COUNT);
    let (data, port) = (dir.path().join("data"), a_port());
    let mut server = start(&data, port, client.set);
    let mut sending = Sending::start(client.command(port, count)?, dir.path());
    await_that("it has begun", || received(&server) > 0.0);
    assert!(server.stop().success());
    sending.go_on();
    pass(Duration::from_millis(500)); // away for so long
    let server = start(&data, port, client.set);
    sending.end();
    check_all(&server, count, client.of, client.name);
    Ok(())
}

/// The second half is sent while the disk is full.
fn through_a_full_disk(client: &Client) -> Result<(), String> {
    let (dir, count) = (scratch(), 20 * COUNT);
    let image = Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 64 << 20)?;
    let server = start(&image.mount.join("data"), 0, &[SMALL, client.set].concat());
    let mut sending = Sending::start(client.command(server.address("http").port(), count)?, dir.path());
    await_quiet(&server, count / 2 - 50); // some keep a batch until there is more
    let full = FullDisk::make(&server, &image);
    sending.go_on();
    await_that(&format!("{} is refused", client.name), || full.refusals() >= 1.0);
    full.has_room_again();
    sending.end();
    check_all(&server, count, client.of, client.name);
    Ok(())
}

#[test]
fn what_clients_send_is_on_disk_as_they_sent_it() {
    with_each("what_clients_send_is_on_disk_as_they_sent_it", is_usual, Again::Nothing, sends);
}

#[test]
#[ignore = "with .ci/run --clients"]
fn what_more_clients_send_is_on_disk_as_they_sent_it() {
    with_each("what_more_clients_send_is_on_disk_as_they_sent_it", is_one_of_more, Again::Nothing, sends);
}

#[test]
fn clients_that_send_again_lose_nothing_through_a_restart() {
    let test = "clients_that_send_again_lose_nothing_through_a_restart";
    with_each(test, is_usual, Again::Unconnected, through_a_restart);
}

#[test]
#[ignore = "with .ci/run --clients"]
fn more_clients_that_send_again_lose_nothing_through_a_restart() {
    let test = "more_clients_that_send_again_lose_nothing_through_a_restart";
    with_each(test, is_one_of_more, Again::Unconnected, through_a_restart);
}

#[test]
fn clients_that_send_again_lose_nothing_while_the_disk_is_full() {
    let test = "clients_that_send_again_lose_nothing_while_the_disk_is_full";
    with_each(test, is_usual, Again::Refused, through_a_full_disk);
}

#[test]
#[ignore = "with .ci/run --clients"]
fn more_clients_that_send_again_lose_nothing_while_the_disk_is_full() {
    let test = "more_clients_that_send_again_lose_nothing_while_the_disk_is_full";
    with_each(test, is_one_of_more, Again::Refused, through_a_full_disk);
}
