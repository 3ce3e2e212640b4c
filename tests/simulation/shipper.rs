//! The shipper: one more process of the machine, and the target that it ships to, which is elsewhere and outlives everything. The rounds are
//! those of `logweir-ship` (`log::ship::rounds`); the target is a model of one with transactions.

use super::common::sim_disk::SimDisk;
use super::fiber::{Fiber, Flag, SimClock, below, machine, note, now, once_in, point, sleep};
use super::ledger::{Findings, Ledger, Promise};
use super::server::DATA;
use logweir::log::content::{Content, Files};
use logweir::log::disk::{Disk, DiskFile};
use logweir::log::ship::Source;
use logweir::log::ship::note::{self as notes, Positions};
use logweir::log::ship::rounds::{Machine, RoundError, Rounds, Sizes, Target};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// The target's name.
const NAME: &str = "sim";

/// A transaction that is open.
#[derive(Default)]
struct Open {
    lines: Vec<(Source, Vec<u8>)>,
}

/// The target: what is committed, and what its newest producer has open.
#[derive(Default)]
pub struct Cluster {
    /// Lines of each shard, each with its newline, as readers of what is committed see them.
    pub lines: BTreeMap<Source, Vec<Vec<u8>>>,
    positions: Positions,
    /// Which producer may write: the last that has begun.
    epoch: u64,
    open: Option<Open>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    pub commits: u64,
}

pub type SharedCluster = Rc<RefCell<Cluster>>;

/// Why the model refuses.
#[derive(Debug)]
enum Refusal {
    Fenced,
    /// Nothing of the transaction is there.
    Void,
    /// Nobody has said whether it is there.
    Silent,
}

/// A producer.
struct Producer {
    cluster: SharedCluster,
    epoch: u64,
    /// It is taken for dead, and goes on; it has not noticed.
    is_zombie: Rc<Cell<bool>>,
}

impl Producer {
    /// Fences whoever was there before, and makes void what that has left open.
    fn new(cluster: &SharedCluster, is_zombie: &Rc<Cell<bool>>) -> Producer {
        point();
        let mut there = cluster.borrow_mut();
        there.epoch += 1;
        there.open = None;
        Producer { cluster: Rc::clone(cluster), epoch: there.epoch, is_zombie: Rc::clone(is_zombie) }
    }

    fn ask<T>(&self, what: impl FnOnce(&mut Cluster) -> Result<T, Refusal>) -> Result<T, Refusal> {
        point();
        let mut there = self.cluster.borrow_mut();
        if there.epoch == self.epoch { what(&mut there) } else { Err(Refusal::Fenced) }
    }
}

impl Target for Producer {
    type Error = Refusal;
    type Place = Source;

    fn place(&mut self, source: &Source) -> Result<Source, Refusal> {
        Ok(source.clone())
    }

    fn begin(&mut self) -> Result<(), Refusal> {
        self.ask(|there| {
            assert!(there.open.is_none(), "a transaction in a transaction");
            there.open = Some(Open::default());
            Ok(())
        })
    }

    fn send(&mut self, place: &Source, line: &[u8], _wall_ns: Option<u64>) -> Result<(), Refusal> {
        self.ask(|there| {
            let open = there.open.as_mut().expect("a line outside of a transaction");
            open.lines.push((place.clone(), [line, b"\n"].concat()));
            Ok(())
        })
    }

    fn commit(&mut self, moved: &Positions) -> Result<Positions, Refusal> {
        let wrong = below(20);
        let result = self.ask(|there| {
            let open = there.open.take().expect("a commit of nothing");
            if wrong == 0 && !there.is_calm {
                return Err(Refusal::Void);
            }
            for (source, line) in open.lines {
                there.lines.entry(source).or_default().push(line);
            }
            if machine(|m| m.talks) {
                eprintln!("{:>12} shipped to {moved:?}", now());
            }
            there.positions.extend(moved.clone());
            there.commits += 1;
            if wrong == 1 && !there.is_calm { Err(Refusal::Silent) } else { Ok(moved.clone()) }
        });
        // Killed behind the commit, and before the note.
        point();
        while self.is_zombie.get() && result.is_ok() {
            sleep(None); // the lock on the target's file is another's: no note is written
        }
        result
    }

