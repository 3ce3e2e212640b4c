//! A protocol that only this test has: registered, configured, served, routed, reloaded, counted and drained, without a word of it in
//! the server. It is what a new protocol takes.
//!
//! Messages are netstrings, `LENGTH:BYTES,`; each is answered `WORD NUMBER` when it is durable. One that begins with `@NAME ` goes
//! to the stream of that name, if it is listed. One that begins with `!` is answered when it is written. A datagram is one message, and nobody is answered.

mod common;

use common::faulty_disk::FaultyDisk;
use common::{Metrics, await_that, lines_of, scratch};
use logweir::config::{Options, Overrides, load_text_for};
use logweir::host::address::Family;
use logweir::host::clock::SystemClock;
use logweir::host::peer::Peer;
use logweir::log::real_disk::RealDisk;
use logweir::metrics::accounting::Reason;
use logweir::pipeline::control::Notice;
use logweir::protocol::{About, Entry, Protocols, http, lines};
use logweir::server;
use logweir::session::owed::Owed;
use logweir::session::profile::SCRATCH_LANDING;
use logweir::session::routes::Routes;
use logweir::session::write::{Attr, Escape, Form, Format, Record, Value, longest_record};
use logweir::session::{
    AckLevel, End, Input, Landing, Owner, Patience, Profile, Protocol, Reply, Session, State, Step, Waiting, Window,
    downcast, same,
};
use logweir::settings::section::Section;
use logweir::settings::units::Time;
use logweir::settings::{ConfigError, ConfigErrors};
use logweir::{section, words};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

section!(/// The keys of a toy listener.
    Keys { word: String, escape: EscapeWord, streams: Vec<String>, answer_timeout: Time });
words!(/// `listener.NAME.escape`
    EscapeWord { Newlines = "newlines", Full = "full" });

static TOY: Entry = Entry {
    name: "toy",
    port: 7000,
    runs_on: &[Family::Tcp, Family::UnixDatagram],
    format: |_| Format::Raw,
    leases: false,
    keys: Keys::KEYS,
    build,
};
static WITH_TOY: &[&Entry] = &[&lines::ENTRY, &http::ENTRY, &TOY];

/// Bytes of a message's length, with its colon.
const PREFIX: usize = 12;

#[derive(Debug, PartialEq)]
struct Toy {
    listener: String,
    word: String,
    escape: Escape,
    most: usize,
    routes: Arc<Routes>,
    profile: Profile,
}

fn build(section: &Section<'_>, about: &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError> {
    let keys: Keys = section.read()?;
    let word = keys.word.unwrap_or_else(|| "ok".into());
    if word.is_empty() {
        return Err(section.error("word", "expected something to say"));
    }
    let escape = match keys.escape {
        Some(EscapeWord::Full) => Escape::Full,
        Some(EscapeWord::Newlines) | None => Escape::Newlines,
    };
    let (most, format) = (about.max_line_bytes, about.routes.own().format);
    let profile = Profile {
        schemes: ["toy", "toys"],
        answers: about.can_answer(),
        scratch: most + PREFIX + SCRATCH_LANDING,
        bytes_per_connection: size_of::<Talk>(),
        patience: Patience {
            line: Duration::from_secs(5),
            answer: section.time("answer_timeout", keys.answer_timeout, "0s", "0s", "1day"),
            ..Patience::default()
        },
        ..Profile::new("toy", most + PREFIX, longest_record(most, 100, format, escape))
    };
    let (listener, routes) = (about.listener.to_string(), Arc::clone(about.routes));
    Ok(Arc::new(Toy { listener, word, escape, most, routes, profile }))
}

impl Protocol for Toy {
    fn profile(&self) -> &Profile {
        &self.profile
    }
    fn session(&self, peer: &Peer, _: Owner) -> Box<dyn Session> {
        let form = Form::new(self.routes.own().format, self.escape, &self.listener, &peer.to_string());
        let (word, routes) = (self.word.clone(), Arc::clone(&self.routes));
        Box::new(Talk { form, word, routes, most: self.most, owed: Owed::default(), number: 0, broken: false, mark: 0 })
    }
    fn is_same(&self, other: &dyn Protocol) -> bool {
        same(self, other)
    }
    fn describe(&self) -> String {
        format!(", saying {}", self.word)
    }
}

