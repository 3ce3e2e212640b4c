//! The pages of the admin address: `/metrics`, `/healthz`, `/readyz`, and the status page. It is one more HTTP listener, which
//! takes no lines. The reactors serve its connections like all others, but these need no chunk and have a limit of their own.
//! So a probe gets an answer whatever the other clients do.

mod page;

use crate::pipeline::control::Control;
use crate::protocol::http::pages::{Page, Pages, Shown};
use crate::watch::render::Metrics;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Changes whenever `/metrics` was made, so that the connections that wait for it can look.
pub type News = Arc<AtomicU64>;

/// What there is to be said.
pub struct AdminPages {
    control: Arc<Control>,
    /// Orders `/metrics` to be made. At most one order waits.
    orders: SyncSender<()>,
    /// How many times the text was begun, and the last text.
    state: Mutex<Making>,
    news: News,
}

#[derive(Default)]
struct Making {
    begun: u64,
    made: Option<(u64, Page)>,
}

impl fmt::Debug for AdminPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminPages")
    }
}

impl AdminPages {
    /// Makes the pages of this server, and starts the thread that makes `/metrics`. That may take time, because it asks the disk. The
    /// thread lives as long as the pages; `wake` wakes the reactors that wait for the text.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        metrics: &Arc<Metrics>,
        control: &Arc<Control>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Arc<AdminPages>> {
        let (orders, ordered) = sync_channel(1);
        let (state, news) = (Mutex::default(), News::default());
        let pages = Arc::new(AdminPages { control: Arc::clone(control), orders, state, news });
        let (weak, metrics) = (Arc::downgrade(&pages), Arc::clone(metrics));
        let body = move || make(&ordered, || weak.upgrade(), &metrics, &wake);
        std::thread::Builder::new().name("metrics".into()).spawn(body)?;
        Ok(pages)
    }

    /// See [`News`].
    #[must_use]
    pub fn news(&self) -> News {
        Arc::clone(&self.news)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Making> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `/metrics` once for each order, until the pages are gone.
fn make(ordered: &Receiver<()>, pages: impl Fn() -> Option<Arc<AdminPages>>, metrics: &Metrics, wake: &impl Fn()) {
    while ordered.recv().is_ok() {
        let Some(pages) = pages() else { return };
        let time = {
            let mut state = pages.lock();
            state.begun += 1;
            state.begun
        };
        let page = Page::new(200, EXPOSITION, metrics.render());
        pages.lock().made = Some((time, page));
        pages.news.fetch_add(1, Ordering::SeqCst);
        wake();
    }
}

impl Pages for AdminPages {
    fn show(&self, path: &str, wants_html: bool) -> Shown {
        Shown::Now(match path {
            "/metrics" => {
                // What is being made already began before it was asked for.
                let time = self.lock().begun + 1;
                let _ = self.orders.try_send(()); // where an order waits already, it is for this too
                return Shown::Later(time);
            }
            // Alive is what answers; a disk that failed needs an operator, not a restart loop.
            "/healthz" => Page::new(200, TEXT, "ok\n"),
            "/readyz" => match self.control.not_ready() {
                None => Page::new(200, TEXT, "ready\n"),
                Some(why) => Page::new(503, TEXT, format!("{why}\n")),
            },
            "/" if wants_html => Page { headers: page::headers(), ..Page::new(200, HTML, page::PAGE) },
            "/" => {
                let text = "logweir (a browser gets a status page here)\n/metrics\n/healthz\n/readyz\n";
                Page::new(200, TEXT, text)
            }
            _ => return Shown::Nothing,
        })
    }

    fn made(&self) -> Option<(u64, Page)> {
        self.lock().made.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::accounting::Accounting;
    use std::sync::mpsc::channel;

    #[test]
    fn whoever_asks_is_shown_what_began_afterwards() {
        let control = Arc::new(Control::default());
        let metrics = Arc::new(Metrics::new(Accounting::new(1), vec!["l".into()], Vec::new(), Arc::clone(&control)));
        let (sender, woken) = channel();
        let pages = AdminPages::start(&metrics, &control, move || sender.send(()).unwrap_or(())).unwrap();
        for _ in 0..3 {
            let Shown::Later(time) = pages.show("/metrics", false) else { panic!("it has to be made") };
            while pages.made().is_none_or(|(made, _)| made < time) {
                woken.recv().unwrap();
            }
            let (_, page) = pages.made().unwrap();
            assert!(String::from_utf8_lossy(&page.body).contains("logweir_ready"));
        }
        assert!(pages.news().load(Ordering::SeqCst) >= 3);
        assert_eq!(pages.show("/nothing", false), Shown::Nothing);
        assert!(matches!(pages.show("/readyz", false), Shown::Now(Page { status: 503, .. })), "not started");
        assert!(matches!(pages.show("/", true), Shown::Now(Page { kind: HTML, .. })));
        assert!(matches!(pages.show("/", false), Shown::Now(Page { kind: TEXT, .. })));
    }
}
