//! `logweir doctor` on recorded hosts, good, bad and silent, and on this one.

mod common;

use common::{Server, logweir, scratch, send_all};
use logweir::config::raw::EngineChoice;
use logweir::host::sys::ClockState;
use logweir::host::topology::Tree;
use logweir::watch::doctor::usage::{Look, Pair, rows};
use logweir::watch::doctor::{Check, Host, Retention, Space, Status, StreamNeeds, Subject, examine, report};
use logweir::watch::scrape::{Scrape, Window};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const GIB: u64 = 1 << 30;

/// A host that was recorded, or made up.
#[derive(Clone)]
struct Recorded {
    files: BTreeMap<String, String>,
    space: Option<Space>,
    io_uring: Result<(), String>,
    dont_cache: Option<bool>,
    clock: Option<ClockState>,
}

impl Recorded {
    /// Files of the format `== path`, then the text.
    fn new(text: &str) -> Recorded {
        let parts = text.split("== ").filter(|p| !p.is_empty()).map(|part| part.split_once('\n').unwrap());
        Recorded {
            files: parts.map(|(path, text)| (path.to_string(), text.to_string())).collect(),
            space: Some(Space { total: 400 * GIB, free: 300 * GIB, inodes: 1 << 24, inodes_free: 1 << 23 }),
            io_uring: Ok(()),
            dont_cache: Some(true),
            clock: Some(ClockState { is_synchronised: true, error_us: 120 }),
        }
    }

    fn good() -> Recorded {
        Recorded::new(include_str!("doctor/good.tree"))
    }

    fn bad() -> Recorded {
        Recorded {
            space: Some(Space { total: 100 * GIB, free: GIB / 2, inodes: 1 << 20, inodes_free: 50 }),
            io_uring: Err("io_uring_setup: Operation not permitted (os error 1)".into()),
            dont_cache: Some(false),
            clock: Some(ClockState { is_synchronised: false, error_us: 16_000_000 }),
            ..Recorded::new(include_str!("doctor/bad.tree"))
        }
    }

    /// One that tells nothing.
    fn silent() -> Recorded {
        let none = Recorded { files: BTreeMap::new(), space: None, dont_cache: None, clock: None, ..Recorded::good() };
        Recorded { io_uring: Err("not here".into()), ..none }
    }

    fn with(mut self, path: &str, text: &str) -> Recorded {
        self.files.insert(path.into(), text.into());
        self
    }

    fn mounted(self, mountinfo: &str) -> Recorded {
        self.with("proc/self/mountinfo", mountinfo)
    }
}

impl Tree for Recorded {
    fn read(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }
}

impl Host for Recorded {
    fn list(&self, path: &str) -> Vec<String> {
        let inside = self.files.keys().filter_map(|p| p.strip_prefix(path)?.strip_prefix('/')?.split('/').next());
        inside.map(str::to_string).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn existing(&self, dir: &Path) -> PathBuf {
        dir.to_path_buf()
    }

    fn space(&self, _: &Path) -> Option<Space> {
        self.space
    }

    fn io_uring(&self) -> Result<(), String> {
        self.io_uring.clone()
    }

    fn dont_cache(&self, _: &Path) -> Option<bool> {
        self.dont_cache
    }

    fn clock(&self) -> Option<ClockState> {
        self.clock
    }
}

fn subject() -> Subject {
    let retention = Retention { max_bytes: Some(200 * GIB), ..Retention::default() };
    let stream = StreamNeeds {
        name: "default".into(),
        segment_bytes: 256 << 20,
        reserve_step: 64 << 20,
        wants_dont_cache: true,
        retention,
    };
    Subject {
        data_dir: "/var/lib/logweir".into(),
        max_connections: 16_384,
        buffer_bytes: 64 << 20,
        connection_bytes: 1024,
        engine: EngineChoice::Auto,
        shards: 1,
        reactors_per_shard: 2,
        is_pinned_to_nodes: false,
        sealed_dir: None,
        listeners: 1,
        datagrams: 0,
        has_tcp: true,
        streams: vec![stream],
    }
}

fn of<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|c| c.check == name).unwrap_or_else(|| panic!("no check {name}"))
}

