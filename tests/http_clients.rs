//! HTTP ingest with the clients that people use: curl, Python and wrk. `http_proxies.rs` puts nginx and haproxy in front.

mod common;

use common::programs::{Python, have, run};
use common::{Server, lines_of, scratch, skipped};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

const WEB: &str = "[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\n";

fn start(dir: &Path, more: &str) -> Server {
    Server::with_config(&dir.join("data"), &format!("{WEB}{more}"))
}

/// Lines of many lengths, with every byte in them but the newline.
fn body(label: &str, lines: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..lines {
        out.extend(format!("{label} {i} ").bytes());
        out.extend((0..i * 31 % 400).map(|j| ((i + j) % 256) as u8).filter(|b| *b != b'\n'));
        out.push(b'\n');
    }
    out
}

/// What curl prints, with these arguments; it must succeed. The bytes are its standard input.
fn curl(args: &[&str], stdin: &[u8]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]).args(args);
    run(&mut command, stdin)
}

const STATUS: [&str; 2] = ["--write-out", "%{http_code} "];

/// The status that a POST of these bytes gets.
fn post(url: &str, args: &[&str], bytes: &[u8]) -> String {
    curl(&[&STATUS[..], &["--output", "/dev/null", "--data-binary", "@-"], args, &[url]].concat(), bytes)
}

/// Every line of `expected` is on disk, and nothing else; an acknowledged one is there without waiting.
fn check(server: &Server, expected: &[&[u8]]) {
    let (out, expected) = (server.cat(), expected.concat());
    let (mut found, mut wanted) = (lines_of(&out), lines_of(&expected));
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found.len(), wanted.len(), "number of lines");
    assert!(found == wanted, "other lines on disk than were sent");
    let metrics = server.metrics();
    metrics.check_accounts();
    assert_eq!(metrics.sum("logweir_durable_lines_total", ""), wanted.len() as f64);
}

fn url(server: &Server) -> String {
    format!("http://{}/", server.address("web"))
}

/// The module's own checksum fails with some versions of Python.
const FRAMED_SNAPPY: &str = "
import snappy.snappy
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
snappy.snappy._crc32c = crc32c
w(snappy.snappy.StreamCompressor().add_chunk(sys.stdin.buffer.read()))
";

