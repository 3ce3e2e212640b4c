//! The ledger of a test: what its clients sent and what they were told is safe, and the checker that holds files to it.
//!
//! A line is `bench::lines::numbered`; its length follows from its number, so that the whole ledger of a connection is
//! two counters: an acknowledgement covers all lines up to it.

use super::Metrics;
use logweir::bench::lines::{numbered, parse_numbered};
use logweir::log::names::{Kind, SegmentId};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One connection's page.
#[derive(Debug, Default)]
pub struct Account {
    pub connection: u32,
    /// Lines have from 60 to 59 + `longest` bytes.
    pub longest: u64,
    /// Nobody promised it anything: a power cut may take lines from the middle, and drop policies do.
    pub unpromised: bool,
    /// Counted before the write: no line with this number or a higher one can be anywhere.
    pub sent: AtomicU64,
    /// As many from the first on are safe, by the server's word.
    pub acked: AtomicU64,
    /// Some of it was refused in so many words while more was under way behind it: gaps are the client's own affair then.
    pub refused: AtomicBool,
}

impl Account {
    pub fn new(connection: u32, longest: u64) -> Account {
        Account { connection, longest, ..Account::default() }
    }

    /// Appends the line of that number.
    pub fn line(&self, number: u64, to: &mut Vec<u8>) {
        numbered(self.connection, number, length(number, self.longest), to);
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

fn length(number: u64, longest: u64) -> usize {
    60 + (number * 7919 % longest) as usize
}

/// What was acknowledged at this moment, by connection: what comes in later does not count.
pub fn acked_now<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> HashMap<u32, u64> {
    accounts.into_iter().map(|a| (a.connection, a.acked())).collect()
}

/// The sum of what was acknowledged.
pub fn acked_in_all<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> u64 {
    accounts.into_iter().map(Account::acked).sum()
}

/// What the checker found in the files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Good lines, each counted once.
    pub lines: u64,
    /// Lines that had to be there.
    pub acked: u64,
    /// And are not.
    pub acked_lost: u64,
    /// Lines that are like one that was sent, but not the same.
    pub corrupted: u64,
    /// The beginning of a line that was sent, shown as a line, or an end of file without newline.
    pub torn_shown: u64,
    /// Lines behind a later one of their connection.
    pub reordered: u64,
    /// Lines that nobody sent.
    pub phantom: u64,
    /// Lines that are there again.
    pub duplicate: u64,
    /// Lines that are missing though a later one of their connection is there, where acknowledgements are given.
    pub gaps: u64,
    /// What the first wrong line looked like.
    pub first: Option<String>,
}

impl Findings {
    pub fn add(&mut self, other: &Findings) {
        self.lines += other.lines;
        self.acked += other.acked;
        self.acked_lost += other.acked_lost;
        self.corrupted += other.corrupted;
        self.torn_shown += other.torn_shown;
        self.reordered += other.reordered;
        self.phantom += other.phantom;
        self.duplicate += other.duplicate;
        self.gaps += other.gaps;
        if self.first.is_none() {
            self.first.clone_from(&other.first);
        }
    }

    /// Nothing that must never be: duplicates and gaps have their own rules.
    pub fn is_honest(&self) -> bool {
        self.acked_lost + self.corrupted + self.torn_shown + self.reordered + self.phantom == 0
    }

    /// Nothing at all.
    pub fn is_clean(&self) -> bool {
        self.is_honest() && self.duplicate + self.gaps == 0
    }

    pub fn must_be_clean(&self, when: &str) {
        assert!(self.is_clean(), "{when}: {self:?}");
    }

    pub fn must_be_honest(&self, when: &str) {
        assert!(self.is_honest(), "{when}: {self:?}");
    }

