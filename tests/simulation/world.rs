//! One run: a seed makes a machine, its processes and their clients, and everything that happens to them.

use super::client::Client;
use super::common::sim_disk::{Call, Chance, SimDisk};
use super::fiber::{self, below, machine, note, now, once_in};
use super::ledger::{Findings, Ledger, Promise};
use super::server::{DATA, Process, Serving, Sizes, options, speaks};
use super::shipper::Shipper;
use logweir::log::verify::{self, Problem};
use logweir::metrics::accounting::{Account, Reason};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Steps that a healthy server may take to say and store all that it was given.
const PATIENCE: u64 = 400_000;

/// What a run was; for the table.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    pub trace: u64,
    pub steps: u64,
    pub kills: u64,
    pub cuts: u64,
    pub failures: u64,
    pub lines: u64,
    pub findings: Findings,
    /// Transactions of the shipper, and kills of it.
    pub commits: u64,
    pub shipper_kills: u64,
}

pub struct World {
    disk: SimDisk,
    sizes: Sizes,
    /// Not everybody ships.
    shipper: Option<Shipper>,
    ledger: Ledger,
    clients: Vec<Client>,
    serving: Option<Serving>,
    /// Some disk call has failed in some process: lines may be written twice.
    doubles: bool,
    /// No disk call fails in this world; processes are killed and power is cut all the same. Then no line may be there twice.
    good_disk: bool,
    /// Nothing breaks in this life.
    healthy: bool,
    /// Calls that had failed by the last step.
    failures: u64,
    report: Report,
}

/// Runs a seed.
pub fn run(seed: u64, talks: bool) -> Report {
    fiber::begin(seed, talks);
    let disk = SimDisk::seeded(below(u64::MAX), Some(Arc::new(hook)));
    let sizes = Sizes::any();
    let report = Report::default();
    let (ledger, clients) = (Ledger::default(), Vec::new());
    let mut world = World {
        disk,
        sizes,
        shipper: once_in(2).then(Shipper::new),
        ledger,
        clients,
        serving: None,
        doubles: false,
        good_disk: once_in(3),
        healthy: false,
        failures: 0,
        report,
    };
    for _ in 0..below(3) {
        world.live(false);
    }
    world.live(true);
    world.report.trace = machine(|m| m.trace);
    world.report.failures = world.disk.failures();
    if let Some(shipper) = &world.shipper {
        (world.report.commits, world.report.shipper_kills) = (shipper.cluster.borrow().commits, shipper.kills);
    }
    world.report
}

/// Disk calls are where threads get ahead of each other, and where time goes.
fn hook(call: Call) {
    if machine(|m| m.talks) {
        eprintln!("             {call:?}");
    }
    fiber::point();
    let odds = if matches!(call, Call::Sync | Call::SyncDir | Call::Append) { 6 } else { 60 };
    if once_in(odds) {
        let takes = 1 << below(25); // up to 30 ms
        fiber::sleep(Some(now() + takes));
    }
}

impl World {
    /// One process, from its start to its end.
    fn live(&mut self, healthy: bool) {
        self.healthy = healthy;
        self.start();
        if healthy {
            self.disk.heal();
        }
        (0..100 + below(900)).for_each(|_| self.step());
        if healthy {
            return self.finish();
        }
        match below(4) {
            0 => drop(self.end_in_order()),
            1 | 2 => self.kill(),
            _ => self.cut(),
        }
    }

    /// Starts a process, which may be killed, or lose its power, while it recovers; and where an injected error stops it, it is
    /// tried again, as a supervisor would.
    fn start(&mut self) {
        let mut errors = Vec::new();
        for attempt in 0..8 {
            if attempt >= 5 || self.healthy {
                self.disk.heal();
            } else if once_in(4) {
                self.break_something();
            }
            let dies = (attempt < 4 && once_in(4)).then(|| below(60));
            let mut process = Process::new(&self.disk, self.sizes);
            for step in 0.. {
                assert!(step < PATIENCE, "starting does not end");
                if dies == Some(step) {
                    drop(process);
                    note("killed while starting", step);
                    if once_in(3) {
                        self.lose_power()
                    } else {
                        self.report.kills += 1
                    }
                    break;
                }
                self.ship();
                match process.step() {
                    None => {}
                    Some(Ok(serving)) => {
                        note("serves", 0);
                        self.serving = Some(serving);
                        if once_in(2) {
                            self.hand_over_logs();
                        }
                        self.judge(Promise::Written);
                        return;
                    }
                    Some(Err(error)) => {
                        note("does not start", 0);
                        errors.push(error.to_string());
                        break;
                    }
                }
            }
        }
        panic!("does not start though the disk works: {errors:?}");
    }