#[test]
fn curl_sends_every_encoding() {
    let dir = scratch();
    let server = start(dir.path(), "");
    let plain = body("plain", 500);
    assert_eq!(post(&url(&server), &[], &plain), "204 ");
    let mut sent = vec![plain];
    let python = Python::with("zlib");
    let deflate = python.as_ref().map(|p| p.script("import sys,zlib;w(zlib.compress(sys.stdin.buffer.read()))"));
    let raw_deflate = python.as_ref().map(|p| {
        p.script("import sys,zlib\nc=zlib.compressobj(wbits=-15)\nw(c.compress(sys.stdin.buffer.read())+c.flush())")
    });
    let with_snappy = Python::with("snappy");
    let snappy =
        with_snappy.as_ref().map(|p| p.script("import sys,snappy;w(snappy.compress(sys.stdin.buffer.read()))"));
    let framed = with_snappy.as_ref().map(|p| p.script(FRAMED_SNAPPY));
    let program = |name: &str, args: &[&str]| {
        have(name).then(|| {
            let mut command = Command::new(name);
            command.args(args);
            command
        })
    };
    let coders = [
        ("gzip", "gzip", program("gzip", &["-c"])),
        ("gzip-best", "gzip", program("gzip", &["-9c"])),
        ("zstd", "zstd", program("zstd", &["-qc"])),
        ("zstd-19", "zstd", program("zstd", &["-qc19"])),
        ("deflate", "deflate", deflate),
        ("deflate-raw", "deflate", raw_deflate),
        ("snappy", "snappy", snappy),
        ("snappy-framed", "snappy", framed),
    ];
    for (label, coding, coder) in coders {
        let Some(mut coder) = coder else {
            skipped("curl_sends_every_encoding", &format!("nothing here encodes {label}"));
            continue;
        };
        let bytes = body(label, 700);
        let encoded = common::programs::output(&mut coder, &bytes);
        assert!(encoded.len() < bytes.len(), "{label}");
        let header = format!("Content-Encoding: {coding}");
        assert_eq!(post(&url(&server), &["-H", &header], &encoded), "204 ", "{label}");
        // A body that is cut off is refused, and what it held before may be kept.
        assert_eq!(post(&url(&server), &["-H", &header], b"no such coding"), "400 ", "{label}");
        sent.push(bytes);
    }
    assert_eq!(post(&url(&server), &["-H", "Content-Encoding: br"], b"?"), "415 ");
    check(&server, &sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn curl_sends_chunks_and_waits_for_leave() {
    let dir = scratch();
    let server = start(dir.path(), "");
    let large = body("large", 20_000);
    assert!(large.len() > 2 << 20);
    // From a pipe the length is not known: chunks, and a PUT by default.
    let status = curl(&[&STATUS[..], &["-X", "POST", "-T", "-", &url(&server)]].concat(), &large);
    assert_eq!(status, "204 ");
    // More than 1 MiB: curl asks first.
    let asked = body("asked", 20_000);
    let file = dir.path().join("asked");
    std::fs::write(&file, &asked).unwrap();
    let at = format!("@{}", file.to_str().unwrap());
    let log = curl(&["-v", "--stderr", "-", "--expect100-timeout", "25", "--data-binary", &at, &url(&server)], b"");
    assert!(log.contains("> Expect: 100-continue") && log.contains("< HTTP/1.1 100 Continue"), "{log}");
    assert!(log.contains("< HTTP/1.1 204 No Content"), "{log}");
    // What is refused is refused before the body is sent.
    let log = curl(&["-v", "--stderr", "-", "--data-binary", &at, &format!("{}nowhere", url(&server))], b"");
    assert!(log.contains("< HTTP/1.1 404 Not Found") && !log.contains("100 Continue"), "{log}");
    check(&server, &[&large, &asked]);
}

#[test]
fn curl_speaks_http_1_0_and_probes() {
    let dir = scratch();
    let server = start(dir.path(), "");
    let base = url(&server);
    let (old, kept) = (body("old", 100), body("kept", 100));
    let answer = curl(&["-0", "-i", "--data-binary", "@-", &base], &old);
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Connection: close"), "{answer}");
    let answer = curl(&["-0", "-i", "-H", "Connection: keep-alive", "--data-binary", "@-", &base], &kept);
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Connection: keep-alive"), "{answer}");
    for path in ["", "healthz", "readyz"] {
        let answer = curl(&["-i", &format!("{base}{path}")], b"");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let length = curl(&["-I", &format!("{base}{path}")], b"");
        let said = length.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap().trim();
        assert_eq!(said, answer.split_once("\r\n\r\n").unwrap().1.len().to_string());
    }
    for target in ["*", "/", "/ingest/default"] {
        let answer = curl(&["-i", "-X", "OPTIONS", "--request-target", target, &base], b"");
        assert!(
            answer.starts_with("HTTP/1.1 204 ") && answer.contains("Allow: POST, PUT, GET, HEAD, OPTIONS"),
            "{answer}"
        );
    }
    let put = curl(&[&STATUS[..], &["-o", "/dev/null", "-X", "DELETE", &base]].concat(), b"");
    assert_eq!(put, "405 ");
    check(&server, &[&old, &kept]);
}

#[test]
fn curl_keeps_its_connection() {
    let dir = scratch();
    let server = start(dir.path(), "streams = [\"other\"]\n[stream.other]\nformat = \"raw\"\n");
    let base = url(&server);
    let bytes = body("again", 50);
    let file = dir.path().join("again");
    std::fs::write(&file, &bytes).unwrap();
    let at = format!("@{}", file.to_str().unwrap());
    let mut args = vec!["-w", "%{http_code}:%{num_connects} ", "--data-binary", &at];
    let (other, missing) = (format!("{base}ingest/other"), format!("{base}ingest/missing"));
    args.extend([base.as_str(), "-o", "/dev/null", &other, &missing, &base]);
    args.extend(["-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"]);
    // A refused request does not end the connection either.
    assert_eq!(curl(&args, b""), "204:1 204:0 404:0 204:0 ");
    assert_eq!(server.metrics().sum("logweir_connections_accepted_total", ""), 1.0);
    check(&server, &[&bytes, &bytes, &bytes]);
}

#[test]
fn curl_shows_a_token() {
    let dir = scratch();
    let token = "0123456789abcdef0123456789abcdef";
    let hash: String = Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect();
    let narrow: String = Sha256::digest("narrow").iter().map(|b| format!("{b:02x}")).collect();
    let more = format!(
        "tokens = [\"app\", \"narrow\"]\nstreams = [\"other\"]\n[stream.other]\n[token.app]\nsha256 = \"{hash}\"\n[token.narrow]\nsha256 = \"{narrow}\"\nstreams = [\"other\"]\n"
    );
    let server = start(dir.path(), &more);
    let base = url(&server);
    assert_eq!(post(&base, &[], b"none\n"), "401 ");
    assert_eq!(post(&base, &["--oauth2-bearer", "wrong"], b"wrong\n"), "401 ");
    assert_eq!(post(&base, &["--user", "0123456789abcdef0123456789abcdef:app"], b"basic\n"), "401 ");
    assert_eq!(post(&base, &["--oauth2-bearer", "narrow"], b"not there\n"), "403 ");
    assert_eq!(post(&base, &["--oauth2-bearer", token], b"app\n"), "204 ");
    let other = format!("{base}ingest/other");
    assert_eq!(post(&other, &["--oauth2-bearer", "narrow"], b"narrow\n"), "204 ");
    assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("{base}readyz")], b""), "200");
    check(&server, &[b"app\nnarrow\n"]);
}

