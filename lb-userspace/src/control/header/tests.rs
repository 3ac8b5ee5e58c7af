use super::*;

const HOP: NextHop = NextHop {
    ifindex: 7,
    vlan: None,
    source_mac: [2, 0, 0, 0, 0, 1],
    target_mac: [2, 0, 0, 0, 0, 2],
    mtu: 1500,
    source: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
};

const ETHERNET_V4: &[u8] = &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
const ETHERNET_V6: &[u8] = &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(forward: ForwardKind, server: &str, vip: &str) -> Target {
    let server = Endpoint { address: ip(server), port: 0 };
    Target { forward, server, vip: ip(vip), tunnel_source: None, gue_port: 6080, planes: None }
}

fn bytes_of(header: &Header) -> [u8; HEADER_WORDS * 8] {
    bytemuck::cast(header.bytes)
}

fn padded(parts: &[&[u8]]) -> [u8; HEADER_WORDS * 8] {
    let mut bytes = [0; HEADER_WORDS * 8];
    let joined = parts.concat();
    bytes[..joined.len()].copy_from_slice(&joined);
    bytes
}

/// RFC 1071 s4.1, in network order.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// The checksum field that follows from a partial sum and what the packet adds, as wire bytes.
fn finished(partial_sum: u32, rest: &[u8]) -> [u8; 2] {
    let mut total = partial_sum + sum(rest);
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    (!total as u16).to_ne_bytes()
}

#[test]
fn dsr_writes_only_the_ethernet_header() {
    let header = build(&target(ForwardKind::Dsr, "10.0.0.2", "192.0.2.1"), &HOP).unwrap();
    assert_eq!(bytes_of(&header), padded(&[ETHERNET_V4]));
    assert_eq!((header.ifindex, header.link_bytes, header.kind, header.mtu, header.partial_sum), (7, 14, 2, 1500, 0));
    let header = build(&target(ForwardKind::Dsr, "2001:db8::2", "2001:db8::1"), &HOP).unwrap();
    assert_eq!(bytes_of(&header), padded(&[ETHERNET_V6]));
}

#[test]
fn nat_lays_out_addresses_and_port_in_whole_words() {
    let mut nat = target(ForwardKind::Nat, "10.0.0.2", "192.0.2.1");
    nat.server.port = 8080;
    nat.planes = Some(PlaneRun { first: 5, count: 2, snat: ip("10.0.0.9").into() });
    let header = build(&nat, &HOP).unwrap();
    let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    assert_eq!(bytes_of(&header)[..56], padded(&[ETHERNET_V4, &[0; 10], &mapped(9), &mapped(2)])[..56]);
    assert_eq!((header.bytes[7] as u16).to_ne_bytes(), [0x1f, 0x90]);
    assert_eq!((header.bytes[7] >> 16, &header.bytes[8..]), (0, [0; 4].as_slice()));
    assert_eq!((header.nat_plane, header.nat_planes, header.partial_sum), (5, 2, 0));
}

#[test]
fn nat_without_a_server_port_keeps_the_packets() {
    let header = build(&target(ForwardKind::Nat, "10.0.0.2", "192.0.2.1"), &HOP).unwrap();
    assert_eq!(header.bytes[7], 0);
}

#[test]
fn ipip_in_ipv4_carries_either_family_and_its_checksum_completes() {
    for (vip, protocol) in [("192.0.2.1", 4), ("2001:db8::1", 41)] {
        let header = build(&target(ForwardKind::Ipip4, "10.0.0.2", vip), &HOP).unwrap();
        let mut outer = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(bytes_of(&header), padded(&[ETHERNET_V4, &outer]));
        outer[2..6].copy_from_slice(&[0x05, 0xdc, 0xbe, 0xef]);
        assert_eq!(finished(header.partial_sum, &outer[2..6]), checksum(&outer).to_be_bytes());
    }
}

#[test]
fn ipip_in_ipv6_carries_either_family_and_has_no_checksum() {
    let hop = NextHop { source: ip("2001:db8::a"), ..HOP };
    for (vip, next_header) in [("192.0.2.1", 4), ("2001:db8::1", 41)] {
        let header = build(&target(ForwardKind::Ipip6, "2001:db8::2", vip), &hop).unwrap();
        let from = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a];
        let to = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02];
        assert_eq!(bytes_of(&header), padded(&[ETHERNET_V6, &[0x60, 0, 0, 0, 0, 0, next_header, 64], &from, &to]));
        assert_eq!(header.partial_sum, 0);
    }
}

#[test]
fn gue_in_ipv4_names_the_inner_family() {
    for (vip, inner) in [("192.0.2.1", 4), ("2001:db8::1", 41)] {
        let header = build(&target(ForwardKind::Gue4, "10.0.0.2", vip), &HOP).unwrap();
        let mut outer = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let udp = [0, 0, 0x17, 0xc0, 0, 0, 0, 0];
        assert_eq!(bytes_of(&header), padded(&[ETHERNET_V4, &outer, &udp, &[0, inner, 0, 0]]));
        outer[2..6].copy_from_slice(&[0x05, 0xdc, 0xbe, 0xef]);
        assert_eq!(finished(header.partial_sum, &outer[2..6]), checksum(&outer).to_be_bytes());
    }
}

