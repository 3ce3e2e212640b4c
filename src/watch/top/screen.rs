//! Takes the terminal over, draws on it, and gives it back however the program ends.

use super::{Answer, State, Step, ask, draw};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::{cursor, execute, terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How long a key may wait to be seen.
const KEYS: Duration = Duration::from_millis(100);

/// Gives the terminal back when dropped. A panic does so first, by ratatui's hook, and shows its message then.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
        let _ = execute!(io::stdout(), cursor::Show);
    }
}

/// Shows the server until a key or a signal ends it.
///
/// # Errors
/// There is no terminal.
pub fn run(admin: SocketAddr, interval: Duration) -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let is_paused = Arc::new(AtomicBool::new(false));
    let answers = asking(admin, interval, Arc::clone(&is_paused))?;
    terminal::size()?; // no terminal: says so before anything is changed
    let mut screen = ratatui::try_init()?;
    let _taken = Taken;
    let mut state = State::new(admin.to_string());
    let mut drawn: Option<Instant> = None;
    while !ended.load(Ordering::Relaxed) {
        let mut is_new = drawn.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        loop {
            match answers.try_recv() {
                Ok(answer) if !state.is_paused => {
                    state.take(answer);
                    is_new = true;
                }
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
                // It panicked; the hook has given the terminal back already.
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the thread that asks has ended")),
            }
        }
        if is_new {
            screen.draw(|frame| draw(frame, &state, Instant::now()))?;
            drawn = Some(Instant::now());
        }
        if !event::poll(KEYS)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if state.key(key) == Step::Quit => return Ok(()),
            Event::Key(_) | Event::Resize(..) => drawn = None,
            _ => {}
        }
        is_paused.store(state.is_paused, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks in a thread of its own: a server that does not answer must not keep keys waiting.
fn asking(admin: SocketAddr, interval: Duration, is_paused: Arc<AtomicBool>) -> io::Result<Receiver<Answer>> {
    let (sender, receiver) = sync_channel(4);
    std::thread::Builder::new().name("asking".into()).spawn(move || {
        loop {
            let start = Instant::now();
            if !is_paused.load(Ordering::Relaxed) && sender.send(ask(admin)).is_err() {
                return;
            }
            while start.elapsed() < interval {
                std::thread::park_timeout(interval - start.elapsed().min(interval));
            }
        }
    })?;
    Ok(receiver)
}
