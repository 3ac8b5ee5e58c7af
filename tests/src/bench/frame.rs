//! The frames that benches send: their first bytes, and the sums that their checksums are made from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, PacketBuilderStep};

use super::template::{KIND_TCP4, KIND_TCP6, KIND_UDP4, Template};

/// What lies in the IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// TCP data of an established connection.
    Data,
    /// A TCP SYN with an MSS of 1 460.
    Syn,
    /// UDP.
    Udp,
}

/// A frame's headers, but for the low bits of its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// To whom.
    pub destination: IpAddr,
    /// In host order.
    pub port: u16,
    /// What it carries.
    pub segment: Segment,
}

/// Where IPv4 clients are, to the last 16 bits.
const CLIENTS4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
/// Where IPv6 clients are.
const CLIENTS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0);
const LINK_BYTES: usize = 14;
const FRAME4_BYTES: usize = 64;
const FRAME6_BYTES: usize = 80;

impl Frame {
    /// The record for the harness: `flows` sources, numbered from `first` on.
    pub(crate) fn template(&self, macs: [[u8; 6]; 2], flows: u32, first: u32) -> Template {
        let (l4, frame_bytes) = if self.destination.is_ipv4() { (LINK_BYTES + 20, FRAME4_BYTES) } else { (LINK_BYTES + 40, FRAME6_BYTES) };
        let mut bytes = [0; FRAME6_BYTES];
        bytes[..frame_bytes].copy_from_slice(&self.bytes(macs, frame_bytes));
        let (kind, checksum_at) = match (self.segment, self.destination.is_ipv4()) {
            (Segment::Udp, _) => (KIND_UDP4, l4 + 6),
            (Segment::Data | Segment::Syn, true) => (KIND_TCP4, l4 + 16),
            (Segment::Data | Segment::Syn, false) => (KIND_TCP6, l4 + 16),
        };
        // A checksum is the complement of the sum over everything else; source port and low address bits are zero.
        let checksum = |at: usize| u32::from(!u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
        let mut shifted = [0; 4 + FRAME6_BYTES];
        shifted[2..2 + FRAME6_BYTES].copy_from_slice(&bytes);
        Template {
            words: bytemuck::cast(shifted),
            frame_bytes: frame_bytes as u32,
            flows,
            next: 0,
            first,
            kind,
            program: 0,
            ip_sum: checksum(LINK_BYTES + 10),
            transport_sum: checksum(checksum_at),
            ifindex: 0,
        }
    }

    fn bytes(&self, [to, from]: [[u8; 6]; 2], frame_bytes: usize) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(from, to);
        let packet = match self.destination {
            IpAddr::V4(to) => link.ipv4(CLIENTS4.octets(), to.octets(), 64),
            IpAddr::V6(to) => link.ipv6(CLIENTS6.octets(), to.octets(), 64),
        };
        let mut bytes = Vec::new();
        match self.segment {
            Segment::Udp => {
                let segment = packet.udp(0, self.port);
                let payload = vec![0; frame_bytes - segment.size(0)];
                segment.write(&mut bytes, &payload).expect("a vector takes it");
            }
            Segment::Data => write_tcp(packet.tcp(0, self.port, 1, 1024).ack(1), frame_bytes, &mut bytes),
            Segment::Syn => {
                let segment = packet.tcp(0, self.port, 1, 1024).syn();
                let segment = segment.options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)]).expect("it has room");
                write_tcp(segment, frame_bytes, &mut bytes);
            }
        }
        bytes
    }
}

fn write_tcp(segment: PacketBuilderStep<etherparse::TcpHeader>, frame_bytes: usize, bytes: &mut Vec<u8>) {
    let payload = vec![0; frame_bytes - segment.size(0)];
    segment.write(bytes, &payload).expect("a vector takes it");
}