#[test]
fn gue_in_ipv6_sums_the_constant_part_of_its_pseudo_header() {
    let hop = NextHop { source: ip("2001:db8::a"), ..HOP };
    let header = build(&target(ForwardKind::Gue6, "2001:db8::2", "2001:db8::1"), &hop).unwrap();
    let bytes = bytes_of(&header);
    assert_eq!(bytes[14..22], [0x60, 0, 0, 0, 0, 0, 17, 64]);
    assert_eq!(bytes[54..66], [0, 0, 0x17, 0xc0, 0, 0, 0, 0, 0, 41, 0, 0]);
    let rest = [0xab, 0xcd, 0x17, 0xc0, 0x00, 0x20, 0, 0, 0, 41, 0, 0, 1, 2, 3, 4];
    let length = [0x00, 0x20];
    let pseudo_header = [&bytes[22..54], &[0, 0], &length, &[0, 0, 0, 17]].concat();
    let expected = checksum(&[&pseudo_header[..], &rest].concat()).to_be_bytes();
    assert_eq!(finished(header.partial_sum, &[&length[..], &rest].concat()), expected);
}

#[test]
fn a_configured_source_replaces_the_next_hops() {
    let mut tunnel = target(ForwardKind::Ipip4, "10.0.0.2", "192.0.2.1");
    tunnel.tunnel_source = Some(ip("172.16.0.1"));
    assert_eq!(bytes_of(&build(&tunnel, &HOP).unwrap())[26..30], [172, 16, 0, 1]);
}

#[test]
fn a_source_of_the_other_family_is_refused() {
    let error = build(&target(ForwardKind::Ipip6, "2001:db8::2", "192.0.2.1"), &HOP);
    assert_eq!(error, Err(HeaderError::Family { from: HOP.source, to: ip("2001:db8::2") }));
}

#[test]
fn rerouting_changes_link_and_interface_only() {
    let tunnel = target(ForwardKind::Gue4, "10.0.0.2", "2001:db8::1");
    let hop = NextHop { ifindex: 9, source_mac: [4; 6], target_mac: [6; 6], mtu: 9000, ..HOP };
    assert_eq!(rerouted(&build(&tunnel, &HOP).unwrap(), &hop), build(&tunnel, &hop).unwrap());
}

/// Every kind of header, with a server and a source of its family.
fn kinds() -> Vec<(Target, NextHop)> {
    let v6 = NextHop { source: ip("2001:db8::a"), ..HOP };
    let mut nat = target(ForwardKind::Nat, "10.0.0.2", "192.0.2.1");
    nat.server.port = 8080;
    nat.planes = Some(PlaneRun { first: 5, count: 2, snat: ip("10.0.0.9").into() });
    vec![
        (nat, HOP),
        (target(ForwardKind::Dsr, "10.0.0.2", "192.0.2.1"), HOP),
        (target(ForwardKind::Ipip4, "10.0.0.2", "2001:db8::1"), HOP),
        (target(ForwardKind::Ipip6, "2001:db8::2", "192.0.2.1"), v6),
        (target(ForwardKind::Gue4, "10.0.0.2", "192.0.2.1"), HOP),
        (target(ForwardKind::Gue6, "2001:db8::2", "2001:db8::1"), v6),
    ]
}

#[test]
fn a_vlan_adds_its_tag_and_changes_nothing_else() {
    for (target, hop) in kinds() {
        let plain = build(&target, &hop).unwrap();
        let tagged = build(&target, &NextHop { vlan: Some(0x123), ..hop }).unwrap();
        let (old, new) = (bytes_of(&plain), bytes_of(&tagged));
        assert_eq!(new[..18], [&old[..12], &[0x81, 0x00, 0x01, 0x23], &old[12..14]].concat());
        if target.forward == ForwardKind::Nat {
            assert_eq!((&new[18..24], &new[24..]), ([0; 6].as_slice(), &old[24..]));
        } else {
            assert_eq!((&new[18..], &old[92..]), (&old[14..92], [0; 4].as_slice()), "{:?}", target.forward);
        }
        assert_eq!(tagged, Header { link_bytes: 18, bytes: tagged.bytes, ..plain });
    }
}

#[test]
fn a_server_that_moves_into_a_vlan_or_out_of_it_is_rerouted() {
    for (target, hop) in kinds() {
        let hops = [None, Some(5), Some(7)].map(|vlan| NextHop { vlan, ..hop });
        for (from, to) in hops.iter().flat_map(|from| hops.iter().map(move |to| (from, to))) {
            assert_eq!(rerouted(&build(&target, from).unwrap(), to), build(&target, to).unwrap(), "{:?}", target.forward);
        }
    }
}