struct Talk {
    form: Form,
    word: String,
    routes: Arc<Routes>,
    most: usize,
    owed: Owed<String>,
    number: u64,
    broken: bool,
    mark: u32,
}

/// The first message of some bytes, and where it ends; `None`: more is needed.
fn message(bytes: &[u8], most: usize) -> Result<Option<(&[u8], usize)>, ()> {
    let Some(colon) = bytes.iter().take(PREFIX).position(|b| *b == b':') else {
        return if bytes.len() < PREFIX { Ok(None) } else { Err(()) };
    };
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok().and_then(|t| t.parse().ok()).ok_or(())?;
    if length > most {
        return Err(());
    }
    let end = colon + 1 + length;
    match bytes.get(end) {
        Some(b',') => Ok(Some((&bytes[colon + 1..end], end + 1))),
        Some(_) => Err(()),
        None => Ok(None),
    }
}

impl Talk {
    fn datagram(&mut self, bytes: &[u8], window: &mut Window<'_>) -> Step {
        let Ok(Some((text, _))) = message(bytes, self.most) else {
            window.sink.drop_record(Reason::TooLong, bytes.len() as u64);
            return Step::Close;
        };
        let record = Record { message: text, wall_ns: window.around.wall_ns, ..Record::default() };
        if self.form.write(&record, &mut window.sink) { Step::Continue } else { Step::Full(0) }
    }
}

impl Session for Talk {
    fn landing(&self, tail_len: usize) -> Landing {
        Landing::Scratch { gap: tail_len, most: SCRATCH_LANDING }
    }

    fn input(&mut self, input: Input<'_>, window: &mut Window<'_>) -> Step {
        let (space, start, len) = match input {
            Input::Scratch { space, start, len } => (space, start, len),
            Input::Datagram { bytes, .. } => return self.datagram(bytes, window),
            Input::Chunk { .. } => unreachable!("it lands in the scratch buffer"),
        };
        let before = window.tail.len();
        window.tail.copy_to(&mut space[start - before..]);
        let bytes = &space[start - before..start + len];
        let mut at = 0;
        loop {
            let Ok(next) = message(&bytes[at..], self.most) else {
                window.tail.clear();
                window.sink.drop_record(Reason::TooLong, (bytes.len() - at) as u64);
                self.broken = true;
                return Step::Close;
            };
            let Some((mut text, end)) = next else { break };
            let named = text.strip_prefix(b"@").and_then(|t| t.iter().position(|b| *b == b' ').map(|i| t.split_at(i)));
            let route = named.and_then(|(name, rest)| Some((self.routes.find(name)?.index, &rest[1..])));
            let stream = route.map(|(index, rest)| {
                text = rest;
                index
            });
            let attrs = [Attr { name: b"number", value: Value::Integer(self.number as i64 + 1) }];
            let level = if text.starts_with(b"!") { AckLevel::Written } else { AckLevel::Durable };
            let frame = self.owed.open(level);
            window.sink.to(stream, frame);
            let record = Record { message: text, attrs: &attrs, wall_ns: window.around.wall_ns, ..Record::default() };
            if !self.form.write(&record, &mut window.sink) {
                self.owed.fail(|_| {}, None); // nothing of it is there
                let taken = at.saturating_sub(before);
                if at >= before {
                    window.tail.clear();
                }
                return Step::Full(taken);
            }
            self.owed.add(1);
            self.number += 1;
            self.owed.close(format!("{} {}\n", self.word, self.number));
            (at, self.mark) = (at + end, self.mark.wrapping_add(1));
        }
        let rest = bytes[at..].to_vec();
        window.tail.clear();
        window.tail.append(&rest);
        Step::Continue
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        if !window.tail.is_empty() {
            let reason = if let End::Broken(reason) = end { reason } else { Reason::Unterminated };
            window.sink.drop_record(reason, window.tail.len() as u64);
            window.tail.clear();
        }
    }

