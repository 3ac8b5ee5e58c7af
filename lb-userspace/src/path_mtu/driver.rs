//! The sockets by which the daemon hears routers: raw, and deaf to everything but too-big messages, so that nothing else wakes it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns two raw sockets")]

use std::io;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use thiserror::Error;
use tokio::net::UdpSocket;

use super::TooBig;

/// The header of a message and the header that it quotes, behind an IPv4 header with options.
const MESSAGE_BYTES: usize = 256;

// linux/bpf_common.h: A = byte at k, A = half word at X + k, X = 4 * (byte at k & 15), jump if equal, return.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_IP_LENGTH_TO_X: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Why routers cannot be heard.
#[derive(Debug, Error)]
#[error("path MTUs of tunnels are not learned: failed to listen for too-big messages of routers\nhint: CAP_NET_RAW may be missing")]
pub struct ListenError(#[from] io::Error);

/// Listens in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Listener {
    icmp4: UdpSocket,
    icmp6: UdpSocket,
}

impl Listener {
    /// Opens the sockets, within a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn open() -> Result<Self, ListenError> {
        // A raw IPv4 socket sees the IP header, an IPv6 one the message alone.
        let icmp4 = [
            SockFilter::new(LOAD_IP_LENGTH_TO_X, 0, 0, 0),
            SockFilter::new(LOAD_HALF_AT_X, 0, 0, 0),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x0304),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        let icmp6 = [
            SockFilter::new(LOAD_BYTE, 0, 0, 0),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 2),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        Ok(Self { icmp4: socket(Domain::IPV4, Protocol::ICMPV4, &icmp4)?, icmp6: socket(Domain::IPV6, Protocol::ICMPV6, &icmp6)? })
    }

    /// The next word of a router. Cancel safe: a message is read and returned in one step.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn too_big(&self) -> Result<TooBig, ListenError> {
        let (mut message4, mut message6) = ([0; MESSAGE_BYTES], [0; MESSAGE_BYTES]);
        loop {
            let said = tokio::select! {
                length = self.icmp4.recv(&mut message4) => TooBig::from_icmp4(behind_ip(&message4[..length?])),
                length = self.icmp6.recv(&mut message6) => TooBig::from_icmp6(&message6[..length?]),
            };
            if let Some(said) = said {
                return Ok(said);
            }
        }
    }
}

/// Tokio has no raw socket; its UDP socket asks of the kernel what a raw one gives.
fn socket(domain: Domain, protocol: Protocol, filter: &[SockFilter]) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

fn behind_ip(packet: &[u8]) -> &[u8] {
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    packet.get(header..).unwrap_or_default()
}