#[test]
fn a_good_host_has_nothing_to_change() {
    let checks = examine(&Recorded::good(), &Subject { datagrams: 1, ..subject() });
    let others: Vec<_> = checks.iter().filter(|c| c.status != Status::Ok).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(checks.iter().all(|c| c.command.is_none() && !c.present.is_empty() && !c.recommended.is_empty()));
    assert_eq!(of(&checks, "io_scheduler").present, "nvme0n1: none", "of the whole disk");
}

#[test]
fn on_a_bad_host_every_check_fires_and_says_what_to_do() {
    let mut bad = Subject { datagrams: 1, is_pinned_to_nodes: true, engine: EngineChoice::IoUring, ..subject() };
    let checks = examine(&Recorded::bad(), &bad);
    let quiet: Vec<_> = checks.iter().filter(|c| c.status <= Status::Unknown).map(|c| c.check).collect();
    assert!(quiet.is_empty(), "{quiet:?}");
    assert!(checks.len() >= 29, "{}", checks.len());
    for check in &checks {
        assert!(!check.why.is_empty() && check.command.is_some(), "{check:?}");
    }
    let names: BTreeSet<_> = checks.iter().map(|c| c.check).collect();
    assert_eq!(names.len(), checks.len(), "each name once");
    for name in
        ["kernel", "nofile", "memory", "somaxconn", "mount_options", "free_space", "retention", "inodes", "io_uring"]
    {
        assert_eq!(of(&checks, name).status, Status::Problem, "{name}");
    }
    assert!(of(&checks, "nofile").present.contains("hard 4096"));
    assert!(of(&checks, "memory").present.contains("32 MiB"));
    assert!(of(&checks, "dirty_limit").command.as_ref().unwrap().contains("vm.dirty_bytes=2147483648"));
    assert!(of(&checks, "io_scheduler").present.starts_with("sda: bfq"), "the disk beneath the volume's partition");
    bad.engine = EngineChoice::Auto;
    assert_eq!(of(&examine(&Recorded::bad(), &bad), "io_uring").status, Status::Advice, "auto takes epoll");
}

#[test]
fn a_host_that_tells_nothing_is_unknown_and_no_problem() {
    let checks = examine(&Recorded::silent(), &Subject { datagrams: 1, is_pinned_to_nodes: true, ..subject() });
    let known = ["cpu_quota", "io_uring", "numa_balancing"];
    for check in checks.iter().filter(|c| !known.contains(&c.check)) {
        assert_eq!(check.status, Status::Unknown, "{check:?}");
        assert!(check.present.contains("cannot tell"), "{check:?}");
    }
    assert_ne!(report(checks, None, None).status, Status::Problem);
}