    fn state(&self, tail_len: usize) -> State {
        State {
            waiting: if tail_len > 0 { Waiting::Line } else { Waiting::Nothing },
            mark: self.mark,
            may_be_refused: true,
            is_between: tail_len == 0,
            has_output: self.owed.is_due(),
            owes: !self.owed.is_empty(),
            is_over: self.broken && self.owed.is_empty(),
            ..State::default()
        }
    }

    fn reached(&mut self, frame: u32, level: AckLevel, records: u64) {
        self.owed.reached(frame, level, records);
    }

    fn output(&mut self, reply: &mut Reply<'_>) {
        while let Some(text) = self.owed.next_due() {
            reply.out.extend_from_slice(text.as_bytes());
            reply.answers.count(200);
        }
    }

    fn renew(&mut self, protocol: &Arc<dyn Protocol>) {
        if let Some(toy) = downcast::<Toy>(protocol) {
            self.word = toy.word.clone();
        }
    }
}

fn load(text: &str, data: &Path, running: Option<&Options>) -> Result<Options, ConfigErrors> {
    let set = |key: &str, value: &str| (key.to_string(), value.to_string(), "test".to_string());
    let set = vec![set("data_dir", data.to_str().unwrap()), set("admin.address", "off")];
    let overrides = Overrides { set, protocols: Protocols(WITH_TOY), ..Overrides::default() };
    load_text_for(text, "toy.toml", &overrides, |_| None, running)
}

