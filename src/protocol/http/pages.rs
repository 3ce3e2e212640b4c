//! Pages that an HTTP listener shows instead of taking lines: those of the admin address.

use std::fmt;
use std::sync::Arc;

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// `Content-Type`
    pub kind: &'static str,
    /// Further header fields, each with its line end.
    pub headers: &'static str,
    /// The content.
    pub body: Arc<[u8]>,
}

impl Page {
    /// A page without further fields.
    #[must_use]
    pub fn new(status: u16, kind: &'static str, body: impl AsRef<[u8]>) -> Page {
        Page { status, kind, headers: "", body: body.as_ref().into() }
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// This page.
    Now(Page),
    /// A page that is being made; it is ready once it was made this many times.
    Later(u64),
    /// Nothing is there.
    Nothing,
}

/// The pages of a listener. Reactors ask it, so it must never wait.
pub trait Pages: fmt::Debug + Send + Sync {
    /// What is at a path. If the page has to be made, this orders it.
    fn show(&self, path: &str, wants_html: bool) -> Shown;

    /// The page that was made last, and how many times it was made.
    fn made(&self) -> Option<(u64, Page)>;
}

/// Pages as an option that can be compared. Two are equal only if they are the same one.
#[derive(Debug, Clone)]
pub struct Site(pub Arc<dyn Pages>);

impl PartialEq for Site {
    fn eq(&self, other: &Site) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Site {}
