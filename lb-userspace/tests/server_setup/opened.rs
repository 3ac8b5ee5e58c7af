//! Frames in, frames out: what `weir_decap` makes of them.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{TestRun as _, TestRunOptions};
use lb_common::{checksum::sum_of, maps::DecapSettings, reason::Decap};
use lb_userspace::dataplane::Decapsulator;

use crate::frames::{GUE_PORT, IPV4, UDP, frame, in_gue, ip, link, packet, protocol_of, syn, udp};

const PASS: u32 = 2;
const DROP: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const ECT_0: u8 = 2;
const ECT_1: u8 = 1;
const CE: u8 = 3;

struct Server {
    program: Decapsulator,
}

impl Server {
    fn new(settings: DecapSettings) -> Self {
        let vips = BTreeSet::from([ip("192.0.2.1"), ip("2001:db8::1")]);
        Self { program: Decapsulator::load(settings, &vips).expect("tests of the data plane need root") }
    }

    /// The verdict and the frame that it is about.
    fn take(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let run = self.program.program().unwrap().test_run(options).unwrap();
        let length = run.data_size_out as usize;
        out.truncate(length);
        (run.return_value, out)
    }

    fn count(&self, outcome: Decap) -> u64 {
        self.program.counts().unwrap().iter().find(|count| count.outcome == outcome).unwrap().traffic.packets
    }

    fn expect(&mut self, frame: &[u8], verdict: u32, out: &[u8], outcome: Option<Decap>, what: &str) {
        let before = Decap::ALL.iter().map(|&outcome| self.count(outcome)).collect::<Vec<_>>();
        let (found, found_out) = self.take(frame);
        assert_eq!(found, verdict, "{what}");
        assert_eq!(found_out, out, "{what}");
        for (&which, before) in Decap::ALL.iter().zip(before) {
            assert_eq!(self.count(which) - before, u64::from(Some(which) == outcome), "{what}: {which:?}");
        }
    }

    fn expect_untouched(&mut self, frame: &[u8], outcome: Option<Decap>, what: &str) {
        self.expect(frame, PASS, frame, outcome, what);
    }
}

fn outer_ends() -> [(IpAddr, IpAddr); 2] {
    [(ip("10.0.0.9"), ip("10.0.0.1")), (ip("fd00::9"), ip("fd00::1"))]
}

/// TCP and UDP packets of clients to the VIPs.
fn inner_packets(class: u8) -> Vec<Vec<u8>> {
    let ends = [(ip("198.51.100.7"), ip("192.0.2.1")), (ip("2001:db8:f::7"), ip("2001:db8::1"))];
    let both = |(client, vip)| {
        [packet(client, vip, 6, class, &syn(client, vip, 80)), packet(client, vip, UDP, class, &udp(client, vip, 53, b"odd"))]
    };
    ends.into_iter().flat_map(both).collect()
}

fn tunnelled(ends: (IpAddr, IpAddr), class: u8, inner: &[u8]) -> Vec<u8> {
    packet(ends.0, ends.1, protocol_of(inner), class, inner)
}

fn tunnelled_in_gue(ends: (IpAddr, IpAddr), class: u8, gue: &[u8], inner: &[u8]) -> Vec<u8> {
    packet(ends.0, ends.1, UDP, class, &in_gue(gue, inner))
}

fn links() -> [Vec<u8>; 3] {
    [link(MAC, &[]), link(MAC, &[0x2064]), link(MAC, &[100, 200])]
}

#[test]
fn ipip_of_all_families_is_opened_behind_any_tags() {
    let mut server = Server::new(DecapSettings::IPIP);
    for (link, ends, inner) in combinations() {
        let what = format!("{ends:?} {link:x?} {inner:x?}");
        server.expect(&frame(&link, &tunnelled(ends, 0, &inner)), PASS, &frame(&link, &inner), Some(Decap::Decapsulated), &what);
    }
    assert_eq!(server.count(Decap::Decapsulated), 24);
}

fn combinations() -> Vec<(Vec<u8>, (IpAddr, IpAddr), Vec<u8>)> {
    let mut all = Vec::new();
    for link in links() {
        for ends in outer_ends() {
            all.extend(inner_packets(0).into_iter().map(|inner| (link.clone(), ends, inner)));
        }
    }
    all
}

#[test]
fn gue_of_both_variants_is_opened_and_options_are_skipped() {
    let mut server = Server::new(DecapSettings::gue(GUE_PORT));
    for (link, ends, inner) in combinations() {
        let next = protocol_of(&inner);
        let with_options = [&[0x03, next, 0, 0], [0xee; 12].as_slice()].concat();
        let with_most_options = [&[0x1f, next, 0, 0], [0xee; 124].as_slice()].concat();
        for gue in [&[0, next, 0, 0], with_options.as_slice(), &with_most_options, &[]] {
            let what = format!("{ends:?} {gue:x?} {inner:x?}");
            let wrapped = frame(&link, &tunnelled_in_gue(ends, 0, gue, &inner));
            server.expect(&wrapped, PASS, &frame(&link, &inner), Some(Decap::Decapsulated), &what);
        }
    }
}