/// An authority, a server's and a client's certificate in files; `NAME.pem` and `NAME.key`.
fn certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    for name in ["localhost", "agent-1.example", "agent-2.example"] {
        let key = KeyPair::generate().unwrap();
        let names = vec![name.to_string(), "127.0.0.1".to_string()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn curl_over_tls_with_a_certificate() {
    let dir = scratch();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let more = format!(
        "tls_cert = \"{}\"\ntls_key = \"{}\"\ntls_client_ca = \"{}\"\ntls_client_subjects = [\"agent-1.example\"]\n",
        path("localhost.pem"),
        path("localhost.key"),
        path("ca.pem")
    );
    let server = start(dir.path(), &more);
    let base = format!("https://localhost:{}/", server.address("web").port());
    let of = |agent: &str| [path("ca.pem"), path(&format!("{agent}.pem")), path(&format!("{agent}.key"))];
    let large = body("tls", 20_000);
    let small = body("tls small", 10);
    for (version, bytes) in [("--tlsv1.3", &large), ("--tlsv1.2", &small)] {
        let [ca, cert, key] = of("agent-1.example");
        let most = if version == "--tlsv1.2" { "1.2" } else { "1.3" };
        let args = [version, "--tls-max", most, "--cacert", &ca, "--cert", &cert, "--key", &key, "--http1.1"];
        assert_eq!(post(&base, &args, bytes), "204 ");
    }
    // Reuse over TLS, ALPN as curl offers it (h2 and http/1.1).
    let [ca, cert, key] = of("agent-1.example");
    let args = ["--cacert", &ca, "--cert", &cert, "--key", &key, "-w", "%{http_code}:%{num_connects}:%{http_version} "];
    let twice = curl(&[&args[..], &["--data-binary", "@-", &base, &base]].concat(), b"reused\n");
    assert_eq!(twice, "204:1:1.1 204:0:1.1 ");
    // Nobody else.
    let refused = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "30", "--data-binary", "no"]).args(args).arg(&base);
        assert!(!command.status().unwrap().success(), "{args:?}");
    };
    refused(&["--cacert", &ca]);
    let [ca, cert, key] = of("agent-2.example");
    refused(&["--cacert", &ca, "--cert", &cert, "--key", &key]);
    check(&server, &[&large, &small, b"reused\nreused\n"]);
}

