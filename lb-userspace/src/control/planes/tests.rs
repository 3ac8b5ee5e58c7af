use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::control::installed::Capacity;

fn plane(snat: u8) -> PlaneSpec {
    plane_toward(snat, 1)
}

fn plane_toward(snat: u8, server: u8) -> PlaneSpec {
    let address = |last| Address::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    PlaneSpec { snat: address(snat), server: address(server), server_port: 80, protocol: 6, low: (4, 252), high: (0, 0) }
}

fn installed(planes: &[(u16, PlaneSpec)]) -> Installed {
    let mut installed = Installed::new(Capacity { services: 1, members: 1, vips: 1, planes: 8 });
    installed.planes.extend(planes.iter().copied());
    installed
}

fn provide(installed: &Installed, lists: &[&[PlaneSpec]]) -> Vec<Op> {
    let mut numbers = PlaneNumbers::of(installed);
    assert!(lists.iter().all(|list| numbers.place(list)));
    numbers.writes(installed, &lists.iter().copied().flatten().collect())
}

/// The planes written, and the run that results.
fn provided(installed: &mut Installed, list: &[PlaneSpec]) -> (Vec<u16>, (u16, u16)) {
    let ops = provide(installed, &[list]);
    ops.iter().for_each(|op| installed.apply(op));
    let indexes = ops.iter().map(|op| if let Op::WritePlane { index, .. } = op { *index } else { panic!("{op:?}") }).collect();
    let run = PlaneNumbers::of(installed).run(list).unwrap();
    assert_eq!(run.snat, installed.planes[&run.first].snat);
    (indexes, (run.first, run.count))
}

#[test]
fn a_new_list_gets_the_first_room_that_holds_it() {
    let mut maps = installed(&[(2, plane_toward(9, 9)), (4, plane_toward(9, 8))]);
    assert_eq!(provided(&mut maps, &[plane(20), plane(21)]), (vec![5, 6], (5, 2)));
    assert_eq!(provided(&mut maps, &[plane(20), plane(21)]), (vec![], (5, 2)));
}

#[test]
fn a_list_that_grows_is_extended_in_place() {
    let mut maps = installed(&[(3, plane(20)), (4, plane_toward(9, 9))]);
    assert_eq!(provided(&mut maps, &[plane(20), plane(21)]), (vec![2], (2, 2)));
}

#[test]
fn a_list_without_room_to_grow_moves_as_its_planes_are_freed() {
    let mut maps = installed(&[(1, plane(20)), (2, plane_toward(9, 9))]);
    let list = [plane(20), plane(21)];
    assert_eq!(provided(&mut maps, &list), (vec![3], (3, 1)));
    assert_eq!(provided(&mut maps, &list), (vec![], (3, 1)));
    maps.apply(&Op::FreePlane { index: 1 });
    assert_eq!(provided(&mut maps, &list), (vec![4], (3, 2)));
}

#[test]
fn a_list_that_shrinks_stays_where_it_is() {
    let mut maps = installed(&[(1, plane(20)), (2, plane(21)), (3, plane(22))]);
    assert_eq!(provided(&mut maps, &[plane(21), plane(22)]), (vec![], (2, 2)));
    assert_eq!(provided(&mut maps, &[plane(20), plane(22)]).0, Vec::<u16>::new());
}

#[test]
fn lists_that_overlap_share_planes() {
    let mut maps = installed(&[]);
    let lists: [&[PlaneSpec]; 2] = [&[plane(20), plane(21)], &[plane(21), plane(22)]];
    let ops = provide(&maps, &lists);
    ops.iter().for_each(|op| maps.apply(op));
    let runs = lists.map(|list| PlaneNumbers::of(&maps).run(list).map(|run| (run.first, run.count)));
    assert_eq!((ops.len(), runs), (3, [Some((1, 2)), Some((2, 2))]));
}

#[test]
fn a_plane_whose_ranges_change_is_rewritten_where_it_is() {
    let mut maps = installed(&[(3, plane(20))]);
    assert_eq!(provided(&mut maps, &[PlaneSpec { low: (4, 10), ..plane(20) }]), (vec![3], (3, 1)));
}

#[test]
fn more_planes_than_the_map_holds_have_no_room() {
    let maps = installed(&[]);
    let list: Vec<PlaneSpec> = (20..29).map(plane).collect();
    let mut numbers = PlaneNumbers::of(&maps);
    assert!(!numbers.place(&list));
    assert!(numbers.place(&list[1..]));
    assert!(!numbers.place(&[plane(40)]));
}

#[test]
fn a_list_that_fits_nowhere_keeps_to_the_part_that_is_there() {
    let mut maps = installed(&[(1, plane(20))]);
    maps.planes.extend((2..=7).map(|index| (index, plane_toward(9, index as u8))));
    assert_eq!(provided(&mut maps, &[plane(20), plane(21)]), (vec![], (1, 1)));
}
