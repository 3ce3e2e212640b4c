use super::*;
use std::sync::Arc;

fn load_str(text: &str) -> Result<Options, ConfigErrors> {
    load_text(text, "t.toml", &Overrides::default(), |_| None)
}

fn error(text: &str) -> String {
    load_str(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_starts_the_lines_listener() {
    let options = load_str("").unwrap();
    assert_eq!(options.listeners.len(), 1);
    assert_eq!(options.listeners[0].address.to_string(), "tcp://127.0.0.1:5170");
    assert_eq!(options.streams[0].name, "default");
    assert!(options.memory.total() as u64 <= options.buffer_bytes);
}

#[test]
fn the_known_keys_that_are_named_are_those_of_the_section_each_once() {
    let keys = |text: &str| {
        let message = error(text);
        let (_, keys) = message.split_once("known are ").unwrap_or_else(|| panic!("{message}"));
        keys.split(", ").map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(keys("[storage]\nwhatever_that_may_be = 1"), raw::Storage::KEYS);
    let listener = keys("[listener.a]\nwhatever_that_may_be = 1");
    assert!(listener.iter().any(|key| key == "address") && listener.iter().any(|key| key == "max_body_bytes"));
    let mut each_once = listener.clone();
    each_once.sort();
    each_once.dedup();
    assert_eq!(each_once.len(), listener.len(), "{listener:?}");
}

#[test]
fn errors_name_key_line_and_what_was_expected() {
    let cases = [
        (
            "\n[listener.a]\nadress = \"x\"",
            "t.toml:3: `listener.a.adress`: unknown key in [listener.a]; did you mean `address`?",
        ),
        ("enigne = \"auto\"", "t.toml:1: `enigne`: unknown key; did you mean `engine`?"),
        (
            "[storage]\nsync_interval = 5",
            "t.toml:2: `storage.sync_interval`: expected a time with its unit in quotes, such as \"500ms\", not the number `5`",
        ),
        ("[buffer]\nmemory = \"64\"", "t.toml:2: `buffer.memory`: expected a size with its unit"),
        ("engine = \"iouring\"", "t.toml:1: `engine`: unknown value `iouring`, expected one of"),
        ("[listener.a]\naddress = \"5170\"", "t.toml:2: `listener.a.address`: \"5170\" is not an address"),
        ("[listener.A]\naddress = \"stdin:\"", "t.toml:1: `listener.A`: expected a name"),
        ("[listener.a]\nstream = \"../x\"\naddress = \"stdin:\"", "t.toml:2: `listener.a.stream`: expected a name"),
        ("[buffer]\nmemory = \"1MiB\"", "t.toml:2: `buffer.memory`: 1 MiB is too small for these listeners"),
        ("[buffer]\nlinger = \"2s\"", "t.toml:2: `buffer.linger`: expected 0s to 1s, not 2s"),
        ("[retention]\nmax_bytes = \"1MiB\"", "t.toml:2: `retention.max_bytes`: 1 MiB is too little: "),
        ("[stream.default]\nmax_age = \"1us\"", "t.toml:2: `stream.default.max_age`: expected 1s to 36500days"),
        ("[storage]\nsealed_dir = \"x\"", "t.toml:2: `storage.sealed_dir`: expected an absolute path"),
        (
            "data_dir = \"/a/b\"\n[storage]\nsealed_dir = \"/a\"",
            "t.toml:3: `storage.sealed_dir`: expected a directory outside",
        ),
        ("[storage]\ncompress_level = 20", "t.toml:2: `storage.compress_level`: expected 1 to 19, not 20"),
        (
            "[listener.a]\naddress = \"stdin:\"\nreply = \"count\"",
            "t.toml:3: `listener.a.reply`: nothing can be sent back",
        ),
        (
            "[listener.a]\naddress=\"tcp://127.0.0.1:1\"\n[listener.b]\naddress=\"tcp://127.0.0.1:1\"",
            "t.toml:4: `listener.b.address`",
        ),
        (
            "[listener.a]\nreply=\"count\"\nwhen_full=\"drop_oldest\"\nack=\"durable\"",
            "t.toml:4: `listener.a.ack`: when_full = \"drop_oldest\"",
        ),
        (
            "[listener.a]\nwhen_full=\"drop_oldest\"\nack=\"durable\"",
            "t.toml:3: `listener.a.ack`: when_full = \"drop_oldest\"",
        ),
        (
            "[listener.a]\nwhen_full=\"drop_oldest\"\nack=\"written\"",
            "t.toml:3: `listener.a.ack`: when_full = \"drop_oldest\"",
        ),
        ("[listener.a]\n[listener.b]\naddress=\"stdin:\"", "t.toml:1: `listener.a`: expected an `address` here"),
        ("[placement]\nshards = \"many\"", "t.toml:2: `placement.shards`: expected \"auto\" or a whole number"),
        ("data_dir = \"${NOPE}\"", "t.toml:1: `data_dir`: the environment variable NOPE is not set"),
        ("= 1", "t.toml:1: "),
        ("[listener.a]\nstreams = [\"b\"]", "t.toml:2: `listener.a.streams`: this belongs to protocol = \"http\""),
        ("[listener.a]\nprotocol = \"http\"\nreply = \"count\"", "t.toml:3: `listener.a.reply`: this belongs to"),
        (
            "[listener.a]\nprotocol = \"http\"\naddress = \"unixgram:///tmp/x\"",
            "t.toml:2: `listener.a.protocol`: http needs tcp:// or unix://",
        ),
        (
            "[listener.a]\nprotocol = \"http\"\nwhen_full = \"drop_oldest\"",
            "t.toml:3: `listener.a.when_full`: when_full = \"drop_oldest\" may evict",
        ),
        ("[listener.a]\nprotocol = \"http\"\ntokens = [\"x\"]", "t.toml:3: `listener.a.tokens`: there is no [token.x]"),
        ("[listener.a]\nprotocol = \"http\"\ntokens = []", "t.toml:3: `listener.a.tokens`: expected at least one"),
        ("[token.x]\nsha256 = \"00\"", "t.toml:1: `token.x`: no listener has it in its `tokens`"),
        (
            "[listener.a]\nprotocol = \"http\"\ntokens = [\"x\"]\n[token.x]\nsha256 = \"0g\"",
            "t.toml:5: `token.x.sha256`: expected 64 hexadecimal digits",
        ),
        (
            "[listener.a]\nprotocol = \"http\"\ntokens = [\"x\"]\n[token.x]",
            "t.toml:4: `token.x`: expected `sha256` here",
        ),
        (
            "[listener.a]\naddress=\"tcp://0.0.0.0:1\"\n[listener.b]\naddress=\"tcp://127.0.0.1:1\"",
            "t.toml:4: `listener.b.address`: tcp://127.0.0.1:1 is part of tcp://0.0.0.0:1",
        ),
        (
            "[listener.a]\naddress=\"tcp://127.0.0.1:1\"\n[listener.b]\naddress=\"tcp://[::]:1\"",
            "t.toml:4: `listener.b.address`",
        ),
        (
            "[listener.a]\naddress=\"tcp://127.0.0.1:9610\"",
            "t.toml: `admin.address`: tcp://127.0.0.1:9610 is the address of listener.a",
        ),
        (
            "data_dir = \"x\"\n[storage]\nsealed_dir = \"/\"",
            "t.toml:3: `storage.sealed_dir`: expected a directory outside",
        ),
        ("[listener.a]\ntls_cert = \"c\"", "t.toml:2: `listener.a.tls_cert`: this needs `tls_key` too"),
        (
            "[listener.a]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_subjects = [\"s\"]",
            "t.toml:4: `listener.a.tls_client_subjects`: this needs `tls_client_ca` too",
        ),
        (
            "[listener.a]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_fingerprints = [\"SHA1:00:11\"]",
            "t.toml:4: `listener.a.tls_client_fingerprints`: `SHA1:00:11`: SHA-1 can be forged; take the SHA-256",
        ),
        (
            "[listener.a]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_fingerprints = [\"SHA256:00:11\"]",
            "t.toml:4: `listener.a.tls_client_fingerprints`: `SHA256:00:11`: expected SHA256: and 32 pairs",
        ),
        (
            "[listener.a]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_fingerprints = []",
            "t.toml:4: `listener.a.tls_client_fingerprints`: expected at least one fingerprint",
        ),
        (
            "[listener.a]\ntls_client_fingerprints = [\"c\"]",
            "t.toml:2: `listener.a.tls_client_fingerprints`: this needs `tls_cert` too",
        ),
        ("[listener.a]\ntls_client_ca = \"c\"", "t.toml:2: `listener.a.tls_client_ca`: this needs `tls_cert` too"),
        ("[sync_interval]", "t.toml:1: `sync_interval`: unknown key; did you mean `storage.sync_interval`?"),
    ];
    for (text, expected) in cases {
        let found = error(text);
        assert!(found.starts_with(expected), "for {text:?}\n  found    {found}\n  expected {expected}");
    }
}

#[test]
fn variables_are_expanded_in_values_only() {
    let environment = |name: &str| (name == "HERE").then(|| "x\"y".to_string());
    let text = "# ${NOT_SET}\ndata_dir = \"/a/${HERE}/${THERE:-b}$$\"";
    let options = load_text(text, "t", &Overrides::default(), environment).unwrap();
    assert_eq!(options.data_dir.to_str().unwrap(), "/a/x\"y/b$");
}

#[test]
fn variables_are_expanded_in_lists_too() {
    let environment = |name: &str| (name == "WHO").then(|| "CN=a".to_string());
    let text = |subject: &str| {
        format!(
            "[listener.a]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"a\"\ntls_client_subjects = [\n\"{subject}\"]"
        )
    };
    let load = |subject: &str| load_text(&text(subject), "t", &Overrides::default(), environment);
    let subjects = |options: Options| options.listeners[0].tls.clone().unwrap().client_subjects;
    assert_eq!(subjects(load("${WHO}").unwrap()), ["CN=a"]);
    assert_eq!(subjects(load("$${WHO}").unwrap()), ["${WHO}"]);
    let message = load("${NOBODY}").unwrap_err().to_string();
    assert!(message.starts_with("t:6: `listener.a.tls_client_subjects`: the environment variable NOBODY"), "{message}");
}

#[test]
fn overrides_win_and_are_named() {
    let set = |key: &str, value: &str| (key.to_string(), value.to_string(), format!("--set {key}"));
    let overrides = Overrides {
        set: vec![set("buffer.linger", "7ms"), set("placement.shards", "2")],
        listen: vec!["stdin:".into()],
        ..Overrides::default()
    };
    let options = load_text("[listener.x]\naddress=\"tcp://127.0.0.1:1\"", "t", &overrides, |_| None).unwrap();
    assert_eq!(options.linger.as_millis(), 7);
    assert_eq!(options.placement.shards, 2);
    assert_eq!(options.listeners.len(), 1);
    assert_eq!(options.listeners[0].address.to_string(), "stdin:");
    let http = Overrides { listen: vec!["http://127.0.0.1:80".into(), "stdin:".into()], ..Overrides::default() };
    let options = load_text("", "t", &http, |_| None).unwrap();
    let names: Vec<(&str, bool)> =
        options.listeners.iter().map(|l| (l.name.as_str(), l.profile().name == "http")).collect();
    assert_eq!(names, [("http", true), ("lines-2", false)]);
    assert_eq!(options.listeners[0].address.to_string(), "tcp://127.0.0.1:80");
    let wrong = Overrides { set: vec![set("buffer.lingre", "7ms")], ..Overrides::default() };
    let message = load_text("", "t", &wrong, |_| None).unwrap_err().to_string();
    assert_eq!(message, "--set buffer.lingre: `buffer.lingre`: unknown key in [buffer]; did you mean `linger`?");
}

#[test]
fn the_environment_overrides_with_double_underscores() {
    let variables = [
        ("LOGWEIR_BUFFER__LINGER", "1ms"),
        ("LOGWEIR_PORT", "tcp://1"),
        ("LOGWEIR_ENGINE", "epoll"),
        ("OTHER__X", "1"),
    ];
    let found = overrides_from_environment(variables.iter().map(|(a, b)| ((*a).to_string(), (*b).to_string())));
    let keys: Vec<&str> = found.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(keys, ["buffer.linger", "engine"]);
}

#[test]
fn stream_sections_inherit_from_storage() {
    let text = "[storage]\nsegment_size = \"1MiB\"\nsync_bytes = \"1MiB\"\n[stream.default]\nsegment_size = \"2MiB\"\nformat = \"json\"";
    let options = load_str(text).unwrap();
    assert_eq!((options.streams[0].segment_bytes, options.streams[0].sync_bytes), (2 << 20, 1 << 20));
    assert_eq!(options.listeners[0].routes.own().format, crate::session::write::Format::Json);
}

/// Chunks on their way name their streams by number.
#[test]
fn streams_of_a_server_that_runs_keep_their_numbers() {
    let running = load_str("[listener.l]\naddress = \"tcp://127.0.0.1:1\"\nstream = \"m\"").unwrap();
    let hash = "0".repeat(64);
    let text = format!(
        "[listener.a]\naddress = \"tcp://127.0.0.1:2\"\nprotocol = \"http\"\nstream = \"b\"\nstreams = [\"m\", \"z\"]\n\
         tokens = [\"t\"]\n[token.t]\nsha256 = \"{hash}\"\nstreams = [\"m\"]\n[listener.l]\naddress = \"tcp://127.0.0.1:1\"\nstream = \"z\""
    );
    let new = load_text_for(&text, "t.toml", &Overrides::default(), |_| None, Some(&running)).unwrap();
    let names: Vec<&str> = new.streams.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["m", "b", "z"]);
    let (a, l) = (&new.listeners[0], &new.listeners[1]);
    assert_eq!((a.stream(), l.stream()), (1, 2));
    let routes: Vec<(&str, u16)> = a.routes.all().map(|s| (s.name.as_str(), s.index)).collect();
    assert_eq!(routes, [("b", 1), ("m", 0), ("z", 2)]);
    let http = crate::session::downcast::<crate::protocol::http::HttpProtocol>(&a.protocol).unwrap();
    assert_eq!(http.options().tokens[0].streams, Some(vec![0]));
    assert!(Arc::ptr_eq(&new.room, &running.room), "what is leased stays where it is");
}

/// What a listener says itself comes before what its stream says.
#[test]
fn a_listener_may_have_a_format_of_its_own() {
    use crate::session::write::Format;
    let of = |text: &str| load_str(text).unwrap().listeners.iter().map(|l| l.routes.own().format).collect::<Vec<_>>();
    let two = "[listener.a]\naddress = \"tcp://127.0.0.1:1\"\nformat = \"json\"\n[listener.b]\naddress = \"tcp://127.0.0.1:2\"\n";
    assert_eq!(of(two), [Format::Json, Format::Raw]);
    assert_eq!(of(&format!("{two}[stream.default]\nformat = \"raw\"")), [Format::Json, Format::Raw]);
    assert_eq!(of(&format!("{two}[stream.default]\nformat = \"json\"")), [Format::Json, Format::Json]);
}

/// Each key stands in the reference file, commented out with its default or set; and the file loads either way.
#[test]
fn the_reference_file_documents_every_key_and_loads() {
    let text = include_str!("../../config/logweir.toml");
    load_str(text).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches('#').trim_start();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            let parts: Vec<&str> = name.split('.').collect();
            section = match parts.as_slice() {
                [kind @ ("stream" | "listener" | "token" | "ship"), _] => format!("{kind}.NAME."),
                [name] => format!("{name}."),
                _ => continue,
            };
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.push(format!("{section}{key}"));
        }
    }
    for key in all_keys(Protocols::default()) {
        assert!(found.contains(&key), "config/logweir.toml does not document {key}");
    }
    // With every comment sign taken away before a key or section, the file is the same configuration, spelt out.
    let spelt: String = text
        .lines()
        .map(|l| match l.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
            _ => format!("{l}\n"),
        })
        .collect();
    let (spelt, plain) = (load_str(&spelt).unwrap(), load_str("").unwrap());
    assert_eq!(format!("{:?}", spelt.streams), format!("{:?}", plain.streams));
    assert_eq!(format!("{:?}", spelt.listeners), format!("{:?}", plain.listeners));
    assert_eq!(
        format!("{:?}", (spelt.memory, spelt.linger, spelt.admin)),
        format!("{:?}", (plain.memory, plain.linger, plain.admin))
    );
}

