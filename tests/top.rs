//! `logweir top`: frames of every size, and the real thing in a pseudo-terminal.

mod common;

use common::{PATIENCE, Server, await_that, logweir, scratch, send_all};
use logweir::watch::scrape::{Scrape, View, Window};
use logweir::watch::top::{Answer, State, Step, draw, plain};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{Termios, tcgetattr};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A scrape of a server with so many listeners and shards that has received so many lines.
fn scrape(listeners: u32, shards: u32, lines: u32) -> Scrape {
    let mut text = "logweir_ready 1\nlogweir_engine_info{engine=\"io_uring\",reason=\"works\"} 1\n".to_string();
    for l in 0..listeners {
        let labels = format!("{{listener=\"app-{l:02}\"}}");
        text += &format!(
            "logweir_received_lines_total{labels} {lines}\nlogweir_received_bytes_total{labels} {}\n",
            lines * 100
        );
        text += &format!("logweir_durable_lines_total{labels} {lines}\n");
        text +=
            &format!("logweir_dropped_lines_total{{listener=\"app-{l:02}\",reason=\"buffer_full\"}} {}\n", lines / 100);
    }
    for s in 0..shards {
        text += &format!("logweir_buffer_utilisation{{shard=\"{s}\"}} 0.42\nlogweir_connections{{shard=\"{s}\"}} 17\n");
        for (le, n) in [("0.001", lines / 2), ("0.002", lines), ("+Inf", lines)] {
            text += &format!("logweir_sync_seconds_bucket{{shard=\"{s}\",le=\"{le}\"}} {n}\n");
        }
    }
    Scrape::parse(&text)
}

fn state(listeners: u32, shards: u32) -> State {
    let mut state = State::new("127.0.0.1:9610");
    let start = Instant::now();
    for second in 0..5 {
        let at = start + Duration::from_secs(second);
        state.take(Answer { at, result: Ok((scrape(listeners, shards, second as u32 * 2000), None)) });
    }
    state
}

fn frame(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, Instant::now())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string() + "\n";
    (0..height).map(line).collect()
}

#[test]
fn a_frame_of_eighty_columns_shows_it_all() {
    let text = frame(&state(2, 2), 80, 24);
    for part in [
        "logweir 127.0.0.1:9610  ready  engine io_uring",
        "4000", // lines a second of both listeners
        "400 kB",
        "42.0 %",
        "34, 0/s new",
        "1.00 ms / 1.98 ms",
        "160 buffer_full",
        "left over",
        "app-00",
        "app-01",
        "shard",
        "q quit  p pause",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 80));
}

/// What the kernel dropped is no term of the account: the server never had it.
#[test]
fn datagrams_that_were_lost_before_reception_are_shown_where_there_are_any() {
    assert!(!frame(&state(1, 1), 80, 24).contains("lost"));
    let scrape =
        |lost| Scrape::parse(&format!("logweir_ready 1\nlogweir_lost_datagrams_total{{shard=\"0\"}} {lost}\n"));
    let mut state = State::new("127.0.0.1:9610");
    let start = Instant::now();
    for second in 0..3 {
        state.take(Answer { at: start + Duration::from_secs(second), result: Ok((scrape(10 * second), None)) });
    }
    for (width, expected) in [(80, "20 datagrams before reception, 10/s"), (40, "20 datagrams before recepti")] {
        let text = frame(&state, width, 24);
        assert!(text.contains(expected), "{text}");
    }
    let window = Window { before: scrape(0), after: scrape(20), seconds: 2.0 };
    let text = plain("a", &View::new(&window), None);
    assert!(text.contains("lost          10/s; since the start: 20 datagrams before reception\n"), "{text}");
}

/// The place behind the last letter of a text in a line, in columns.
fn end_of(line: &str, text: &str) -> Option<usize> {
    line.find(text).map(|at| line[..at].chars().count() + text.chars().count())
}

