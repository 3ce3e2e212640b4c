//! Syslog: recorders between clients and a server, the settings in `docs/syslog.md`, and rsyslog and syslog-ng wherever they are.

use super::programs::{Daemon, find};
use super::{PATIENCE, Server, await_that, lines_of};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The block of settings below a heading of `docs/syslog.md` that holds this text.
pub fn documented(heading: &str, with: &str) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syslog.md")).unwrap();
    let section = page.split("\n### ").find(|s| s.lines().next() == Some(heading)).expect("a section of that name");
    let blocks = section.split("\n```").skip(1).step_by(2);
    let mut found = blocks.map(|b| b.split_once('\n').unwrap().1).filter(|b| b.contains(with));
    let block = found.next().unwrap_or_else(|| panic!("{heading} has no settings with {with}"));
    format!("{block}\n")
}

/// The bytes that clients have sent on their way to a server: an entry for each connection or datagram.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Vec<u8>>>>);

impl Heard {
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    /// Messages that each end with this byte.
    pub fn ended(&self, by: u8) -> Vec<Vec<u8>> {
        let all = self.all().concat();
        assert_eq!(all.last(), Some(&by), "{}", all.escape_ascii());
        all[..all.len() - 1].split(|b| *b == by).map(<[u8]>::to_vec).collect()
    }

    /// Messages with a count before each. A newline that is counted in goes.
    pub fn counted(&self) -> Vec<Vec<u8>> {
        let (all, mut messages) = (self.all().concat(), Vec::new());
        let mut rest = &all[..];
        while !rest.is_empty() {
            let blank = rest.iter().position(|b| *b == b' ').unwrap();
            let count: usize = std::str::from_utf8(&rest[..blank]).unwrap().parse().unwrap();
            let message = &rest[blank + 1..][..count];
            messages.push(message.strip_suffix(b"\n").unwrap_or(message).to_vec());
            rest = &rest[blank + 1 + count..];
        }
        messages
    }

    /// Datagrams, without what ends them.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        let mut all = self.all();
        for datagram in &mut all {
            while matches!(datagram.last(), Some(b'\n' | 0)) {
                datagram.pop();
            }
        }
        all
    }

    fn pass(&self, mut from: impl Read, mut to: impl Write) {
        let i = {
            let mut all = self.0.lock().unwrap();
            all.push(Vec::new());
            all.len() - 1
        };
        let mut space = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut space) {
            self.0.lock().unwrap()[i].extend_from_slice(&space[..n]);
            to.write_all(&space[..n]).unwrap();
        }
    }
}

/// A recorder on TCP, and its port.
pub fn record_tcp(to: SocketAddr) -> (u16, Heard) {
    let (listener, heard) = (TcpListener::bind("127.0.0.1:0").unwrap(), Heard::default());
    let (port, clone) = (listener.local_addr().unwrap().port(), heard.clone());
    std::thread::spawn(move || {
        for from in listener.incoming() {
            let server = TcpStream::connect(to).unwrap();
            server.set_nodelay(true).unwrap();
            clone.pass(from.unwrap(), &server);
            let _ = server.shutdown(Shutdown::Write); // the server may be gone
        }
    });
    (port, heard)
}

/// A recorder on a stream socket's file.
pub fn record_stream(at: &Path, to: &Path) -> Heard {
    let (listener, heard) = (UnixListener::bind(at).unwrap(), Heard::default());
    let (to, clone) = (to.to_path_buf(), heard.clone());
    std::thread::spawn(move || {
        for from in listener.incoming() {
            clone.pass(from.unwrap(), UnixStream::connect(&to).unwrap());
        }
    });
    heard
}

/// A recorder on a datagram socket's file.
pub fn record_datagrams(at: &Path, to: &Path) -> Heard {
    let (socket, heard) = (UnixDatagram::bind(at).unwrap(), Heard::default());
    let (to, clone) = (to.to_path_buf(), heard.clone());
    std::thread::spawn(move || {
        let mut space = vec![0; 1 << 18];
        while let Ok(n) = socket.recv(&mut space) {
            clone.0.lock().unwrap().push(space[..n].to_vec());
            if socket.send_to(&space[..n], &to).is_err() {
                break;
            }
        }
    });
    heard
}