    fn wrong(&mut self, path: &Path, line: &[u8]) {
        if self.first.is_none() {
            let start = String::from_utf8_lossy(&line[..line.len().min(60)]);
            self.first = Some(format!("{}: {start:?}, {} bytes", path.display(), line.len()));
        }
    }
}

/// Reads the segments of all streams, not by way of `cat`, and compares.
///
/// Call it when no client sends any more; `acked` was taken before the fault.
pub fn check<'a>(data: &Path, accounts: impl IntoIterator<Item = &'a Account>, acked: &HashMap<u32, u64>) -> Findings {
    let accounts: HashMap<u32, &Account> = accounts.into_iter().map(|a| (a.connection, a)).collect();
    let mut seen: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
    let mut highest: HashMap<u32, u64> = HashMap::new();
    let mut found = Findings::default();
    for (path, active) in segments(data) {
        let bytes = std::fs::read(&path).unwrap();
        let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        // `cat` shows of an active segment what ends in a newline.
        if lines.pop().is_some_and(|rest| !rest.is_empty()) && !active {
            found.torn_shown += 1;
        }
        for line in lines {
            let document = super::apis::line_of_document(line);
            let line = document.as_deref().unwrap_or(line);
            let Some((connection, number)) = parse_numbered(line) else {
                found.wrong(&path, line);
                if is_beginning(line, &accounts) {
                    found.torn_shown += 1
                } else {
                    found.corrupted += 1
                }
                continue;
            };
            let account = accounts.get(&connection);
            let Some(account) = account.filter(|a| number < a.sent() && line.len() + 1 == length(number, a.longest))
            else {
                found.wrong(&path, line);
                found.phantom += 1;
                continue;
            };
            let seen = seen.entry(connection).or_insert_with(|| vec![false; account.sent() as usize]);
            if std::mem::replace(&mut seen[number as usize], true) {
                found.duplicate += 1;
                found.wrong(&path, line);
                continue;
            }
            found.lines += 1;
            let highest = highest.entry(connection).or_insert(number);
            if number < *highest {
                found.reordered += 1;
                found.wrong(&path, line);
            }
            *highest = number.max(*highest);
        }
    }
    for (connection, account) in &accounts {
        let there = seen.get(connection).map_or(&[][..], |s| s);
        let acked = acked.get(connection).copied().unwrap_or(0);
        assert!(acked <= account.sent(), "connection {connection}: {acked} acknowledged of {} sent", account.sent());
        found.acked += acked;
        let lost = (0..acked as usize).filter(|n| !there.get(*n).copied().unwrap_or(false)).count() as u64;
        found.acked_lost += lost;
        if lost > 0 && found.first.is_none() {
            let first = (0..acked as usize).find(|n| !there.get(*n).copied().unwrap_or(false));
            found.first = Some(format!("connection {connection}: {lost} of {acked} lost, first {first:?}"));
        }
        let end = there.iter().rposition(|t| *t).map_or(0, |last| last + 1);
        let gaps = there[..end].iter().filter(|t| !**t).count() as u64;
        if gaps > 0 && !account.unpromised && !account.refused.load(Ordering::SeqCst) {
            found.gaps += gaps;
            found.first.get_or_insert_with(|| format!("connection {connection}: {gaps} missing before {end}"));
        }
    }
    found
}

fn is_beginning(line: &[u8], accounts: &HashMap<u32, &Account>) -> bool {
    let text = |range: std::ops::Range<usize>| line.get(range).and_then(|t| std::str::from_utf8(t).ok());
    let connection = text(2..7).and_then(|t| t.parse().ok());
    let number = text(10..20).and_then(|t| t.parse().ok());
    let (Some(connection), Some(number)) = (connection, number) else {
        return line.len() < 20 && line.starts_with(b"c=");
    };
    let mut whole = Vec::new();
    match accounts.get(&connection) {
        Some(account) => account.line(number, &mut whole),
        None => return false,
    }
    whole.starts_with(line)
}

/// Segments in the order of `cat`, and whether they are active.
pub fn segments(data: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for stream in std::fs::read_dir(data).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        for entry in std::fs::read_dir(&stream).unwrap().map(|e| e.unwrap()) {
            if let Some((id, kind @ (Kind::Sealed | Kind::Active))) =
                SegmentId::parse(entry.file_name().to_str().unwrap())
            {
                found.push((stream.clone(), id, kind == Kind::Active, entry.path()));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, active, path)| (path, active)).collect()
}

/// What was checked is taken away, or the directory grows with each round; and with it the ledger has to begin anew.
pub fn clear(data: &Path) {
    for stream in std::fs::read_dir(data).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        if stream.file_name().is_some_and(|n| !n.to_str().unwrap().starts_with('.')) {
            std::fs::remove_dir_all(stream).unwrap();
        }
    }
}

