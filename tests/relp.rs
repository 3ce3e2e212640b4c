//! RELP with rsyslog's omrelp, unchanged: with a queue of its own, across kills and restarts of the server, nothing is missing; with TLS, and
//! with a certificate of its own.

mod common;

use common::syslog::{Running, certificates, fingerprint, rsyslogd};
use common::{Server, await_that, lines_of, scratch, skipped};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// A port that is free now. The server needs the same one after its end.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// rsyslogd, which takes messages at the socket `in` and sends them on so.
fn relay(test: &str, work: &Path, action: &str) -> Option<Running> {
    std::fs::create_dir_all(work).unwrap();
    let at = work.display();
    let settings = format!(
        "global(workDirectory=\"{at}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"omrelp\")\n\
         input(type=\"imuxsock\" Socket=\"{at}/in\" RateLimit.Interval=\"0\")\n{action}\n"
    );
    let config = work.join("rsyslog.conf");
    std::fs::write(&config, settings).unwrap();
    match rsyslogd(&config, work) {
        Some(mut command) => Some(Running::start(&mut command)),
        None => {
            skipped(test, "no rsyslogd: .ci/extract-syslog unpacks it");
            None
        }
    }
}

/// Gives rsyslog numbered messages.
fn give(work: &Path, numbers: std::ops::Range<u32>) {
    let sender = UnixDatagram::unbound().unwrap();
    await_that("rsyslog listens", || sender.connect(work.join("in")).is_ok());
    for number in numbers {
        sender.send(format!("<13>Nov 27 10:00:00 test[7]: message {number:05} \\ of many").as_bytes()).unwrap();
    }
}

/// The numbers of the messages on disk.
fn numbers(server: &Server) -> Vec<u32> {
    let out = server.cat();
    let number = |line: &[u8]| -> u32 {
        let text = std::str::from_utf8(line).unwrap();
        assert!(text.ends_with(" \\ of many"), "{text}");
        text.split("message ").nth(1).unwrap()[..5].parse().unwrap()
    };
    lines_of(&out).into_iter().map(number).collect()
}

fn config(port: u16, more: &str) -> String {
    format!("[listener.relp]\nprotocol = \"relp\"\naddress = \"tcp://127.0.0.1:{port}\"\n{more}")
}

#[test]
fn nothing_is_missing_after_kills_and_restarts_of_the_server() {
    let test = "nothing_is_missing_after_kills_and_restarts_of_the_server";
    let dir = scratch();
    let (work, data, port) = (dir.path().join("work"), dir.path().join("data"), free_port());
    let action = format!(
        "action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{port}\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" \
         queue.type=\"LinkedList\" queue.filename=\"q\" queue.maxDiskSpace=\"1g\" queue.saveOnShutdown=\"on\")"
    );
    let mut server = Server::with_config(&data, &config(port, ""));
    let Some(_relay) = relay(test, &work, &action) else { return };
    const EACH: u32 = 400;
    for round in 0..3 {
        give(&work, round * EACH..(round + 1) * EACH);
        // In the middle of it, and once in order.
        await_that("some messages", || server.metrics().sum("logweir_durable_lines_total", "") > 0.0);
        if round == 1 {
            assert!(server.stop().success());
        } else {
            server.kill();
        }
        server = Server::with_config(&data, &config(port, ""));
    }
    let all: BTreeSet<u32> = (0..3 * EACH).collect();
    await_that("every message", || numbers(&server).into_iter().collect::<BTreeSet<u32>>() == all);
    // Each comes for the first time in the order sent: what comes again comes behind.
    let mut seen = BTreeSet::new();
    let first: Vec<u32> = numbers(&server).into_iter().filter(|n| seen.insert(*n)).collect();
    let turned: Vec<&[u32]> = first.windows(2).filter(|w| w[0] > w[1]).collect();
    assert!(turned.is_empty(), "in order, but not {turned:?} of {:?}", numbers(&server));
    server.metrics().check_accounts();
}

#[test]
fn omrelp_with_tls_and_a_certificate_that_is_known_by_name_or_fingerprint() {
    let test = "omrelp_with_tls_and_a_certificate_that_is_known_by_name_or_fingerprint";
    let dir = scratch();
    certificates(dir.path());
    let (work, data, at) = (dir.path().join("work"), dir.path().join("data"), dir.path().display());
    let own = format!("tls_cert = \"{at}/server.pem\"\ntls_key = \"{at}/server.key\"\n");
    let pem = std::fs::read_to_string(dir.path().join("server.pem")).unwrap();
    let by_name = format!("{own}tls_client_ca = \"{at}/ca.pem\"\ntls_client_subjects = [\"127.0.0.1\"]\n");
    let by_fingerprint = format!("{own}tls_client_fingerprints = [\"{}\"]\n", fingerprint(&pem));
    for (number, tls) in [by_name, by_fingerprint].iter().enumerate() {
        let (work, data) = (work.join(number.to_string()), data.join(number.to_string()));
        std::fs::create_dir_all(&work).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let server = Server::with_config(&data.join("d"), &config(0, tls));
        let port = server.address("relp").port();
        let action = format!(
            "action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{port}\" tls=\"on\" tls.caCert=\"{at}/ca.pem\" tls.myCert=\"{at}/server.pem\" \
         tls.myPrivKey=\"{at}/server.key\" tls.authMode=\"name\" tls.permittedPeer=[\"127.0.0.1\"] action.resumeInterval=\"1\" \
         action.resumeRetryCount=\"-1\")"
        );
        let Some(_relay) = relay(test, &work, &action) else { return };
        give(&work, 0..300);
        await_that("every message", || server.metrics().sum("logweir_durable_lines_total", "") >= 300.0);
        assert_eq!(numbers(&server), (0..300).collect::<Vec<u32>>());
    }
}
