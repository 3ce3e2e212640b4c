//! Runs a shipper for each target, each a process of its own, and starts again what has ended by itself. SIGHUP reads the
//! configuration again: shippers of targets that have changed are replaced, those of the others go on.

use logweir::config::ship::ShipTarget;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Between two starts of one that ends by itself, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// One that has run for so long begins with the shortest time again.
const SOUND: Duration = Duration::from_secs(120);
/// How long a shipper may take to end: a commit that is under way is waited for.
const ENDING: Duration = Duration::from_secs(20);

/// Another shipper has taken over.
pub const FENCED: u8 = 3;
/// It cannot go on before somebody has seen to it.
pub const NEEDS_YOU: u8 = 4;

/// What wakes the supervisor.
enum Notice {
    Signal(i32),
    /// Who started it wants the configuration read again.
    Reload,
    /// Who started it has gone.
    Gone,
}

struct Shipper {
    target: ShipTarget,
    child: Option<Child>,
    begun: Instant,
    backoff: Duration,
    /// When it is started again; `None`: it runs, or needs somebody.
    again: Option<Instant>,
}

/// What the supervisor needs of the rest of the program.
pub struct Around<'a> {
    /// Reads the configuration.
    pub read: &'a dyn Fn() -> Result<Vec<ShipTarget>, String>,
    /// The command that ships to a target, but for its standard input.
    pub command: &'a dyn Fn(&str) -> io::Result<Command>,
    /// Standard input tells when to read the configuration again (any byte), and when to end (its end).
    pub has_stdin: bool,
}

/// Runs until a signal ends it.
///
/// # Errors
/// Signals cannot be caught, or the configuration not read at the start.
pub fn run(around: &Around<'_>) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (sender, receiver) = channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
    let to = sender.clone();
    std::thread::spawn(move || signals.forever().try_for_each(|signal| to.send(Notice::Signal(signal))));
    if around.has_stdin {
        listen(sender);
    }
    let mut shippers: BTreeMap<String, Shipper> = BTreeMap::new();
    take_over(&mut shippers, (around.read)()?, around);
    loop {
        let next = shippers.values().filter_map(|shipper| shipper.again).min();
        let notice = match next {
            Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match notice {
            Ok(Notice::Signal(SIGHUP) | Notice::Reload) => match (around.read)() {
                Ok(targets) => take_over(&mut shippers, targets, around),
                Err(error) => tracing::error!(error, "the new configuration cannot be used; the old one stays in use"),
            },
            Ok(Notice::Signal(SIGCHLD)) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Notice::Signal(_) | Notice::Gone) | Err(RecvTimeoutError::Disconnected) => break,
        }
        for shipper in shippers.values_mut() {
            shipper.look();
            if shipper.again.is_some_and(|at| Instant::now() >= at) {
                shipper.start(around);
            }
        }
    }
    let ending: Vec<Ending> = shippers.into_values().map(end).collect();
    // Each is waited for, also behind one that did not end well.
    let ended: Vec<bool> = ending.into_iter().map(Ending::wait).collect();
    let is_clean = ended.into_iter().all(|well| well);
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn listen(to: Sender<Notice>) {
    std::thread::spawn(move || {
        loop {
            let told = match io::stdin().read(&mut [0; 1]) {
                Ok(0) | Err(_) => Notice::Gone,
                Ok(_) => Notice::Reload,
            };
            let is_over = matches!(told, Notice::Gone);
            if to.send(told).is_err() || is_over {
                return;
            }
        }
    });
}

/// Starts what is new, replaces what has changed, and ends what is gone.
fn take_over(shippers: &mut BTreeMap<String, Shipper>, targets: Vec<ShipTarget>, around: &Around<'_>) {
    let is_same = |shipper: &Shipper| targets.contains(&shipper.target) && shipper.is_wanted();
    let gone: Vec<String> = shippers.iter().filter(|(_, s)| !is_same(s)).map(|(name, _)| name.clone()).collect();
    let ending: Vec<Ending> = gone.iter().filter_map(|name| shippers.remove(name)).map(end).collect();
    for one in ending {
        one.wait();
    }
    for target in targets {
        let name = target.name.clone();
        if let std::collections::btree_map::Entry::Vacant(place) = shippers.entry(name) {
            let shipper = Shipper { target, child: None, begun: Instant::now(), backoff: BACKOFF.0, again: None };
            place.insert(shipper).start(around);
        }
    }
    if shippers.is_empty() {
        tracing::info!("nothing is to be shipped: the configuration has no [ship.NAME]");
    }
}

impl Shipper {
    /// False: it has ended for good, and a reload is how somebody says that it was seen to.
    fn is_wanted(&self) -> bool {
        self.child.is_some() || self.again.is_some()
    }

    fn start(&mut self, around: &Around<'_>) {
        let name = &self.target.name;
        self.begun = Instant::now();
        let started = (around.command)(name).and_then(|mut command| command.stdin(Stdio::piped()).spawn());
        match started {
            Ok(child) => (self.child, self.again) = (Some(child), None),
            Err(error) => {
                tracing::error!(target_name = name, %error, "a shipper cannot be started; trying again");
                self.wait_for_another();
            }
        }
    }

    /// Sees whether it has ended.
    fn look(&mut self) {
        let Some(child) = &mut self.child else { return };
        let Ok(Some(status)) = child.try_wait() else { return };
        self.child = None;
        let (name, code) = (&self.target.name, status.code());
        if code == Some(i32::from(FENCED)) || code == Some(i32::from(NEEDS_YOU)) {
            // It has said why.
            tracing::error!(target_name = name, "this target is not shipped to any more; reload (SIGHUP) to try again");
            return;
        }
        if self.begun.elapsed() > SOUND {
            self.backoff = BACKOFF.0;
        }
        tracing::error!(target_name = name, %status, seconds = self.backoff.as_secs_f32(), "a shipper has ended; starting it again");
        self.wait_for_another();
    }

    fn wait_for_another(&mut self) {
        self.again = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }
}

/// A shipper that was told to end.
struct Ending {
    name: String,
    child: Option<Child>,
    until: Instant,
}

/// Tells a shipper to end: its standard input does.
fn end(shipper: Shipper) -> Ending {
    let mut child = shipper.child;
    if let Some(child) = &mut child {
        drop(child.stdin.take());
    }
    Ending { name: shipper.target.name, child, until: Instant::now() + ENDING }
}

impl Ending {
    /// Waits for it. False: it did not end well.
    fn wait(self) -> bool {
        let Some(mut child) = self.child else { return true };
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) if Instant::now() < self.until => std::thread::sleep(Duration::from_millis(20)),
                _ => {
                    tracing::warn!(
                        target_name = self.name,
                        "a shipper does not end; killing it: nothing is lost by that"
                    );
                    let _ = child.kill();
                    let _ = child.wait();
                    return false;
                }
            }
        }
    }
}