/// One reading tells everything that is wrong, in the order of the lines.
#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_lines() {
    let text = "[listener.a]\naddress = \"5170\"\n[listener.b]\naddress = \"tcp://127.0.0.1:2\"\nmax_connections_per_address = \"4\"\n\
                [limits]\nmax_connection = 4\nipv6_prefix = 129\n[storage]\nsync_interval = 5\nsegment_size = \"1B\"\n[admin]\naddress = \"x\"\n";
    let errors = load_str(text).unwrap_err();
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        "t.toml:2: `listener.a.address`: \"5170\" is not an address",
        "t.toml:5: `listener.b.max_connections_per_address`: expected a whole number without quotes, 0 or more, not the text \"4\"",
        "t.toml:7: `limits.max_connection`: unknown key in [limits]; did you mean `max_connections`?",
        "t.toml:8: `limits.ipv6_prefix`: expected 0 to 128, not 129",
        "t.toml:10: `storage.sync_interval`: expected a time with its unit in quotes",
        "t.toml:11: `storage.segment_size`: expected 64 KiB to 1 TiB, not 1 B",
        "t.toml:13: `admin.address`: expected IP:PORT",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "\n  found    {found}\n  expected {expected}");
    }
}

/// A value that could not be read is not spoken of a second time by a rule.
#[test]
fn what_could_not_be_read_breaks_no_rules() {
    let errors = load_str("[listener.a]\nprotocol = 5\ntokens = [\"x\"]\n[buffer]\nmemory = \"64\"\nlinger = \"1h\"")
        .unwrap_err();
    let found: Vec<&str> = errors.iter().filter_map(|e| e.key.as_deref()).collect();
    assert_eq!(found, ["listener.a.protocol", "buffer.memory", "buffer.linger"], "{errors}");
    let set = |key: &str, value: &str| (key.to_string(), value.to_string(), format!("--set {key}"));
    let wrong =
        [("placement.shards", "x"), ("foo.bar", "1"), ("buffer.memory", "64"), ("limits.max_connections", "4x")];
    let overrides = Overrides { set: wrong.map(|(key, value)| set(key, value)).to_vec(), ..Overrides::default() };
    let errors = load_text("", "t", &overrides, |_| None).unwrap_err();
    let places: Vec<&str> = errors.iter().map(|e| e.place.as_str()).collect();
    assert_eq!(places.len(), 4, "{errors}");
    assert!(errors.to_string().contains("--set foo.bar: `foo`: unknown key"), "{errors}");
    let errors = load_str("a = \n[b\n[storage]\nx = 1").unwrap_err();
    assert!(errors.iter().count() >= 2, "{errors}");
    let errors = load_str("data_dir = \"${A}\"\nengine = \"${B}\"").unwrap_err();
    assert_eq!(errors.iter().count(), 2, "{errors}");
}