/// A client that sends messages and reads answers.
struct Client {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        Client { answers: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    fn send(&mut self, messages: &[&str]) {
        let wire: String = messages.iter().map(|m| format!("{}:{m},", m.len())).collect();
        self.stream.write_all(wire.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }
}

fn lines_in(data: &Path, stream: &str) -> Vec<String> {
    let out = common::logweir(&["cat", "-s", stream, "--data-dir", data.to_str().unwrap()]).stdout;
    lines_of(&out).into_iter().map(|l| String::from_utf8(l.to_vec()).unwrap()).collect()
}

#[test]
fn its_configuration_is_checked_as_that_of_the_others() {
    let dir = scratch();
    let error = |text: &str| load(text, dir.path(), None).unwrap_err().to_string();
    for (text, expected) in [
        (
            "[listener.t]\nprotocol = \"toy\"\nwrod = \"x\"",
            "toy.toml:3: `listener.t.wrod`: unknown key in [listener.t]; did you mean `word`?",
        ),
        ("[listener.t]\nprotocol = \"toy\"\nword = \"\"", "toy.toml:3: `listener.t.word`: expected something to say"),
        (
            "[listener.t]\nprotocol = \"toy\"\nword = 7",
            "toy.toml:3: `listener.t.word`: expected text in quotes, not the number `7`",
        ),
        (
            "[listener.t]\nprotocol = \"toy\"\nescape = \"some\"",
            "toy.toml:3: `listener.t.escape`: unknown value `some`",
        ),
        (
            "[listener.t]\nprotocol = \"toy\"\naddress = \"stdin:\"",
            "toy.toml:2: `listener.t.protocol`: toy needs tcp://",
        ),
        ("[listener.t]\nword = \"x\"", "toy.toml:2: `listener.t.word`: this belongs to protocol = \"toy\""),
        (
            "[listener.t]\nprotocol = \"toy\"\nreply = \"count\"",
            "toy.toml:3: `listener.t.reply`: this belongs to protocol = \"lines\"",
        ),
        (
            "[listener.t]\nprotocol = \"toys\"",
            "toy.toml:2: `listener.t.protocol`: unknown value `toys`, expected one of `lines`, `http`, `toy`",
        ),
    ] {
        let found = error(text);
        assert!(found.starts_with(expected), "for {text:?}\n  found    {found}\n  expected {expected}");
    }
    let options = load("[listener.t]\nprotocol = \"toy\"", dir.path(), None).unwrap();
    assert_eq!(options.listeners[0].address.to_string(), "tcp://127.0.0.1:7000");
}

/// The socket is everybody's: a datagram that breaks the protocol is dropped and counted, and the next one is taken.
#[test]
fn a_datagram_that_breaks_its_rules_ends_nothing_but_itself() {
    let dir = scratch();
    let (data, socket) = (dir.path().join("data"), dir.path().join("d"));
    let text = format!("[listener.d]\nprotocol = \"toy\"\naddress = \"unixgram://{}\"", socket.display());
    let options = load(&text, &data, None).unwrap();
    let (notices, receiver) = channel();
    let (disk, clock) = (Arc::new(RealDisk::new()), Arc::new(SystemClock::new()));
    let server = server::start_on(&options, (notices.clone(), receiver), disk, clock).unwrap();
    let metrics = server.metrics();
    let thread = std::thread::spawn(move || server.run(|running| load(&text, &data, Some(running))));
    let sender = UnixDatagram::unbound().unwrap();
    for datagram in ["3:one,", "no netstring at all", "3:two,", "9:cut off", "5:three,"] {
        sender.send_to(datagram.as_bytes(), &socket).unwrap();
    }
    let scrape = || {
        let metrics = Metrics::parse(&metrics.render());
        metrics.check_accounts();
        metrics
    };
    await_that("accounts", || scrape().sum("logweir_durable_lines_total", "listener=\"d\"") == 3.0);
    assert_eq!(scrape().sum("logweir_dropped_lines_total", "reason=\"too_long\""), 2.0);
    notices.send(Notice::Signal(signal_hook::consts::SIGTERM)).unwrap();
    assert!(thread.join().unwrap(), "everything is durable");
    assert_eq!(lines_in(&dir.path().join("data"), "default"), ["one", "two", "three"]);
}

#[test]
fn it_is_served_routed_counted_reloaded_and_drained() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = |word: &str| {
        format!(
            "[placement]\nshards = 1\nreactors_per_shard = 2\n[listener.t]\nprotocol = \"toy\"\nword = \"{word}\"\nescape = \"full\"\n\
             address = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"100KiB\"\n\
             [listener.j]\nprotocol = \"toy\"\nformat = \"json\"\nstream = \"objects\"\nstreams = [\"third\"]\naddress = \"tcp://127.0.0.1:0\"\n"
        )
    };
    let options = load(&config("ok"), &data, None).unwrap();
    let (notices, receiver) = channel();
    let (disk, clock) = (Arc::new(RealDisk::new()), Arc::new(SystemClock::new()));
    let server = server::start_on(&options, (notices.clone(), receiver), disk, clock).unwrap();
    let address = |name: &str| {
        let all = &server.started.listeners;
        all.iter().find(|(n, _)| n == name).unwrap().1.trim_start_matches("tcp://").to_string()
    };
    let (toy, json) = (address("t"), address("j"));
    let metrics = server.metrics();
    let scrape = move || {
        let metrics = Metrics::parse(&metrics.render());
        metrics.check_accounts();
        metrics
    };
    let next = Arc::new(Mutex::new(config("well")));
    let (again, place) = (Arc::clone(&next), data.clone());
    let thread = std::thread::spawn(move || server.run(|running| load(&again.lock().unwrap(), &place, Some(running))));

    let mut client = Client::connect(&toy);
    client.send(&["one", "two\nlines \\ and a backslash", ""]);
    assert_eq!([client.answer(), client.answer(), client.answer()], ["ok 1\n", "ok 2\n", "ok 3\n"]);
    // More than a chunk, in pieces.
    let long = "x".repeat(90_000);
    (0..40).for_each(|_| client.send(&[&long]));
    (4..44).for_each(|i| assert_eq!(client.answer(), format!("ok {i}\n")));
    let mut other = Client::connect(&json);
    other.send(&["plain", "@third routed by its name", "@elsewhere not listed"]);
    assert_eq!([other.answer(), other.answer(), other.answer()], ["ok 1\n", "ok 2\n", "ok 3\n"]);
    let mut broken = Client::connect(&toy);
    broken.stream.write_all(b"no netstring at all").unwrap();
    assert_eq!(broken.answer(), "", "it is closed");