    /// The shipper goes on, now and then.
    fn ship(&mut self) {
        if let Some(shipper) = &mut self.shipper
            && once_in(4)
        {
            shipper.step(&self.disk);
        }
    }

    fn step(&mut self) {
        self.report.steps += 1;
        self.ship();
        match below(100) {
            0..60 => self.run_a_thread(),
            60..88 => self.act(),
            88..93 => {
                let serving = self.serving.as_ref().unwrap();
                serving.net.borrow_mut().settle_one();
            }
            93..96 => self.connect(),
            96 => machine(|m| m.now += m.chance.below(20_000_000)),
            97 => drop(self.serving.as_ref().unwrap().scrape()),
            98 => self.disk.write_back_some(),
            _ => self.happen(),
        }
        let failures = self.disk.failures();
        if failures > self.failures && !self.healthy && once_in(8) {
            // The same disk, most likely: what happens to others at such a moment finds this one in the middle of it.
            note("another shard's disk has failed", 0);
            let serving = self.serving.as_ref().unwrap();
            serving.control.stop_intake("another shard");
            serving.wake_reactors();
        }
        self.failures = failures;
        assert!(!self.disk.synced_after_failure(), "a file was synced again after its sync had failed");
    }

    /// What comes seldom.
    fn happen(&mut self) {
        match below(8) {
            0 => {
                let serving = self.serving.as_ref().unwrap();
                note("rotate", 0);
                serving.control.ask_rotation();
                serving.wake_writers();
            }
            1 => fiber::jump_wall_clock(),
            2..5 if !self.healthy => self.break_something(),
            5 => self.disk.set_full(false),
            6 => self.serving.as_mut().unwrap().hand_over_a_log(),
            _ => {}
        }
    }

    fn hand_over_logs(&mut self) {
        let serving = self.serving.as_mut().unwrap();
        (0..serving.logs.len()).for_each(|_| serving.hand_over_a_log());
    }

    fn break_something(&mut self) {
        if self.good_disk {
            return;
        }
        self.doubles = true;
        if once_in(6) {
            note("disk full", 0);
            return self.disk.set_full(true);
        }
        const ERRNOS: [i32; 7] =
            [libc::EIO, libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EINTR, libc::EAGAIN];
        let (n, errno) = (below(40), ERRNOS[below(7) as usize]);
        note("a call will fail", n);
        self.disk.fail_at(n, errno);
    }

    fn run_a_thread(&mut self) {
        let serving = self.serving.as_mut().unwrap();
        let ready: Vec<usize> = (0..serving.fibers.len()).filter(|i| serving.fibers[*i].is_runnable()).collect();
        if ready.is_empty() {
            let next = serving.fibers.iter().filter_map(super::fiber::Fiber::wakes_at).min();
            if let Some(at) = next {
                // Seldom so long that deadlines of clients pass, which are much quicker than that.
                machine(|m| m.now = m.now.max(at.min(m.now + (1 << m.chance.below(36)))));
            }
            return;
        }
        let chosen = ready[below(ready.len() as u64) as usize];
        note(serving.fibers[chosen].name, chosen as u64);
        serving.fibers[chosen].run();
    }

    fn connect(&mut self) {
        if self.clients.iter().filter(|c| !c.over).count() >= 8 {
            return;
        }
        let serving = self.serving.as_ref().unwrap();
        let listener = below(options().listeners.len() as u64) as usize;
        let wire = serving.net.borrow_mut().connect(listener as u16);
        let speaks = speaks(&options().listeners[listener]);
        let client = Client::new(wire, listener, speaks, false, &mut self.ledger);
        note(&options().listeners[listener].name, u64::from(client.conn));
        self.clients.push(client);
    }

