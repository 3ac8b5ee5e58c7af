//! Asks by a datagram.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a socket, and the time that a refusal may take")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lb_common::packet::protocol;
use socket2::SockRef;
use tokio::{net::UdpSocket, time::timeout};

use super::{Progress, dialogue::end_of, fault, kit_io::Kit, quote::quote, way_io};
use crate::health::{
    outcome::{Failure, Layer, Sign},
    target::{Route, Target},
};

/// How long a refusal is awaited where no answer is.
const REFUSAL: Duration = Duration::from_millis(100);
/// The largest datagram.
const MOST_BYTES: usize = 65_535;

/// Sends the datagram. `expect`: what an answer has to contain, any of those that come in time; without it, only a refusal is bad.
pub(super) async fn run(target: &Target, send: &[u8], expect: Option<&[u8]>, kit: &Kit, progress: &Progress) -> Result<Sign, Failure> {
    progress.at(Layer::L4, "no answer to the datagram");
    let any = match target.route {
        Route::From(source) => source,
        Route::Direct | Route::Datapath(_) if target.address.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
        Route::Direct | Route::Datapath(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(|error| fault::local("failed to make a socket", &error))?;
    way_io::prepare(SockRef::from(&socket), target, kit)?;
    // A connected socket is told of ICMP errors, and hears nobody else.
    socket.connect(SocketAddr::new(target.address, target.port)).await.map_err(|error| fault::socket(&error))?;
    socket.send(send).await.map_err(|error| fault::socket(&error))?;
    way_io::confirm(|| socket.local_addr(), target, protocol::UDP, kit)?;
    let mut answer = Vec::with_capacity(if expect.is_some() { MOST_BYTES } else { 1 });
    let Some(expect) = expect else {
        return match timeout(REFUSAL.min(target.timeout / 2), socket.recv_buf(&mut answer)).await {
            Ok(Err(error)) => Err(fault::socket(&error)),
            Ok(Ok(_)) => Ok(Sign::Answer),
            Err(_) => Ok(Sign::Silence),
        };
    };
    loop {
        answer.clear();
        socket.recv_buf(&mut answer).await.map_err(|error| fault::socket(&error))?;
        if end_of(&answer, expect).is_some() {
            return Ok(Sign::Answer);
        }
        // It may be late, an answer to an earlier question: the right one may follow.
        progress.meets(Failure::new(Layer::L7, format!("answer does not contain {}: {}", quote(expect), quote(&answer))));
    }
}
