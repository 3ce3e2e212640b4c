//! The connections of the admin address, and which one has to make room. They bring no records, so they need no chunk. They
//! count for no limit but their own, and they are served until the reactor ends, so that a probe gets an answer whatever other
//! clients do.

use super::conns::Conn;
use crate::pipeline::chunk::ConnId;
use crate::session::profile::News;

/// The most connections at once. Beyond them one makes room: the oldest that has sent no request yet, else the oldest that has not read
/// its answer.
pub const MOST_APART: usize = 64;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Apart {
    /// The oldest first.
    pub conns: Vec<ConnId>,
    /// The news that their sessions wait for, and the last number that they have seen.
    pub news: Option<(News, u64)>,
}

impl Apart {
    /// Connections of a listener may wait for this news.
    pub fn listen(&mut self, news: &News) {
        self.news = Some((news.clone(), news.get()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// True if there is news that they have not seen.
    pub fn has_news(&self) -> bool {
        self.news.as_ref().is_some_and(|(news, heard)| news.get() != *heard)
    }

    /// The connections that must look at the news, if there is any.
    pub fn heard_by(&mut self) -> &[ConnId] {
        match &mut self.news {
            Some((news, heard)) if news.get() != *heard => {
                *heard = news.get();
                &self.conns
            }
            _ => &[],
        }
    }

    /// Whether a connection is one of them.
    pub fn has(&self, id: ConnId) -> bool {
        self.conns.contains(&id)
    }

    /// One is gone.
    pub fn forget(&mut self, id: ConnId) {
        self.conns.retain(|other| *other != id);
    }
}

/// How soon a connection makes room for another: the least first.
pub fn worth(conn: &Conn) -> u8 {
    match (conn.state().owes, conn.sending) {
        (false, false) => 0,
        (_, true) => 1,
        (true, false) => 2,
    }
}
