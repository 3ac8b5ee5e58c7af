//! Fragments go after their first.

use lb_common::{
    maps::ForwardKind::Dsr,
    reason::{Drop, Note},
};
use weir_tests::fixture::{
    bench::{Counted, Expect, Verdict},
    state::{HOP, Port, Slots, State, link_of, member, service},
    wire::{Ip, number},
};

use super::{
    SERVER4, bench, expect_delivered, from_client, link,
    nat::{nat_service, server, server_link, source_port, toward_server},
    tunnels, v4, vip,
};

const FORWARDED: [Counted; 1] = [Counted::Note(1, Note::FragmentForwarded)];

#[test]
fn the_fragments_of_a_datagram_reach_one_server_in_every_way_of_forwarding() {
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            bench.install(&State::of(&[service(vip(is_v4), 17, 53, vec![member])])).unwrap();
            let ip = from_client(is_v4);
            let body = ip.datagram(4000, 53, &[9; 100]);
            let (first, later) = ip.fragments(number::UDP, &body, 48);
            bench.check("later before first", &link().frame(&later), &Expect::drop(0, Drop::FragmentUnknown));
            expect_delivered(&mut bench, "first", &link().frame(&first), &first, &[]);
            expect_delivered(&mut bench, "later", &link().frame(&later), &later, &FORWARDED);
            expect_delivered(&mut bench, "later, again", &link().frame(&later), &later, &FORWARDED);
            let other = |ip: Ip| ip.fragments(number::UDP, &body, 48).1;
            let unknown = Expect::drop(0, Drop::FragmentUnknown);
            bench.check("another identification", &link().frame(&other(Ip { id: 7, ..ip.clone() })), &unknown);
            let stranger = if is_v4 { "198.51.100.8" } else { "2001:db8:c::8" };
            bench.check("another source", &link().frame(&other(ip.between(super::address(stranger), ip.target))), &unknown);
            bench.age(31).unwrap();
            bench.check("too late", &link().frame(&later), &unknown);
        }
    }
}

#[test]
fn fragments_follow_the_member_of_their_first_when_slots_are_spread() {
    let three = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|server| member(Dsr, server));
    let mut bench = bench(&[service(vip(true), 17, 53, three.to_vec()).slots(Slots::Spread)]);
    for id in 0..30 {
        let ip = Ip { id, ..v4() };
        let (first, later) = ip.fragments(number::UDP, &ip.datagram(1000 + id as u16, 53, &[9; 100]), 48);
        let ran = bench.run(Port::In, &link().frame(&first)).unwrap();
        let sent = *ran.counted.keys().next().unwrap();
        let expect = Expect::back(link_of(HOP).frame(&later)).and(sent).note(1, Note::FragmentForwarded);
        bench.check("later", &link().frame(&later), &expect);
    }
}

#[test]
fn the_fragments_of_what_is_for_the_host_pass_after_their_first() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[service(vip(is_v4), 17, 53, tunnels(is_v4))]);
        let ip = from_client(is_v4);
        let (first, later) = ip.fragments(number::UDP, &ip.datagram(4000, 5353, &[9; 100]), 48);
        bench.check("later before first", &link().frame(&later), &Expect::drop(0, Drop::FragmentUnknown));
        bench.check("first", &link().frame(&first), &Expect::pass());
        bench.check("later", &link().frame(&later), &Expect::pass());
        let (first, _) = ip.fragments(number::UDP, &ip.datagram(4000, 53, &[9; 100]), 48);
        let ran = bench.run(Port::In, &link().frame(&first)).unwrap();
        assert_eq!(ran.verdict, Verdict::SentBack);
        let ran = bench.run(Port::In, &link().frame(&later)).unwrap();
        assert_eq!(ran.verdict, Verdict::SentBack, "the identification is a balanced datagram's now");
        bench.age(31).unwrap();
        bench.check("too late", &link().frame(&later), &Expect::drop(0, Drop::FragmentUnknown));
    }
}

