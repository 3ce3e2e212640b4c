//! TLS and PROXY headers through the public edge, with a real TLS client.

mod common;

use common::syslog::fingerprint;
use common::{Server, await_that, scratch};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An authority, and what it signs.
struct Site {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    fn new(dir: &Path) -> Site {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        let site = Site { dir: dir.to_path_buf(), authority };
        site.renew("server.example");
        site
    }

    /// A certificate and its key for a name.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    /// Puts a new certificate in the server's place.
    fn renew(&self, name: &str) {
        let (cert, key) = self.sign(name);
        std::fs::write(self.dir.join("server.pem"), cert).unwrap();
        std::fs::write(self.dir.join("server.key"), key).unwrap();
    }

    fn config(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", path("server.pem"), path("server.key"))
    }

    fn client(&self, server: &Server, listener: &str, name: &str, identity: Option<(String, String)>) -> Tls {
        self.client_of(server, listener, name, identity, rustls::DEFAULT_VERSIONS)
    }

    fn client_of(
        &self,
        server: &Server,
        listener: &str,
        name: &str,
        identity: Option<(String, String)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                // Not looking whether they belong together: that is for the server to find out.
                let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
                let pair = rustls::sign::CertifiedKey::new(vec![cert], key);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)))
            }
        };
        let name = ServerName::try_from(name.to_string()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(server.address(listener)).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        StreamOwned::new(connection, stream)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn post(tls: &mut Tls, body: &str) -> std::io::Result<String> {
    write!(tls, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte)?;
        head.push(byte[0] as char);
    }
    Ok(head)
}

const WEB: &str = "[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\n";
const LINES: &str = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n";

#[test]
fn lines_and_requests_arrive_over_tls_and_certificates_are_renewed() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let config = [WEB, &site.config(), LINES, &site.config()].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    assert!(
        server.introduction.contains("https://") && server.introduction.contains("tls://"),
        "{}",
        server.introduction
    );
    let mut old = site.client(&server, "web", "server.example", None);
    assert!(post(&mut old, "one\n").unwrap().starts_with("HTTP/1.1 204"));

    let mut lines = site.client(&server, "lines", "server.example", None);
    let many: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
    lines.write_all(many.as_bytes()).unwrap();
    lines.conn.send_close_notify();
    lines.flush().unwrap();
    lines.sock.shutdown(Shutdown::Write).unwrap();
    await_that("all lines", || server.metrics().sum("logweir_durable_lines_total", "\"lines\"") == 200_000.0);

    site.renew("renewed.example");
    server.signal(Signal::SIGHUP);
    await_that("new connections get the new certificate", || {
        let mut new = site.client(&server, "web", "renewed.example", None);
        post(&mut new, "two\n").is_ok()
    });
    assert!(post(&mut old, "three\n").unwrap().starts_with("HTTP/1.1 204"), "old connections go on");
    // A file that does not do changes nothing.
    std::fs::write(site.dir.join("server.pem"), "no certificate").unwrap();
    server.signal(Signal::SIGHUP);
    let mut new = site.client(&server, "web", "renewed.example", None);
    assert!(post(&mut new, "four\n").unwrap().starts_with("HTTP/1.1 204"));
    let text = String::from_utf8(server.cat()).unwrap();
    let count = |line: &str| text.lines().filter(|l| *l == line).count();
    assert!(count("one") == 1 && count("two") == 1 && count("three") == 1 && count("four") == 1);
    assert!(text.contains(&many), "in order, nothing missing");
    server.metrics().check_accounts();
}

