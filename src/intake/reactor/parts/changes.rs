//! What a reload of the configuration tells a reactor: which listeners are added, changed and removed.
//!
//! The control thread decides what can change and binds what is new. A reactor only takes the change over, between two turns.

use super::listeners::ListenerRun;
use crate::host::peer::ListenerId;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::time::Duration;

/// One reload, for one reactor.
pub struct Change {
    /// Listeners that are new, changed or gone, by place; new ones come behind those that there are.
    pub listeners: Vec<(ListenerId, ListenerRun)>,
    /// Those whose old sockets accept no more. What waits in their queues is taken in first.
    pub stopped: Vec<ListenerId>,
    /// New sockets to accept from.
    pub sockets: Vec<(ListenerId, socket2::Socket)>,
    /// `limits.tls_handshakes_per_second`.
    pub handshakes_per_second: usize,
    /// `buffer.linger`.
    pub linger: Duration,
}

/// The queue of changes to one reactor. The reactor must be woken after a change is put in.
pub type Changes = Arc<ArrayQueue<Change>>;