/// Headers whose column is there. Each ends where every figure beneath it ends, and nothing else is in that line.
fn headers<'a>(text: &str, title: &str, all: &[&'a str], rows: &[&str]) -> Vec<&'a str> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|l| l.starts_with(title)).unwrap_or_else(|| panic!("{title}\n{text}"));
    let mut rest = lines[at].replacen(title, "", 1);
    let found: Vec<&str> = all.iter().copied().filter(|head| lines[at].contains(head)).collect();
    found.iter().for_each(|head| rest = rest.replacen(head, "", 1));
    assert_eq!(rest.trim(), "", "part of a header\n{text}");
    for (line, name) in lines[at + 1..].iter().zip(rows) {
        assert!(line.starts_with(name), "{name}\n{text}");
        for head in &found {
            let end = end_of(lines[at], head).unwrap();
            let cell: Vec<char> = line.chars().skip(end - 1).take(2).collect();
            assert!(cell[0] != ' ' && cell.get(1).is_none_or(|c| *c == ' '), "{head} over {name}\n{text}");
        }
    }
    found
}

const LISTENER: [&str; 7] = ["lines/s", "bytes/s", "received", "durable", "in flight", "dropped", "at risk"];
const SHARD: [&str; 8] = ["conns", "buffer", "written/s", "write p99", "syncs/s", "sync p50", "sync p99", "waits"];

#[test]
fn headers_stand_over_their_columns_at_every_width() {
    let few = [(40, 4, 4), (60, 6, 6), (80, 7, 8), (120, 7, 8)];
    for (width, listeners, shards) in few {
        let text = frame(&state(2, 2), width, 24);
        let found = headers(&text, "listener", &LISTENER, &["app-00 ", "app-01 "]);
        assert_eq!(found.len(), listeners, "{found:?}\n{text}");
        assert!(found.contains(&"lines/s") && found.contains(&"dropped"), "{found:?}");
        let found = headers(&text, "shard", &SHARD, &["0 ", "1 "]);
        assert_eq!(found.len(), shards, "{found:?}\n{text}");
        assert!(found.contains(&"buffer") && found.contains(&"sync p99"), "{found:?}");
        for part in ["lines/s ", "bytes/s ", "400 kB", "42.0 %", "1.00 ms / 1.98 ms", "160 buffer_full", "left over"] {
            assert!(text.contains(part), "{width}: {part}\n{text}");
        }
    }
    for width in 1..200 {
        let text = frame(&state(2, 2), width, 40);
        let whole = text.lines().any(|l| l.starts_with("listener"));
        assert_eq!(whole, width >= 8, "{text}");
        if whole {
            headers(&text, "listener", &LISTENER, &["app-00", "app-01"]);
            headers(&text, "shard", &SHARD, &["0", "1"]);
        }
    }
}

#[test]
fn the_end_of_a_name_that_is_too_long_is_cut() {
    let scrape = |n: u32| {
        let text = |name| format!("logweir_received_lines_total{{listener=\"{name}\"}} {n}\n");
        let names = ["a-listener-for-the-whole-of-the-second-floor", "short"];
        Scrape::parse(
            &("logweir_ready 1\nlogweir_disk_full{shard=\"12\"} 1\nlogweir_buffer_utilisation{shard=\"12\"} 1\n"
                .to_string()
                + &names.map(text).concat()),
        )
    };
    let mut state = State::new("127.0.0.1:9610");
    let start = Instant::now();
    for n in [0, 5] {
        let at = start + Duration::from_secs(u64::from(n));
        state.take(Answer { at, result: Ok((scrape(n), None)) });
    }
    for (width, name) in [
        (40, "a-listener-fo"),
        (60, "a-listener-for-"),
        (80, "a-listener-for-the-"),
        (120, "a-listener-for-the-whole-of-the-second-floor "),
    ] {
        let text = frame(&state, width, 24);
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{width}\n{text}"));
        assert_eq!(line.contains('…'), width < 120, "{text}");
        headers(&text, "listener", &LISTENER, &[name, "short "]);
        assert!(text.lines().any(|l| l.starts_with("12 FULL ")), "{text}");
    }
}