    fn settle(&mut self) -> Result<Positions, Refusal> {
        Ok(Positions::new())
    }
}

/// The disk, as a process that reads sees it: calls take their time, and fail.
struct Live(SimDisk);

impl Files for Live {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk::list(&self.0, dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>> {
        Ok(Box::new(LiveFile(Disk::open(&self.0, path)?)))
    }
}

struct LiveFile(Arc<dyn DiskFile>);

impl Content for LiveFile {
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
}

/// Ships until it is killed or fenced. `is_idle`: it has found nothing more.
fn ship(disk: &SimDisk, cluster: &SharedCluster, is_idle: &Cell<bool>, is_zombie: &Rc<Cell<bool>>) {
    let (files, clock) = (Live(disk.clone()), SimClock);
    let machine = Machine { files: &files, disk, clock: &clock, data_dir: Path::new(DATA), target: NAME };
    let sizes =
        Sizes { transaction: [200, 5_000, 1 << 20][below(3) as usize], read: [1, 700, 64 << 10][below(3) as usize] };
    loop {
        let mut producer = Producer::new(cluster, is_zombie);
        // Not what another has moved since: this one would be fenced.
        let Ok(positions) = producer.ask(|there| Ok(there.positions.clone())) else { return };
        let begins = (positions, Box::new(|_: &str| true) as _, false);
        let error = match Rounds::begin(machine, sizes, &mut producer, begins) {
            Err(error) => error,
            Ok(mut rounds) => loop {
                match rounds.round(&mut producer) {
                    Ok(Some(sent)) => note("shipped", sent.lines),
                    Ok(None) => {
                        is_idle.set(true);
                        sleep(Some(now() + (1 << (10 + below(16)))));
                    }
                    Err(error) => break error,
                }
            },
        };
        match error {
            RoundError::Target(Refusal::Fenced) => return note("fenced", 0),
            RoundError::Forgotten => panic!("the target has forgotten what the note says"),
            _ if is_zombie.get() => return,
            // A call that was made to fail: it begins anew.
            _ => note("shipping failed", 0),
        }
        sleep(Some(now() + 1_000_000));
    }
}

/// The processes that ship: one, and those that do not know yet that they were replaced.
pub struct Shipper {
    pub cluster: SharedCluster,
    process: Option<(Fiber, Rc<Cell<bool>>)>,
    zombies: Vec<Fiber>,
    is_idle: Rc<Cell<bool>>,
    pub kills: u64,
}

impl Shipper {
    pub fn new() -> Shipper {
        let (process, zombies, is_idle) = (None, Vec::new(), Rc::default());
        Shipper { cluster: SharedCluster::default(), process, zombies, is_idle, kills: 0 }
    }

    /// Goes on, if it is its turn; starts where it does not run. Now and then it is killed, or replaced by another.
    pub fn step(&mut self, disk: &SimDisk) {
        let is_calm = self.cluster.borrow().is_calm;
        if !is_calm && once_in(300) {
            note("shipper killed", 0);
            self.kills += 1;
            let old = self.process.take();
            // It only looks dead: in a transaction, and nowhere else does it touch anything that is another's from now on.
            if let Some((fiber, is_zombie)) = old
                && self.cluster.borrow().open.is_some()
                && once_in(3)
            {
                is_zombie.set(true);
                self.zombies.push(fiber);
            }
        }
        if !self.zombies.is_empty() && once_in(4) {
            let one = below(self.zombies.len() as u64) as usize;
            if self.zombies[one].is_runnable() {
                self.zombies[one].run();
            }
            self.zombies.retain(|fiber| fiber.is_runnable() || fiber.wakes_at().is_some());
        }
        if self.process.as_ref().is_none_or(|(fiber, _)| fiber.is_over()) {
            let (disk, cluster, is_idle) = (disk.clone(), Rc::clone(&self.cluster), Rc::clone(&self.is_idle));
            let is_zombie = Rc::new(Cell::new(false));
            let own = Rc::clone(&is_zombie);
            let body = move || ship(&disk, &cluster, &is_idle, &own);
            self.process = Some((Fiber::new("shipper", Flag::default(), body), is_zombie));
        }
        let process = &mut self.process.as_mut().unwrap().0;
        if is_calm && let Some(at) = process.wakes_at() {
            machine(|m| m.now = m.now.max(at));
        }
        if process.is_runnable() {
            process.run();
        }
    }

