//! The admin address: one more listener of the first reactor. It serves from the start, so that health checks get an answer
//! during recovery.

use super::error::StartError;
use super::error::resource;
use crate::host::address::Address;
use crate::host::peer::ListenerId;
use crate::intake::listener::{ListenerOptions, SocketAccess, WhenFull};
use crate::intake::net::listen;
use crate::intake::reactor::{AddressLimit, ListenerRun};
use crate::intake::spread::Spread;
use crate::pipeline::chunk::{Class, Level};
use crate::pipeline::control::Control;
use crate::protocol::http::HttpProtocol;
use crate::protocol::http::pages::Site;
use crate::server::service::{self, Inherited, Manager, take_for};
use crate::session::Spoken;
use crate::session::routes::{Route, Routes};
use crate::session::write::Format;
use crate::watch::admin::AdminPages;
use crate::watch::render::Metrics;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to send a request and to read the answer.
const IDLE: Duration = Duration::from_secs(10);

/// See the module documentation.
pub struct AdminAddress {
    /// With its real port.
    pub address: SocketAddr,
    /// It listens already.
    pub socket: socket2::Socket,
    run: ListenerRun,
}

impl AdminAddress {
    /// Listens, or takes over the socket that the service manager has kept, and prepares the pages.
    ///
    /// # Errors
    /// The address is taken or not of this host, or a thread cannot be started.
    pub fn open(
        address: SocketAddr,
        inherited: &mut Vec<Inherited>,
        manager: Manager,
        metrics: &Arc<Metrics>,
        control: &Arc<Control>,
        spread: &Arc<Spread>,
    ) -> Result<AdminAddress, StartError> {
        let kept = take_for(inherited, service::ADMIN, &Address::Tcp(address)).pop().map(|i| i.socket);
        let was_kept = kept.is_some();
        let (socket, address) =
            bind(address, kept).map_err(|error| StartError::Admin { address: address.to_string(), error })?;
        if let (false, Ok(copy)) = (was_kept, socket.try_clone()) {
            manager.keep(service::ADMIN, std::iter::once(&copy));
        }
        let wakes = Arc::clone(spread);
        let pages = AdminPages::start(metrics, control, move || wakes.wake_all());
        let pages = pages.map_err(resource("start a thread for /metrics"))?;
        let news = pages.news();
        let none = Route { name: String::new(), index: 0, format: Format::Raw };
        let options = ListenerOptions {
            name: "admin".into(),
            address: Address::Tcp(address),
            receive_buffer: 0,
            routes: Arc::new(Routes::new(none, [])),
            has_own_format: false,
            when_full: WhenFull::Block,
            class: Class::Lossless,
            level: Level::None,
            ack_on_receipt: false,
            max_line_bytes: 0,
            protocol: Spoken(Arc::new(HttpProtocol::showing(Site(pages), news))),
            proxy: false,
            tls: None,
            max_connections_per_address: 0,
            idle_timeout: IDLE,
            socket: SocketAccess::default(),
        };
        let addresses = Arc::new(AddressLimit::new(0, 128));
        Ok(AdminAddress { address, socket, run: ListenerRun { options, addresses, tls: None, is_gone: false } })
    }

    /// The listeners as reactors see them: those that are configured, places for those that a reload may add, and last the admin
    /// address, whose place never changes.
    #[must_use]
    pub fn behind(&self, runs: &[ListenerRun], places: usize) -> (Vec<ListenerRun>, ListenerId) {
        let nobody = ListenerRun { is_gone: true, ..self.run.clone() };
        let mut all = runs.to_vec();
        all.resize(places, nobody);
        all.push(self.run.clone());
        (all, places as ListenerId)
    }
}

fn bind(address: SocketAddr, kept: Option<socket2::Socket>) -> io::Result<(socket2::Socket, SocketAddr)> {
    if let Some(socket) = kept {
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        return Ok((socket, address));
    }
    let (mut sockets, address) = listen::Patience::default().bind(|| listen::bind_tcp(address, 1))?;
    sockets.pop().map(|socket| (socket, address)).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