#[test]
fn a_line_that_was_cut_off_is_not_taken_for_a_whole_one() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let server = Server::with_config(&dir.path().join("d"), &[LINES, &site.config()].concat());
    // An end without close_notify can be anybody's doing (RFC 8446 section 6.1).
    let mut cut = site.client(&server, "lines", "server.example", None);
    cut.write_all(b"whole\npart").unwrap();
    cut.flush().unwrap();
    cut.sock.shutdown(Shutdown::Write).unwrap();
    await_that("it is over", || server.metrics().sum("logweir_dropped_lines_total", "reset") == 1.0);
    let mut clean = site.client(&server, "lines", "server.example", None);
    clean.write_all(b"also whole").unwrap();
    clean.conn.send_close_notify();
    clean.flush().unwrap();
    clean.sock.shutdown(Shutdown::Write).unwrap();
    await_that("both lines", || server.metrics().sum("logweir_durable_lines_total", "") == 2.0);
    assert_eq!(server.cat(), b"whole\nalso whole\n");
}

#[test]
fn only_the_named_clients_come_in() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let ca = dir.path().join("ca.pem").display().to_string();
    let mutual = format!("tls_client_ca = \"{ca}\"\ntls_client_subjects = [\"agent.example\"]\n");
    let server = Server::with_config(&dir.path().join("d"), &[WEB, &site.config(), &mutual].concat());
    let mut known = site.client(&server, "web", "server.example", Some(site.sign("agent.example")));
    assert!(post(&mut known, "known\n").unwrap().starts_with("HTTP/1.1 204"));
    let mut other = site.client(&server, "web", "server.example", Some(site.sign("other.example")));
    assert!(post(&mut other, "other\n").is_err());
    let mut nobody = site.client(&server, "web", "server.example", None);
    assert!(post(&mut nobody, "nobody\n").is_err());
    await_that("both were refused", || server.metrics().sum("logweir_connections_refused_total", "transport") == 2.0);
    assert_eq!(server.cat(), b"known\n");
}

/// A certificate that its own key has signed, and whose time is over so many days from now.
fn self_signed(days: i64) -> (String, String) {
    let mut params = CertificateParams::new(vec!["agent.example".to_string()]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs((now + days * 86_400) as u64);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), after);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Without an authority a certificate is known by its fingerprint alone; with one it must be of the authority too.
#[test]
fn a_fingerprint_lets_one_certificate_in() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let (known, over, signed) = (self_signed(1), self_signed(-1), site.sign("agent.example"));
    let list: Vec<String> = [&known, &over, &signed].iter().map(|(pem, _)| fingerprint(pem)).collect();
    let list = format!("tls_client_fingerprints = {list:?}\n");
    let ca = format!("tls_client_ca = \"{}\"\n", dir.path().join("ca.pem").display());
    let strict = WEB.replace("listener.web", "listener.strict");
    let config = [WEB, &site.config(), &list, &strict, &site.config(), &list.to_lowercase(), &ca].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    let unknown = site.sign("other.example");
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let is_in = |listener: &str, identity: Option<&(String, String)>| {
            let mut client = site.client_of(&server, listener, "server.example", identity.cloned(), versions);
            post(&mut client, "line\n").is_ok_and(|answer| answer.starts_with("HTTP/1.1 204"))
        };
        assert!(is_in("web", Some(&known)) && is_in("web", Some(&signed)) && is_in("strict", Some(&signed)));
        assert!(!is_in("web", Some(&over)), "its time is over");
        assert!(!is_in("web", Some(&unknown)) && !is_in("strict", Some(&unknown)));
        assert!(!is_in("strict", Some(&known)), "not of the authority");
        assert!(!is_in("web", None) && !is_in("strict", None));
        // Whoever shows a certificate must have its key.
        assert!(!is_in("web", Some(&(known.0.clone(), unknown.1.clone()))), "the key of another");
    }
}