    await_that("accounts", || scrape().sum("logweir_durable_lines_total", "listener=\"t\"") == 43.0);
    assert_eq!(scrape().sum("logweir_received_lines_total", "listener=\"t\""), 44.0);
    assert_eq!(scrape().sum("logweir_dropped_lines_total", "reason=\"too_long\""), 1.0);
    assert_eq!(scrape().sum("logweir_http_responses_total", "status=\"200\""), 46.0);

    notices.send(Notice::Signal(signal_hook::consts::SIGHUP)).unwrap();
    let mut number = 44;
    await_that("the open connection says the new word", || {
        client.send(&["again"]);
        let answer = client.answer();
        assert!(answer == format!("ok {number}\n") || answer == format!("well {number}\n"), "{answer}");
        number += 1;
        answer.starts_with("well")
    });
    // What is on its way when the end begins is taken in, and answered.
    client.send(&["last"]);
    notices.send(Notice::Signal(signal_hook::consts::SIGTERM)).unwrap();
    assert_eq!(client.answer(), format!("well {number}\n"));
    assert!(thread.join().unwrap(), "everything is durable");

    let found = lines_in(&data, "default");
    assert_eq!(found[..3], ["one", "two\\nlines \\\\ and a backslash", ""]);
    assert!(found[3..43].iter().all(|line| *line == long));
    assert_eq!(found.last().unwrap(), "last");
    let objects = |stream: &str| -> Vec<(String, i64, String)> {
        let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let parts = |v: serde_json::Value| {
            let text = |key: &str| v[key].as_str().unwrap().to_string();
            (text("msg"), v["attrs"]["number"].as_i64().unwrap(), text("listener"))
        };
        lines_in(&data, stream).iter().map(|line| parts(value(line))).collect()
    };
    let object = |text: &str, number| (text.to_string(), number, "j".to_string());
    assert_eq!(objects("objects"), [object("plain", 1), object("@elsewhere not listed", 3)]);
    assert_eq!(objects("third"), [object("routed by its name", 2)]);
}

/// What was answered as written is owed no more, though its sync is still to come: the time for an answer begins with the next message.
#[test]
fn the_time_for_an_answer_begins_with_what_is_owed() {
    const TIME: Duration = Duration::from_secs(2);
    let dir = scratch();
    let data = dir.path().join("data");
    let text = "engine = \"epoll\"\n[listener.t]\nprotocol = \"toy\"\nanswer_timeout = \"2s\"\naddress = \"tcp://127.0.0.1:0\"\n";
    let options = load(text, &data, None).unwrap();
    let (notices, receiver) = channel();
    let disk = FaultyDisk::new();
    let faults = Arc::clone(&disk.faults);
    let server =
        server::start_on(&options, (notices.clone(), receiver), Arc::new(disk), Arc::new(SystemClock::new())).unwrap();
    let mut client = Client::connect(server.started.listeners[0].1.trim_start_matches("tcp://"));
    let thread = std::thread::spawn(move || server.run(|_| unreachable!("nobody sends SIGHUP")));
    faults.shut_sync_gate();
    client.send(&["!one"]);
    assert_eq!(client.answer(), "ok 1\n");
    client.stream.set_read_timeout(Some(TIME * 3 / 5)).unwrap();
    assert!(client.answers.fill_buf().is_err(), "neither an answer nor an end");
    client.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let sent = Instant::now();
    client.send(&["two"]);
    assert_eq!(client.answer(), "", "it is let go, because nothing is synced");
    let waited = sent.elapsed();
    assert!(waited > TIME * 9 / 10, "it had only {waited:?}");
    faults.open_gate();
    notices.send(Notice::Signal(signal_hook::consts::SIGTERM)).unwrap();
    assert!(thread.join().unwrap(), "everything is durable");
    assert_eq!(lines_in(&data, "default"), ["!one", "two"]);
}
