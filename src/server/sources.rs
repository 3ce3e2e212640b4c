//! The sockets of the listeners, bound here or passed by the service manager.

use super::error::StartError;
use crate::host::address::Address;
use crate::host::mutants::mutant;
use crate::host::peer::{ListenerId, Peer};
use crate::host::sys;
use crate::intake::listener::{ListenerOptions, SocketAccess};
use crate::intake::net::listen::{self, SocketFile};
use crate::intake::net::{Counted, Group, Kind, Member, Socket, stdin};
use crate::intake::spread::Handed;
use crate::server::service::{Inherited, Manager, kept_name, take_for};
use socket2::Type;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The sockets of one listener.
pub struct Source {
    /// With its real port.
    pub address: Address,
    /// One for each reactor, which accepts for itself.
    pub per_reactor: Vec<socket2::Socket>,
    /// Sockets for the acceptor, because the kernel does not spread their connections.
    pub shared: Vec<socket2::Socket>,
    /// Sockets that a reactor each serves like a connection (datagrams, standard input).
    pub single: Vec<Socket>,
    /// The socket file that was made.
    pub file: Option<SocketFile>,
    /// Copies of the sockets, so that another listener can take them over, or the service manager can keep them.
    pub copies: Vec<socket2::Socket>,
    /// What is counted of that which the kernel drops, for each UDP socket, in the order of the copies.
    counted: Vec<Counted>,
    /// UDP sockets of which each reactor has one, and one of them, through which the kernel is told who goes where.
    group: Option<(Arc<Group>, Arc<socket2::Socket>)>,
    /// The names under which the service manager keeps them. Empty: it does not.
    pub kept_as: Vec<String>,
    /// They came from the service manager, which has them already.
    pub is_inherited: bool,
}

impl Source {
    fn new(address: Address) -> Source {
        let (per_reactor, shared, copies) = (Vec::new(), Vec::new(), Vec::new());
        Source {
            address,
            per_reactor,
            shared,
            single: Vec::new(),
            file: None,
            copies,
            counted: Vec::new(),
            group: None,
            kept_as: Vec::new(),
            is_inherited: false,
        }
    }

    /// Binds a listener's sockets, unless the manager has passed some for it.
    ///
    /// # Errors
    /// The address is taken, not of this host or not allowed, or a socket that was passed is of another kind.
    pub fn open(
        listener: &ListenerOptions,
        reactors: usize,
        inherited: &mut Vec<Inherited>,
    ) -> Result<Source, StartError> {
        let failed =
            |error| StartError::Listen { name: listener.name.clone(), address: listener.address.clone(), error };
        let taken = take_for(inherited, &listener.name, &listener.address);
        let kept_as: Vec<String> = taken.iter().map(|i| i.name.clone()).filter(|name| name.starts_with('@')).collect();
        let source = match taken.is_empty() {
            true => listen::Patience::default()
                .bind(|| Source::bind(&listener.address, listener.socket, listener.receive_buffer, reactors)),
            false => Source::take_over(&listener.address, taken.into_iter().map(|i| i.socket).collect()),
        };
        let source = source.map(|source| Source { kept_as, ..source }).map(|mut source| {
            let of_udp = source.single.iter().filter(|socket| socket.kind == Kind::Udp);
            for socket in of_udp {
                listen::lengthen(&socket.fd, listener.receive_buffer);
                if source.is_inherited {
                    // An earlier process may have steered senders, and nobody knows here in which order these were bound.
                    sys::steer_no_more(socket.fd.as_fd());
                }
            }
            // What was kept is ours still, and so is its file.
            if let (false, Address::Unix(path) | Address::UnixDatagram(path)) =
                (source.kept_as.is_empty(), &listener.address)
            {
                let _ = listen::give(&listener.address, access(listener.socket));
                source.file = SocketFile::at(path).ok();
            }
            source
        });
        source.and_then(Source::copied).map_err(failed)
    }

    fn bind(address: &Address, socket: SocketAccess, queue: usize, reactors: usize) -> io::Result<Source> {
        let mut source = Source::new(address.clone());
        match address {
            Address::Tcp(tcp) => {
                let (sockets, real) = listen::bind_tcp(*tcp, reactors)?;
                (source.per_reactor, source.address) = (sockets, Address::Tcp(real));
            }
            Address::Unix(path) => {
                source.shared = vec![listen::bind_unix(path, Kind::Stream, access(socket))?];
                source.file = Some(SocketFile::at(path)?);
            }
            Address::UnixDatagram(path) => {
                let fd = listen::bind_unix(path, Kind::Datagram, access(socket))?;
                source.single = vec![Socket { fd, kind: Kind::Datagram, counted: None, member: None }];
                source.file = Some(SocketFile::at(path)?);
            }
            Address::Udp(udp) => {
                let (sockets, real) = listen::bind_udp(*udp, reactors, queue)?;
                let of_udp = |fd| Socket { fd, kind: Kind::Udp, counted: Some(Counted::default()), member: None };
                source.group = group_of(&sockets)?;
                source.single = sockets.into_iter().map(of_udp).collect();
                source.give_places();
                source.address = Address::Udp(real);
            }
            Address::Stdin => source.single = vec![stdin::source(io::stdin())?],
        }
        Ok(source)
    }