#[test]
fn broken_files_never_panic() {
    for junk in [
        "",
        "\n",
        "x",
        "-1",
        "99999999999999999999999",
        "[",
        "a [b",
        "0::",
        "1:cpu,memory:/\n::",
        "max",
        "\u{1b}[2J \0",
    ] {
        let mut host = Recorded::bad();
        host.files.values_mut().for_each(|text| *text = junk.to_string());
        let text = report(examine(&host, &Subject { datagrams: 1, ..subject() }), None, None).text();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

fn file_system(kind: &str, options: &str) -> (Status, Status) {
    let host = Recorded::good().mounted(&format!("40 22 259:3 / /var/lib/logweir rw - {kind} source {options}\n"));
    let checks = examine(&host, &subject());
    (of(&checks, "file_system").status, of(&checks, "mount_options").status)
}

#[test]
fn file_systems_are_told_apart() {
    use Status::{Advice, Ok, Problem};
    for (kind, options, expected) in [
        ("ext4", "rw,errors=remount-ro", (Ok, Ok)),
        ("ext4", "rw,data=journal", (Ok, Advice)),
        ("ext4", "rw,data=writeback", (Ok, Advice)),
        ("ext4", "rw,barrier=0", (Ok, Problem)),
        ("ext4", "ro", (Ok, Problem)),
        ("xfs", "rw,sync", (Ok, Advice)),
        ("xfs", "rw,strictatime", (Ok, Advice)),
        ("btrfs", "rw", (Advice, Ok)),
        ("tmpfs", "rw", (Problem, Ok)),
        ("overlay", "rw,lowerdir=/a", (Advice, Ok)),
        ("overlay", "rw,volatile", (Problem, Ok)),
        ("nfs4", "rw,hard", (Advice, Ok)),
        ("nfs4", "rw,soft", (Problem, Ok)),
        ("fuse.sshfs", "rw", (Advice, Ok)),
    ] {
        assert_eq!(file_system(kind, options), expected, "{kind} {options}");
    }
}

#[test]
fn the_last_and_deepest_mount_counts() {
    let two = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / /var/lib rw - tmpfs tmpfs rw\n\
               3 2 259:3 / /var/lib/logweir rw - xfs /dev/a rw\n4 2 8:1 / /var/lib/logweir2 rw - btrfs /dev/b rw\n";
    assert!(of(&examine(&Recorded::good().mounted(two), &subject()), "file_system").present.starts_with("xfs"));
    let over = format!("{two}5 3 0:8 / /var/lib/logweir rw - tmpfs over rw\n");
    assert!(
        of(&examine(&Recorded::good().mounted(&over), &subject()), "file_system").present.starts_with("tmpfs on over")
    );
}

#[test]
fn what_is_kept_is_compared_with_what_there_is() {
    let status = |retention: Retention| {
        let mut subject = subject();
        subject.streams[0].retention = retention;
        of(&examine(&Recorded::good(), &subject), "retention").status
    };
    let none = Retention::default();
    assert_eq!(status(none), Status::Advice, "the disk fills up one day");
    assert_eq!(status(Retention { max_age: Some(std::time::Duration::from_secs(60)), ..none }), Status::Advice);
    assert_eq!(status(Retention { max_bytes: Some(100 * GIB), ..none }), Status::Ok);
    assert_eq!(status(Retention { max_bytes: Some(500 * GIB), ..none }), Status::Problem);
    assert_eq!(status(Retention { min_free: Some(50 * GIB), ..none }), Status::Ok);
    assert_eq!(status(Retention { min_free: Some(350 * GIB), ..none }), Status::Advice, "deletes at once");
    assert_eq!(status(Retention { min_free: Some(400 * GIB), ..none }), Status::Problem);
}

#[test]
fn a_second_directory_is_looked_at_too() {
    let subject = Subject { sealed_dir: Some("/mnt/archive/logweir".into()), ..subject() };
    let with = |first: &str, second: &str| {
        let text = format!("40 22 259:3 / /var/lib/logweir rw - {first} a rw\n41 22 8:1 / /mnt/archive {second}\n");
        let checks = examine(&Recorded::good().mounted(&text), &subject);
        (of(&checks, "file_system").status, of(&checks, "sealed_dir").status)
    };
    assert_eq!(with("ext4", "rw - xfs b rw"), (Status::Ok, Status::Ok));
    assert_eq!(with("tmpfs", "rw - xfs b rw"), (Status::Advice, Status::Ok), "fast first, safe later");
    assert_eq!(with("ext4", "ro - xfs b rw"), (Status::Ok, Status::Problem));
    assert_eq!(with("ext4", "rw - tmpfs b rw"), (Status::Ok, Status::Problem));
    assert_eq!(with("ext4", "rw - nfs4 b rw,hard"), (Status::Ok, Status::Advice));
}

#[test]
fn both_kinds_of_control_groups_are_read() {
    let v2 = Recorded::good().with("sys/fs/cgroup/system.slice/memory.max", "50000000\n");
    assert_eq!(of(&examine(&v2, &subject()), "memory").status, Status::Problem, "a group above ours");
    let container = Recorded::good().with("proc/self/cgroup", "5:memory:/host/path/1\n");
    let container = container.with("sys/fs/cgroup/memory/memory.limit_in_bytes", "150000000\n");
    assert_eq!(of(&examine(&container, &subject()), "memory").status, Status::Advice, "it sees its group as the root");
    let rationed = Recorded::good().with("sys/fs/cgroup/system.slice/logweir.service/cpu.max", "25000 100000");
    assert_eq!(of(&examine(&rationed, &subject()), "cpu_quota").status, Status::Advice);
}

#[test]
fn the_use_page_counts_what_happened_between_two_looks() {
    let diskstats = |writes: u32, sectors: u32, ms: u32, weighted: u32| {
        format!(" 259 0 nvme0n1 5 0 40 1 {writes} 0 {sectors} {ms} 0 {ms} {weighted} 0 0 0 0 10 20\n")
    };
    let netstat = |overflows: u32| {
        format!("TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 {overflows} {overflows}\n")
    };
    let look = |files: &[(&str, String)]| {
        let mut host = Recorded { files: BTreeMap::new(), ..Recorded::good() };
        host.files.extend(files.iter().map(|(path, text)| ((*path).to_string(), text.clone())));
        Look::take(&host)
    };
    let before = look(&[
        ("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\nprocs_running 1\n".into()),
        ("proc/diskstats", diskstats(10, 1000, 100, 100)),
        ("proc/net/netstat", netstat(3)),
    ]);
    let after = look(&[
        ("proc/stat", "cpu  150 0 125 825 0 0 0 0 0 0\nprocs_running 3\n".into()),
        ("proc/diskstats", diskstats(110, 1000 + 2_000_000, 600, 40_100)),
        ("proc/net/netstat", netstat(10)),
        ("proc/pressure/io", "some avg10=41.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=1.00\n".into()),
    ]);
    let rows = rows(&Pair { before: &before, after: &after, seconds: 1.0 }, &["nvme0n1"], None, None);
    let row = |name: &str| rows.iter().find(|r| r.resource == name).unwrap();
    assert_eq!(row("cpu").utilisation, "75 % busy (25 % kernel), 0 % waits for disks");
    assert!(row("cpu").saturation.contains("3 tasks"));
    let disk = row("disk nvme0n1");
    assert!(disk.utilisation.starts_with("50 % busy, 1.02 GB/s written"), "{disk:?}");
    assert!(
        disk.saturation.contains("40.0 requests under way, write 5.00 ms") && disk.saturation.contains("41.5 %"),
        "{disk:?}"
    );
    assert!(disk.attention);
    assert!(row("connections").saturation.starts_with("7 found") && row("connections").attention);
    assert_eq!(row("memory").utilisation, "cannot tell");
}

#[test]
fn the_use_page_shows_the_server_too() {
    let scrape = |lines: u32, dropped: u32| {
        Scrape::parse(&format!(
            "logweir_ready 1\nlogweir_received_lines_total{{listener=\"a\"}} {lines}\nlogweir_buffer_utilisation{{shard=\"0\"}} 0.83\n\
             logweir_dropped_lines_total{{listener=\"a\",reason=\"buffer_full\"}} {dropped}\nlogweir_sync_seconds_sum{{shard=\"0\"}} {dropped}\n"
        ))
    };
    let window = Window { before: scrape(0, 0), after: scrape(3000, 1), seconds: 2.0 };
    let look = Look::default();
    let rows = rows(&Pair { before: &look, after: &look, seconds: 1.0 }, &[], Some(&window), None);
    let buffer = rows.iter().find(|r| r.resource == "logweir buffer").unwrap();
    assert!(buffer.utilisation.starts_with("83 %") && buffer.utilisation.contains("1500 lines/s"), "{buffer:?}");
    assert!(buffer.errors.contains("1 buffer_full") && buffer.attention);
    assert!(rows.iter().any(|r| r.resource == "logweir writer" && r.utilisation.starts_with("50 %")), "{rows:?}");
}

#[test]
fn a_commit_log_that_was_given_up_deserves_a_look() {
    let commit_log = |text: &str| {
        let scrape = || Scrape::parse(&format!("logweir_ready 1\nlogweir_buffer_utilisation{{shard=\"0\"}} 0\n{text}"));
        let window = Window { before: scrape(), after: scrape(), seconds: 1.0 };
        let look = Look::default();
        let rows = rows(&Pair { before: &look, after: &look, seconds: 1.0 }, &[], Some(&window), None);
        rows.into_iter().find(|row| row.resource == "logweir commit log")
    };
    assert!(commit_log("").is_none(), "there is none");
    let log = |in_use: u32, given_up: u32| {
        format!("logweir_commit_logs{{shard=\"0\"}} {in_use}\nlogweir_commit_logs_given_up{{shard=\"0\"}} {given_up}\n")
    };
    let row = commit_log(&log(2, 0)).unwrap();
    assert!(!row.attention && row.utilisation.starts_with("2 in use"), "{row:?}");
    let row = commit_log(&log(1, 1)).unwrap();
    assert!(row.attention && row.errors.starts_with("1 given up"), "{row:?}");
}

/// The command here, as JSON.
fn doctor(args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = logweir(&[&["doctor", "--json"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (output.status.code(), value)
}

#[test]
fn the_command_examines_this_host() {
    let dir = scratch();
    let data = dir.path().join("not/yet/there");
    let (code, value) = doctor(&["--data-dir", data.to_str().unwrap()]);
    let checks = value["checks"].as_array().unwrap();
    assert!(checks.len() >= 28);
    for check in checks {
        for field in ["check", "status", "present", "recommended", "why"] {
            assert!(check[field].is_string(), "{field}: {check}");
        }
        assert!(check.get("command").is_some(), "{check}");
        assert!(["ok", "advice", "problem", "unknown"].contains(&check["status"].as_str().unwrap()));
    }
    let has_problem = checks.iter().any(|c| c["status"] == "problem");
    assert_eq!(code, Some(i32::from(has_problem)), "{value:#}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "it makes nothing");
}

#[test]
fn exit_codes_say_how_grave_it_is() {
    let dir = scratch();
    let data = dir.path().to_str().unwrap();
    // More connections than descriptors.
    let (code, value) =
        doctor(&["--data-dir", data, "--set", "limits.max_connections=1000000", "--set", "buffer.memory=8MiB"]);
    let nofile = value["checks"].as_array().unwrap().iter().find(|c| c["check"] == "nofile").unwrap();
    if nofile["status"] == "problem" {
        assert_eq!((code, value["status"].as_str()), (Some(1), Some("problem")));
        assert!(nofile["command"].as_str().unwrap().contains("LimitNOFILE="));
    } else {
        common::skipped("exit_codes_say_how_grave_it_is", "more than a million descriptors are allowed here");
    }
    let output = logweir(&["doctor", "--set", "buffer.memory=lots"]);
    assert_eq!(output.status.code(), Some(78));
    // A disk that cannot be probed.
    let output = logweir(&["doctor", "--probe", "--data-dir", "/proc/self"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_probe_measures_and_leaves_nothing_behind() {
    let dir = scratch();
    let (_, value) = doctor(&["--probe", "--data-dir", dir.path().to_str().unwrap()]);
    let probe = &value["probe"];
    assert!(probe["disk_bytes_per_second"].as_f64().unwrap() > 1e5, "{probe}");
    assert!(probe["loopback_bytes_per_second"].as_f64().unwrap() > 1e6, "{probe}");
    assert!(probe["written_bytes"].as_u64().unwrap() <= 512 << 20);
    let seconds: Vec<f64> = probe["sync_seconds"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(seconds.len() == 4 && seconds.is_sorted() && seconds[0] > 0.0, "{seconds:?}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn the_use_page_finds_a_running_server() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    send_all(server.address("lines"), b"one\ntwo\n");
    let admin = server.admin.unwrap().to_string();
    let output = logweir(&["doctor", "--use", "--admin", &admin, "--data-dir", server.data_dir.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["\n  cpu ", "memory", "network", "logweir buffer", "logweir writer", "unaccounted: 0", "utilisation"] {
        assert!(text.replace("\n! ", "\n  ").contains(part), "{part}\n{text}");
    }
    let text = String::from_utf8(logweir(&["doctor", "--use", "--admin", "127.0.0.1:1"]).stdout).unwrap();
    assert!(text.contains("nobody answers on http://127.0.0.1:1/metrics"), "{text}");
}
