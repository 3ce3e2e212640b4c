//! `logweir top`: shows a running server in a terminal, from its `/metrics`.

mod draw;
mod figures;
mod fit;
mod head;
mod once;
mod screen;
mod state;
mod tables;

pub use draw::draw;
pub use once::plain;
pub use screen::run;
pub use state::{State, Step};

use crate::watch::scrape::{Scrape, fetch};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of asking.
pub struct Answer {
    /// When.
    pub at: Instant,
    /// The scrape and, where the server is not ready, why; or why there is none.
    pub result: Result<(Scrape, Option<String>), String>,
}

/// Asks once.
#[must_use]
pub fn ask(admin: SocketAddr) -> Answer {
    let result = fetch(admin, "/metrics", PATIENCE).map_err(|e| e.to_string()).and_then(|fetched| {
        let mut scrape = Scrape::parse(&fetched.body);
        scrape.time = fetched.time;
        if !scrape.has("logweir_ready") {
            return Err("that is no logweir".into());
        }
        let is_ready = scrape.sum("logweir_ready", &[]) > 0.0;
        let why =
            if is_ready { None } else { fetch(admin, "/readyz", PATIENCE).ok().map(|why| why.body.trim().to_string()) };
        Ok((scrape, why))
    });
    Answer { at: Instant::now(), result }
}