#[test]
fn what_is_missing_is_said_before_the_start() {
    let dir = scratch();
    let config = dir.path().join("c.toml");
    std::fs::write(&config, format!("{WEB}tls_cert = \"/nowhere/a.pem\"\ntls_key = \"/nowhere/a.key\"\n")).unwrap();
    let output = common::logweir(&["check", "--config-only", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("listener.web") && message.contains("/nowhere/a.pem"), "{message}");
}

#[test]
fn a_flood_of_handshakes_leaves_plain_lines_alone() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let config =
        ["[limits]\ntls_handshakes_per_second = 1\n", WEB, "header_timeout = \"1s\"\n", &site.config(), LINES].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    // A quarter of a second is saved up, which is less than one handshake: from the second on they wait in line.
    let flood: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address("web")).unwrap();
            stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap(); // the beginning of a ClientHello
            stream
        })
        .collect();
    await_that("all are in", || server.metrics().sum("logweir_connections", "") >= 50.0);
    let mut plain = TcpStream::connect(server.address("lines")).unwrap();
    for i in 0..1000 {
        writeln!(plain, "line {i}").unwrap();
    }
    drop(plain);
    await_that("plain lines", || server.metrics().sum("logweir_durable_lines_total", "\"lines\"") == 1000.0);
    await_that("stalled handshakes end", || {
        server.metrics().sum("logweir_connections_refused_total", "line_timeout") >= 1.0
    });
    drop(flood);
    await_that("all are gone", || server.metrics().sum("logweir_connections", "") == 0.0);
}

#[test]
fn proxy_headers_say_who_a_client_is() {
    let dir = scratch();
    let config = format!(
        "[stream.default]\nformat = \"json\"\n{LINES}proxy_protocol = \"required\"\nmax_connections_per_address = 2\nheader_timeout = \"300ms\"\n"
    );
    let server = Server::with_config(&dir.path().join("d"), &config);
    let connect = |header: &str| {
        let mut stream = TcpStream::connect(server.address("lines")).unwrap();
        stream.write_all(header.as_bytes()).unwrap();
        stream
    };
    let mut first = connect("PROXY TCP4 192.0.2.7 192.0.2.1 4711 5170\r\nhello\n");
    let _second = connect("PROXY TCP4 192.0.2.7 192.0.2.1 4712 5170\r\n");
    await_that("the line", || server.metrics().sum("logweir_durable_lines_total", "") == 1.0);
    let line: serde_json::Value = serde_json::from_slice(&server.cat()).unwrap();
    assert_eq!((line["peer"].as_str(), line["msg"].as_str()), (Some("192.0.2.7:4711"), Some("hello")));
    // Limits count the client, not the proxy; and nothing else than a header is taken for one.
    let mut third = BufReader::new(connect("PROXY TCP4 192.0.2.7 192.0.2.1 4713 5170\r\nthird\n"));
    let _other = connect("PROXY TCP4 192.0.2.8 192.0.2.1 4713 5170\r\n");
    let _none = connect("no header\n");
    let _slow = connect("PROX");
    let mut said = String::new();
    let _ = third.read_line(&mut said);
    assert_eq!(said, "");
    let refused = |reason: &str| server.metrics().sum("logweir_connections_refused_total", reason);
    await_that("one for its address", || refused("max_connections_per_address") == 1.0);
    await_that("one for its header", || refused("transport") == 1.0);
    await_that("one for its slowness", || refused("line_timeout") == 1.0);
    writeln!(first, "again").unwrap();
    await_that("the first goes on", || server.metrics().sum("logweir_durable_lines_total", "") == 2.0);
}

/// Found by review: where lines grow as they are written, a receive brings less than a record, and its rest had no room.
#[test]
fn records_larger_than_a_receive_come_through() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let config =
        ["[stream.default]\nformat = \"json\"\n", LINES, "max_line_bytes = \"16KiB\"\n", &site.config()].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    let mut client = site.client(&server, "lines", "server.example", None);
    let many: String = (0..20_000).map(|i| format!("line {i} \u{1}\n")).collect();
    client.write_all(many.as_bytes()).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    await_that("all lines", || server.metrics().sum("logweir_durable_lines_total", "") == 20_000.0);
    let text = String::from_utf8(server.cat()).unwrap();
    let message =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"].as_str().unwrap().to_string();
    assert!(text.lines().map(message).eq(many.lines().map(String::from)));
}

