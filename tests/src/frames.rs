//! Frames, made with etherparse: whole packets with right checksums.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep};
use lb_common::packet::tcp;

const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOP_LIMIT: u8 = 64;

fn network(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link.ipv4(source.octets(), destination.octets(), HOP_LIMIT),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link.ipv6(source.octets(), destination.octets(), HOP_LIMIT),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{source} and {destination} are of two families"),
    }
}

/// A TCP segment without data that carries these flags.
///
/// # Panics
/// If the addresses are of two families; so below.
pub fn segment(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let mut builder = network(source.ip(), destination.ip()).tcp(source.port(), destination.port(), 1, 65_535);
    builder = if flags & tcp::SYN != 0 { builder.syn() } else { builder };
    builder = if flags & tcp::ACK != 0 { builder.ack(1) } else { builder };
    builder = if flags & tcp::FIN != 0 { builder.fin() } else { builder };
    builder = if flags & tcp::RST != 0 { builder.rst() } else { builder };
    let mut frame = Vec::with_capacity(builder.size(0));
    builder.write(&mut frame, &[]).expect("a vector takes every write");
    frame
}

/// A UDP datagram.
pub fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let builder = network(source.ip(), destination.ip()).udp(source.port(), destination.port());
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a vector takes every write");
    frame
}
