//! RELP when the disk is full: nothing is answered, and whoever has waited too long is told so by the end of the connection.

mod common;

use common::faulty_disk::Call;
use common::running::Running;
use common::{await_that, scratch};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client that has opened its session, and the next number.
struct Client(BufReader<TcpStream>, u32);

impl Client {
    fn open(server: &Running) -> Client {
        let stream = server.connect("relp");
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let mut client = Client(BufReader::new(stream), 1);
        client.say("open", "relp_version=0\ncommands=syslog");
        while client.line() != "commands=syslog" {}
        client
    }

    fn say(&mut self, command: &str, data: &str) {
        let frame = format!("{} {command} {} {data}\n", self.1, data.len());
        self.1 += 1;
        self.0.get_mut().write_all(frame.as_bytes()).unwrap();
    }

    /// A line of the server's; empty: it has closed the connection.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn is_answered(&mut self, number: u32) {
        assert_eq!(self.line(), format!("{number} rsp 6 200 OK"));
    }

    /// Everything that comes until the server closes.
    fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => rest,
        }
    }
}

fn config(more: &str) -> String {
    format!("[listener.relp]\nprotocol = \"relp\"\naddress = \"tcp://127.0.0.1:0\"\n{more}")
}

fn closed(server: &Running) -> f64 {
    server.count("logweir_connections_refused_total", "answer_timeout")
}

#[test]
fn who_is_not_answered_in_time_is_let_go_and_nothing_is_lost() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &config("answer_timeout = \"300ms\"\n"));
    let mut idle = Client::open(&server);
    let mut client = Client::open(&server);
    client.say("syslog", "<13>one");
    client.is_answered(2);
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    client.say("syslog", "<13>two");
    await_that("it is received", || server.count("logweir_received_lines_total", "") == 2.0);
    assert_eq!(client.rest(), b"", "no answer, and no refusal");
    await_that("the count", || closed(&server) == 1.0);
    server.faults.heal();
    await_that("room", || server.count("logweir_disk_full", "") == 0.0);
    // Whoever was owed nothing is still there.
    idle.say("syslog", "<13>three");
    idle.is_answered(2);
    assert_eq!(closed(&server), 1.0);
    assert!(server.stop());
    assert_eq!(server.lines(), [&b"<13>one"[..], b"<13>two", b"<13>three"]);
}

#[test]
fn who_is_answered_late_but_in_time_stays() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &config(""));
    let mut client = Client::open(&server);
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    client.say("syslog", "<13>one");
    await_that("the disk is found full", || server.count("logweir_disk_full", "") == 1.0);
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.0.fill_buf().is_err(), "neither an answer nor an end");
    client.0.get_ref().set_read_timeout(Some(common::PATIENCE)).unwrap();
    server.faults.heal();
    client.is_answered(2);
    assert_eq!(closed(&server), 0.0);
    assert!(server.stop());
}