/// What a process takes, in KiB: its own memory now, and the most it ever had with all that is mapped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub own_kib: u64,
    pub peak_kib: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Option<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Some(Memory { own_kib: field("RssAnon:")?, peak_kib: field("VmHWM:")? })
    }

    pub fn most(self, other: Memory) -> Memory {
        Memory { own_kib: self.own_kib.max(other.own_kib), peak_kib: self.peak_kib.max(other.peak_kib) }
    }
}

/// Scrapes a server without a pause and holds each scrape to its word, until it is told to stop or the server is gone.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Watched>>,
}

/// What a watch saw.
#[derive(Debug, Default)]
pub struct Watched {
    pub scrapes: u64,
    pub memory: Memory,
    pub last: Option<Metrics>,
}

impl Watch {
    pub fn over(admin: SocketAddr, pid: u32) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut watched = Watched::default();
            loop {
                // Looked at before the scrape, so that there is one after the last event.
                let last = told.load(Ordering::SeqCst);
                if let Some(memory) = Memory::of(pid) {
                    watched.memory = watched.memory.most(memory);
                }
                if let Some(metrics) = scrape(admin) {
                    metrics.check_accounts();
                    watched.scrapes += 1;
                    watched.last = Some(metrics);
                }
                if last {
                    return watched;
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        Watch { stop, thread: Some(thread) }
    }

    /// Ends it and says what it saw.
    pub fn end(mut self) -> Watched {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        thread.join().unwrap_or_else(|wrong| std::panic::resume_unwind(wrong))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A whole answer or none: the server may be killed at any time.
pub fn scrape(admin: SocketAddr) -> Option<Metrics> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: "))?;
    (body.len().to_string() == length).then(|| Metrics::parse(body))
}

/// A row of the table that `tests/faults/run` collects.
pub fn row(row: &str, variant: &str, times: u64, found: &Findings, memory: Option<(Memory, u64)>, note: &str) {
    let memory = memory.map_or("–".to_string(), |(m, cap)| format!("{} / {}", m.own_kib.div_ceil(1024), cap >> 20));
    let Findings { acked, acked_lost, corrupted, torn_shown, reordered, phantom, duplicate, gaps, .. } = found;
    let line = format!(
        "| {row} | {variant} | {times} | {acked} | {acked_lost} | {corrupted} | {torn_shown} | {reordered} | {phantom} | {duplicate} | {gaps} | {memory} | {note} |"
    );
    eprintln!("{line}");
    if let Some(table) = std::env::var_os("LOGWEIR_FAULT_TABLE") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(table).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// How often, unless the environment says otherwise.
pub fn times(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

/// The sum of memory that a server says it keeps to when it starts, in bytes: lines, connections, and what the program
/// itself takes ([`ITSELF_BYTES`]).
pub fn memory_cap(introduction: &str) -> u64 {
    let line = introduction.lines().find_map(|l| l.trim_start().strip_prefix("memory ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let size = |at: &str| {
        let i = words.iter().position(|w| w.trim_end_matches(',') == at).unwrap() - 1;
        parse_size(words[i - 2], words[i - 1])
    };
    // "at most 63.3 MiB for lines, 121.5 MiB for 16384 connections"
    let connections = words.iter().rposition(|w| *w == "for").unwrap();
    size("lines") + parse_size(words[connections - 2], words[connections - 1]) + ITSELF_BYTES
}

/// Stacks, tables, metrics: what a server without clients takes beside the sum.
pub const ITSELF_BYTES: u64 = 6 << 20;

fn parse_size(number: &str, unit: &str) -> u64 {
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => panic!("a unit: {other:?}"),
    };
    (number.parse::<f64>().unwrap() * f64::from(1u32 << shift)) as u64
}

/// Random numbers that come again with the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// Seeded by `LOGWEIR_FAULTS_SEED`, and for each test and round anew.
    pub fn new(test: &str, round: u64) -> Dice {
        let name = test.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        Dice(times("LOGWEIR_FAULTS_SEED", 1).wrapping_mul(0x9e37_79b9).wrapping_add(name).wrapping_add(round << 32))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// Waits for a random moment: not for anything to happen in it.
pub fn pass(time: Duration) {
    let end = std::time::Instant::now() + time;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        std::thread::park_timeout(left);
    }
}