#[test]
fn the_first_answer_tells_of_no_rate_and_a_restart_neither() {
    let mut state = State::new("a");
    let start = Instant::now();
    let scrape = |lines: u32, run: u32| {
        Scrape::parse(&format!(
            "logweir_ready 1\nlogweir_received_lines_total{{listener=\"l\"}} {lines}\nprocess_start_time_seconds {run}\n"
        ))
    };
    let mut rates = Vec::new();
    for (second, (lines, run)) in [(500, 100), (600, 100), (7, 200), (9, 200)].into_iter().enumerate() {
        let at = start + Duration::from_secs(second as u64);
        state.take(Answer { at, result: Ok((scrape(lines, run), None)) });
        let text = frame(&state, 80, 24);
        let line = text.lines().find(|l| l.starts_with("l ")).unwrap();
        rates.push(line.split_whitespace().nth(1).unwrap().to_string());
    }
    assert_eq!(rates, ["-", "100", "-", "2"]);
}

#[test]
fn which_server_it_is_stands_in_the_first_line_where_there_is_room() {
    let mut scrape = Scrape::parse(
        "logweir_ready 1\nlogweir_engine_info{engine=\"epoll\"} 1\nlogweir_build_info{version=\"0.1.0\",commit=\"abc\"} 1\n\
         logweir_server_info{host=\"web-1\",data_dir=\"/srv/logs\"} 1\nprocess_start_time_seconds 1000\n",
    );
    scrape.time = Some(8300.0);
    let mut state = State::new("127.0.0.1:9610");
    let start = Instant::now();
    state.take(Answer { at: start, result: Ok((scrape, None)) });
    let first = |width| frame(&state, width, 24).lines().next().unwrap().to_string();
    let all = "logweir 127.0.0.1:9610  ready  web-1  up 2 h 1 min  0.1.0 (abc)  engine epoll  data in /srv/logs";
    assert_eq!(first(120), all);
    assert_eq!(
        first(80),
        all.strip_suffix("  engine epoll  data in /srv/logs").unwrap().to_string() + "  engine epoll"
    );
    assert_eq!(first(60), "logweir 127.0.0.1:9610  ready  web-1  up 2 h 1 min");
    assert_eq!(first(40), "logweir 127.0.0.1:9610  ready  web-1");
    let text = plain("a", state.view.as_ref().unwrap(), None);
    for part in [
        "host          web-1\n",
        "version       0.1.0 (abc)\n",
        "data          /srv/logs\n",
        "uptime        2 h 1 min\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    state.take(Answer { at: start, result: Err("gone".into()) });
    let gone = frame(&state, 120, 24);
    assert!(gone.contains("web-1") && !gone.contains("up 2 h"), "{gone}");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &state, Instant::now())).unwrap();
    let cells = terminal.backend().buffer().content.iter().skip(80).filter(|cell| cell.symbol() != " ");
    assert!(cells.clone().count() > 100 && cells.clone().all(|cell| cell.modifier == Modifier::DIM), "{gone}");
}

#[test]
fn no_size_panics() {
    let states = [State::new("x"), state(0, 0), state(1, 1), state(30, 30)];
    for state in &states {
        for (width, height) in [(1, 1), (2, 50), (200, 1), (10, 5), (40, 10), (79, 17), (80, 24), (300, 90)] {
            let _ = frame(state, width, height);
        }
    }
    assert!(frame(&states[2], 40, 8).contains("lines/s"), "{}", frame(&states[2], 40, 8));
}

#[test]
fn keys_do_what_the_last_line_says() {
    let mut state = state(30, 1);
    let mut press = |code, modifiers| (state.key(KeyEvent::new(code, modifiers)), state.scroll, state.is_paused);
    let none = KeyModifiers::NONE;
    assert_eq!(press(KeyCode::Down, none), (Step::Go, 1, false));
    assert_eq!(press(KeyCode::Char('9'), none), (Step::Go, 8, false));
    assert_eq!(press(KeyCode::End, none), (Step::Go, 29, false));
    assert_eq!(press(KeyCode::Down, none), (Step::Go, 29, false));
    assert_eq!(press(KeyCode::Home, none), (Step::Go, 0, false));
    assert_eq!(press(KeyCode::Char('p'), none), (Step::Go, 0, true));
    assert_eq!(press(KeyCode::Char('p'), none), (Step::Go, 0, false));
    for (code, modifiers) in
        [(KeyCode::Esc, none), (KeyCode::Char('q'), none), (KeyCode::Char('c'), KeyModifiers::CONTROL)]
    {
        assert_eq!(press(code, modifiers).0, Step::Quit);
    }
    state.scroll = 20;
    assert!(frame(&state, 80, 24).contains("app-20"));
}

