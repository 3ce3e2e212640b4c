//! The command line as people and scripts meet it.

mod common;

use common::manager::Manager;
use common::{Server, logweir, scratch};
use std::process::Command;

fn check(config: &str) -> (Option<i32>, String, String) {
    let dir = scratch();
    let path = dir.path().join("logweir.toml");
    std::fs::write(&path, config).unwrap();
    let output = logweir(&["check", "--config-only", "--config", path.to_str().unwrap()]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_configuration_exits_78_and_says_where() {
    let (code, _, error) = check("[buffer]\nmemroy = \"64MiB\"");
    assert_eq!(code, Some(78));
    assert!(
        error.contains("logweir.toml:2: `buffer.memroy`: unknown key in [buffer]; did you mean `memory`?"),
        "{error}"
    );
    let dir = scratch();
    let output = logweir(&["serve", "--data-dir", dir.path().to_str().unwrap(), "--set", "buffer.linger=soon"]);
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("--set buffer.linger: `buffer.linger`: expected a time with its unit"), "{error}");
    let output = logweir(&["check", "--config", "/nowhere/logweir.toml"]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn check_says_that_drop_oldest_promises_nothing() {
    let lossy = "[listener.a]\naddress = \"tcp://127.0.0.1:7000\"\nwhen_full = \"drop_oldest\"\n";
    let (code, plan, _) = check(lossy);
    assert_eq!(code, Some(0));
    assert!(plan.contains("promising nothing about lines that were received"), "{plan}");
    assert_eq!(check(&format!("{lossy}ack = \"received\"\n")).0, Some(0));
    let (code, _, error) = check(&format!("{lossy}ack = \"durable\"\n"));
    assert_eq!(code, Some(78));
    assert!(error.contains("cannot be promised"), "{error}");
    let (_, plan, _) = check(&lossy.replace("drop_oldest", "block"));
    assert!(!plan.contains("promising nothing"), "{plan}");
}

#[test]
fn check_prints_the_plan_and_the_sum_of_memory() {
    let (code, plan, _) = check("[listener.a]\naddress = \"tcp://127.0.0.1:7000\"\nwhen_full = \"drop_newest\"");
    assert_eq!(code, Some(0));
    for part in
        ["tcp://127.0.0.1:7000", "drop_newest", "chunks of", "partial lines", "to read what is dropped", "connections"]
    {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    let (code, plan, _) = check("[storage]\nio = \"direct\"\n[placement]\nshards = 2\npin = [0]");
    assert_eq!(code, Some(0));
    for part in ["engine auto", "place them: shard 0 on CPUs 0; shard 1 on CPUs 0", "small reads", "for direct writes"]
    {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
}

#[test]
fn every_shipped_configuration_is_fine() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let output = logweir(&["check", "--config-only", "--config", path.to_str().unwrap()]);
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

#[test]
fn the_environment_sets_keys_and_flags() {
    let dir = scratch();
    let socket = format!("unix://{}/x", dir.path().display());
    let output = Command::new(common::BINARY)
        .args(["check", "--data-dir"])
        .arg(dir.path().join("data"))
        .env("LOGWEIR_STORAGE__SYNC_INTERVAL", "3s")
        .env("LOGWEIR_LISTEN", format!("tcp://127.0.0.1:7001,{socket}"))
        .output()
        .unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(plan.contains("synced every 3s") && plan.contains("7001") && plan.contains(&socket), "{plan}");
}

#[test]
fn completions_are_written_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = logweir(&["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("logweir"));
    }
}

#[test]
fn a_data_directory_in_use_and_a_taken_port_are_refused_clearly() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let second =
        logweir(&["serve", "--data-dir", data.to_str().unwrap(), "--listen", "tcp://127.0.0.1:0", "--admin", "off"]);
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains("in use by another logweir"), "{error}");
    let listen = format!("tcp://{}", server.address("lines"));
    let other = dir.path().join("other");
    let third = logweir(&["serve", "--data-dir", other.to_str().unwrap(), "--listen", &listen, "--admin", "off"]);
    assert_eq!(third.status.code(), Some(1));
    let error = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(error.contains("listener.lines: cannot listen on") && error.contains("another program listens"), "{error}");
}

#[test]
fn the_admin_address_answers_probes_and_nothing_else() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    assert_eq!(server.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(server.get("/readyz?verbose"), (200, "ready\n".into()));
    assert_eq!(server.get("/nothing").0, 404);
    let metrics = server.get("/metrics").1;
    for name in [
        "logweir_received_lines_total",
        "logweir_durable_bytes_total",
        "logweir_written_lines",
        "logweir_in_flight_bytes",
        "logweir_dropped_lines_total",
        "logweir_at_risk_lines_total",
        "logweir_buffer_utilisation",
        "logweir_backpressure_events_total",
        "logweir_backpressure_seconds_total",
        "logweir_write_seconds_bucket",
        "logweir_sync_seconds_bucket",
        "logweir_ack_seconds_bucket",
        "logweir_connections",
        "logweir_rotations_total",
        "logweir_recovered_segments",
        "logweir_ready",
    ] {
        assert!(
            metrics.contains(&format!("# HELP {name}")) || metrics.contains(&format!("\n{name}{{")),
            "{name}\n{metrics}"
        );
    }
    use std::io::{Read, Write};
    for request in ["POST /metrics HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n", "GET / HTTP/1.1\r\nA b\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(server.admin.unwrap()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    }
}

#[test]
fn threads_go_to_the_cores_that_are_given() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &["--set", "placement.pin=[0]"]);
    // A thread pins itself as it starts.
    common::await_that("a reactor and a writer on core 0", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let cores = |path: &std::path::Path| {
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            let line = status.lines().find(|l| l.starts_with("Cpus_allowed_list"))?;
            let carries_lines = name.starts_with("reactor") || name.starts_with("writer");
            carries_lines.then(|| line.split_whitespace().nth(1) == Some("0"))
        };
        let pinned: Vec<bool> = tasks.filter_map(|t| cores(&t.unwrap().path())).collect();
        pinned == [true, true]
    });
    common::send_all(server.address("lines"), b"pinned\n");
    common::await_that("the line", || server.cat() == b"pinned\n");
}

/// What would keep a server from starting here is said by `check` and `doctor`, with the exit code that `serve` would have.
#[test]
fn check_says_what_would_keep_a_server_from_starting() {
    let dir = scratch();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = other.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let data_dir = data.to_str().unwrap().to_string();
    let free = ["--data-dir", &data_dir, "--admin", "off", "--listen", "tcp://127.0.0.1:0"];
    let run = |command: &str, args: &[&str]| {
        let output = logweir(&[&[command], args].concat());
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = run("check", &free);
    assert_eq!(code, Some(0), "{text}");
    assert!(!data.exists(), "check makes nothing");

    // A port in use may be free again: 1. All that is wrong is said at once.
    let address = format!("tcp://127.0.0.1:{port}");
    let nowhere = format!("unix://{}/nowhere/s", dir.path().display());
    let (code, text) = run("check", &["--data-dir", &data_dir, "--admin", &admin, "--listen", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("listener.lines: cannot listen on tcp://") && text.contains("admin: cannot listen on"),
        "{text}"
    );
    assert_eq!(run("check", &["--data-dir", &data_dir, "--listen", &address, "--config-only"]).0, Some(0));
    let (_, text) = run("doctor", &["--data-dir", &data_dir, "--admin", "off", "--listen", &address]);
    assert!(text.contains("another program listens there"), "{text}");

    // What only a change mends: 78, by `serve` as well, and in words that tell the cause.
    std::fs::write(dir.path().join("file"), "").unwrap();
    let file = dir.path().join("file");
    for (args, said) in [
        (vec!["--data-dir", &data_dir, "--listen", &nowhere], "is not there: make it"),
        (vec!["--data-dir", file.to_str().unwrap(), "--listen", "tcp://127.0.0.1:0"], "is not a directory"),
        (vec!["--data-dir", &data_dir, "--listen", &format!("unix://{}", file.display())], "not a socket"),
    ] {
        for command in ["check", "serve"] {
            let (code, text) = run(command, &[args.clone(), vec!["--admin", "off"]].concat());
            assert_eq!(code, Some(78), "{command} {args:?}: {text}");
            assert!(text.contains(said), "{command} {args:?}: {text}");
        }
    }

    std::os::unix::fs::symlink(dir.path().join("not-mounted"), dir.path().join("link")).unwrap();
    let link = dir.path().join("link");
    for command in ["check", "serve"] {
        let (code, text) =
            run(command, &["--data-dir", link.to_str().unwrap(), "--admin", "off", "--listen", "tcp://127.0.0.1:0"]);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains("points to none"), "{text}");
    }
    let server = Server::start(&data, &[]);
    let (code, text) = run("check", &free);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is in use by another logweir"), "{text}");
    drop(server);
}

/// `serve` ends with 78, which service managers do not try again, where `check` does: certificates are read by both.
#[test]
fn an_unreadable_certificate_is_a_wrong_configuration_for_serve_too() {
    let dir = scratch();
    let config = dir.path().join("c.toml");
    let text = "[admin]\naddress = \"off\"\n[listener.a]\naddress = \"tcp://127.0.0.1:0\"\ntls_cert = \"/nowhere/c\"\ntls_key = \"/nowhere/k\"\n\
                [listener.b]\naddress = \"tcp://127.0.0.1:0\"\ntls_cert = \"/nowhere/d\"\ntls_key = \"/nowhere/k\"\n";
    std::fs::write(&config, text).unwrap();
    let data = dir.path().join("data");
    for command in ["check", "serve"] {
        let output = logweir(&[command, "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("listener.a") && said.contains("/nowhere/c"), "{command}: {said}");
        assert!(command == "serve" || said.contains("listener.b"), "{command}: {said}");
    }
}

/// `check --print` is a configuration that says the same; the memory that it names is a sum.
#[test]
fn check_prints_what_is_in_force() {
    let dir = scratch();
    let data = dir.path().join("data");
    let base = ["check", "--print", "--config-only", "--data-dir", data.to_str().unwrap()];
    let first = logweir(&[&base[..], &["--set", "buffer.linger=7ms"]].concat());
    assert!(first.status.success());
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains("linger = \"7ms\"  # --set buffer.linger"), "{text}");
    let file = dir.path().join("printed.toml");
    std::fs::write(&file, &text).unwrap();
    let second = logweir(&["check", "--print", "--config-only", "--config", file.to_str().unwrap()]);
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let bare = |text: &str| text.lines().map(|l| l.split("  # ").next().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(bare(&text), bare(&String::from_utf8(second.stdout).unwrap()));
    let (_, plan, _) = check("[limits]\nmax_connections = 1000000");
    assert!(plan.contains("of memory, and a few MiB for the program"), "{plan}");
}

/// A variable that is nearly one of ours is not passed over in silence.
#[test]
fn a_mistyped_variable_is_warned_of() {
    let output =
        Command::new(common::BINARY).args(["check", "--config-only"]).env("LOGWEIR_LISTN", "x").output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("LOGWEIR_LISTN does nothing; did you mean LOGWEIR_LISTEN?"), "{said}");
}

#[test]
fn the_version_names_commit_and_target() {
    let said = String::from_utf8(logweir(&["--version"]).stdout).unwrap();
    let (version, built) = said.trim().strip_prefix("logweir ").unwrap().split_once(" (").unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let (commit, target) = built.strip_suffix(')').unwrap().split_once(", ").unwrap();
    assert!(!commit.is_empty() && target.contains("-linux-"), "{said}");
}

/// Found from outside: with a lower level Splunk's clients were told that all was durable when it was written, or received.
#[test]
fn acknowledgements_of_splunk_need_the_level_that_they_speak_of() {
    let with = |more: &str| {
        check(&format!("[listener.h]\nprotocol = \"http\"\napis = [\"splunk\"]\nsplunk_ack = true\n{more}"))
    };
    assert_eq!(with("").0, Some(0));
    let (code, _, error) = with("ack = \"written\"\n");
    assert_eq!(code, Some(78));
    assert!(error.contains("splunk_ack") && error.contains("needs ack = \"durable\""), "{error}");
}

/// What CI's step for the other engine relies on.
#[test]
fn the_environment_names_the_engine() {
    let dir = scratch();
    let server = Server::start_with(dir.path(), &[], std::process::Stdio::null(), |command| {
        command.env("LOGWEIR_ENGINE", "epoll");
    });
    let text = server.get("/metrics").1;
    assert!(text.contains("logweir_engine_info{engine=\"epoll\",reason=\"configured\"} 1"), "{text}");
}

/// What the first lines say to people is said to machines as events; and who wants no information gets none.
#[test]
fn the_start_is_told_in_the_format_and_at_the_level_of_the_log() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    // Signalled once it has said what is awaited: it prints on a thread of its own, which does not hold up its end.
    let run = |name: &str, log: &str, said_last: &str| {
        let path = |ending: &str| dir.path().join(format!("{name}.{ending}"));
        std::fs::write(path("toml"), log).unwrap();
        let read = |ending: &str| std::fs::read_to_string(path(ending)).unwrap();
        let ready = manager.count("READY=1");
        let mut child = Command::new(common::BINARY)
            .args(["serve", "--admin", "off", "--listen", "tcp://127.0.0.1:0", "--data-dir"])
            .arg(path("data"))
            .arg("--config")
            .arg(path("toml"))
            .env("NOTIFY_SOCKET", manager.socket())
            .stdout(std::fs::File::create(path("out")).unwrap())
            .stderr(std::fs::File::create(path("err")).unwrap())
            .spawn()
            .unwrap();
        manager.await_more("READY=1", ready);
        common::await_that(said_last, || (read("out") + &read("err")).contains(said_last));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        assert!(child.wait().unwrap().success());
        (read("out"), read("err"))
    };
    let (out, err) = run("json", "[log]\nformat = \"json\"\n", "\"ready\"");
    assert!(out.is_empty(), "{out}");
    let events: Vec<serde_json::Value> =
        err.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let find = |message: &str| {
        let found = events.iter().map(|event| &event["fields"]).find(|fields| fields["message"] == message);
        found.unwrap_or_else(|| panic!("no event {message}: {err}")).clone()
    };
    let ready = find("ready");
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        ready["config"].as_str().unwrap().ends_with("json.toml")
            && ready["data_dir"].is_string()
            && ready["engine"].is_string()
    );
    let listening = find("listening");
    assert!(listening["listener"] == "lines" && listening["address"].as_str().unwrap().starts_with("tcp://127.0.0.1:"));
    assert_eq!(run("quiet", "[log]\nlevel = \"warn\"\n", ""), (String::new(), String::new()));
    let (out, _) = run("text", "", "Read it back");
    assert!(out.contains("is ready") && out.contains("Read it back"), "{out}");
}

/// `cat` names what there is, and knows when a line came though the trail is written a little later.
#[test]
fn cat_names_the_streams_that_exist_and_knows_the_time_at_once() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--set", "storage.sync_interval=1h"]);
    common::send_all(server.address("lines"), b"just now\n");
    common::await_that("the line", || server.cat() == b"just now\n");
    let text = |args: &[&str]| {
        let output = logweir(&[args, &["--data-dir", data.to_str().unwrap()]].concat());
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, json, _) = text(&["cat", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(line["t"].as_str().is_some_and(|t| t.starts_with("20")), "{json}");
    assert_eq!(text(&["cat", "--since", "-10m"]).1, "just now\n");
    assert_eq!(text(&["cat", "--until", "yesterday"]).1, "");
    for command in ["cat", "tail"] {
        let (is_good, _, said) = text(&[command, "-s", "nope"]);
        assert!(
            !is_good && said.contains("there is no stream \"nope\"") && said.contains("there are: default"),
            "{said}"
        );
    }
}
