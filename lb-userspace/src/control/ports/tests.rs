use std::net::{IpAddr, Ipv4Addr};

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::control::{installed::Capacity, op::Op};

type Range = (u8, u8);

/// A dedicated address, and one whose middle is the host's own.
const DEDICATED: [Range; 2] = [(4, 252), (0, 0)];
const SHARED: [Range; 2] = [(4, 124), (239, 17)];

fn plane(server_port: u16, [low, high]: [Range; 2]) -> PlaneSpec {
    let address = |last| Address::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    PlaneSpec { snat: address(9), server: address(1), server_port, protocol: 6, low, high }
}

fn empty() -> Installed {
    Installed::new(Capacity { services: 1, members: 1, vips: 1, planes: 9 })
}

/// Writes the planes for these ports of the server, each at its port's number, and gives what all have.
fn write(maps: &mut Installed, ports: &[u16], all: [Range; 2]) -> Vec<(u16, [Range; 2])> {
    for spec in assigned(maps, ports.iter().map(|port| plane(*port, all))) {
        maps.apply(&Op::WritePlane { index: spec.server_port, plane: spec });
    }
    maps.planes.values().map(|spec| (spec.server_port, [spec.low, spec.high])).collect()
}

#[test]
fn a_plane_that_is_alone_has_all_ports() {
    for all in [DEDICATED, SHARED] {
        assert_eq!(write(&mut empty(), &[0], all), [(0, all)]);
        assert_eq!(write(&mut empty(), &[1, 2], all), [(1, all), (2, all)]);
    }
}

#[test]
fn the_plane_of_all_ports_and_others_have_half_each() {
    assert_eq!(write(&mut empty(), &[0, 1], DEDICATED), [(0, [(130, 126), (0, 0)]), (1, [(4, 126), (0, 0)])]);
    assert_eq!(write(&mut empty(), &[0, 1], SHARED), [(0, [(74, 54), (239, 17)]), (1, [(4, 70), (0, 0)])]);
}

#[test]
fn who_comes_later_gets_what_is_left() {
    let mut maps = empty();
    write(&mut maps, &[1, 2], DEDICATED);
    maps.chunks_given.insert(2, 200);
    assert_eq!(
        write(&mut maps, &[0, 1, 2, 3], DEDICATED),
        [(0, [(212, 44), (0, 0)]), (1, [(4, 208), (0, 0)]), (2, [(4, 208), (0, 0)]), (3, [(4, 208), (0, 0)])]
    );
    let mut maps = empty();
    write(&mut maps, &[0], DEDICATED);
    maps.chunks_given.insert(0, 3);
    assert_eq!(write(&mut maps, &[0, 1], DEDICATED), [(0, [(4, 126), (0, 0)]), (1, [(130, 126), (0, 0)])]);
}

#[test]
fn who_is_left_alone_gets_all_and_uses_what_it_has_first() {
    let mut maps = empty();
    write(&mut maps, &[0, 1], DEDICATED);
    maps.chunks_given.extend([(0, 1), (1, 1)]);
    let mut other = maps.clone();
    maps.apply(&Op::FreePlane { index: 1 });
    assert_eq!(write(&mut maps, &[0], DEDICATED), [(0, [(130, 126), (4, 126)])]);
    other.apply(&Op::FreePlane { index: 0 });
    assert_eq!(write(&mut other, &[1], DEDICATED), [(1, DEDICATED)]);
    let mut three = empty();
    write(&mut three, &[0, 1], SHARED);
    three.chunks_given.insert(0, 1);
    three.apply(&Op::FreePlane { index: 1 });
    assert_eq!(write(&mut three, &[0], SHARED), [(0, [(74, 54), (239, 17)])], "a third range has no place in the record");
}

#[test]
fn ports_are_given_up_before_others_get_them() {
    let mut maps = empty();
    write(&mut maps, &[0, 1], DEDICATED);
    maps.planes.remove(&0);
    let order: Vec<u16> =
        assigned(&maps, [plane(0, DEDICATED), plane(1, DEDICATED)].into_iter()).iter().map(|spec| spec.server_port).collect();
    assert_eq!(order, [0, 1], "nothing is given up");
    write(&mut maps, &[1], DEDICATED);
    let order: Vec<u16> =
        assigned(&maps, [plane(0, DEDICATED), plane(1, DEDICATED)].into_iter()).iter().map(|spec| spec.server_port).collect();
    assert_eq!(order, [1, 0]);
}

#[derive(Clone, Debug)]
struct Step {
    wanted: Vec<u16>,
    freed: Vec<u16>,
    growth: usize,
}

fn a_step() -> impl Strategy<Value = Step> {
    let some = || subsequence(vec![0_u16, 1, 2, 3], 0..=4);
    (some(), some(), 0..60_usize).prop_map(|(wanted, freed, growth)| Step { wanted, freed, growth })
}

proptest! {
    /// Planes come, are given chunks in their order, and go; what they were given stays theirs.
    #[test]
    fn no_port_is_ever_of_two_planes_that_a_server_cannot_tell_apart(
        all in prop_oneof![Just(DEDICATED), Just(SHARED)], steps in prop::collection::vec(a_step(), 1..12)
    ) {
        let mut maps = empty();
        for Step { wanted, freed, growth } in steps {
            for index in freed.iter().filter(|index| !wanted.contains(index)) {
                maps.apply(&Op::FreePlane { index: *index });
            }
            let before = maps.clone();
            write(&mut maps, &wanted, all);
            let again = assigned(&maps, wanted.iter().map(|port| plane(*port, all)));
            prop_assert!(again.iter().all(|spec| maps.planes[&spec.server_port] == *spec));
            for (index, spec) in &before.planes {
                let used = usize::from(before.chunks_given.get(index).copied().unwrap_or(0));
                prop_assert_eq!(&positions(spec)[..used], &positions(&maps.planes[index])[..used]);
            }
            let of = |index: u16| maps.planes.get(&index).map(positions).unwrap_or_default();
            for exact in 1..4 {
                prop_assert!(of(0).iter().all(|position| !of(exact).contains(position)));
            }
            for (index, spec) in &maps.planes {
                let given = maps.chunks_given.entry(*index).or_insert(0);
                *given = (usize::from(*given) + growth).min(positions(spec).len()) as u16;
            }
        }
    }
}
