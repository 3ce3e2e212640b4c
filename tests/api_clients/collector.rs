//! The OpenTelemetry Collector between a file, or an SDK, and a server.

use super::common::image::{FileSystem, Image};
use super::common::ledger::pass;
use super::common::programs::{Daemon, run};
use super::common::{Server, await_that, ran, scratch, skipped};
use super::full::{FullDisk, SMALL, await_quiet};
use super::table::{CLIENTS, a_port, check_all, message, message_of, messages, more, received, start};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const COUNT: usize = 1000;

/// How its exporter sends.
const WAYS: [(&str, &str); 4] = [("proto", "gzip"), ("proto", "zstd"), ("json", "gzip"), ("json", "zstd")];

/// A Collector that reads a file and listens for OTLP; what comes to it goes to a server.
struct Collector {
    daemon: Daemon,
    file: File,
    fed: usize,
}

impl Collector {
    /// With one sender the order is kept.
    fn start(dir: &Path, to: u16, (encoding, compression): (&str, &str)) -> Option<Collector> {
        let program = more("collector/collector")?;
        let (input, file) = (dir.join("input"), dir.join("collector.yaml"));
        let made = File::create(&input).unwrap();
        let daemon = Daemon::start(|port| {
            let config = format!(
                "receivers:
  filelog:
    include: [\"{}\"]
    start_at: beginning
    multiline: {{line_start_pattern: \"^record \"}}
  otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}
exporters:
  otlphttp:
    endpoint: http://127.0.0.1:{to}
    encoding: {encoding}
    compression: {compression}
    retry_on_failure: {{initial_interval: 200ms, max_interval: 1s, max_elapsed_time: 0}}
    sending_queue: {{num_consumers: 1}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{logs: {{receivers: [filelog, otlp], exporters: [otlphttp]}}}}
",
                input.display()
            );
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(&program);
            command.arg("--config").arg(&file).env("no_proxy", "*").stdout(Stdio::null());
            command.stderr(File::create(dir.join("said")).unwrap());
            command
        });
        Some(Collector { daemon, file: made, fed: 0 })
    }

    /// Writes so many messages to its file.
    fn feed(&mut self, count: usize) {
        let lines: String = (self.fed..self.fed + count).map(|i| message(i) + "\n").collect();
        self.file.write_all(lines.as_bytes()).unwrap();
        self.fed += count;
    }
}

/// Awaits so many different messages, and that there are no others.
fn await_all(server: &Server, count: usize, who: &str) {
    await_that(who, || {
        let mut found = messages(server, message_of);
        found.sort_unstable();
        found.dedup();
        found.len() >= count
    });
    check_all(server, count, message_of, who);
}

const NOT_HERE: &str = "the OpenTelemetry Collector is not here";

#[test]
#[ignore = "with .ci/run --clients"]
fn a_collector_sends_what_is_in_a_file() {
    for way in WAYS {
        let dir = scratch();
        let server = start(&dir.path().join("data"), 0, &[]);
        let Some(mut collector) = Collector::start(dir.path(), server.address("http").port(), way) else {
            return skipped("a_collector_sends_what_is_in_a_file", NOT_HERE);
        };
        collector.feed(COUNT);
        await_that(&format!("{way:?}"), || server.metrics().sum("logweir_durable_lines_total", "") >= COUNT as f64);
        assert_eq!(messages(&server, message_of), (0..COUNT).map(message).collect::<Vec<_>>(), "{way:?}");
        server.metrics().check_accounts();
        ran("a_collector_sends_what_is_in_a_file", &format!("{way:?}"));
    }
}

#[test]
#[ignore = "with .ci/run --clients"]
fn a_collector_sends_what_an_sdk_has_sent_to_it() {
    let test = "a_collector_sends_what_an_sdk_has_sent_to_it";
    let dir = scratch();
    let server = start(&dir.path().join("data"), 0, &[]);
    let Some(collector) = Collector::start(dir.path(), server.address("http").port(), WAYS[0]) else {
        return skipped(test, NOT_HERE);
    };
    let sdk = CLIENTS.iter().find(|client| client.name == "otlp").unwrap();
    match sdk.command(collector.daemon.address.port(), COUNT) {
        Ok(mut command) => run(&mut command, b""),
        Err(why) => return skipped(test, &why),
    };
    await_all(&server, COUNT, "an SDK and a Collector");
}

#[test]
#[ignore = "with .ci/run --clients"]
fn a_collector_loses_nothing_through_a_restart() {
    for way in WAYS {
        let dir = scratch();
        let (data, port) = (dir.path().join("data"), a_port());
        let mut server = start(&data, port, &[]);
        let Some(mut collector) = Collector::start(dir.path(), port, way) else {
            return skipped("a_collector_loses_nothing_through_a_restart", NOT_HERE);
        };
        collector.feed(COUNT);
        await_that("it has begun", || received(&server) > 0.0);
        assert!(server.stop().success());
        collector.feed(COUNT);
        pass(Duration::from_millis(500)); // away for so long
        let server = start(&data, port, &[]);
        await_all(&server, 2 * COUNT, &format!("{way:?}"));
    }
}

#[test]
#[ignore = "with .ci/run --clients"]
fn a_collector_loses_nothing_while_the_disk_is_full() {
    let test = "a_collector_loses_nothing_while_the_disk_is_full";
    for way in WAYS {
        let dir = scratch();
        let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 64 << 20) {
            Ok(image) => image,
            Err(why) => return skipped(test, &why),
        };
        let server = start(&image.mount.join("data"), 0, SMALL);
        let Some(mut collector) = Collector::start(dir.path(), server.address("http").port(), way) else {
            return skipped(test, NOT_HERE);
        };
        collector.feed(COUNT);
        await_quiet(&server, COUNT);
        let full = FullDisk::make(&server, &image);
        collector.feed(COUNT);
        await_that("it is refused", || full.refusals() >= 1.0);
        full.has_room_again();
        await_all(&server, 2 * COUNT, &format!("{way:?}"));
    }
}
