//! Writes the status of a shipper: soon after it has changed, about once a second at most, and every ten seconds otherwise. It is a thread of
//! its own, because a call of the client may take a minute.

use logweir::log::ship::status::{BEAT, Doing, Status};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two writes at least.
const PACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Said {
    status: Status,
    has_changed: bool,
    is_over: bool,
}

struct Shared {
    said: Mutex<Said>,
    has_news: Condvar,
    data_dir: PathBuf,
    target: String,
}

impl Shared {
    /// Nobody depends on it, so a disk without room is no reason to stop.
    fn write(&self, mut status: Status) {
        status.at_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let _ = status.write(&self.data_dir, &self.target);
    }

    fn run(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        while !said.is_over {
            said.has_changed = false;
            let status = said.status.clone();
            drop(said);
            self.write(status);
            said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            for (time, for_changes) in [(PACE, false), (BEAT - PACE, true)] {
                let waits = |said: &mut Said| !(said.is_over || (for_changes && said.has_changed));
                let woken = self.has_news.wait_timeout_while(said, time, waits);
                said = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let status = said.status.clone();
        drop(said);
        self.write(status);
    }
}

/// See the module documentation.
pub struct Beat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    pub fn start(data_dir: &Path, target: &str) -> std::io::Result<Beat> {
        let (said, has_news) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { said, has_news, data_dir: data_dir.into(), target: target.into() });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("beat".into()).spawn(move || own.run())?;
        Ok(Beat { shared, thread: Some(thread) })
    }

    /// Changes what is said.
    pub fn say(&self, change: impl FnOnce(&mut Status)) {
        let mut said = self.shared.said.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut said.status);
        said.has_changed = true;
        self.shared.has_news.notify_all();
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.say(|status| status.doing = Doing::Ended);
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.shared.has_news.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
