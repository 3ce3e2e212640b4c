//! The names of the streams that a commit log may take lines of, by their index. Streams are added by reloads, never changed.

use std::sync::OnceLock;

/// See the module documentation.
#[derive(Debug)]
pub struct StreamNames(Box<[OnceLock<String>]>);

impl StreamNames {
    /// Room for so many streams.
    #[must_use]
    pub fn new(most: usize) -> StreamNames {
        StreamNames((0..most).map(|_| OnceLock::new()).collect())
    }

    /// From now on lines of this stream may go to the log: its segments lie on the same device.
    pub fn admit(&self, stream: usize, name: &str) {
        if let Some(place) = self.0.get(stream) {
            let _ = place.set(name.to_string()); // a stream keeps its name
        }
    }

    /// The name of a stream; `None`: its lines go the direct way.
    #[must_use]
    pub fn get(&self, stream: u16) -> Option<&str> {
        self.0.get(usize::from(stream))?.get().map(String::as_str)
    }
}
