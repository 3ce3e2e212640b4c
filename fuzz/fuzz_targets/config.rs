//! Configurations: what is accepted keeps its own promises, and an error says where.
//!
//! Where the text says nothing of shards and reactors, they depend on the machine, as they do for a server; the promises do
//! not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::config::{Options, Overrides, all_keys, load_text};
use logweir::intake::listener::ListenerOptions;
use logweir::log::names::is_stream_name;
use logweir::protocol::Protocols;
use logweir::protocol::http::HttpProtocol;
use logweir::session::downcast;
use logweir::session::write::Format;
use logweir::settings::ConfigError;
use logweir_fuzz::bytes::Bytes;
use std::time::Duration;

/// A document lives as long as its process; here there are many.
#[unsafe(no_mangle)]
extern "C" fn __lsan_is_turned_off() -> i32 {
    1
}

const VALUES: [&str; 57] = [
    "\"tcp://127.0.0.1:0\"",
    "\"tcp://localhost:514\"",
    "\"tcp://[::1]:5170\"",
    "\"unix:///run/a.sock\"",
    "\"unixgram://g\"",
    "\"stdin:\"",
    "\"lines\"",
    "\"http\"",
    "\"raw\"",
    "\"json\"",
    "\"auto\"",
    "\"off\"",
    "\"none\"",
    "\"epoll\"",
    "\"io_uring\"",
    "\"direct\"",
    "\"block\"",
    "\"drop_oldest\"",
    "\"drop_newest\"",
    "\"received\"",
    "\"written\"",
    "\"durable\"",
    "\"truncate\"",
    "\"drop\"",
    "\"close\"",
    "\"keep\"",
    "\"count\"",
    "\"required\"",
    "\"1.2\"",
    "\"a\"",
    "\"b\"",
    "[\"a\"]",
    "[\"a\", \"b\", \"default\"]",
    "[]",
    "[0]",
    "[0, 1023]",
    "true",
    "false",
    "0",
    "1",
    "64",
    "1000000",
    "-1",
    "\"128B\"",
    "\"64KiB\"",
    "\"1.5MiB\"",
    "\"64MiB\"",
    "\"256MiB\"",
    "\"8GiB\"",
    "\"16777215TiB\"",
    "\"0s\"",
    "\"1ms\"",
    "\"1h 30m\"",
    "\"0640\"",
    "\"${SET}\"",
    "\"${NOT:-5s}$$\"",
    "[\"${SET}\", \"${NOT:-a}\"]",
];

const NAMES: [&str; 6] = ["a", "b", "default", "x-1", "\"B\"", "\"\""];

/// A document of keys that there are, mostly with values that are some key's.
fn document(input: &mut Bytes<'_>) -> String {
    let (keys, mut text) = (all_keys(Protocols::default()), String::new());
    let mut sections: Vec<(String, Vec<String>)> = vec![(String::new(), Vec::new())];
    while !input.0.is_empty() && sections.len() < 20 {
        let key = &keys[usize::from(input.byte()) % keys.len()];
        let choice = input.byte();
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        let section = section.replace("NAME", NAMES[usize::from(choice >> 6) + usize::from(choice & 63 == 63) * 2]);
        let value = match VALUES.get(usize::from(choice & 63)) {
            Some(value) => (*value).to_string(),
            None => format!("\"{}MiB\"", input.word()),
        };
        let line = format!("{key} = {value}");
        match sections.iter_mut().find(|(name, _)| *name == section) {
            // A key that stands there twice would end it all.
            Some((_, lines)) if lines.iter().any(|l| l.starts_with(&format!("{key} ="))) => {}
            Some((_, lines)) => lines.push(line),
            None => sections.push((section, vec![line])),
        }
    }
    for (name, lines) in sections {
        if !name.is_empty() {
            text += &format!("[{name}]\n");
        }
        lines.iter().for_each(|line| text += &format!("{line}\n"));
    }
    text
}