/// Found by review: what was held of a record could be more than the open chunk had room for.
#[test]
fn records_in_pieces_find_room_in_small_chunks() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let config = ["[buffer]\nmemory = \"1MiB\"\n", LINES, "max_line_bytes = \"4KiB\"\n", &site.config()].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    std::thread::scope(|scope| {
        for c in 0..8 {
            let mut client = site.client(&server, "lines", "server.example", None);
            scope.spawn(move || {
                let mut wire = Vec::new();
                client.flush().unwrap();
                while client.conn.is_handshaking() {
                    client.conn.complete_io(&mut client.sock).unwrap();
                }
                for part in 0..40 {
                    let text: String = (0..1500).map(|i| format!("{c} {}\n", part * 1500 + i)).collect();
                    client.conn.writer().write_all(text.as_bytes()).unwrap();
                    while client.conn.wants_write() {
                        client.conn.write_tls(&mut wire).unwrap();
                    }
                    for piece in wire.chunks(6007) {
                        client.sock.write_all(piece).unwrap();
                    }
                    wire.clear();
                }
                client.conn.send_close_notify();
                client.flush().unwrap();
                client.sock.shutdown(Shutdown::Write).unwrap();
            });
        }
    });
    await_that("all lines", || server.metrics().sum("logweir_durable_lines_total", "") == 480_000.0);
    server.metrics().check_accounts();
    let text = String::from_utf8(server.cat()).unwrap();
    let mut next = [0; 8];
    for line in text.lines() {
        let (c, i) = line.split_once(' ').unwrap();
        let next = &mut next[c.parse::<usize>().unwrap()];
        assert_eq!(i.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
}

/// Found from outside: 600 connections a second that sent one byte of a handshake and hung up took every turn, and were held.
#[test]
fn who_begins_a_handshake_and_hangs_up_takes_no_turn_and_is_not_held() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let config =
        ["[limits]\ntls_handshakes_per_second = 1\n", WEB, "header_timeout = \"1h\"\n", &site.config()].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    let silent: Vec<TcpStream> = (0..50)
        .map(|i| {
            let mut stream = TcpStream::connect(server.address("web")).unwrap();
            stream.write_all(&b"\x16\x03\x01\x02\x00\x01"[..1 + i % 6]).unwrap();
            stream
        })
        .collect();
    await_that("all are in", || server.metrics().sum("logweir_connections", "") == 50.0);
    // Nobody has taken the one turn of a second that is saved up.
    let mut proper = site.client(&server, "web", "server.example", None);
    assert!(post(&mut proper, "one\n").unwrap().starts_with("HTTP/1.1 204"));
    drop(silent);
    await_that("who hung up to be gone", || server.metrics().sum("logweir_connections", "") == 1.0);
    // Nor is anybody held who asks properly, waits in line, and hangs up.
    let mut wire = Vec::new();
    let mut client = site.client(&server, "web", "server.example", None);
    client.conn.write_tls(&mut wire).unwrap();
    let asking: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address("web")).unwrap();
            stream.write_all(&wire).unwrap();
            stream
        })
        .collect();
    await_that("all are in line", || server.metrics().sum("logweir_connections", "") == 52.0);
    drop((asking, client));
    await_that("who hung up in line to be gone", || server.metrics().sum("logweir_connections", "") == 1.0);
    assert!(post(&mut proper, "two\n").unwrap().starts_with("HTTP/1.1 204"));
}