    /// Makes a source of sockets that listen already.
    ///
    /// # Errors
    /// One of them is of another kind than the address says.
    pub fn take_over(address: &Address, sockets: Vec<socket2::Socket>) -> io::Result<Source> {
        let mut source = Source::new(address.clone());
        source.is_inherited = true;
        let is_datagram = matches!(address, Address::UnixDatagram(_) | Address::Udp(_));
        let wanted = if is_datagram { Type::DGRAM } else { Type::STREAM };
        for socket in sockets {
            if *address == Address::Stdin || socket.r#type()? != wanted {
                return Err(io::Error::other("the service manager passed a socket of another kind"));
            }
            socket.set_nonblocking(true)?;
            if wanted == Type::DGRAM {
                let is_udp = matches!(address, Address::Udp(_));
                if let (true, Some(real)) = (is_udp, socket.local_addr()?.as_socket()) {
                    source.address = Address::Udp(real);
                }
                let kind = if is_udp { Kind::Udp } else { Kind::Datagram };
                // What was dropped before was another server's to count.
                let dropped = || sys::queue(socket.as_fd()).map_or(0, |queue| queue.dropped);
                let counted = is_udp.then(|| Counted::all_before(dropped()));
                source.single.push(Socket { fd: socket, kind, counted, member: None });
                continue;
            }
            if !socket.is_listener()? {
                return Err(io::Error::other("the service manager passed a socket that does not listen"));
            }
            if let (Address::Tcp(_), Some(real)) = (address, socket.local_addr()?.as_socket()) {
                source.address = Address::Tcp(real);
            }
            source.shared.push(socket);
        }
        Ok(source)
    }

    /// The same sockets as those of another source, which goes on counting until its listener has given them up.
    pub fn share_counts(&mut self, other: &Source) {
        if mutant!("lost_counted_again_by_the_next") {
            return;
        }
        self.counted.clone_from(&other.counted);
        for (socket, counted) in self.single.iter_mut().zip(&self.counted) {
            socket.counted = Some(counted.clone());
        }
        self.group.clone_from(&other.group);
        self.give_places();
    }

    /// Tells each socket which one of its group it is.
    fn give_places(&mut self) {
        let Some((group, _)) = &self.group else { return };
        for (index, socket) in self.single.iter_mut().enumerate() {
            socket.member = Some(Member(Arc::clone(group), index));
        }
    }

    fn copied(mut self) -> io::Result<Source> {
        let datagram = self.single.iter().filter(|s| s.kind.is_datagram() && self.address != Address::Stdin);
        let all = self.per_reactor.iter().chain(&self.shared).chain(datagram.map(|s| &s.fd));
        self.copies = all.map(socket2::Socket::try_clone).collect::<io::Result<_>>()?;
        self.counted = self.single.iter().filter_map(|socket| socket.counted.clone()).collect();
        Ok(self)
    }

    /// Takes the sockets that a reactor each serves like a connection, and says which reactor.
    pub fn handed(&mut self, listener: ListenerId) -> Vec<(Option<usize>, Handed)> {
        let are_many = self.single.len() > 1;
        let hand = |(number, socket)| {
            (are_many.then_some(number), Handed { listener, socket, peer: Peer::Local, moved: None })
        };
        std::mem::take(&mut self.single).into_iter().enumerate().map(hand).collect()
    }

    /// Drops what has the sockets besides the threads that serve them: those close them, once their queues are empty. Were one kept here, what
    /// comes to its address would wait in it for nobody, uncounted, and the address would not be free.
    pub fn let_go(&mut self) {
        self.copies.clear();
        if !mutant!("address_kept_by_its_group") {
            self.group = None;
        }
    }

    /// Has the service manager keep the sockets over a restart.
    pub fn keep(&mut self, listener: &str, manager: Manager) {
        let name = kept_name(listener);
        manager.keep(&name, self.copies.iter());
        self.kept_as = vec![name];
    }

    /// True if the socket file that was made is gone, or was replaced by another.
    pub fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.is_there())
    }

    /// Removes the socket file that was made.
    pub fn remove_file(&self) {
        self.file.iter().for_each(SocketFile::remove);
    }
}

/// What evens out busy senders between UDP sockets on one address; `None`: there is only one.
fn group_of(sockets: &[socket2::Socket]) -> io::Result<Option<(Arc<Group>, Arc<socket2::Socket>)>> {
    let [first, _, ..] = sockets else { return Ok(None) };
    let first = Arc::new(first.try_clone()?);
    Ok(Some((Group::new(&first, sockets.len()), first)))
}

/// The mode, owner and group of a socket file, as the system calls take them.
pub fn access(socket: SocketAccess) -> listen::Access {
    let SocketAccess { mode, owner, group } = socket;
    listen::Access { mode, owner, group }
}

/// Opens the sockets of all listeners, or of none.
///
/// # Errors
/// The first one that cannot be opened.
pub fn open_all(
    listeners: &[ListenerOptions],
    reactors: usize,
    inherited: &mut Vec<Inherited>,
) -> Result<Vec<Source>, StartError> {
    let mut sources: Vec<Source> = Vec::new();
    for listener in listeners {
        match Source::open(listener, reactors, inherited) {
            Ok(source) => sources.push(source),
            Err(error) => {
                sources.iter().for_each(Source::remove_file);
                return Err(error);
            }
        }
    }
    Ok(sources)
}