fn promises(options: &Options, is_made: bool, has_tokens: bool) {
    let memory = &options.memory;
    assert!(memory.total() as u64 <= options.buffer_bytes, "{memory} of {}", options.buffer_bytes);
    assert_eq!(memory.shards, options.placement.shards);
    assert_eq!(memory.reactors, options.placement.shards * options.placement.reactors_per_shard);
    assert!(memory.shards > 0 && memory.reactors > 0 && memory.all_chunks() > 0);
    assert!(options.placement.plan.shards.iter().all(|s| s.reactors.len() == options.placement.reactors_per_shard));
    let (streams, listeners) = (&options.streams, &options.listeners);
    assert!(!listeners.is_empty() && !streams.is_empty());
    assert!(listeners.is_sorted_by(|a, b| a.name < b.name), "each name once");
    assert!(streams.is_sorted_by(|a, b| a.name < b.name), "each name once");
    for stream in streams {
        assert!(is_stream_name(&stream.name));
        assert!(stream.segment_bytes > 0 && stream.sync_bytes > 0 && stream.sync_interval > Duration::ZERO);
    }
    for listener in listeners {
        assert!(is_stream_name(&listener.name));
        let own = &streams[usize::from(listener.stream())];
        let json = listener.routes.any(Format::Json);
        let longest = if json { 6 * listener.max_line_bytes } else { listener.max_line_bytes };
        assert!(memory.chunk_bytes > longest, "a chunk holds the longest line");
        assert!(memory.scratch >= listener.scratch_bytes(), "and what becomes another is received beside it");
        assert!(memory.chunk_bytes >= listener.least_chunk_bytes());
        assert!(memory.tail_reserve >= listener.longest_tail(), "a tail holds the longest partial line");
        assert!(memory.chunks.iter().any(|(class, n)| *class == listener.class && *n > 1), "it has chunks");
        if let (true, Some(tls)) = (is_made, &listener.tls) {
            assert!(tls.client_subjects.iter().all(|s| !s.contains("${")), "variables are expanded everywhere");
        }
        assert_eq!(listener.routes.own().name, own.name, "its own stream first");
        for route in listener.routes.all() {
            assert_eq!(streams[usize::from(route.index)].name, route.name);
        }
        let Some(http) = downcast::<HttpProtocol>(&listener.protocol) else { continue };
        let all = http.options().tokens.iter().flat_map(|t| t.streams.iter().flatten());
        assert!(all.into_iter().all(|i| usize::from(*i) < streams.len()));
        assert!(http.options().room.bytes() <= options.buffer_bytes as usize);
    }
    // Whoever writes a token expects that it is asked for.
    let has_token = |l: &ListenerOptions| {
        downcast::<HttpProtocol>(&l.protocol).is_some_and(|http| !http.options().tokens.is_empty())
    };
    assert!(!has_tokens || listeners.iter().any(has_token));
}

/// An error has words, and a place that exists.
fn says_where(error: &ConfigError, text: &str) {
    let line = error.place.strip_prefix("t.toml:").map(|l| l.parse::<usize>().expect("a line"));
    let is_place = match line {
        Some(line) => (1..=text.split('\n').count()).contains(&line),
        None => matches!(error.place.as_str(), "t.toml" | "--set" | "--listen"),
    };
    assert!(is_place, "{error}");
    assert!(!error.message.is_empty(), "{error:?}");
    // Of a key that is not written nobody can say where it stands; of all else one can.
    assert!(line.is_some() || error.key.is_some() || error.place != "t.toml", "{error}");
}

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let mut overrides = Overrides::default();
    let is_made = choice & 1 == 1;
    let text = if !is_made {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        text.to_string()
    } else {
        document(&mut Bytes(rest))
    };
    if choice & 2 != 0 {
        overrides.listen = vec!["http://127.0.0.1:80/".into(), "stdin:".into()];
    }
    if choice & 4 != 0 {
        // The last line once more, as an override.
        let (key, value) = text.lines().last().and_then(|l| l.split_once('=')).unwrap_or(("buffer.linger", "1ms"));
        overrides.set.push((key.trim().into(), value.trim().into(), "--set".into()));
    }
    let environment = |name: &str| (name == "SET").then(|| "a\"b".to_string());
    let load = || load_text(&text, "t.toml", &overrides, environment);
    let result = load();
    match &result {
        Ok(options) => promises(options, is_made, is_made && text.contains("[token.")),
        Err(errors) => {
            assert!(errors.iter().count() > 0, "a refusal says why");
            errors.iter().for_each(|error| says_where(error, &text));
        }
    }
    if choice & 8 != 0 {
        assert_eq!(format!("{result:?}"), format!("{:?}", load()), "the same again");
    }
});
