//! Where connections come in: the sockets of all listeners, bound.

use super::StartError;
use crate::config::Options;
use crate::net::listen::{self, Address};
use crate::net::{Kind, ListenerId, Peer, Socket, stdin};
use crate::shard::Handed;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

/// The sockets of all listeners.
pub struct Sources {
    pub addresses: Vec<(String, String)>,
    pub tcp: HashMap<ListenerId, Vec<socket2::Socket>>,
    pub unix: Vec<(ListenerId, socket2::Socket)>,
    pub single: Vec<Handed>,
    pub paths: Vec<PathBuf>,
}

impl Sources {
    /// Binds all of them, or none.
    pub fn bind(options: &Options, reactors: usize) -> Result<Sources, StartError> {
        let mut sources = Sources {
            addresses: Vec::new(),
            tcp: HashMap::new(),
            unix: Vec::new(),
            single: Vec::new(),
            paths: Vec::new(),
        };
        for (id, listener) in options.listeners.iter().enumerate() {
            let id = id as ListenerId;
            let address = sources.bind_one(id, &listener.address, listener.socket_mode, reactors).map_err(|error| {
                sources.paths.iter().for_each(|p| drop(std::fs::remove_file(p)));
                StartError::Listen { name: listener.name.clone(), address: listener.address.to_string(), error }
            })?;
            sources.addresses.push((listener.name.clone(), address.to_string()));
        }
        Ok(sources)
    }

    fn bind_one(&mut self, id: ListenerId, address: &Address, mode: u32, reactors: usize) -> io::Result<Address> {
        match address {
            Address::Tcp(tcp) => {
                let (sockets, real) = listen::bind_tcp(*tcp, reactors)?;
                self.tcp.insert(id, sockets);
                return Ok(Address::Tcp(real));
            }
            Address::Unix(path) => {
                self.unix.push((id, listen::bind_unix(path, Kind::Stream, mode)?));
                self.paths.push(path.clone());
            }
            Address::UnixDatagram(path) => {
                let fd = listen::bind_unix(path, Kind::Datagram, mode)?;
                self.paths.push(path.clone());
                let socket = Socket { fd, kind: Kind::Datagram };
                self.single.push(Handed { listener: id, socket, peer: Peer::Local, moved: None });
            }
            Address::Stdin => {
                let socket = stdin::source(io::stdin())?;
                self.single.push(Handed { listener: id, socket, peer: Peer::Local, moved: None });
            }
        }
        Ok(address.clone())
    }
}
