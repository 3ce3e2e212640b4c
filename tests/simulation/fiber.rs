//! Threads of a simulated server: coroutines on one real thread. One runs at a time, until it comes to a point where another
//! could get ahead of it; a seed decides whether one does. So a seed is a whole run, and runs the same again.

use super::common::sim_disk::Chance;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use logweir::host::clock::{BootId, Clock};
use std::cell::{Cell, RefCell};
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a fiber says when it lets go.
#[derive(Debug, Clone, Copy)]
enum Pause {
    /// It could go on.
    Step,
    /// It sleeps until its flag is raised or, if given, until this time.
    Sleep(Option<u64>),
}

/// What one simulated machine has once.
pub struct Machine {
    pub chance: Chance,
    /// Monotonic nanoseconds.
    pub now: u64,
    /// How far the wall clock is from it.
    wall: u64,
    boot: u8,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// Says what happens.
    pub talks: bool,
}

thread_local! {
    static MACHINE: RefCell<Machine> = const {
        RefCell::new(Machine { chance: Chance(1), now: 0, wall: 0, boot: 0, trace: 0, talks: false })
    };
    /// How the running fiber lets go; null outside of fibers.
    static YIELDER: Cell<*const Yielder<(), Pause>> = const { Cell::new(null()) };
    /// Stacks to be used again.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// Begins a run.
pub fn begin(seed: u64, talks: bool) {
    let wall = 1_700_000_000_000_000_000;
    let machine = Machine { chance: Chance::new(seed), now: 1_000_000, wall, boot: 1, trace: 0, talks };
    MACHINE.with_borrow_mut(|m| *m = machine);
}

/// Looks at the machine, or changes it.
pub fn machine<T>(with: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(with)
}

pub fn below(n: u64) -> u64 {
    machine(|m| m.chance.below(n))
}

pub fn once_in(n: u64) -> bool {
    below(n) == 0
}

pub fn now() -> u64 {
    machine(|m| m.now)
}

/// Another kernel runs from now on.
pub fn reboot() {
    machine(|m| m.boot += 1);
}

/// Somebody sets the wall clock.
pub fn jump_wall_clock() {
    const YEAR: u64 = 31_557_600_000_000_000;
    machine(|m| m.wall = if m.chance.coin() { m.wall + YEAR } else { m.wall.saturating_sub(YEAR) });
}

/// Notes what happens, for the trace.
pub fn note(what: &str, number: u64) {
    machine(|m| {
        let mut hash = m.trace ^ number ^ (what.len() as u64) << 48 ^ m.now.rotate_left(17);
        what.bytes().for_each(|b| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        m.trace = hash;
        if m.talks {
            eprintln!("{:>12} {what} {number}", m.now);
        }
    });
}

/// The running fiber comes to a point where another could get ahead of it.
pub fn point() {
    let lets_go = machine(|m| {
        m.now += 500 + m.chance.below(20_000);
        m.chance.once_in(3)
    });
    if lets_go {
        let_go(Pause::Step);
    }
}

/// The running fiber sleeps.
pub fn sleep(until: Option<u64>) {
    let_go(Pause::Sleep(until));
}

fn let_go(pause: Pause) {
    let yielder = YIELDER.get();
    if yielder.is_null() || std::thread::panicking() {
        return; // the scheduler itself, or a fiber that is being killed
    }
    // SAFETY: it is set while its fiber runs only (see `Fiber::run`), and lives as long as that fiber's stack.
    unsafe { &*yielder }.suspend(pause);
    YIELDER.set(yielder);
}

/// A flag that wakes a fiber.
pub type Flag = Arc<AtomicBool>;

/// One simulated thread.
pub struct Fiber {
    pub name: &'static str,
    coroutine: Option<Coroutine<(), Pause, (), DefaultStack>>,
    asleep: Option<Option<u64>>,
    flag: Flag,
}

impl Fiber {
    pub fn new(name: &'static str, flag: Flag, body: impl FnOnce() + 'static) -> Fiber {
        let stack = STACKS.with_borrow_mut(Vec::pop).unwrap_or_else(|| DefaultStack::new(512 << 10).unwrap());
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), Pause>, ()| {
            YIELDER.set(yielder);
            body();
        });
        Fiber { name, coroutine: Some(coroutine), asleep: None, flag }
    }

    pub fn is_over(&self) -> bool {
        self.coroutine.is_none()
    }

    pub fn is_runnable(&self) -> bool {
        let awake = |until: Option<u64>| self.flag.load(Ordering::SeqCst) || until.is_some_and(|at| at <= now());
        !self.is_over() && self.asleep.is_none_or(awake)
    }

    /// When it would go on by itself.
    pub fn wakes_at(&self) -> Option<u64> {
        if self.is_over() { None } else { self.asleep.flatten() }
    }

    /// Lets it run until it lets go.
    pub fn run(&mut self) {
        let Some(coroutine) = &mut self.coroutine else { return };
        let result = coroutine.resume(());
        YIELDER.set(null());
        match result {
            CoroutineResult::Yield(Pause::Step) => self.asleep = None,
            CoroutineResult::Yield(Pause::Sleep(until)) => self.asleep = Some(until),
            CoroutineResult::Return(()) => self.retire(),
        }
    }

    fn retire(&mut self) {
        if let Some(coroutine) = self.coroutine.take() {
            STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
        }
    }
}

impl Drop for Fiber {
    /// A thread that is killed, wherever it is.
    fn drop(&mut self) {
        if let Some(coroutine) = &mut self.coroutine {
            if !std::thread::panicking() {
                coroutine.force_unwind();
                return self.retire();
            }
            // A check has failed; the stack is left as it is.
            std::mem::forget(self.coroutine.take());
        }
    }
}

/// The simulated machine's clocks.
pub struct SimClock;

impl Clock for SimClock {
    fn mono_ns(&self) -> u64 {
        point();
        now()
    }
    fn wall_ns(&self) -> u64 {
        machine(|m| m.now + m.wall)
    }
    fn boot_id(&self) -> BootId {
        machine(|m| [m.boot; 16])
    }
}