/// Found from outside: a client that says goodbye and waits for ours waited until `idle_timeout`, and its last line was dropped.
#[test]
fn a_goodbye_is_answered_at_once_and_the_last_line_kept() {
    let dir = scratch();
    let site = Site::new(dir.path());
    let never = "idle_timeout = \"0s\"\n";
    let counts = "[listener.counts]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n";
    let config = [WEB, never, &site.config(), LINES, never, &site.config(), counts, never, &site.config()].concat();
    let server = Server::with_config(&dir.path().join("d"), &config);
    let mut kept = 0.0;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (listener, sent, answer) in [
            ("lines", "one\nlast, without an end", ""),
            ("lines", "", ""),
            ("counts", "one\ntwo", "2\n"),
            ("web", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none", "HTTP/1.1 204"),
            ("web", "", ""),
        ] {
            let mut tls = site.client_of(&server, listener, "server.example", None, &[version]);
            while tls.conn.is_handshaking() {
                tls.conn.complete_io(&mut tls.sock).unwrap();
            }
            tls.write_all(sent.as_bytes()).unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
            // An end without a goodbye of the server's would be an error here; no end at all, one by patience.
            let mut said = Vec::new();
            tls.read_to_end(&mut said).expect("a goodbye");
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains(answer) && (said.is_empty() == answer.is_empty()), "{listener}: {said:?}");
            kept += match listener {
                "web" if sent.is_empty() => 0.0,
                "web" => 1.0,
                _ => sent.lines().count() as f64,
            };
        }
    }
    await_that("every line", || server.metrics().sum("logweir_durable_lines_total", "") == kept);
    assert_eq!(server.metrics().sum("logweir_dropped_lines_total", ""), 0.0);
    await_that("nobody is held", || server.metrics().sum("logweir_connections", "") == 0.0);
}

/// Whoever has a network of IPv6 has 2^64 addresses.
#[test]
fn the_addresses_of_an_ipv6_network_are_one_client() {
    let dir = scratch();
    for (prefix, of_one_network) in [("64", 2), ("128", 3)] {
        let config = format!(
            "[limits]\nipv6_prefix = {prefix}\n{LINES}proxy_protocol = \"required\"\nmax_connections_per_address = 2\n"
        );
        let server = Server::with_config(&dir.path().join(prefix), &config);
        let connect = |address: &str| {
            let mut stream = server.connect();
            let text = format!("PROXY TCP6 {address} 2001:db8::1 1000 5170\r\nfrom {address}\n");
            let _ = stream.write_all(text.as_bytes()); // who may not come in may be closed meanwhile
            stream
        };
        let mut open: Vec<TcpStream> = (1..=2).map(|i| connect(&format!("2001:db8:0:1::{i}"))).collect();
        await_that("two of a network", || server.metrics().sum("logweir_received_lines_total", "") == 2.0);
        open.push(connect("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        open.push(connect("2001:db8:0:2::1"));
        let lines = f64::from(of_one_network) + 1.0;
        await_that("all who may", || server.metrics().sum("logweir_received_lines_total", "") == lines);
        await_that("one too many", || {
            server.metrics().sum("logweir_connections_refused_total", "per_address") == f64::from(3 - of_one_network)
        });
    }
}

/// A certificate that has expired does not keep a server from starting (clocks may be wrong), and is not passed over either.
#[test]
fn an_expired_certificate_is_warned_of_and_measured() {
    let dir = scratch();
    let mut params = CertificateParams::new(vec!["server.example".to_string()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    params.not_before = rcgen::date_time_ymd(2020, 3, 4);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("c.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(dir.path().join("k.pem"), key.serialize_pem()).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = format!("{WEB}tls_cert = \"{}\"\ntls_key = \"{}\"\n", path("c.pem"), path("k.pem"));
    let server = Server::with_config(&dir.path().join("d"), &text);
    let expiry = server.metrics().sum("logweir_tls_expiry_timestamp_seconds", "listener=\"web\"");
    assert_eq!(expiry, 1_614_816_000.0, "2021-03-04T00:00:00Z");
    let output = common::logweir(&["check", "--config-only", "--config", &path("d.toml")]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("warning: listener.web: the certificate of") && said.contains("has expired at 2021-03-04"),
        "{said}"
    );
}
