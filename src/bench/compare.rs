//! Runs the server and the null sink in turn, under the same load on the same machine, and prints the ratio. It can also
//! compare two servers that differ in their settings.

use super::generate::{self, SendArgs};
use crate::host::output::say;
use clap::Args;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The options of `bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// How many runs of each, in turn.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The directory that both write to. The files are deleted after each run.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key of the server, such as buffer.memory=16MiB.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Compare with a second server instead of the null sink. It has this key set too, such as engine=epoll.
    #[arg(long, value_name = "SECTION.KEY=VALUE", conflicts_with = "page_cache")]
    versus: Vec<String>,
    /// Let null sink and server both write through the page cache.
    #[arg(long)]
    page_cache: bool,
    #[command(flatten)]
    load: SendArgs,
}

/// One run of one of them.
#[derive(Debug, Clone, Copy)]
struct Run {
    lines_per_second: f64,
    cpu_per_million: f64,
    /// CPU seconds of the whole machine less the generator's, per GB: kernel workers that write back count too.
    machine_per_gb: f64,
    peak_mib: f64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Server,
    Versus,
    NullSink,
}

/// Runs and reports.
pub fn run(args: &CompareArgs) -> io::Result<ExitCode> {
    let (other, name) =
        if args.versus.is_empty() { (Subject::NullSink, "null sink") } else { (Subject::Versus, "versus") };
    if args.load.udp.is_some() {
        return Err(io::Error::other("only streams can be compared: what is lost of datagrams would be waited for"));
    }
    let mut pairs = Vec::new();
    // One of each first that is not counted: memory and caches warm up.
    for i in 0..=args.runs {
        let base = one(args, other)?;
        let server = one(args, Subject::Server)?;
        if i > 0 {
            let ratio = server.lines_per_second / base.lines_per_second;
            say!("run {i}: {name} {base}; server {server}; ratio {ratio:.3}");
            pairs.push((base, server));
        }
    }
    let median = |f: &dyn Fn(&(Run, Run)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(f).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let medians = |of: &dyn Fn(&(Run, Run)) -> Run| Run {
        lines_per_second: median(&|p| of(p).lines_per_second),
        cpu_per_million: median(&|p| of(p).cpu_per_million),
        machine_per_gb: median(&|p| of(p).machine_per_gb),
        peak_mib: median(&|p| of(p).peak_mib),
    };
    say!(
        "medians: {name} {}; server {}; ratio {:.3}, of lines per CPU second {:.3}, of lines per machine CPU second {:.3}",
        medians(&|p| p.0),
        medians(&|p| p.1),
        median(&|p| p.1.lines_per_second / p.0.lines_per_second),
        median(&|p| p.0.cpu_per_million / p.1.cpu_per_million),
        median(&|p| p.0.machine_per_gb / p.1.machine_per_gb)
    );
    Ok(ExitCode::SUCCESS)
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} lines/s, {:.3} CPU s/M, {:.3} machine CPU s/GB, {:.1} MiB",
            self.lines_per_second, self.cpu_per_million, self.machine_per_gb, self.peak_mib
        )
    }
}

fn one(args: &CompareArgs, subject: Subject) -> io::Result<Run> {
    let dir = args.dir.join(format!("logweir-compare-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(args, subject, &dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure(args: &CompareArgs, subject: Subject, dir: &Path) -> io::Result<Run> {
    let mut command = Command::new(std::env::current_exe()?);
    if subject != Subject::NullSink {
        command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--admin", "off", "--data-dir"]).arg(dir);
        if let Some(config) = &args.config {
            command.arg("--config").arg(config);
        }
        let versus: &[String] = if subject == Subject::Versus { &args.versus } else { &[] };
        for set in args.set.iter().chain(versus) {
            command.arg("--set").arg(set);
        }
        if args.page_cache {
            command.args(["--set", "storage.io=append"]);
        }
        command.args(["--set", "log.level=warn"]);
    } else {
        command.args(["bench", "null-sink", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
        if args.page_cache {
            command.arg("--page-cache");
        }
    }
    let mut child = Process(command.stdout(Stdio::piped()).spawn()?);
    let address = child.address()?;
    let load = SendArgs { address: format!("tcp://{address}"), ..args.load.clone() };
    let expected = load.lines * u64::from(load.line_bytes);
    let before = (machine_cpu(), own_cpu());
    let start = Instant::now();
    generate::send(&load)?;
    // Both are done when every byte is in a file.
    while written(dir)? < expected {
        if start.elapsed() > Duration::from_secs(600) {
            return Err(io::Error::other("not everything was written within ten minutes"));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let seconds = start.elapsed().as_secs_f64();
    let machine = (machine_cpu() - before.0) - (own_cpu() - before.1);
    let (cpu, peak_mib) = child.usage();
    Ok(Run {
        lines_per_second: load.lines as f64 / seconds,
        cpu_per_million: cpu / (load.lines as f64 / 1e6),
        machine_per_gb: machine / (expected as f64 / 1e9),
        peak_mib,
    })
}

fn ticks_per_second() -> f64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// CPU seconds that this machine has spent, idle and waiting not counted (proc_stat(5)): user, nice, system, irq, softirq.
pub fn machine_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text.split_whitespace().skip(1).take(7).filter_map(|f| f.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum::<f64>() / ticks_per_second()
}

/// CPU seconds of this process: the generator's.
fn own_cpu() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    usage.map_or(0.0, |u| seconds(u.user_time()) + seconds(u.system_time()))
}

/// A child that does not outlive us.
struct Process(Child);

impl Process {
    /// The address in its first lines: the first word that ends in a port.
    fn address(&mut self) -> io::Result<String> {
        let out = self.0.stdout.as_mut().ok_or_else(|| io::Error::other("no output"))?;
        for line in BufReader::new(out).lines() {
            let line = line?;
            for word in line.split([' ', ',']) {
                if let Ok(address) = word.trim_start_matches("tcp://").parse::<std::net::SocketAddr>() {
                    return Ok(address.to_string());
                }
            }
        }
        Err(io::Error::other("the process under test did not start"))
    }

    /// CPU seconds and peak memory in MiB so far.
    fn usage(&mut self) -> (f64, f64) {
        let pid = self.0.id();
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = text("stat");
        // Fields 14 and 15 (proc_pid_stat(5)), counted behind the name, which may hold spaces.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let ticks: f64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum();
        let status = text("status");
        let peak = status
            .lines()
            .find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        (ticks / ticks_per_second(), peak.unwrap_or(0.0) / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes in all log files beneath.
fn written(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            sum += written(&entry.path())?;
        } else if name.ends_with(".log") || name.ends_with(".log.active") {
            // It may have been renamed since the listing; the next look finds it.
            sum += entry.metadata().map_or(0, |m| m.len());
        }
    }
    Ok(sum)
}
