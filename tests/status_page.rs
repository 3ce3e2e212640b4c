//! The status page: its headers, that it asks nobody else, and how it looks in a real browser.

#[path = "status_page/browser.rs"]
mod browser;
mod common;
#[path = "status_page/stage.rs"]
mod stage;

use browser::Browser;
use common::{BINARY, Server, await_that, scratch, send_all, skipped};
use stage::Stage;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// Where pictures go: for docs/ when asked, else beside the build. Those of the documents are the tests' own, of a server with
/// this directory, after 45 looks: `LOGWEIR_SCREENSHOTS=/tmp LOGWEIR_POLLS=45 LOGWEIR_SCREENSHOTS_OF=/var/lib/logweir`.
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
    for (const e of document.querySelectorAll('h1, h2, #status, #about, #about b, #when, dt, dd, th, td, li, p, a, .top, .axis span')) {
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
    let data = std::env::var_os("LOGWEIR_SCREENSHOTS_OF").map_or(dir.path().join("data"), PathBuf::from);
    let mut server = Server::with_config(&data, config);
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
    let evil = "<img src=x onerror=window.evil=1>";
    let stage = Stage::start(page, "<img src=x onerror=window.evil=1> because\n");
    stage.say(
        evil,
        &format!(
            "logweir_ready 0\nlogweir_received_lines_total{{listener=\"{evil}\\\"}}\"}} 7\nlogweir_received_lines_total 1e999\n\
             logweir_dropped_lines_total{{reason=\"{evil}\"}} 3\nlogweir_buffer_utilisation{{shard=\"{evil}\"}} NaN\n{{}} x\n\u{0}\n\
             logweir_lost_datagrams_total{{shard=\"0\"}} 5\n\
             logweir_server_info{{host=\"{evil}\",data_dir=\"{evil}\"}} 1\nlogweir_build_info{{version=\"{evil}\"}} 1\n"
        ),
    );
    browser.open(&format!("http://{}/", stage.address));
    await_that("the reason", || browser.text("status").contains("because"));
    await_that("the listener", || browser.text("listeners").contains("<img src=x onerror=window.evil=1>\"}"));
    for id in ["reasons", "host", "data-dir", "version"] {
        assert!(browser.text(id).contains("<img"), "{id}");
    }
    assert!(browser.text("reasons").contains("datagrams: lost before reception5"), "{}", browser.text("reasons"));
    assert_eq!(browser.run("return [window.evil || 0, document.images.length]").to_string(), "[0,0]");
    assert_eq!(browser.text("balance"), "The account does not balance: a bug. Please report it with /metrics.");
}

