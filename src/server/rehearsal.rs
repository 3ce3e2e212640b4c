//! Finds out whether a server could start here, without starting one. `check` and `doctor` use it. `serve` uses it before the
//! sandbox is in place, because after that every refusal looks like a missing permission.

use super::certificates::Certificates;
use super::error::StartError;
use crate::config::Options;
use crate::config::raw::EngineChoice;
use crate::host::address::Address;
use crate::intake::listener::ListenerOptions;
use crate::intake::net::{self, listen};
use crate::log::data_dir;
use socket2::Type;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Everything that would keep a server from starting with these options, here and now. It makes and removes nothing.
#[must_use]
pub fn look(options: &Options) -> Vec<StartError> {
    let mut found = data_directories(options);
    for listener in &options.listeners {
        if let Address::Unix(path) | Address::UnixDatagram(path) = &listener.address
            && !path.starts_with(&options.data_dir) // which a start makes
            && let Err(error) = socket_directory(path)
        {
            found.push(refused(listener, error));
        }
    }
    found.extend(Certificates::load_each(&options.listeners));
    if let (EngineChoice::IoUring, Err(error)) = (options.engine, net::probe()) {
        found.push(StartError::IoUring { error });
    }
    let mut patience = listen::Patience::default();
    found.extend(options.listeners.iter().filter_map(|listener| address(listener, &mut patience).err()));
    let admin = options.admin.map(|address| (address, patience.bind(|| bind(address, Type::STREAM))));
    if let Some((address, Err(error))) = admin {
        found.push(StartError::Admin { address: address.to_string(), error });
    }
    found
}

/// The part of [`look`] that is about the data directory and `sealed_dir`.
#[must_use]
pub fn data_directories(options: &Options) -> Vec<StartError> {
    let dirs = std::iter::once(&options.data_dir).chain(&options.sealed_dir);
    dirs.filter_map(|dir| data_dir::look(dir).err()).map(StartError::from).collect()
}

fn refused(listener: &ListenerOptions, error: io::Error) -> StartError {
    StartError::Listen { name: listener.name.clone(), address: listener.address.clone(), error }
}

fn socket_directory(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    data_dir::can_write(dir)
}

fn address(listener: &ListenerOptions, patience: &mut listen::Patience) -> Result<(), StartError> {
    let result = patience.bind(|| match &listener.address {
        Address::Tcp(address) => bind(*address, Type::STREAM),
        Address::Udp(address) => bind(*address, Type::DGRAM),
        Address::Unix(path) | Address::UnixDatagram(path) if socket_directory(path).is_ok() => listen::is_free(path),
        _ => Ok(()),
    });
    result.map_err(|error| refused(listener, error))
}

/// Binds a socket and closes it at once. It never listens, so nobody can connect to it.
fn bind(address: SocketAddr, kind: Type) -> io::Result<()> {
    match address.port() {
        0 => Ok(()),
        _ => listen::bind_only(address, kind).map(drop),
    }
}
