//! HTTP ingest behind nginx and behind haproxy, which changes servers under load without one failed request.

mod common;

use common::programs::{Daemon, find};
use common::{Server, await_that, lines_of, scratch, skipped};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A client that keeps its connection for as long as it is let.
struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    connections: usize,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        Client { address, stream: None, connections: 0 }
    }

    /// POSTs a body and returns the status.
    fn post(&mut self, body: &[u8]) -> Result<u16, String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).map_err(|e| format!("connect: {e}"))?;
                stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                self.connections += 1;
                self.stream.insert(BufReader::new(stream))
            }
        };
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(&[head.as_bytes(), body].concat()).map_err(|e| format!("send: {e}"))?;
        let (mut head, mut length, mut closes) = (Vec::new(), 0, false);
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(n) if n > 0 => {}
                other => return Err(format!("receive: {other:?} behind {head:?}")),
            }
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.trim_end().split_once(": ").unwrap_or((&line, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "connection" => closes = value == "close",
                _ => {}
            }
            head.push(line);
        }
        std::io::copy(&mut stream.take(length), &mut std::io::sink()).map_err(|e| format!("body: {e}"))?;
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        if closes {
            self.stream = None;
        }
        Ok(status)
    }
}

/// Lines and how often each is there.
fn counted(bytes: &[u8]) -> HashMap<Vec<u8>, usize> {
    let mut counts = HashMap::new();
    for line in lines_of(bytes) {
        *counts.entry(line.to_vec()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn nginx_in_front_keeps_its_connections() {
    let Some(nginx) = find("nginx") else {
        return skipped("nginx_in_front_keeps_its_connections", "nginx is not installed");
    };
    let dir = scratch();
    let config = "[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\n";
    let server = Server::with_config(&dir.path().join("data"), config);
    let place = dir.path().to_str().unwrap();
    let proxy = Daemon::start(|port| {
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {place}/{kind};\n"))
            .collect();
        // The example, at addresses of this test's own, and with nothing outside of its directory.
        let here = format!(
            "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log stderr warn;\n{}",
            example("nginx.conf")
        );
        let text = here
            .replace("server 127.0.0.1:9880;", &format!("server {};", server.address("web")))
            .replace("listen 127.0.0.1:8080;", &format!("listen 127.0.0.1:{port};"))
            .replace("http {\n", &format!("http {{\n{temporary}"));
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(&nginx);
        command.arg("-p").arg(place).arg("-e").arg("stderr").arg("-c").arg(path);
        command
    });
    let mut client = Client::new(proxy.address);
    let mut sent = Vec::new();
    for i in 0..300 {
        let line = format!("through nginx {i}\n");
        assert_eq!(client.post(line.as_bytes()), Ok(204));
        sent.extend(line.bytes());
    }
    // A body that nginx passes on while it is still coming: in chunks.
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    write!(
        stream,
        "POST /stream/default HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    for i in 0..300 {
        let line = format!("unbuffered {i}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len()).unwrap();
        sent.extend(line.bytes());
        if i == 150 {
            await_that("the first half to arrive", || server.metrics().sum("logweir_received_lines_total", "") > 400.0);
        }
    }
    write!(stream, "0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    // And a large one.
    let large: Vec<u8> = (0..100_000).flat_map(|i| format!("a longer line, number {i}\n").into_bytes()).collect();
    assert_eq!(client.post(&large), Ok(204));
    sent.extend(&large);
    assert!(server.cat() == sent, "every line, in order");
    assert_eq!(client.connections, 1, "the client's connection was kept");
    let metrics = server.metrics();
    metrics.check_accounts();
    let accepted = metrics.sum("logweir_connections_accepted_total", "");
    assert!(accepted <= 8.0, "{accepted} connections for 302 requests: the upstream's were not kept");
}

/// An example of the project.
fn example(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

const CLIENTS: usize = 8;

#[test]
fn haproxy_takes_a_server_out_without_one_failed_request() {
    const NAME: &str = "haproxy_takes_a_server_out_without_one_failed_request";
    let Some(haproxy) = find("haproxy") else {
        return skipped(NAME, "haproxy is not installed");
    };
    let dir = scratch();
    let config = "drain_delay = \"2s\"\n[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nproxy_protocol = \"required\"\n\
                  [listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nproxy_protocol = \"required\"\nreply = \"count\"\nstream = \"tcp\"\n";
    let mut servers = ["one", "two"].map(|name| Server::with_config(&dir.path().join(name), config));
    let lines_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let balancer = Daemon::start(|port| {
        let mut text = example("haproxy.cfg")
            .replace("bind 127.0.0.1:8080", &format!("bind 127.0.0.1:{port}"))
            .replace("bind 127.0.0.1:8170", &format!("bind 127.0.0.1:{lines_port}"))
            .replace("maxconn 100000", "maxconn 500");
        for (i, server) in servers.iter().enumerate() {
            let node = format!("  server node{} ", i + 1);
            let admin = server.admin.unwrap().port();
            text = text
                .replace(&format!("{node}127.0.0.1:988{}\n", i + 1), &format!("{node}{}\n", server.address("web")))
                .replace(
                    &format!("{node}127.0.0.1:517{}\n", i + 1),
                    &format!("{node}{} port {admin}\n", server.address("lines")),
                );
        }
        let path = dir.path().join("haproxy.cfg");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(&haproxy);
        command.arg("-db").arg("-q").arg("-f").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (acknowledged, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, answered, acknowledged, failed) = (&over, &answered, &acknowledged, &failed);
            let mut connection = Client::new(balancer.address);
            scope.spawn(move || {
                let mut i = 0;
                while !over.load(Ordering::SeqCst) {
                    let lines = format!("client {client} request {i} a\nclient {client} request {i} b\n");
                    match connection.post(lines.as_bytes()) {
                        Ok(204) => {
                            acknowledged.lock().unwrap().push(lines);
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        other => failed.lock().unwrap().push(format!("client {client} request {i}: {other:?}")),
                    }
                    i += 1;
                }
            });
        }
        let stop = Stop(&over);
        let served = |server: &Server| server.metrics().sum("logweir_http_responses_total", "\"204\"");
        await_that("both to be used", || servers.iter().all(|s| served(s) > 100.0));
        let [first, second] = &mut servers;
        first.signal(Signal::SIGTERM);
        assert!(first.wait().success(), "the drained server ends well");
        let before = served(second);
        await_that("the other to go on alone", || served(second) > before + 200.0);
        // Lines by TCP go to the one that is left.
        await_that("a count through the other frontend", || {
            let mut stream = TcpStream::connect(("127.0.0.1", lines_port)).unwrap();
            let _ = stream.write_all(b"by tcp\n");
            let mut count = String::new();
            BufReader::new(stream).read_line(&mut count).is_ok_and(|_| count == "1\n")
        });
        drop(stop);
    });
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new());
    servers[1].metrics().check_accounts();
    assert!(servers[1].stop().success());
    let out: Vec<Vec<u8>> = servers
        .iter()
        .map(|s| common::logweir(&["cat", "-s", "default", "--data-dir", s.data_dir.to_str().unwrap()]).stdout)
        .collect();
    let counts = counted(&out.concat());
    for request in acknowledged.into_inner().unwrap() {
        for line in request.lines() {
            assert!(counts.contains_key(line.as_bytes()), "acknowledged and not on disk: {line}");
        }
    }
    let requests = answered.load(Ordering::SeqCst);
    assert!(counts.len() >= 2 * requests, "{} lines for {requests} requests", counts.len());
    assert!(out.iter().all(|o| !o.is_empty()), "both took lines");
}

/// Ends the load even where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