#[test]
fn an_outer_header_with_options_or_extensions_is_removed_whole() {
    let mut server = Server::new(DecapSettings::IPIP);
    let (link, inner) = (link(MAC, &[]), inner_packets(0).remove(0));
    let mut with_options = tunnelled(outer_ends()[0], 0, &[&[1, 1, 1, 0], inner.as_slice()].concat());
    (with_options[0], with_options[9]) = (0x46, IPV4);
    server.expect(&frame(&link, &with_options), PASS, &frame(&link, &inner), Some(Decap::Decapsulated), "IPv4 options");
    // Linux's ip6tnl sends a destination option, the encapsulation limit (RFC 2473 s4.1.1).
    let limit = [&[IPV4, 0, 4, 1, 4, 1, 1, 0], inner.as_slice()].concat();
    let with_limit = packet(outer_ends()[1].0, outer_ends()[1].1, 60, 0, &limit);
    server.expect(&frame(&link, &with_limit), PASS, &frame(&link, &inner), Some(Decap::Decapsulated), "encapsulation limit");
}

#[test]
fn bytes_behind_the_packet_are_left_where_they_are() {
    let mut server = Server::new(DecapSettings::IPIP);
    let (link, inner) = (link(MAC, &[]), inner_packets(0).remove(1));
    let padded = [frame(&link, &tunnelled(outer_ends()[0], 0, &inner)), vec![0x55; 9]].concat();
    let out = [frame(&link, &inner), vec![0x55; 9]].concat();
    server.expect(&padded, PASS, &out, Some(Decap::Decapsulated), "padding");
}

#[test]
fn what_is_not_for_a_vip_passes_untouched() {
    let mut server = Server::new(DecapSettings::IPIP);
    let link = link(MAC, &[]);
    let (client, other) = (ip("198.51.100.7"), ip("192.0.2.2"));
    let elsewhere = packet(client, other, UDP, 0, &udp(client, other, 53, b"x"));
    for ends in outer_ends() {
        server.expect_untouched(&frame(&link, &tunnelled(ends, 0, &elsewhere)), Some(Decap::NotOurs), "no VIP");
    }
    for inner in inner_packets(0) {
        server.expect_untouched(&frame(&link, &inner), None, "no tunnel");
        let in_gue = tunnelled_in_gue(outer_ends()[0], 0, &[0, protocol_of(&inner), 0, 0], &inner);
        server.expect_untouched(&frame(&link, &in_gue), None, "gue, which is off");
    }
    server.expect_untouched(&[0x5a; 64], None, "no IP");
}

#[test]
fn only_the_tunnels_of_the_mode_are_opened() {
    let mut server = Server::new(DecapSettings::gue(GUE_PORT));
    let (link, ends, inner) = (link(MAC, &[]), outer_ends()[0], inner_packets(0).remove(0));
    server.expect_untouched(&frame(&link, &tunnelled(ends, 0, &inner)), None, "ipip, which is off");
    let mut other_port = tunnelled_in_gue(ends, 0, &[0, IPV4, 0, 0], &inner);
    other_port[23] += 1;
    server.expect_untouched(&frame(&link, &other_port), None, "another port");
    for (gue, what) in [([0x20, IPV4, 0, 0], "control message"), ([0x80, IPV4, 0, 0], "variant 2"), ([0, 6, 0, 0], "no IP inside")] {
        server.expect_untouched(&frame(&link, &tunnelled_in_gue(ends, 0, &gue, &inner)), Some(Decap::NotOurs), what);
    }
    let mut nothing = Server::new(DecapSettings::NONE);
    nothing.expect_untouched(&frame(&link, &tunnelled_in_gue(ends, 0, &[0, IPV4, 0, 0], &inner)), None, "all off");
}

#[test]
fn fragments_of_a_tunnel_pass_untouched() {
    let mut server = Server::new(DecapSettings::IPIP);
    let link = link(MAC, &[]);
    let inner = inner_packets(0).remove(0);
    for bits in [[0x20, 0], [0, 9]] {
        let mut fragment = tunnelled(outer_ends()[0], 0, &inner);
        fragment[6..8].copy_from_slice(&bits);
        server.expect_untouched(&frame(&link, &fragment), Some(Decap::Fragment), "outer fragment");
    }
    // A fragment inside is the host's to put together.
    let mut fragment = inner;
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    let wrapped = frame(&link, &tunnelled(outer_ends()[0], 0, &fragment));
    server.expect(&wrapped, PASS, &frame(&link, &fragment), Some(Decap::Decapsulated), "inner fragment");
}