    fn act(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let i = below(self.clients.len() as u64) as usize;
        let net = &self.serving.as_ref().unwrap().net;
        self.clients[i].act(net, &mut self.ledger);
        if self.clients[i].over && !self.healthy {
            self.clients.swap_remove(i);
        }
    }

    /// What the dead process had sent is on its way to its clients: promises count.
    fn hang_up(&mut self) -> Serving {
        let serving = self.serving.take().unwrap();
        serving.scrape();
        let wires = serving.net.borrow().wires.len();
        for wire in 0..wires {
            serving.net.borrow_mut().wires[wire].closed = true;
        }
        for client in &mut self.clients {
            while !client.over {
                client.listen(&serving.net, &mut self.ledger);
            }
        }
        self.clients.clear();
        serving
    }

    fn kill(&mut self) {
        note("kill", 0);
        self.report.kills += 1;
        self.hang_up().net.borrow_mut().crash(true);
        self.ledger.forget_below(Promise::Written); // judged behind the next start
    }

    fn cut(&mut self) {
        self.hang_up().net.borrow_mut().crash(false);
        self.lose_power();
    }

    fn lose_power(&mut self) {
        note("power cut", 0);
        self.report.cuts += 1;
        self.shipper.iter_mut().for_each(Shipper::die);
        let mut chance = Chance::new(below(u64::MAX));
        if chance.once_in(4) {
            self.disk.remount(); // somebody unmounts it in order; the boot is the same
        } else {
            self.disk.power_cut(&mut chance);
            fiber::reboot();
        }
        self.ledger.forget_below(Promise::Durable);
    }

    /// What `logweir verify` says after all of this.
    fn verify(&self) {
        for stream in &options().streams {
            let report = verify::stream(&self.disk, Path::new(DATA), &stream.name).unwrap();
            // Where the sync of a trail was made to fail, a power cut may have taken a part of its middle.
            let mut problems = report.problems.clone();
            problems.retain(|p| !(self.doubles && p.problem == Problem::Changed && p.file.ends_with(".trail")));
            assert_eq!(problems, [], "{report:?}");
        }
    }

    /// Everything promised must be there, whatever the next start makes of it; so it is judged behind one.
    fn judge(&mut self, least: Promise) -> BTreeMap<u32, u64> {
        if machine(|m| m.talks) {
            self.disk.contents("").iter().for_each(|(path, bytes)| eprintln!("{} {}", path.display(), bytes.len()));
        }
        let mut files = self.disk.contents(".log");
        files.extend(self.disk.contents(".log.active"));
        files.sort();
        let (findings, counts, complaints) = self.ledger.judge(&files, least);
        let expected = Findings { duplicate: if self.doubles { findings.duplicate } else { 0 }, ..Findings::default() };
        assert_eq!(findings, expected, "{complaints:#?}");
        self.report.findings.duplicate += findings.duplicate;
        self.shipper.iter().for_each(|shipper| shipper.judge(&self.disk, self.doubles, false));
        counts
    }

    /// SIGTERM: true if everything received is durable and sealed.
    fn end_in_order(&mut self) -> (bool, Vec<Account>) {
        note("ends in order", 0);
        self.disk.set_full(false);
        let (reactors, writers) = (self.sizes.shards * self.sizes.reactors, self.sizes.shards);
        let serving = self.serving.as_ref().unwrap();
        serving.control.drain();
        serving.wake_reactors();
        for step in 0.. {
            assert!(step < PATIENCE, "reactors do not end");
            self.run_a_thread();
            let serving = self.serving.as_ref().unwrap();
            serving.net.borrow_mut().settle_one();
            if serving.reactors_over.get() == reactors {
                break;
            }
            if step == PATIENCE / 2 {
                serving.control.abandon_reactors(); // clients that do not read
                serving.wake_reactors();
            }
            if step % 64 == 0 {
                let net = &serving.net;
                self.clients.iter_mut().for_each(|c| c.listen(net, &mut self.ledger));
            }
        }
        let serving = self.serving.as_ref().unwrap();
        serving.control.finish();
        serving.wake_writers();
        for step in 0.. {
            assert!(step < PATIENCE, "writers do not end");
            self.run_a_thread();
            if self.serving.as_ref().unwrap().writers_over.get().0 == writers {
                break;
            }
        }
        let serving = self.hang_up();
        let clean = serving.writers_over.get().1;
        let accounts = serving.scrape();
        let stopped = serving.control.intake_stopped();
        let at_risk: u64 = accounts.iter().map(|a| a.at_risk.lines).sum();
        assert_eq!(clean, !stopped && at_risk == 0, "{accounts:?}");
        let in_flight: u64 = accounts.iter().map(|a| a.in_flight.lines).sum();
        let written: u64 = accounts.iter().map(|a| a.written.lines).sum();
        assert!(in_flight == 0 && (written == 0 || !clean), "{accounts:?}");
        if clean {
            serving.empty_the_logs(&self.disk);
            self.judge(Promise::Received);
        } else {
            self.ledger.forget_below(Promise::Written); // judged behind the next start: some may be in the commit logs only
        }
        (clean, accounts)
    }