/// A recorder on UDP, and its port. It sends everything on from one socket, so it stays in order.
pub fn record_udp(to: SocketAddr) -> (u16, Heard) {
    let (socket, heard) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Heard::default());
    let (port, clone) = (socket.local_addr().unwrap().port(), heard.clone());
    std::thread::spawn(move || {
        let mut space = vec![0; 1 << 16];
        while let Ok(n) = socket.recv(&mut space) {
            clone.0.lock().unwrap().push(space[..n].to_vec());
            if socket.send_to(&space[..n], to).is_err() {
                break;
            }
        }
    });
    (port, heard)
}

/// Awaits so many lines on disk.
pub fn await_lines(server: &Server, number: usize) {
    await_that(&format!("{number} lines on disk"), || {
        server.metrics().sum("logweir_durable_lines_total", "") >= number as f64
    });
}

/// A message as a line of a file: its newlines are escaped.
pub fn as_line(message: &[u8]) -> Vec<u8> {
    message.iter().flat_map(|b| if *b == b'\n' { b"\\n" } else { std::slice::from_ref(b) }.to_vec()).collect()
}

/// These messages are there as they were sent, in this order, and nothing else; the server has noticed nothing unusual.
pub fn check_raw(server: &Server, sent: &[Vec<u8>]) {
    await_lines(server, sent.len());
    let lines: Vec<Vec<u8>> = sent.iter().map(|m| as_line(m)).collect();
    check_lines(server, &lines);
}

/// These lines are there, in this order, and nothing else.
pub fn check_lines(server: &Server, expected: &[Vec<u8>]) {
    let out = server.cat();
    for (i, (found, wanted)) in lines_of(&out).iter().zip(expected).enumerate() {
        assert_eq!(found.escape_ascii().to_string(), wanted.escape_ascii().to_string(), "line {i}");
    }
    assert_eq!(lines_of(&out).len(), expected.len(), "{}", out.escape_ascii());
    let metrics = server.metrics();
    metrics.check_accounts();
    for unusual in ["logweir_unexpected_input_total", "logweir_dropped_lines_total", "logweir_truncated_lines_total"] {
        assert_eq!(metrics.sum(unusual, ""), 0.0, "{unusual}");
    }
}

/// An authority, and a certificate of a server at 127.0.0.1, in files; clients may show it too.
pub fn certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("server.pem"), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

/// The SHA-256 fingerprint of a certificate in PEM, as it is configured.
pub fn fingerprint(pem: &str) -> String {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Sha256::digest(&certificate).iter().fold("SHA256".to_string(), |text, byte| format!("{text}:{byte:02X}"))
}

/// Another program that is running; killed when dropped.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// A program that `.ci/extract-syslog` has unpacked, or an installed one; and where the unpacked one's root is.
fn relay(name: &str) -> Option<(Command, Option<PathBuf>)> {
    let root = std::env::var_os("LOGWEIR_SYSLOG_PEERS").unwrap_or_else(|| "/var/tmp/logweir-syslog-peers".into());
    let root = PathBuf::from(root);
    let unpacked = root.join("usr/sbin").join(name);
    if !unpacked.is_file() {
        return find(name).map(|program| (Command::new(program), None));
    }
    let mut command = Command::new(unpacked);
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/syslog-ng"];
    command.env("LD_LIBRARY_PATH", libraries.map(|l| root.join(l).to_str().unwrap().to_string()).join(":"));
    Some((command, Some(root)))
}

/// A program of systemd that is not among its first ones, unpacked or installed.
pub fn of_systemd(name: &str) -> Option<Command> {
    let root = std::env::var_os("LOGWEIR_SYSLOG_PEERS").unwrap_or_else(|| "/var/tmp/logweir-syslog-peers".into());
    let root = PathBuf::from(root);
    let places = [root.join("lib/systemd"), PathBuf::from("/lib/systemd")];
    let program = places.map(|dir| dir.join(name)).into_iter().find(|path| path.is_file())?;
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    Some(command)
}

/// A file of syslog-ng's own configuration library.
pub fn of_syslog_ng(name: &str) -> Option<PathBuf> {
    let (_, root) = relay("syslog-ng")?;
    let library = root.unwrap_or_else(|| "/".into()).join("usr/share/syslog-ng/include/scl");
    Some(library.join(name)).filter(|path| path.is_file())
}

