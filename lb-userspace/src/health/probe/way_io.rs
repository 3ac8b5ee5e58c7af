//! The way that a probe's socket takes: marked for the data path, or from the address of translated packets.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "sets options of sockets")]

use std::{io, net::SocketAddr};

use lb_common::ways::WayFlow;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{SockRef, Type};

use super::{fault, kit_io::Kit};
use crate::health::{
    outcome::{Failure, Layer},
    target::{Route, Target},
};

/// With what a tunnel puts before it and all options, such a segment fits a path of 1 280 bytes, the least of IPv6 (RFC 8200 s5).
const SEGMENT_BYTES: u32 = 1100;

/// Prepares a socket that is not connected. A UDP socket has its source address already.
///
/// # Errors
/// [`Layer::Local`]: this machine cannot send on that way.
pub(super) fn prepare(socket: SockRef<'_>, target: &Target, kit: &Kit) -> Result<(), Failure> {
    let paths = match &target.route {
        Route::Direct => return Ok(()),
        Route::From(_) if socket.r#type().is_ok_and(|kind| kind == Type::DGRAM) => return Ok(()),
        Route::From(source) => return bind(socket, SocketAddr::new(*source, 0)),
        Route::Datapath(paths) => paths,
    };
    witness(kit)?;
    let Some(path) = paths.first().filter(|path| path.mark != 0) else {
        return Err(Failure::new(Layer::Local, "there are more ways through the data path than have numbers"));
    };
    socket
        .set_mark(path.mark)
        .map_err(|error| fault::local("failed to mark a socket (SO_MARK), for which CAP_NET_ADMIN is needed", &error))?;
    if socket.r#type().is_ok_and(|kind| kind == Type::STREAM) {
        socket.set_tcp_mss(SEGMENT_BYTES).map_err(|error| fault::local("failed to set TCP_MAXSEG", &error))?;
    }
    Ok(())
}

/// The port is chosen when the socket is connected, so that many sockets may have one.
fn bind(socket: SockRef<'_>, source: SocketAddr) -> Result<(), Failure> {
    let bound = setsockopt(&*socket, IpBindAddressNoPort, &true).map_err(io::Error::from).and_then(|()| socket.bind(&source.into()));
    bound.map_err(|error| fault::local(format!("failed to ask from {}", source.ip()), &error))
}

/// Refuses a result that came past the data path: by an interface on which probes are not put on their way.
///
/// # Errors
/// [`Layer::Local`].
pub(super) fn confirm(own: impl FnOnce() -> io::Result<SocketAddr>, target: &Target, protocol: u8, kit: &Kit) -> Result<(), Failure> {
    let Route::Datapath(paths) = &target.route else { return Ok(()) };
    let Some(path) = paths.first() else { return Ok(()) };
    let own = own().map_err(|error| fault::local("failed to ask a socket for its address", &error))?;
    let ports = [path.port, own.port()].map(|port| u16::from_ne_bytes(port.to_be_bytes()));
    if witness(kit)?.saw(&WayFlow::new(path.vip.into(), own.ip().into(), ports, protocol)) {
        return Ok(());
    }
    Err(Failure::new(Layer::Local, "the probe left past the data path: by an interface on which weir_way_out is not attached"))
}

fn witness(kit: &Kit) -> Result<&crate::dataplane::Witness, Failure> {
    match &kit.witness {
        Some(Ok(witness)) => Ok(witness),
        Some(Err(why)) => Err(Failure::new(Layer::Local, why.as_str())),
        None => Err(Failure::new(Layer::Local, "checks through the data path need the daemon's programs")),
    }
}
