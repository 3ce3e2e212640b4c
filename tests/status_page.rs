//! The status page: its headers, that it asks nobody else, and how it looks in a real browser.

#[path = "status_page/browser.rs"]
mod browser;
mod common;

use browser::Browser;
use common::{Server, await_that, scratch, send_all, skipped};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Head and body of an answer to a request with these headers.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

#[test]
fn browsers_get_the_page_and_others_the_short_text() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let admin = server.admin.unwrap();
    let (head, body) = ask(admin, "GET", "/", BROWSER);
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Content-Type: text/html; charset=utf-8"), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"));
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    for headers in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        let (head, body) = ask(admin, "GET", "/", headers);
        assert!(head.contains("text/plain") && body.contains("/metrics\n"), "{head}\n{body}");
    }
    let (head, body) = ask(admin, "HEAD", "/", BROWSER);
    assert!(head.contains("text/html") && body.is_empty());
    assert!(ask(admin, "GET", "/metrics", BROWSER).0.contains("text/plain; version=0.0.4"));
    assert!(ask(admin, "POST", "/", BROWSER).0.starts_with("HTTP/1.1 405"));
}

#[test]
fn the_page_may_run_only_itself_and_ask_only_its_server() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let (head, body) = ask(server.admin.unwrap(), "GET", "/", BROWSER);
    let policy = head.lines().find_map(|l| l.strip_prefix("Content-Security-Policy: ")).unwrap();
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(head.contains("X-Content-Type-Options: nosniff") && head.contains("Cache-Control: no-store"), "{head}");
    // No address of anybody else, but the name of the SVG language; and no way from text to markup.
    let others = body.replace("http://www.w3.org/2000/svg", "");
    for part in [
        "http:",
        "https:",
        "//cdn",
        "src=",
        "@import",
        "url(",
        "innerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "style=",
    ] {
        assert!(!others.contains(part), "{part}");
    }
    assert!(ask(server.admin.unwrap(), "GET", "/metrics", "").0.contains("nosniff"));
}

/// Tells a thread to end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where pictures go: for docs/ when asked, else beside the build.
fn picture(name: &str) -> PathBuf {
    let dir = std::env::var_os("LOGWEIR_SCREENSHOTS").map_or(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    dir.join(format!("status-{name}.png"))
}

fn number(text: &str) -> f64 {
    text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect::<String>().parse().unwrap_or(-1.0)
}

/// The contrast of an element's text with what is behind it, as WCAG 2 has it, the least of all that match.
const LEAST_CONTRAST: &str = r"
    const light = (c) => {
        const [r, g, b] = c.match(/[\d.]+/g).map(Number).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (e) => {
        for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)')) return c; }
        return 'rgb(255, 255, 255)';
    };
    let least = [99, ''];
    for (const e of document.querySelectorAll('h1, h2, #status, #about, dt, dd, th, td, li, p, a, .top, .axis span')) {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < least[0]) least = [contrast, e.tagName + ' ' + e.textContent];
    }
    return least;
";

