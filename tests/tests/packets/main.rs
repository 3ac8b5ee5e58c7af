//! Packet in, packet out, through the program that the daemon loads. Needs root.
//!
//! Every test states what is installed, what comes in, the verdict, the exact bytes that leave, and every counter that rises. What a found bug
//! did to a packet is a case here.
#![allow(missing_docs)]

mod answers;
mod choice;
mod errors;
mod fragments;
mod malformed;
mod nat;
mod nat_life;
mod not_ours;
mod send;

use weir_tests::fixture::{
    bench::{Bench, Expect},
    oracle::{GUE_PORT, checksum, pseudo_header},
    pool::{Pooled, any},
    state::{Hop, IN_MAC, Member, ROUTER_MAC, Spec, State, address, link_of, tunnel_source},
    wire::{Ip, Link, ip, number},
};

use lb_common::maps::ForwardKind;

const VIP4: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";
const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const SERVER4: &str = "10.0.0.1";
const SERVER6: &str = "fd00::1";

/// From a client's router to us.
fn link() -> Link {
    Link { target: IN_MAC, source: ROUTER_MAC, tags: vec![] }
}

/// From a client to the VIP.
fn v4() -> Ip {
    ip(CLIENT4, VIP4)
}

fn v6() -> Ip {
    ip(CLIENT6, VIP6)
}

fn bench(services: &[Spec]) -> Pooled {
    let mut bench = any().expect("packet tests need root and a kernel that takes the program");
    bench.install(&State::of(services)).unwrap();
    bench
}

/// The frame that carries `packet` to a member by DSR or in a tunnel; `entropy` is GUE's source port.
fn delivered(member: &Member, hop: Hop, packet: &[u8], entropy: u16) -> Vec<u8> {
    let inner = if packet[0] >> 4 == 4 { 4 } else { 41 };
    let class = if inner == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
    let is_v4 = member.server.is_ipv4();
    let outer = |source| Ip { hops: 64, class, id: 0, ..ip("0.0.0.0", "0.0.0.0").between(source, member.server) };
    let outer = match member.forward {
        ForwardKind::Nat => panic!("translated, not delivered"),
        ForwardKind::Dsr => return link_of(hop).frame(packet),
        ForwardKind::Ipip4 | ForwardKind::Ipip6 => outer(tunnel_source(is_v4)).packet(inner, packet),
        ForwardKind::Gue4 | ForwardKind::Gue6 => {
            let outer = outer(tunnel_source(is_v4));
            let length = (12 + packet.len()) as u16;
            let mut body = [entropy, GUE_PORT, length, 0].map(u16::to_be_bytes).concat();
            body.extend([0, inner, 0, 0]);
            body.extend(packet);
            if !is_v4 && has_whole_checksum(packet) {
                let sum = checksum(&[&pseudo_header(outer.source, outer.target, number::UDP, body.len()), &body]);
                body[6..8].copy_from_slice(&if sum == [0, 0] { [0xff; 2] } else { sum });
            }
            outer.packet(number::UDP, &body)
        }
    };
    link_of(hop).frame(&outer)
}

/// Whether the outer UDP checksum can be had from the inner packet's headers.
fn has_whole_checksum(packet: &[u8]) -> bool {
    let Some(parts) = weir_tests::fixture::oracle::parts(packet) else { return false };
    let is_plain = parts.header.len() == if parts.source.is_ipv4() { 20 } else { 40 };
    let checksum = match parts.protocol {
        number::TCP => 16,
        number::UDP => 6,
        _ => return false,
    };
    let is_covered = parts.protocol == number::TCP || usize::from(u16::from_be_bytes([parts.body[4], parts.body[5]])) == parts.body.len();
    is_plain && is_covered && !parts.is_fragment && parts.body[checksum..checksum + 2] != [0, 0]
}

/// Where GUE's source port lies in a frame that left by `hop` toward `member`.
fn entropy_of(frame: &[u8], member: &Member, hop: Hop) -> u16 {
    if !matches!(member.forward, ForwardKind::Gue4 | ForwardKind::Gue6) {
        return 0;
    }
    let at = if hop.vlan == 0 { 14 } else { 18 } + if member.server.is_ipv4() { 20 } else { 40 };
    let port = u16::from_be_bytes([frame[at], frame[at + 1]]);
    assert!(port >= 0xc000, "{port}");
    port
}

/// Expects `packet`, the frame's IP packet, at the first service's first member.
fn expect_delivered(bench: &mut Bench, what: &str, frame: &[u8], packet: &[u8], also: &[weir_tests::fixture::bench::Counted]) {
    use weir_tests::fixture::{bench::Ran, state::Port};
    let member = bench.state().services[0].members[0].clone();
    let hop = member.hop.expect("the member is resolved");
    bench.check_by(Port::In, what, frame, |ran: &Ran| {
        let out = delivered(&member, hop, packet, entropy_of(&ran.frame, &member, hop));
        let expect = if hop.port == Port::In { Expect::back(out) } else { Expect::redirect(out) };
        also.iter().fold(expect.sent(1, 0), |expect, &counted| expect.and(counted))
    });
}

/// Every way of forwarding without translation, for a VIP of this family.
fn tunnels(is_v4: bool) -> Vec<Member> {
    use weir_tests::fixture::state::member;
    let dsr = member(ForwardKind::Dsr, if is_v4 { SERVER4 } else { SERVER6 });
    let both = [(ForwardKind::Ipip4, SERVER4), (ForwardKind::Ipip6, SERVER6), (ForwardKind::Gue4, SERVER4), (ForwardKind::Gue6, SERVER6)];
    std::iter::once(dsr).chain(both.map(|(forward, server)| member(forward, server))).collect()
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { VIP4 } else { VIP6 }
}

fn from_client(is_v4: bool) -> Ip {
    if is_v4 { v4() } else { v6() }
}

#[test]
fn the_addresses_of_the_tests_are_of_their_families() {
    assert!([VIP4, CLIENT4, SERVER4].iter().all(|text| address(text).is_ipv4()));
    assert!([VIP6, CLIENT6, SERVER6].iter().all(|text| address(text).is_ipv6()));
}