#[test]
fn curl_with_a_proxy_header() {
    let dir = scratch();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let both = format!(
        "proxy_protocol = \"required\"\n[listener.tls]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nproxy_protocol = \"required\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        path("localhost.pem"),
        path("localhost.key")
    );
    let server = start(dir.path(), &both);
    assert_eq!(post(&url(&server), &["--haproxy-protocol"], b"through a proxy\n"), "204 ");
    let tls = format!("https://localhost:{}/", server.address("tls").port());
    let ca = path("ca.pem");
    assert_eq!(post(&tls, &["--haproxy-protocol", "--cacert", &ca], b"and tls\n"), "204 ");
    let mut without = Command::new("curl");
    without.args(["--silent", "--noproxy", "*", "--max-time", "30", "--data-binary", "no", &url(&server)]);
    assert!(!without.status().unwrap().success());
    check(&server, &[b"through a proxy\nand tls\n"]);
}

#[test]
fn python_http_client() {
    let Some(python) = Python::with("http.client") else {
        return skipped("python_http_client", "no python3");
    };
    let dir = scratch();
    let server = start(dir.path(), "");
    let script = "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=30)
def check(expected=204):
    r = c.getresponse(); r.read()
    assert r.status == expected, (r.status, expected)
c.connect()
first = c.sock
for i in range(50):
    c.request('POST', '/', b'kept %d\\n' % i); check()
    assert c.sock is first, 'the connection was closed'
def parts():
    for i in range(1000):
        line = b'chunked %d\\n' % i
        yield line[:5]
        yield line[5:]
c.request('POST', '/ingest/default', parts(), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'}); check()
c.request('POST', '/', iter([b'by itself ', b'chunked\\n'])); check()
c.request('POST', '/none', b'x'); check(404)
c.request('HEAD', '/'); check(200)
c.request('POST', '/', b''); check()
c.request('POST', '/', b'without a newline'); check()
assert c.sock is first
";
    let port = server.address("web").port().to_string();
    run(python.script(script).arg(&port), b"");
    let mut expected: Vec<u8> = (0..50).flat_map(|i| format!("kept {i}\n").into_bytes()).collect();
    expected.extend((0..1000).flat_map(|i| format!("chunked {i}\n").into_bytes()));
    expected.extend(b"by itself chunked\nwithout a newline\n");
    assert!(server.cat() == expected, "one connection: in order");
    assert_eq!(server.metrics().sum("logweir_connections_accepted_total", ""), 1.0);
    check(&server, &[&expected]);
}

#[test]
fn python_requests() {
    let Some(python) = Python::with("requests") else {
        return skipped("python_requests", "python3-requests is not installed");
    };
    let dir = scratch();
    let server = start(dir.path(), "");
    let script = "
import gzip, requests, sys
url = 'http://127.0.0.1:%s/' % sys.argv[1]
s = requests.Session()
s.trust_env = False
def post(data, path='', **headers):
    r = s.post(url + path, data=data, headers={k.replace('_', '-'): v for k, v in headers.items()}, timeout=30)
    assert r.status_code == 204, (r.status_code, r.text)
for i in range(50):
    post('session %d\\n' % i)
post(gzip.compress(b''.join(b'gzip %d\\n' % i for i in range(2000))), Content_Encoding='gzip')
post(b'generator %d\\n' % i for i in range(500))
packed = gzip.compress(b''.join(b'both %d\\n' % i for i in range(2000)))
post((packed[i:i + 100] for i in range(0, len(packed), 100)), Content_Encoding='gzip')
post(open(sys.argv[2], 'rb'), X_Logweir_Ack='written')
r = s.post(url + '?ack=never', data='x', timeout=30)
assert r.status_code == 400 and r.json()['lines_received'] == 0, r.text
post('last\\n', '?ack=durable')
";
    let bytes = body("file", 3000);
    let file = dir.path().join("file");
    std::fs::write(&file, &bytes).unwrap();
    let port = server.address("web").port().to_string();
    run(python.script(script).arg(&port).arg(&file), b"");
    let numbered =
        |label: &str, n: usize| (0..n).flat_map(|i| format!("{label} {i}\n").into_bytes()).collect::<Vec<u8>>();
    let parts =
        [numbered("session", 50), numbered("gzip", 2000), numbered("generator", 500), numbered("both", 2000), bytes];
    let expected = [parts.concat(), b"last\n".to_vec()].concat();
    assert!(server.cat() == expected, "one connection: in order");
    assert_eq!(server.metrics().sum("logweir_connections_accepted_total", ""), 1.0);
    check(&server, &[&expected]);
}

/// One run of wrk: requests that it saw answered. It may stop with some under way.
fn wrk(dir: &Path, address: &str, script: &str) -> f64 {
    let path = dir.join("wrk.lua");
    let done = "\nfunction done(s)\n  local e = s.errors\n  print('RESULT ' .. s.requests .. ' ' .. e.connect + e.read + e.write + e.status + e.timeout)\nend\n";
    std::fs::write(&path, format!("{script}{done}")).unwrap();
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--connections", "8", "--duration", "1s", "--timeout", "20s", "--script"]);
    let out = run(command.arg(&path).arg(format!("http://{address}/")), b"");
    let numbers: Vec<f64> = out
        .lines()
        .find_map(|l| l.strip_prefix("RESULT "))
        .unwrap_or_else(|| panic!("{out}"))
        .split(' ')
        .map(|n| n.parse().unwrap())
        .collect();
    assert_eq!(numbers[1], 0.0, "{out}");
    assert!(numbers[0] > 0.0, "{out}");
    numbers[0]
}

#[test]
fn wrk_gets_nothing_but_2xx() {
    if !have("wrk") {
        return skipped("wrk_gets_nothing_but_2xx", "wrk is not installed");
    }
    let dir = scratch();
    let server = start(dir.path(), "");
    let address = server.address("web").to_string();
    let post = "wrk.method = 'POST'\nwrk.body = 'a line that wrk sends\\n'\n";
    let single = wrk(dir.path(), &address, post);
    let deep = "local all\nfunction init()\n  local r = {}\n  for i = 1, 16 do r[i] = wrk.format() end\n  all = table.concat(r)\nend\nfunction request() return all end\n";
    let pipelined = wrk(dir.path(), &address, &format!("{post}{deep}"));
    common::await_that("wrk's connections to end", || server.metrics().sum("logweir_connections", "") == 0.0);
    let out = server.cat();
    let lines = lines_of(&out);
    assert!(lines.iter().all(|l| *l == b"a line that wrk sends"));
    let metrics = server.metrics();
    metrics.check_accounts();
    let answered = metrics.sum("logweir_http_responses_total", "\"204\"");
    assert_eq!(metrics.sum("logweir_http_responses_total", ""), answered, "only 204");
    assert!(answered >= single + pipelined);
    assert!(lines.len() as f64 >= answered, "{} lines for {answered} requests", lines.len());
}

/// What people do who have a file: `curl -T`, and by mistake `curl -F`.
#[test]
fn curl_uploads_a_file_and_a_form_is_refused() {
    let dir = scratch();
    let server = start(dir.path(), "streams = [\"app\"]\n");
    let file = dir.path().join("app.log");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let name = file.to_str().unwrap();
    let status = |args: &[&str]| curl(&[&STATUS[..], &["--output", "/dev/null"], args].concat(), b"three\n");
    let base = url(&server);
    assert_eq!(status(&["-T", name, &base]), "204 ");
    assert_eq!(status(&["-T", "-", &format!("{base}ingest/app/")]), "204 ");
    assert_eq!(status(&["-T", name, &format!("{base}ingest/app/")]), "204 ");
    assert_eq!(status(&["--data-binary", "@-", &format!("{base}ingest/app/?status=200")]), "200 ");
    assert_eq!(status(&["-F", &format!("file=@{name}"), &base]), "415 ");
    check(&server, &[b"one\ntwo\n", b"three\n", b"one\ntwo\n", b"three\n"]);
    assert_eq!(server.metrics().sum("logweir_unexpected_input_total", "kind=\"media_type\""), 1.0);
}

#[test]
fn curl_sends_a_token_as_a_password() {
    let dir = scratch();
    let hash: String = Sha256::digest("s3cret").iter().map(|b| format!("{b:02x}")).collect();
    let server = start(dir.path(), &format!("tokens = [\"t\"]\n[token.t]\nsha256 = \"{hash}\"\n"));
    assert_eq!(post(&url(&server), &["--user", "device:s3cret"], b"a\n"), "204 ");
    assert_eq!(post(&url(&server), &["--user", "device:wrong"], b"b\n"), "401 ");
    check(&server, &[b"a\n"]);
}
