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

/// What a path comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// This.
    Now(Page),
    /// What is being made, once it was made so many times.
    Later(u64),
    /// Nothing is there.
    Nothing,
}

/// Pages of a listener. Asked by reactors: never waits.
pub trait Pages: fmt::Debug + Send + Sync {
    /// What is at a path. Asking for what has to be made has it made.
    fn show(&self, path: &str, wants_html: bool) -> Shown;

    /// What was made last, and how many times it was.
    fn made(&self) -> Option<(u64, Page)>;
}

/// Pages among options, which can be compared: they are the same if they are one.
#[derive(Debug, Clone)]
pub struct Site(pub Arc<dyn Pages>);

impl PartialEq for Site {
    fn eq(&self, other: &Site) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Site {}
