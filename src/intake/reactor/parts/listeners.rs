//! A listener while it runs.

use super::limits::AddressLimit;
use crate::intake::listener::ListenerOptions;
use crate::intake::transport::tls::TlsAcceptor;
use std::sync::Arc;

/// A listener as a reactor sees it.
#[derive(Clone)]
pub struct ListenerRun {
    /// Its options.
    pub options: ListenerOptions,
    /// Connections per address, over all reactors.
    pub addresses: Arc<AddressLimit>,
    /// Its TLS.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// It is in the configuration no more: its connections end, as all do at the end of the server.
    pub is_gone: bool,
}