#[test]
fn a_frame_cut_anywhere_passes_untouched() {
    let mut ipip = Server::new(DecapSettings::IPIP);
    let mut gue = Server::new(DecapSettings::gue(GUE_PORT));
    for inner in inner_packets(0) {
        for ends in outer_ends() {
            let whole = frame(&link(MAC, &[5]), &tunnelled(ends, 0, &inner));
            // The kernel runs programs on no frame shorter than an Ethernet header.
            for length in 14..whole.len() {
                ipip.expect_untouched(&whole[..length], None, "ipip cut");
            }
            let whole = frame(&link(MAC, &[5]), &tunnelled_in_gue(ends, 0, &[0, protocol_of(&inner), 0, 0], &inner));
            for length in 14..whole.len() {
                gue.expect_untouched(&whole[..length], None, "gue cut");
            }
        }
    }
}

#[test]
fn a_packet_cut_inside_a_whole_tunnel_is_dropped_once_it_is_known_to_be_ours() {
    let mut ipip = Server::new(DecapSettings::IPIP);
    let mut gue = Server::new(DecapSettings::gue(GUE_PORT));
    let link = link(MAC, &[]);
    for inner in inner_packets(0) {
        let header_bytes = if protocol_of(&inner) == IPV4 { 20 } else { 40 };
        for ends in outer_ends() {
            for length in 1..inner.len() {
                let (verdict, outcome) = if length < header_bytes { (PASS, Decap::NotOurs) } else { (DROP, Decap::Malformed) };
                let cut = frame(&link, &packet(ends.0, ends.1, protocol_of(&inner), 0, &inner[..length]));
                ipip.expect(&cut, verdict, &cut, Some(outcome), &format!("{length} of ipip"));
                let cut = frame(&link, &tunnelled_in_gue(ends, 0, &[0, protocol_of(&inner), 0, 0], &inner[..length]));
                gue.expect(&cut, verdict, &cut, Some(outcome), &format!("{length} of gue"));
            }
        }
    }
}

#[test]
fn contradicting_lengths_and_versions_are_dropped() {
    let mut server = Server::new(DecapSettings::IPIP);
    let (link, ends) = (link(MAC, &[]), outer_ends()[0]);
    let v4 = inner_packets(0).remove(0);
    for (offset, value, what) in [
        (0, 0x55, "version"),
        (0, 0x44, "short header"),
        (0, 0x4f, "header beyond the end"),
        (3, 19, "short length"),
        (3, 200, "long length"),
    ] {
        let mut inner = v4.clone();
        inner[offset] = value;
        let bad = frame(&link, &packet(ends.0, ends.1, IPV4, 0, &inner));
        server.expect(&bad, DROP, &bad, Some(Decap::Malformed), what);
    }
    // The outer length ends within the inner packet, though the frame goes on.
    let mut short = tunnelled(ends, 0, &v4);
    short[3] -= 1;
    let short = frame(&link, &short);
    server.expect(&short, DROP, &short, Some(Decap::Malformed), "outer length");
    let mut gue = Server::new(DecapSettings::gue(GUE_PORT));
    for (change, verdict, outcome) in [(-1, DROP, Decap::Malformed), (1, PASS, Decap::NotOurs), (-100, PASS, Decap::NotOurs)] {
        let mut wrapped = tunnelled_in_gue(ends, 0, &[0, IPV4, 0, 0], &v4);
        wrapped[25] = wrapped[25].saturating_add_signed(change);
        let wrapped = frame(&link, &wrapped);
        gue.expect(&wrapped, verdict, &wrapped, Some(outcome), &format!("UDP length {change}"));
    }
}

#[test]
fn congestion_marks_come_out_of_the_tunnel() {
    let mut server = Server::new(DecapSettings::IPIP);
    let link = link(MAC, &[]);
    for (outer, inner, expected) in [
        (CE, ECT_0, Some(CE)),
        (CE, ECT_1, Some(CE)),
        (CE, CE, Some(CE)),
        (CE, 0, None),
        (ECT_1, ECT_0, Some(ECT_1)),
        (ECT_0, 0, Some(0)),
        (0, CE, Some(CE)),
    ] {
        for ends in outer_ends() {
            // The outer DSCP stays with the tunnel (RFC 2983 s3.2, pipe model).
            for (packet, marked) in inner_packets(0x48 | inner).into_iter().zip(inner_packets(0x48 | expected.unwrap_or(inner))) {
                let wrapped = frame(&link, &tunnelled(ends, 0xb8 | outer, &packet));
                let what = format!("outer {outer}, inner {inner}, {packet:x?}");
                match expected {
                    Some(_) => server.expect(&wrapped, PASS, &frame(&link, &marked), Some(Decap::Decapsulated), &what),
                    None => server.expect(&wrapped, DROP, &wrapped, Some(Decap::Congestion), &what),
                }
                assert!(protocol_of(&marked) != IPV4 || sum_of(&marked[..20]).checksum() == 0);
            }
        }
    }
}