/// `check --print`: every key there is, and a file that says the same.
#[test]
fn what_is_in_force_is_every_key_and_loads_to_the_same() {
    let hash = "0".repeat(64);
    let text = format!(
        "data_dir = \"/a$$b\"\n[buffer]\nmemory = \"200000000B\"\n[listener.l]\naddress = \"tcp://127.0.0.1:1\"\nreply = \"count\"\n\
         [listener.h]\naddress = \"tcp://127.0.0.1:2\"\nprotocol = \"http\"\ntokens = [\"t\"]\nstreams = [\"s\"]\nmax_body_bytes = \"1MiB\"\n\
         tls_cert = \"c\"\ntls_key = \"k\"\n\
         [listener.y]\naddress = \"udp://127.0.0.1:3\"\nprotocol = \"syslog\"\n\
         [listener.r]\naddress = \"tcp://127.0.0.1:4\"\nprotocol = \"relp\"\n[token.t]\nsha256 = \"{hash}\"\n[stream.s]\nformat = \"json\"\nmax_age = \"2days\"\n[placement]\nshards = 2\npin = [0]\n\
         [ship.k]\nto = \"kafka://b:1\"\nstreams = [\"s\"]\nhold_at_most = \"1GiB\"\ntls = true\ntls_ca = \"a\"\ntls_cert = \"c\"\ntls_key = \"k\"\n\
         sasl_mechanism = \"PLAIN\"\nsasl_username = \"u\"\nsasl_password_file = \"p\"\n"
    );
    let list = |text: &str| read_text(text, "t.toml", &Overrides::default(), |_| None, None).unwrap();
    let (options, in_force) = list(&text);
    let printed = in_force.to_string();
    let (again, second) = list(&printed);
    assert_eq!(format!("{options:?}"), format!("{again:?}"), "{printed}");
    let without_places =
        |text: &str| text.lines().map(|l| l.split("  # ").next().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(without_places(&printed), without_places(&second.to_string()));
    assert!(printed.contains("memory = \"200000000B\"  # t.toml:3\n"), "{printed}");
    let names = [
        ("listener.l.", "listener.NAME."),
        ("listener.h.", "listener.NAME."),
        ("listener.y.", "listener.NAME."),
        ("listener.r.", "listener.NAME."),
        ("stream.s.", "stream.NAME."),
        ("token.t.", "token.NAME."),
        ("ship.k.", "ship.NAME."),
    ];
    let generic = |key: String| names.iter().fold(key, |key, (name, generic)| key.replacen(name, generic, 1));
    let found: std::collections::BTreeSet<String> = in_force.keys().into_iter().map(generic).collect();
    for key in all_keys(Protocols::default()) {
        assert!(found.contains(&key), "{key} is not printed\n{printed}");
    }
}