/// rsyslogd in the foreground, with a configuration and a directory of its own.
pub fn rsyslogd(config: &Path, work: &Path) -> Option<Command> {
    let (mut command, root) = relay("rsyslogd")?;
    command.arg("-n").arg("-f").arg(config).arg("-i").arg(work.join("rsyslogd.pid"));
    if let Some(root) = root {
        command.arg("-M").arg(root.join("usr/lib/x86_64-linux-gnu/rsyslog"));
    }
    Some(command)
}

/// syslog-ng, likewise.
pub fn syslog_ng(config: &Path, work: &Path) -> Option<Command> {
    let (mut command, root) = relay("syslog-ng")?;
    command.args(["-F", "--no-caps"]).arg("-f").arg(config).arg("-R").arg(work.join("persist"));
    command.arg("-p").arg(work.join("syslog-ng.pid")).arg("-c").arg(work.join("control"));
    if let Some(root) = root {
        let of_versions = std::fs::read_dir(root.join("usr/lib/syslog-ng")).unwrap();
        let modules = of_versions.map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
        command.arg("--module-path").arg(modules);
    }
    Some(command)
}

/// A request whose answer is awaited.
pub fn get(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\nUser-Agent: \"é\\\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
}

/// nginx with these settings of logs.
pub fn nginx(program: &Path, dir: &Path, settings: &str) -> Daemon {
    let place = dir.to_str().unwrap();
    Daemon::start(|port| {
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path {place}/{kind};\n")).collect();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nevents {{}}\nhttp {{\n{temporary}{settings}\
             server {{ listen 127.0.0.1:{port}; root {place}; location /well {{ return 200 \"x\"; }} }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(program);
        command.args(["-p", place, "-e", "stderr", "-c", &format!("{place}/nginx.conf")]);
        command
    })
}

/// What nginx says of 50 requests, ten of them for what is missing.
pub fn nginx_logs(nginx: &Daemon, heard: &Heard) -> Vec<Vec<u8>> {
    for i in 0..50 {
        // A file that is missing is an error besides.
        let (place, length) = if i % 5 == 0 { ("missing", i) } else { ("well", i * 120) };
        get(nginx.address, &format!("/{place}/{i}?\"\\{}", "x".repeat(length)));
        await_that("its datagrams", || heard.all().len() == i + 1 + i / 5 + 1);
    }
    let sent = heard.datagrams();
    let of = |pri: &str, what: &str| {
        sent.iter().filter(|m| m.starts_with(pri.as_bytes()) && m.escape_ascii().to_string().contains(what)).count()
    };
    assert_eq!((of("<190>", " nginx: 127.0.0.1 - - "), of("<27>", " nginx: 2")), (50, 10), "{sent:?}");
    sent
}

/// haproxy with these settings and a frontend that answers by itself.
pub fn haproxy(program: &Path, dir: &Path, settings: &str) -> Daemon {
    Daemon::start(|port| {
        // The connection that tries whether it is there is no request.
        let frontend = "option dontlognull\n    http-request return status 200 content-type text/plain string x";
        let timeouts = "timeout client 30s\n    timeout http-request 30s";
        let text = format!("{settings}    {timeouts}\nfrontend web\n    bind 127.0.0.1:{port}\n    {frontend}\n");
        let path = dir.join("haproxy.cfg");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(program);
        command.args(["-db", "-q", "-f", path.to_str().unwrap()]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    })
}

/// What haproxy says of 50 requests.
pub fn haproxy_logs(haproxy: &Daemon, heard: &Heard) -> Vec<Vec<u8>> {
    for i in 0..50 {
        get(haproxy.address, &format!("/number-{i}/{}", "x".repeat(i * 100)));
        let wanted = format!("/number-{i}/");
        let is_it = |message: &Vec<u8>| message.escape_ascii().to_string().contains(&wanted);
        await_that("its datagram", || heard.all().iter().any(is_it));
    }
    let sent = heard.datagrams();
    assert!(sent.len() >= 50 && sent[0].starts_with(b"<13") && sent[0][5..].starts_with(b"1 "), "{sent:?}");
    sent
}