/// Writes down what is shown, whenever anything changes: polls so far, whether it is of the past, three texts, and more rates.
const RECORDER: &str = r"
    window.seen = [];
    const text = (id) => (document.getElementById(id) || { textContent: '' }).textContent;
    new MutationObserver(() => {
        if (!document.getElementById('balance')) return;
        const { dataset, classList } = document.body;
        const rates = '#now-bytes, #now-drops, #now-sync, #listeners td:nth-child(2), #listeners td:nth-child(3), #shards td:nth-child(4)';
        const more = [...document.querySelectorAll(rates)].map((e) => e.textContent).join(' ');
        seen.push([dataset.polls || '0', String(classList.contains('stale')), text('when'), text('now-lines'), text('balance'), more]);
    }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
";

/// What was written down.
fn seen(browser: &Browser) -> Vec<[String; 6]> {
    serde_json::from_value(browser.run("return seen")).unwrap()
}

const MEASURING: &str = "Now. What happens in a second is being measured…";

/// A server with its admin address at a place of our choice.
fn server_at(admin: &str, data_dir: &Path) -> Server {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--admin", admin, "--listen", "tcp://127.0.0.1:0", "--data-dir"]).arg(data_dir);
    Server::launch(&mut command, data_dir).unwrap_or_else(|(status, said)| panic!("{status}: {said}"))
}

#[test]
fn what_is_shown_is_of_now_or_says_of_when_it_is() {
    let Some(browser) = Browser::start() else {
        return skipped("what_is_shown_is_of_now_or_says_of_when_it_is", "no chromium or chromedriver");
    };
    let dir = scratch();
    let mut server = server_at("127.0.0.1:0", dir.path());
    let admin = server.admin.unwrap();
    send_all(server.address("lines"), "a line\n".repeat(5000).as_bytes());
    browser.before(RECORDER);
    browser.scheme("light");
    browser.open(&format!("http://{admin}/"));

    // The first second: levels are there, rates are not, and nothing says 0.
    await_that("two polls", || {
        number(browser.run("return document.body.dataset.polls || '0'").as_str().unwrap()) >= 2.0
    });
    let first: Vec<_> = seen(&browser).into_iter().filter(|s| number(&s[0]) < 2.0).collect();
    assert!(
        first.iter().any(|s| s[0] == "1" && s[2] == MEASURING && s[4] == "Every line is accounted for."),
        "{first:?}"
    );
    assert!(first.iter().all(|s| s[3] == "–" && s[5].split(' ').all(|rate| rate == "–")), "{first:?}");
    assert_eq!((browser.text("when"), browser.text("now-lines")), ("Now".into(), "0".into()));
    let received = "return document.querySelector('#account td').textContent";
    let before = number(browser.run(received).as_str().unwrap());
    assert_eq!(before, 5000.0);
    let color = "return getComputedStyle(document.getElementById('now-lines')).color";
    let lively = browser.run(color);

    // Gone: since when, as of when, grey; and nothing claims to be of now.
    server.kill();
    await_that("the page to see that the server is gone", || browser.text("status").starts_with("no answer since "));
    assert!(browser.text("status").ends_with("; asking again each second"), "{}", browser.text("status"));
    let when = browser.text("when");
    let then = when.strip_prefix("As of ").and_then(|rest| rest.strip_suffix(", when the server last answered"));
    let then = then.unwrap_or_else(|| panic!("{when}")).to_string();
    assert_eq!(browser.text("balance"), format!("Every line was accounted for at {then}."));
    assert_eq!(browser.text("uptime-name"), format!("at {then} up"));
    let claims = browser.run("return document.body.innerText.match(/\\bnow\\b|is accounted for/gi)");
    assert!(claims.is_null(), "{claims}");
    assert_ne!(browser.run(color), lively);
    assert_eq!(number(browser.run(received).as_str().unwrap()), before, "what was known is still there");
    let contrast = browser.run(LEAST_CONTRAST);
    assert!(contrast[0].as_f64().unwrap() >= 4.5, "grey, and legible: {contrast}");
    assert!(browser.run("return document.title").as_str().unwrap().starts_with('\u{26a0}'));

    browser.size(1180, 1000, false);
    browser.screenshot(&picture("gone"));

    // Back, with counters that begin anew: by itself, and without a rate below zero.
    let gone = seen(&browser).len();
    let server = server_at(&admin.to_string(), dir.path());
    send_all(server.address("lines"), b"one more\n");
    await_that("the page to go on", || browser.text("when") == "Now" && browser.text("status") == "ready");
    await_that("the new count", || number(browser.run(received).as_str().unwrap()) == 1.0);
    assert_eq!(browser.text("balance"), "Every line is accounted for.");
    assert_eq!(browser.run(color), lively);
    let seen = seen(&browser);
    assert!(seen[gone..].iter().any(|s| s[1] == "false" && s[2] == MEASURING && s[3] == "–"), "{:?}", &seen[gone..]);
    assert!(seen.iter().all(|s| !s[3].starts_with(['-', '−'])), "{seen:?}");
    assert!(seen.iter().all(|s| s[1] == "false" || !s[4].contains("is accounted")), "{seen:?}");
}

#[test]
fn it_says_which_server_it_is_whatever_its_directory_is_called() {
    let Some(browser) = Browser::start() else {
        return skipped("it_says_which_server_it_is_whatever_its_directory_is_called", "no chromium or chromedriver");
    };
    let dir = scratch();
    let data = dir.path().join("da\"ta\\n \\ 日志 <b>");
    let server = Server::start(&data, &[]);
    browser.open(&format!("http://{}/", server.admin.unwrap()));
    let host = nix::sys::utsname::uname().unwrap().nodename().to_str().unwrap().to_string();
    await_that("the host", || browser.text("host") == host);
    assert_eq!(browser.text("data-dir"), data.canonicalize().unwrap().to_str().unwrap());
    assert!(
        browser.text("version").starts_with(concat!(env!("CARGO_PKG_VERSION"), " (")),
        "{}",
        browser.text("version")
    );
    assert!(browser.text("uptime").ends_with(" s"), "{}", browser.text("uptime"));
    assert_eq!(browser.run("return document.title"), format!("{host} – logweir"));
    assert!(browser.console().is_empty(), "the policy holds");
}

#[test]
fn uptime_is_by_the_servers_clock_and_a_restart_between_two_looks_is_no_rate() {
    let Some(browser) = Browser::start() else {
        return skipped(
            "uptime_is_by_the_servers_clock_and_a_restart_between_two_looks_is_no_rate",
            "no chromium or chromedriver",
        );
    };
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let stage = Stage::start(ask(server.admin.unwrap(), "GET", "/", BROWSER).1, "ready\n");
    let say = |date: &str, start: u32, lines: u32| {
        let received = format!("logweir_received_lines_total{{listener=\"l\"}} {lines}\n");
        let durable = format!("logweir_durable_lines_total{{listener=\"l\"}} {lines}\n");
        stage.say(date, &format!("logweir_ready 1\nprocess_start_time_seconds {start}\n{received}{durable}"));
    };
    let day = 24 * 3600;
    say("Thu, 01 Jan 1970 05:06:07 GMT", 3600, 900);
    browser.before(RECORDER);
    browser.open(&format!("http://{}/", stage.address));
    await_that("the first rate", || browser.text("now-lines") == "0");
    assert_eq!(browser.text("uptime"), "4 h 6 min");
    let before = seen(&browser).len();
    say("Sat, 03 Jan 1970 00:00:09 GMT", 2 * day, 700);
    await_that("the new start", || browser.text("uptime") == "9 s");
    await_that("a rate again", || browser.text("when") == "Now");
    let seen = seen(&browser);
    assert!(seen[before..].iter().any(|s| s[2] == MEASURING && s[3] == "–"), "{:?}", &seen[before..]);
    assert!(seen[before..].iter().all(|s| ["–", "0"].contains(&s[3].as_str())), "not 700: {:?}", &seen[before..]);
}

/// For each row of a table, once it is scrolled to: how many cells, and what is wrong with any of them.
const CELLS: &str = r"
    const [wide, high] = [document.documentElement.clientWidth, window.innerHeight];
    return [...document.getElementById(arguments_id).rows].map((row) => {
        row.scrollIntoView({ block: 'center' });
        const wrong = [];
        [...row.cells].forEach((cell, i) => {
            const box = cell.getBoundingClientRect();
            const isIn = box.width > 0 && box.height > 0 && box.left >= 0 && box.right <= wide && box.top >= 0 && box.bottom <= high;
            const isWhole = cell.scrollWidth <= cell.clientWidth && cell.textContent.trim() !== '';
            const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
            const isNamed = i === 0 || wide > 900 || getComputedStyle(cell, '::before').content === JSON.stringify(cell.dataset.label);
            if (!isIn || !isWhole || !cell.contains(top) || !isNamed) wrong.push([i, cell.textContent, isIn, isWhole, isNamed]);
        });
        return [row.cells.length, wrong];
    });
";

#[test]
fn no_value_of_a_listener_or_shard_is_hidden_at_any_width() {
    let Some(browser) = Browser::start() else {
        return skipped("no_value_of_a_listener_or_shard_is_hidden_at_any_width", "no chromium or chromedriver");
    };
    let dir = scratch();
    let long = "a-listener-with-a-name-as-long-as-names-of-listeners-may-become";
    let config = format!(
        "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n[listener.{long}]\naddress = \"tcp://127.0.0.1:0\"\n"
    );
    let server = Server::with_config(&dir.path().join("data"), &config);
    send_all(server.address("lines"), "a line\n".repeat(12_345).as_bytes());
    browser.open(&format!("http://{}/", server.admin.unwrap()));
    await_that("rates", || browser.text("when") == "Now");
    for (width, is_phone) in
        [(320, true), (400, true), (400, false), (600, false), (900, false), (920, false), (1400, false)]
    {
        browser.size(width, 800, is_phone);
        for (table, cells) in [("listeners", 8), ("shards", 9)] {
            let rows = browser.run(&CELLS.replace("arguments_id", &format!("'{table}'")));
            assert!(rows.as_array().unwrap().len() >= if table == "listeners" { 2 } else { 1 }, "{rows}");
            for row in rows.as_array().unwrap() {
                assert_eq!(*row, serde_json::json!([cells, []]), "{table} at {width}");
            }
        }
        let widths = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
        assert_eq!(widths[0], widths[1], "{width}: it scrolls sideways");
        if width == 400 {
            browser.screenshot(&picture("cards"));
        }
        for id in ["host", "version", "uptime", "data-dir"] {
            let script =
                format!("const b = document.getElementById('{id}').getBoundingClientRect(); return [b.left, b.right]");
            let edges = browser.run(&script);
            assert!(
                edges[0].as_f64().unwrap() >= 0.0 && edges[1].as_f64().unwrap() <= f64::from(width),
                "{id}: {edges}"
            );
        }
    }
}