    /// The power goes: nobody on this machine lives on.
    pub fn die(&mut self) {
        (self.process, self.zombies) = (None, Vec::new());
    }

    /// Ships everything that there is.
    pub fn finish(&mut self, disk: &SimDisk, patience: u64) {
        self.cluster.borrow_mut().is_calm = true;
        // One look may have begun before the server had ended.
        for _ in 0..2 {
            self.is_idle.set(false);
            for step in 0.. {
                assert!(step < patience, "shipping does not end");
                self.step(disk);
                if self.is_idle.get() {
                    break;
                }
            }
        }
    }

    /// Holds what has arrived against the files: nothing is there that they have not got, in another order, or twice. With `all`, nothing
    /// is missing either. Where calls fail, files may have more: what was written again, and tails whose sync has failed.
    pub fn judge(&self, disk: &SimDisk, doubles: bool, all: bool) {
        let cluster = self.cluster.borrow();
        let mut files = disk.contents(".log");
        files.extend(disk.contents(".log.active"));
        files.sort();
        let mut there: BTreeMap<Source, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, bytes) in &files {
            let stream = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let Some((id, _)) = logweir::log::names::SegmentId::parse(name) else { continue };
            let lines = bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
            there.entry((stream.to_string(), id.shard)).or_default().extend(lines.map(<[u8]>::to_vec));
        }
        let shown = |line: &Vec<u8>| String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
        for (source, shipped) in &cluster.lines {
            let on_disk = there.remove(source).unwrap_or_default();
            if doubles {
                let mut left = on_disk.iter();
                for line in shipped {
                    assert!(
                        left.any(|one| one == line),
                        "{source:?}: {:?} is not on the disk behind those before",
                        shown(line)
                    );
                }
                continue;
            }
            for (i, line) in shipped.iter().enumerate() {
                let same = on_disk.get(i);
                assert_eq!(same.map(shown), Some(shown(line)), "{source:?}: line {i} of {}", shipped.len());
                assert!(same == Some(line), "{source:?}: line {i}");
            }
            assert!(
                !all || shipped.len() == on_disk.len(),
                "{source:?}: {} of {} shipped",
                shipped.len(),
                on_disk.len()
            );
        }
        assert!(!all || doubles || there.values().all(Vec::is_empty), "not shipped at all: {:?}", there.keys());
        // The note is never ahead of the target.
        for (_, bytes) in disk.contents(&format!("/ship/{NAME}")) {
            let noted = notes::parse(std::str::from_utf8(&bytes).unwrap()).expect("a note is whole");
            for (source, at) in noted {
                let of_target = cluster.positions.get(&source).copied().unwrap_or_default();
                assert!(at <= of_target, "{source:?}: the note says {at}, the target {of_target}");
            }
        }
    }

    /// What was promised as durable has arrived.
    pub fn judge_promises(&self, ledger: &Ledger, doubles: bool) {
        let cluster = self.cluster.borrow();
        let of =
            |((stream, shard), lines): (&Source, &Vec<Vec<u8>>)| (format!("{stream}/{shard}").into(), lines.concat());
        let files: Vec<_> = cluster.lines.iter().map(of).collect();
        let (found, _, complaints) = ledger.judge(&files, Promise::Durable);
        let expected = Findings { duplicate: if doubles { found.duplicate } else { 0 }, ..Findings::default() };
        assert_eq!(found, expected, "shipped: {complaints:#?}");
    }
}
