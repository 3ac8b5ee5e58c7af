//! Frames made byte by byte.

use std::net::IpAddr;

use lb_common::checksum::{Sum, sum_of};

pub(crate) const IPV4: u8 = 4;
pub(crate) const IPV6: u8 = 41;
pub(crate) const UDP: u8 = 17;
pub(crate) const GUE_PORT: u16 = 6080;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An Ethernet header without its EtherType, to `mac` from the load balancer, then tags.
pub(crate) fn link(mac: [u8; 6], tags: &[u16]) -> Vec<u8> {
    let mut bytes = [mac.as_slice(), &[2, 0, 0, 0, 0, 0xbb]].concat();
    for (number, tag) in tags.iter().enumerate() {
        bytes.extend(if number + 1 < tags.len() { [0x88, 0xa8] } else { [0x81, 0x00] });
        bytes.extend(tag.to_be_bytes());
    }
    bytes
}

/// The frame with the EtherType of the packet.
pub(crate) fn frame(link: &[u8], packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [link, &kind, packet].concat()
}

/// An IP packet of the family of its addresses, with a traffic class.
pub(crate) fn packet(source: IpAddr, target: IpAddr, protocol: u8, class: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let total = (length + 20).to_be_bytes();
            let mut header = vec![0x45, class, total[0], total[1], 0, 7, 0x40, 0, 64, protocol, 0, 0];
            header.extend(source.octets());
            header.extend(target.octets());
            let checksum = sum_of(&header).checksum().to_ne_bytes();
            header[10..12].copy_from_slice(&checksum);
            [header.as_slice(), payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let mut header = vec![0x60 | class >> 4, class << 4, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(source.octets());
            header.extend(target.octets());
            [header.as_slice(), payload].concat()
        }
        _ => panic!("addresses of two families"),
    }
}

/// A UDP datagram from port 4000 with a valid checksum.
pub(crate) fn udp(source: IpAddr, target: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
    let mut datagram = [&4000_u16.to_be_bytes(), &port.to_be_bytes(), &length, &[0, 0], payload].concat();
    let checksum = pseudo(source, target, UDP, &datagram).checksum().to_ne_bytes();
    datagram[6..8].copy_from_slice(&checksum);
    datagram
}

/// A SYN from port 4000 with a valid checksum.
pub(crate) fn syn(source: IpAddr, target: IpAddr, port: u16) -> Vec<u8> {
    let mut segment =
        [&4000_u16.to_be_bytes(), &port.to_be_bytes(), [0, 0, 0, 1].as_slice(), &[0; 4], &[0x60, 2, 0x20, 0, 0, 0, 0, 0]].concat();
    segment.extend([2, 4, 5, 0xb4]);
    let checksum = pseudo(source, target, 6, &segment).checksum().to_ne_bytes();
    segment[16..18].copy_from_slice(&checksum);
    segment
}

fn pseudo(source: IpAddr, target: IpAddr, protocol: u8, bytes: &[u8]) -> Sum {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum_of(&v4.octets()),
        IpAddr::V6(v6) => sum_of(&v6.octets()),
    };
    let length = u16::try_from(bytes.len()).unwrap().to_be();
    sum_of(bytes).add(address(source)).add(address(target)).add16(length).add16(u16::from(protocol).to_be())
}

/// A UDP header to the GUE port without a checksum, then `gue`, then the packet.
pub(crate) fn in_gue(gue: &[u8], packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + gue.len() + packet.len()).unwrap().to_be_bytes();
    [&50_000_u16.to_be_bytes(), &GUE_PORT.to_be_bytes(), &length, &[0, 0], gue, packet].concat()
}

/// The protocol number of a packet inside another.
pub(crate) fn protocol_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }
}
