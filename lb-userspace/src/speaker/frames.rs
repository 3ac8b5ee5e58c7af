//! Gratuitous ARP, unsolicited neighbour advertisements, and adverts from a virtual router's link-layer address. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::vrrp::packet::Ends;

const BROADCAST: [u8; 6] = [0xff; 6];
/// RFC 2464 s7 of ff02::1.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0];
pub(super) const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
pub(super) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The IP protocol (RFC 9568 s5.1.1.4).
pub(super) const VRRP: u8 = 112;
/// RFC 9568 s5.1.1.3.
pub(super) const HOP_LIMIT: u8 = 255;
/// Internetwork control (RFC 791 s3.1), as routing protocols have.
pub(super) const CONTROL: u8 = 0xc0;

/// Whether a neighbour advertisement says that its sender passes packets on (RFC 4861 s4.4, R).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    /// It does.
    Router,
    /// It does not.
    Host,
}

/// The frames that tell a link that an address is at `mac`.
pub(super) fn announcement(address: IpAddr, mac: [u8; 6], sender: Sender) -> Vec<Vec<u8>> {
    match address {
        // Some hosts learn from requests, some from answers (RFC 5227 s3).
        IpAddr::V4(address) => vec![gratuitous_arp(address, mac, 1), gratuitous_arp(address, mac, 2)],
        IpAddr::V6(address) => vec![unsolicited_advertisement(address, mac, sender)],
    }
}

/// The frame of an advert to the group of all VRRP routers, from a virtual router's address (RFC 9568 s7.2); none if the ends are of no such advert.
pub(super) fn advert(ends: Ends, payload: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if destination.is_multicast() => {
            let [_, b, c, d] = destination.octets();
            // RFC 1112 s6.4.
            let group = [0x01, 0, 0x5e, b & 0x7f, c, d];
            let length = u16::try_from(20 + payload.len()).ok()?.to_be_bytes();
            // Never in parts, so that its identification is of no use (RFC 6864 s4.1).
            let mut header =
                [&[0x45, CONTROL][..], &length, &[0, 0, 0x40, 0, HOP_LIMIT, VRRP, 0, 0], &source.octets(), &destination.octets()].concat();
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            Some([&group[..], &mac, &ETHERTYPE_IPV4, &header, payload].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if destination.is_multicast() => {
            let [.., a, b, c, d] = destination.octets();
            // RFC 2464 s7.
            let group = [0x33, 0x33, a, b, c, d];
            let length = u16::try_from(payload.len()).ok()?.to_be_bytes();
            let head = [&[0x60 | CONTROL >> 4, CONTROL << 4, 0, 0][..], &length, &[VRRP, HOP_LIMIT]].concat();
            Some([&group[..], &mac, &ETHERTYPE_IPV6, &head, &source.octets(), &destination.octets(), payload].concat())
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}

/// RFC 5944 s4.6: sender and target are the address.
fn gratuitous_arp(address: Ipv4Addr, mac: [u8; 6], operation: u8) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { mac };
    let header = [0, 1, 0x08, 0, 6, 4, 0, operation];
    let mut frame = [&BROADCAST[..], &mac, &ETHERTYPE_ARP, &header, &mac, &address.octets(), &target, &address.octets()].concat();
    frame.resize(60, 0);
    frame
}

/// RFC 4861 s7.2.6: override, with the target's link-layer address.
fn unsolicited_advertisement(address: Ipv6Addr, mac: [u8; 6], sender: Sender) -> Vec<u8> {
    let flags = match sender {
        Sender::Router => 0xa0,
        Sender::Host => 0x20,
    };
    let option = [2, 1];
    let mut body = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &address.octets(), &option, &mac].concat();
    let length = (body.len() as u16).to_be_bytes();
    let pseudo = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0], &length, &[0, 0, 0, 58]].concat();
    let sum = checksum(&[pseudo, body.clone()].concat());
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let head = [&[0x60, 0, 0, 0][..], &length, &[58, 255]].concat();
    [&ALL_NODES_MAC[..], &mac, &ETHERTYPE_IPV6, &head, &address.octets(), &ALL_NODES.octets(), &body].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_names_the_address_twice() {
        let frames = announcement("192.0.2.1".parse().unwrap(), MAC, Sender::Host);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0][..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6]);
        assert_eq!(frames[0][14..42], [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        assert_eq!(frames[1][21], 2);
    }

    #[test]
    fn an_advert_goes_to_the_group_from_the_routers_address() {
        let mac = [0, 0, 0x5e, 0, 1, 10];
        let ends = Ends { source: "192.0.2.1".parse().unwrap(), destination: "224.0.0.18".parse().unwrap() };
        let frame = advert(ends, &[1, 2, 3], mac).unwrap();
        assert_eq!(frame[..14], [0x01, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 10, 8, 0]);
        assert_eq!(frame[14..24], [0x45, 0xc0, 0, 23, 0, 0, 0x40, 0, 255, 112]);
        assert_eq!((checksum(&frame[14..34]), &frame[34..]), (0, &[1, 2, 3][..]));
        let ends = Ends { source: "fe80::1".parse().unwrap(), destination: "ff02::12".parse().unwrap() };
        let frame = advert(ends, &[1, 2, 3], mac).unwrap();
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 0x12, 0, 0, 0x5e, 0, 1, 10, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x6c, 0, 0, 0, 0, 3, 112, 255]);
        assert_eq!((frame.len(), &frame[54..]), (57, &[1, 2, 3][..]));
        let unicast = Ends { destination: "192.0.2.2".parse().unwrap(), source: "192.0.2.1".parse().unwrap() };
        assert_eq!(advert(unicast, &[], mac), None);
    }

    #[test]
    fn an_advertisement_overrides_and_its_checksum_is_right() {
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let frame = announcement(address.into(), MAC, Sender::Router).remove(0);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!((frame[54], frame[58]), (136, 0xa0));
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[pseudo, frame[54..].to_vec()].concat()), 0);
    }
}