#[test]
fn a_server_that_goes_and_comes_back_is_followed() {
    let mut state = state(1, 1);
    let start = Instant::now();
    state.take(Answer { at: start, result: Err("Connection refused\u{1b}[2J".into()) });
    let text = frame(&state, 100, 24);
    assert!(text.contains("NO ANSWER for 0 s, trying again (Connection refused"), "{text}");
    assert!(!text.contains('\u{1b}'));
    assert_eq!(state.gone_for(start + Duration::from_secs(7)), Some(Duration::from_secs(7)));
    state.take(Answer {
        at: start + Duration::from_secs(7),
        result: Ok((scrape(1, 1, 10), Some("the disk is full".into()))),
    });
    state.take(Answer { at: start + Duration::from_secs(8), result: Ok((scrape(1, 1, 60), None)) });
    assert!(state.gone.is_none());
    assert_eq!(state.view.as_ref().unwrap().lines, 50.0, "not over the gap");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_metrics_are_drawn_at_any_size(
        before in "(logweir_[a-z_]{1,30}(\\{(listener|shard|reason|le)=\"[^\"\n]{0,9}\"\\})? [0-9.eE+-]{1,8}\n){0,9}",
        after in "(logweir_(received_lines_total|buffer_utilisation|sync_seconds_bucket)\\{(listener|shard|le)=\"\\PC{0,9}\"\\} (NaN|[-+]Inf|[0-9]{1,18}|1e300)\n){0,9}",
        width in 1u16..120, height in 1u16..40,
    ) {
        let mut state = State::new("a");
        let start = Instant::now();
        for (i, text) in [&before, &after, &before].iter().enumerate() {
            let at = start + Duration::from_millis(i as u64 / 2);
            state.take(Answer { at, result: Ok((Scrape::parse(text), None)) });
        }
        let _ = frame(&state, width, height);
        let window = Window { before: Scrape::parse(&before), after: Scrape::parse(&after), seconds: 1.0 };
        let text = plain("a", &View::new(&window), None);
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
}

#[test]
fn once_prints_a_frame_for_scripts() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    send_all(server.address("lines"), b"one\ntwo\nthree\n");
    await_that("it to be durable", || server.metrics().sum("logweir_durable_lines_total", "") == 3.0);
    let admin = server.admin.unwrap().to_string();
    let output = logweir(&["top", "--once", "--interval", "100ms", "--admin", &admin]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let account = "received 3 = durable 3 + written 0 + in flight 0 + dropped 0 + at risk 0; left over 0";
    assert!(text.contains(account) && text.contains(&format!("logweir at {admin}: ready")), "{text}");
    assert!(text.is_ascii() && text.lines().count() > 13, "{text}");
    drop(server);
    let output = logweir(&["top", "--once", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no answer from http://"));
    // Without a terminal: says so, and changes nothing.
    let output = logweir(&["top", "--admin", &admin]);
    assert!(!output.status.success() && !output.stdout.contains(&0x1b), "{output:?}");
}

/// `top` in a pseudo-terminal of 80 columns and 24 lines.
struct Screen {
    child: std::process::Child,
    keys: File,
    said: Arc<Mutex<Vec<u8>>>,
    side: std::os::fd::OwnedFd,
    before: Termios,
}

impl Screen {
    fn start(admin: &str) -> Screen {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(common::BINARY);
        command.args(["top", "--interval", "100ms", "--admin", admin]).env("TERM", "xterm-256color");
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let keys = File::from(pty.master.try_clone().unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut out, to) = (File::from(pty.master), Arc::clone(&said));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Screen { child, keys, said, side: pty.slave, before }
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// What is seen, as a terminal would have it: text, moves, clearing.
    fn text(&self) -> String {
        let raw = self.raw();
        let mut cells = vec![vec![' '; 80]; 24];
        let (mut x, mut y) = (0_usize, 0_usize);
        let mut chars = raw.chars();
        while let Some(c) = chars.next() {
            if c != '\u{1b}' {
                if let (false, Some(cell)) = (c.is_control(), cells.get_mut(y).and_then(|l| l.get_mut(x))) {
                    *cell = c;
                    x += 1;
                }
                continue;
            }
            if chars.next() != Some('[') {
                continue;
            }
            let rest: String = chars.by_ref().take_while(|c| !c.is_ascii_alphabetic()).collect();
            // The letter itself was taken: find it where the parameters end.
            let consumed = raw.len() - chars.as_str().len();
            let letter = raw[..consumed].chars().next_back();
            match letter {
                Some('H') => {
                    let mut at = rest.split(';').map(|n| n.parse::<usize>().unwrap_or(1) - 1);
                    (y, x) = (at.next().unwrap_or(0), at.next().unwrap_or(0));
                }
                Some('J') => cells.iter_mut().flatten().for_each(|c| *c = ' '),
                _ => {}
            }
        }
        cells.into_iter().map(|l| l.into_iter().collect::<String>() + "\n").collect()
    }

    /// Waits for the end; the terminal must be as it was.
    fn ended(mut self, how: &str) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => panic!("{how}: it does not end\n{}", self.text()),
                None => std::thread::park_timeout(Duration::from_millis(5)),
            }
        };
        assert_eq!(tcgetattr(&self.side).unwrap(), self.before, "{how}: modes of the terminal");
        await_that("the last of its output", || self.raw().contains("\u{1b}[?1049l"));
        let raw = self.raw();
        let at = |code: &str| raw.rfind(code).unwrap_or_else(|| panic!("{how}: {code:?}"));
        assert!(at("\u{1b}[?1049l") > at("\u{1b}[?1049h"), "{how}: the main screen");
        assert!(at("\u{1b}[?25h") > at("\u{1b}[?25l"), "{how}: the cursor");
        status
    }
}

#[test]
fn in_a_terminal_it_shows_the_servers_numbers_and_gives_the_terminal_back() {
    let dir = scratch();
    let mut server = Server::start(&dir.path().join("data"), &[]);
    let admin = server.admin.unwrap().to_string();
    let mut screen = Screen::start(&admin);
    send_all(server.address("lines"), "a line\n".repeat(1234).as_bytes());
    await_that("the numbers", || screen.text().contains("1234 = 1234 durable + 0 written + 0 in flight"));
    let text = screen.text();
    assert!(text.contains("ready") && text.contains("listener") && text.contains("shard"), "{text}");
    screen.keys.write_all(b"p").unwrap();
    await_that("the pause", || screen.text().contains("PAUSED"));
    send_all(server.address("lines"), b"one more\n");
    screen.keys.write_all(b"p").unwrap();
    await_that("it to go on", || screen.text().contains("1235 = 1235 durable"));
    server.kill();
    await_that("the server to be gone", || screen.text().contains("NO ANSWER for"));
    screen.keys.write_all(b"q").unwrap();
    assert!(screen.ended("q").success());
}

#[test]
fn signals_and_control_c_give_the_terminal_back_too() {
    for how in ["SIGTERM", "SIGHUP", "Ctrl-C", "Esc"] {
        let mut screen = Screen::start("127.0.0.1:1");
        await_that("the screen", || screen.text().contains("NO ANSWER"));
        let pid = nix::unistd::Pid::from_raw(screen.child.id() as i32);
        match how {
            "SIGTERM" => nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap(),
            "SIGHUP" => nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap(),
            "Ctrl-C" => screen.keys.write_all(b"\x03").unwrap(),
            _ => screen.keys.write_all(b"\x1b").unwrap(),
        }
        assert!(screen.ended(how).success(), "{how}");
    }
}