#[test]
fn a_browser_shows_real_numbers_at_every_size_in_light_and_dark() {
    let Some(browser) = Browser::start() else {
        return skipped("a_browser_shows_real_numbers_at_every_size_in_light_and_dark", "no chromium or chromedriver");
    };
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"1KiB\"\ntoo_long = \"drop\"\n\
                  [listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nstream = \"web\"\n";
    let mut server = Server::with_config(&dir.path().join("data"), config);
    let address = server.address("lines");
    browser.size(1180, 1000, false);
    browser.scheme("light");
    browser.open(&format!("http://{}/", server.admin.unwrap()));
    // One line too long, to be seen among the drops; then lines, while it looks.
    send_all(address, format!("{}\nshort\n", "x".repeat(5000)).as_bytes());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when something below fails: the scope waits for its threads.
        let ends = Ends(&stop);
        scope.spawn(|| {
            let part = "a line of a service that has something to say\n".repeat(40);
            let mut stream = TcpStream::connect(address).unwrap();
            for turn in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Not even: plots of a straight line show nothing.
                for _ in 0..1 + turn / 40 % 7 {
                    stream.write_all(part.as_bytes()).unwrap();
                }
                std::thread::park_timeout(std::time::Duration::from_millis(15));
            }
        });
        let polls = || number(browser.run("return document.body.dataset.polls || '0'").as_str().unwrap());
        let wanted: f64 = std::env::var("LOGWEIR_POLLS").map_or(4.0, |n| n.parse().unwrap());
        // Patience for each poll, not for all.
        for n in 1..=wanted as u32 {
            await_that("a poll", || polls() >= f64::from(n));
        }
        await_that("lines a second", || number(&browser.text("now-lines")) > 0.0);
        assert_eq!(browser.text("status"), "ready");
        let row = |table: &str, row: u32, cell: u32| {
            let script = format!("return document.querySelectorAll('#{table} tr')[{row}].children[{cell}].textContent");
            browser.run(&script).as_str().unwrap().to_string()
        };
        let seen = number(&row("account", 0, 1));
        let counted = server.metrics().sum("logweir_received_lines_total", "");
        assert!(seen > 100.0 && seen <= counted, "{seen} of {counted}");
        assert_eq!(browser.text("balance"), "Every line is accounted for.");
        assert_eq!((row("account", 0, 0), row("account", 6, 1)), ("received".into(), "0".into()));
        assert!(row("reasons", 0, 0).contains("too_long") && row("reasons", 0, 1) == "1");
        assert_eq!((row("listeners", 0, 0), row("listeners", 1, 0)), ("lines".into(), "web".into()));
        assert!(number(&row("shards", 0, 7)) > 0.0, "time of a sync: {}", row("shards", 0, 7));
        let plots =
            browser.run("return [...document.querySelectorAll('.plot svg')].map(s => s.getAttribute('aria-label'))");
        assert_eq!(plots.as_array().unwrap().len(), 6, "{plots}");
        assert!(plots[0].as_str().unwrap().starts_with("Lines a second: received "), "{plots}");
        assert!(plots[5].as_str().unwrap().contains("too_long"), "{plots}");
        let drawn = browser.run("return document.querySelectorAll('.plot path:not(.grid)').length");
        assert!(drawn.as_u64().unwrap() >= 10, "{drawn}");

        for (width, height, is_phone, name) in [(1180, 1000, false, "wide"), (360, 780, true, "phone")] {
            browser.size(width, height, is_phone);
            for scheme in ["light", "dark"] {
                browser.scheme(scheme);
                let widths =
                    browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
                assert_eq!(widths[0], widths[1], "{name}: it scrolls sideways");
                let outside = browser.run(
                    "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && \
                     e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))",
                );
                assert_eq!(outside.as_array().unwrap().len(), 0, "{name}: {outside}");
                let contrast = browser.run(LEAST_CONTRAST);
                assert!(contrast[0].as_f64().unwrap() >= 4.5, "{name}, {scheme}: {contrast}");
                let path = picture(&format!("{name}-{scheme}"));
                browser.screenshot(&path);
                let bytes = std::fs::read(&path).unwrap();
                assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{}", path.display());
            }
        }
        let [light, dark] = ["light", "dark"].map(|scheme| {
            browser.scheme(scheme);
            browser.run("return getComputedStyle(document.body).backgroundColor").to_string()
        });
        assert_ne!(light, dark);
        drop(ends);
    });
    let complaints = browser.console();
    assert!(complaints.is_empty(), "{complaints:?}");
    server.kill();
    await_that("the page to see that the server is gone", || browser.text("status").starts_with("no answer since "));
}

#[test]
fn names_and_numbers_of_a_hostile_server_stay_text() {
    let Some(browser) = Browser::start() else {
        return skipped("names_and_numbers_of_a_hostile_server_stay_text", "no chromium or chromedriver");
    };
    // The real page, before metrics that no server of ours would send.
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let page = ask(server.admin.unwrap(), "GET", "/", BROWSER).1;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
            let n = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let evil = "<img src=x onerror=window.evil=1>";
            let (kind, body) = match head.split(' ').nth(1) {
                Some("/") => ("text/html", page.clone()),
                Some("/metrics") => (
                    "text/plain",
                    format!(
                        "logweir_ready 0\nlogweir_received_lines_total{{listener=\"{evil}\\\"}}\"}} 7\nlogweir_received_lines_total 1e999\n\
                         logweir_dropped_lines_total{{reason=\"{evil}\"}} 3\nlogweir_buffer_utilisation{{shard=\"{evil}\"}} NaN\n{{}} x\n\u{0}\n"
                    ),
                ),
                _ => ("text/plain", format!("{evil} because\n")),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    browser.open(&format!("http://{address}/"));
    await_that("the reason", || browser.text("status").contains("because"));
    await_that("the listener", || browser.text("listeners").contains("<img src=x onerror=window.evil=1>\"}"));
    assert!(browser.text("reasons").contains("<img"));
    assert_eq!(browser.run("return [window.evil || 0, document.images.length]").to_string(), "[0,0]");
    assert_eq!(browser.text("balance"), "The account does not balance: a bug. Please report it with /metrics.");
}
