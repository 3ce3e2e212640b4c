//! The streams to which the records of a listener may go: an allow-list from the configuration. A name is never made from
//! content.

use super::write::Format;

/// A stream that a listener may write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its index in the configuration.
    pub index: u16,
    /// How this listener's records are written to it.
    pub format: Format,
}

/// A bearer token, known only by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token. A plain hash is enough for what is random and long; see the configuration's comment.
    pub sha256: [u8; 32],
    /// Indices of the streams that it may write to; `None`: all of the listener.
    pub streams: Option<Vec<u16>>,
}

/// The streams of a listener: its own, and those that the sender may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    own: Route,
    others: Vec<Route>,
}

impl Routes {
    /// A listener's own stream, and others, of which each is kept once.
    #[must_use]
    pub fn new(own: Route, others: impl IntoIterator<Item = Route>) -> Routes {
        let mut routes = Routes { own, others: Vec::new() };
        for route in others {
            if routes.find(route.name.as_bytes()).is_none() {
                routes.others.push(route);
            }
        }
        routes
    }

    /// The listener's own.
    #[must_use]
    pub fn own(&self) -> &Route {
        &self.own
    }

    /// The stream of this name, if records may go there.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Route> {
        self.all().find(|route| route.name.as_bytes() == name)
    }

    /// All of them, the listener's own first.
    pub fn all(&self) -> impl Iterator<Item = &Route> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// True if some stream is written in this format.
    #[must_use]
    pub fn any(&self, format: Format) -> bool {
        self.all().any(|route| route.format == format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_found() {
        let route = |name: &str, index, format| Route { name: name.into(), index, format };
        let others = [route("b", 3, Format::Json), route("a", 0, Format::Json), route("b", 9, Format::Raw)];
        let routes = Routes::new(route("a", 0, Format::Raw), others);
        assert_eq!(routes.own().name, "a");
        assert_eq!(routes.find(b"b").map(|r| r.index), Some(3));
        assert_eq!(routes.find(b"a").map(|r| r.format), Some(Format::Raw), "the listener's own comes first");
        assert!(routes.find(b"../b").is_none() && routes.find(b"").is_none());
        assert_eq!(routes.all().count(), 2);
        assert!(routes.any(Format::Json));
    }
}