/// Fragments but the first say only that an extension header comes first.
#[test]
fn fragments_follow_where_an_extension_header_is_fragmented_too() {
    let mut bench = bench(&[]);
    let ip = from_client(false);
    let with_options = |ip: &Ip, source, target| {
        let body = [&[number::UDP, 0, 1, 4, 0, 0, 0, 0], &ip.datagram(source, target, &[9; 100])[..]].concat();
        ip.fragments(60, &body, 48)
    };
    let (first, later) = with_options(&ip, 4000, 53);
    for member in tunnels(false) {
        bench.install(&State::of(&[service(vip(false), 17, 53, vec![member])])).unwrap();
        bench.check("later before first", &link().frame(&later), &Expect::pass());
        expect_delivered(&mut bench, "first", &link().frame(&first), &first, &[]);
        expect_delivered(&mut bench, "later", &link().frame(&later), &later, &FORWARDED);
    }
    bench.install(&State::of(&[nat_service(false, number::UDP, vec![server(false)])])).unwrap();
    let toward = toward_server(false);
    let mut port = 0;
    bench.check_by(Port::In, "first", &link().frame(&first), |ran| {
        port = u16::from_be_bytes([ran.frame[70], ran.frame[71]]);
        Expect::back(link_of(HOP).frame(&with_options(&toward, port, 8080).0)).note(1, Note::NatOpened).sent(1, 0)
    });
    let out = link_of(HOP).frame(&with_options(&toward, port, 8080).1);
    bench.check("later", &link().frame(&later), &Expect::back(out).note(1, Note::FragmentForwarded).sent(1, 0));
}

#[test]
fn fragments_are_translated_both_ways() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        let client = from_client(is_v4);
        let at_8080 = |ip: &Ip, source, target| ip.fragments(number::UDP, &ip.datagram(source, target, &[9; 100]), 48);
        let (first, later) = at_8080(&client, 4000, 53);
        let mut port = 0;
        let toward = toward_server(is_v4);
        bench.check_by(Port::In, "first", &link().frame(&first), |ran| {
            port = source_port(&ran.frame, is_v4);
            if !is_v4 {
                port = u16::from_be_bytes([ran.frame[62], ran.frame[63]]);
            }
            Expect::back(link_of(HOP).frame(&at_8080(&toward, port, 8080).0)).note(1, Note::NatOpened).sent(1, 0)
        });
        let out = link_of(HOP).frame(&at_8080(&toward, port, 8080).1);
        bench.check("later", &link().frame(&later), &Expect::back(out).note(1, Note::FragmentForwarded).sent(1, 0));
        let (first, later) = at_8080(&toward.back(), 8080, port);
        let goes = at_8080(&client.back(), 53, 4000);
        bench.check("reply, first", &server_link().frame(&first), &Expect::back(link().back().frame(&goes.0)));
        let expect = Expect::back(link().back().frame(&goes.1)).note(1, Note::FragmentForwarded);
        bench.check("reply, later", &server_link().frame(&later), &expect);
    }
}

#[test]
fn a_fragment_without_room_for_its_trail_is_counted() {
    let mut bench = bench(&[service(vip(true), 17, 53, vec![member(Dsr, SERVER4)])]);
    // The table has room for 256 datagrams.
    let parts = |id| {
        let ip = Ip { id, ..v4() };
        ip.fragments(number::UDP, &ip.datagram(4000, 53, &[9; 100]), 48)
    };
    for id in 0..600 {
        bench.run(Port::In, &link().frame(&parts(id).0)).unwrap();
    }
    let known =
        (0..600).filter(|&id| bench.run(Port::In, &link().frame(&parts(id).1)).unwrap().counted.contains_key(&FORWARDED[0])).count();
    assert!((200..=256).contains(&known), "{known}");
    assert!(known < 600 && bench.words("FRAGMENTS").unwrap().len() == known);
}
