//! The connections of the admin address, and which one has to make room. They bring no records, so they need no chunk. They
//! count for no limit but their own, and they are served until the reactor ends, so that a probe gets an answer whatever other
//! clients do.

use super::conns::Conn;
use crate::pipeline::chunk::ConnId;
use crate::session::profile::News;

/// Connections at once. Beyond them one makes room: the oldest that has asked nothing yet, else that has not read its answer.
pub const MOST_APART: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Apart {
    /// The oldest first.
    pub conns: Vec<ConnId>,
    /// What their sessions hear by, and how far they have.
    pub news: Option<(News, u64)>,
}

impl Apart {
    /// Those of a listener may hear news.
    pub fn listen(&mut self, news: &News) {
        self.news = Some((news.clone(), news.get()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// True where there is news that they have not heard.
    pub fn has_news(&self) -> bool {
        self.news.as_ref().is_some_and(|(news, heard)| news.get() != *heard)
    }

    /// Who is to hear the news, if there is any.
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