    /// The last life: nothing breaks, so everybody is answered, and everything is in the files and in the accounts.
    fn finish(&mut self) {
        self.clients.iter_mut().for_each(Client::hurry);
        for step in 0u64.. {
            if step > PATIENCE {
                let stuck = self.clients.iter().find(|c| !c.over && !c.is_answered(&self.ledger));
                let names = stuck.map(|c| (c.conn, c.speaks, &options().listeners[c.listener].name));
                panic!("nobody moves any more: {names:?}");
            }
            let net = std::rc::Rc::clone(&self.serving.as_ref().unwrap().net);
            let is_done =
                |c: &Client| c.over || (c.has_ended() && c.is_answered(&self.ledger) && net.borrow().is_quiet(c.wire));
            if self.clients.iter().all(is_done) {
                break;
            }
            match step % 3 {
                0 => self.act(),
                1 => drop(net.borrow_mut().settle_one()),
                _ => self.run_a_thread(),
            }
        }
        let serving = self.serving.as_ref().unwrap();
        assert!(!serving.control.intake_stopped(), "intake stopped though the disk works");
        let clients: Vec<Sent> = self.clients.iter().map(|c| Sent::by(c, &self.ledger)).collect();
        let (clean, accounts) = self.end_in_order();
        assert!(clean, "the last end was not clean");
        self.verify();
        let counts = self.judge(Promise::Received);
        if let Some(shipper) = &mut self.shipper {
            shipper.finish(&self.disk, PATIENCE);
            shipper.judge(&self.disk, self.doubles, true);
            shipper.judge_promises(&self.ledger, self.doubles);
        }
        self.report.lines = counts.values().sum();
        for (listener, account) in accounts.iter().enumerate() {
            let name = &options().listeners[listener].name;
            let of = || clients.iter().filter(|c| c.listener == listener);
            let there: u64 = of().map(|c| counts.get(&c.conn).copied().unwrap_or(0)).sum();
            assert_eq!(account.durable.lines, there, "lines of {name} that are there, {account:?}");
            let sent: u64 = of().map(|c| c.lines).sum();
            // Whoever took too long, or too much of the room for partial lines, was cut off, and what it sent behind that was not taken in.
            let cut_off = [Reason::LineTimeout, Reason::NoRoom];
            let late = cut_off.iter().any(|r| account.dropped[*r as usize].lines > 0);
            let all = !late && of().all(|c| c.is_whole);
            assert!(account.received.lines <= sent, "{name}: {sent} sent, {account:?}");
            assert!(!all || account.received.lines == sent, "{name}: {sent} sent, {account:?}");
        }
    }
}

/// What a client of the last life sent.
struct Sent {
    conn: u32,
    listener: usize,
    lines: u64,
    /// All of it was taken in.
    is_whole: bool,
}

impl Sent {
    fn by(client: &Client, ledger: &Ledger) -> Sent {
        let is_whole = client.refused == 0 && client.has_ended() && client.is_answered(ledger);
        Sent { conn: client.conn, listener: client.listener, lines: ledger.sent(client.conn), is_whole }
    }
}
