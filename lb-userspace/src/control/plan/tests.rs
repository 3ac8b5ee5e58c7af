mod events;
mod properties;
mod world;

use std::{net::IpAddr, sync::Arc};

use lb_common::{
    maps::Service,
    words::{MemberWord, VipWord},
};
use world::*;

use super::*;
use crate::{
    config::model::{Forward, Listener, Pool, Protocol, Server, ServerState},
    control::Endpoint,
};

/// The names of the operations, those of one kind in a row once.
fn kinds(ops: &[Op]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = ops
        .iter()
        .map(|op| match op {
            Op::CreateSlots { .. } => "create slots",
            Op::WriteMember { .. } => "member",
            Op::SetHeader { .. } => "header",
            Op::WritePlane { .. } => "plane",
            Op::AddSourceRule { .. } => "add rule",
            Op::WriteService { .. } => "service",
            Op::SetSlots { .. } => "slots",
            Op::PublishVip { .. } => "publish vip",
            Op::PublishPort { .. } => "publish port",
            Op::UnpublishPort { .. } => "unpublish port",
            Op::UnpublishVip { .. } => "unpublish vip",
            Op::RemoveSourceRule { .. } => "remove rule",
            Op::FreeMember { .. } => "free member",
            Op::FreePlane { .. } => "free plane",
            Op::FreeService { .. } => "free service",
        })
        .collect();
    kinds.dedup();
    kinds
}

fn nat(snat: &[&str], servers: &[Server]) -> Pool {
    Pool { forward: Forward::Nat { snat: snat.iter().map(|text| ip(text)).collect() }, ..pool(servers) }
}

#[test]
fn a_new_service_is_published_last() {
    let ops = World::new().converge(&web_on(&[server(1)]));
    assert_eq!(kinds(&ops), ["create slots", "service", "member", "header", "slots", "publish vip", "publish port"]);
}

#[test]
fn replies_to_snat_addresses_are_received_before_a_header_names_a_plane() {
    let mut listener = web();
    listener.allow = vec!["10.0.0.0/8".parse().unwrap()];
    let mut world = World::new();
    let ops = world.converge(&desired(&[listener], &[nat(&["10.0.1.1"], &[server(1)])]));
    let expected =
        ["create slots", "service", "plane", "publish vip", "member", "header", "slots", "add rule", "publish vip", "publish port"];
    assert_eq!(kinds(&ops), expected);
    let flags: Vec<u32> = world.vips().values().map(|(flags, _)| *flags).collect();
    assert_eq!(flags, [u32::from(VipWord::SNAT), u32::from(VipWord::VIP)]);
}

#[test]
fn one_address_may_be_vip_and_snat_address() {
    let mut world = World::new();
    world.converge(&desired(&[web()], &[nat(&["192.0.2.1"], &[server(1)])]));
    assert_eq!(world.vips().values().map(|(flags, _)| *flags).collect::<Vec<_>>(), [u32::from(VipWord::VIP | VipWord::SNAT)]);
}

#[test]
fn an_added_server_is_written_before_slots_name_it_and_nothing_else_changes() {
    let mut world = World::fresh(&web_on(&[server(1)]));
    assert_eq!(kinds(&world.converge(&web_on(&[server(1), server(2)]))), ["member", "header", "slots"]);
}

#[test]
fn a_server_that_drains_or_fails_is_marked_after_its_slots_have_left() {
    for (state, flags) in [(ServerState::Drain, MemberWord::NO_NEW), (ServerState::Down, MemberWord::NO_NEW | MemberWord::DOWN)] {
        let mut world = World::fresh(&web_on(&[server(1), server(2)]));
        let ops = world.converge(&web_on(&[Server { state, ..server(1) }, server(2)]));
        assert_eq!(kinds(&ops), ["slots", "member"]);
        let (id, member) = world.member(1).unwrap();
        assert_eq!((member.state, member.info.retired_at, world.slots_of(id)), (flags, 0, 0));
        assert_eq!(kinds(&world.converge(&web_on(&[server(1), server(2)]))), ["member", "slots"]);
    }
}

#[test]
fn with_every_server_down_the_slots_name_nobody() {
    let down = |number| Server { state: ServerState::Down, ..server(number) };
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    world.converge(&web_on(&[down(1), down(2)]));
    assert!(world.maps.services.values().all(|service| service.current.iter().all(Option::is_none)));
}

#[test]
fn a_removed_server_is_retired_and_freed_one_idle_timeout_later_when_nothing_names_it() {
    let (both, one) = (web_on(&[server(1), server(2)]), web_on(&[server(2)]));
    let mut world = World::fresh(&both);
    let id = world.member(1).unwrap().0;
    assert_eq!(kinds(&world.converge(&one)), ["slots", "member"]);
    let (_, member) = world.member(1).unwrap();
    assert_eq!((member.info.retired_at, member.state, member.info.weight), (1000, MemberWord::NO_NEW, 0));

    let only = |members: &[MemberId]| Freeable { members: members.iter().copied().collect(), ..Freeable::default() };
    world.now += IDLE_S as u32;
    assert_eq!(world.ops(&one, &only(&[id])), [], "one second too early");
    world.now += 1;
    assert_eq!(world.ops(&one, &only(&[])), [], "a flow names it");
    assert_eq!(world.ops(&one, &only(&[id])), [Op::FreeMember { id }]);
}

#[test]
fn a_retired_server_that_comes_back_is_the_same_member() {
    let (both, one) = (web_on(&[server(1), server(2)]), web_on(&[server(2)]));
    let mut world = World::fresh(&both);
    let id = world.member(1).unwrap().0;
    world.converge(&one);
    world.wait(500);
    let freeable = world.freeable();
    assert!(freeable.members.contains(&id));
    let ops = world.ops(&both, &freeable);
    assert_eq!(kinds(&ops), ["member", "slots"]);
    ops.iter().for_each(|op| world.perform(op));
    assert_eq!(world.member(1).map(|(id, member)| (id, member.info.retired_at, member.state)), Some((id, 0, 0)));
}

#[test]
fn a_retired_member_follows_its_next_hop() {
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    let mut one = web_on(&[server(2)]);
    world.converge(&one);
    Arc::make_mut(&mut one.next_hops).insert(IpAddr::from([10, 0, 0, 1]), next_hop(77));
    assert_eq!(kinds(&world.converge(&one)), ["header"]);
    assert_eq!(world.member(1).unwrap().1.header.as_ref().unwrap().bytes[0] as u8, 77);
    Arc::make_mut(&mut one.next_hops).remove(&IpAddr::from([10, 0, 0, 1]));
    assert_eq!(world.converge(&one), []);
}

#[test]
fn a_time_of_retirement_to_come_is_set_anew() {
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    let one = web_on(&[server(2)]);
    world.converge(&one);
    world.now = 10;
    assert_eq!(kinds(&world.converge(&one)), ["member"]);
    assert_eq!(world.member(1).unwrap().1.info.retired_at, 10);
}

#[test]
fn a_dropped_service_is_unpublished_first_and_freed_whole() {
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    let nothing = desired(&[], &[]);
    assert_eq!(kinds(&world.converge(&nothing)), ["unpublish port", "unpublish vip", "member"]);
    world.wait(500);
    let freeable = world.freeable();
    let kept = Freeable { members: freeable.members.iter().copied().skip(1).collect(), ..Freeable::default() };
    assert_eq!(world.ops(&nothing, &kept), [], "a flow names one of its members");
    let ops = world.ops(&nothing, &freeable);
    assert_eq!(kinds(&ops), ["free service", "free member"]);
    ops.iter().for_each(|op| world.perform(op));
    assert_eq!(world.maps, Installed::new(CAPACITY));
}

#[test]
fn a_service_that_comes_back_in_time_has_its_incarnation_slots_and_members() {
    let web = web_on(&[server(1), server(2)]);
    let mut world = World::fresh(&web);
    let before = world.maps.clone();
    world.converge(&desired(&[], &[]));
    world.wait(500);
    let freeable = world.freeable();
    let ops = world.ops(&web, &freeable);
    assert_eq!(kinds(&ops), ["member", "publish vip", "publish port"]);
    ops.iter().for_each(|op| world.perform(op));
    assert_eq!(world.maps, before);
}

#[test]
fn members_left_behind_by_a_freed_service_are_freed() {
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    let nothing = desired(&[], &[]);
    world.converge(&nothing);
    world.wait(500);
    let freeable = world.freeable();
    let ops = world.ops(&nothing, &freeable);
    world.perform(&ops[0]);
    let again = web_on(&[server(1)]);
    let ops = world.ops(&again, &Freeable::default());
    assert!(!ops.iter().any(|op| matches!(op, Op::WriteService { id: ServiceId(1), .. })), "its number is still named");
    let ops = world.ops(&again, &freeable);
    assert_eq!(kinds(&ops)[..2], ["free member", "create slots"]);
}

#[test]
fn slots_and_slot_key_stay_for_a_services_life() {
    let mut world = World::fresh(&web_on(&[server(1)]));
    let mut larger = web_on(&[server(1)]);
    let key = *larger.services.keys().next().unwrap();
    Arc::make_mut(larger.services.get_mut(&key).unwrap()).slots = 4096;
    assert_eq!(world.converge(&larger), []);
    assert_eq!(held_back(&world.maps, &larger), [key]);
    assert_eq!(held_back(&world.maps, &web_on(&[server(1)])), []);
}

#[test]
fn a_new_list_of_sources_refuses_nobody_that_both_lists_allow() {
    let allow = |nets: &[&str]| Listener { allow: nets.iter().map(|net| net.parse().unwrap()).collect(), ..web() };
    let pools = [pool(&[server(1)])];
    let mut world = World::fresh(&desired(&[web()], &pools));
    assert_eq!(kinds(&world.converge(&desired(&[allow(&["10.0.0.0/8"])], &pools))), ["add rule", "service"]);
    assert_eq!(kinds(&world.converge(&desired(&[allow(&["10.0.0.0/9"])], &pools))), ["add rule", "remove rule"]);
    assert_eq!(kinds(&world.converge(&desired(&[web()], &pools))), ["service", "remove rule"]);
}

#[test]
fn services_of_one_pool_share_planes_and_a_plane_is_freed_with_its_last_user() {
    let dns = Listener { binds: vec![bind("192.0.2.2", Some(80), Protocol::Tcp)], ..web() };
    let pools = [nat(&["10.0.1.1", "10.0.1.2"], &[server(1)])];
    let mut world = World::fresh(&desired(&[web(), dns], &pools));
    assert_eq!((world.maps.planes.len(), world.snat_of(1)), (2, vec![ip("10.0.1.1"), ip("10.0.1.2")]));
    let one = desired(&[web()], &pools);
    world.come_to_rest(&one);
    assert_eq!(world.maps.planes.len(), 2);
    world.come_to_rest(&web_on(&[server(1)]));
    assert_eq!(world.maps.planes.len(), 0);
}

#[test]
fn a_longer_list_of_snat_addresses_is_used_whole_in_the_end() {
    let list = |snat: &[&str]| desired(&[web()], &[nat(snat, &[server(1), server(2)])]);
    let mut world = World::fresh(&list(&["10.0.1.1"]));
    let longer = list(&["10.0.1.1", "10.0.1.2", "10.0.1.3"]);
    world.converge(&longer);
    assert_eq!(world.converge(&longer), []);
    world.come_to_rest(&longer);
    assert_eq!([world.snat_of(1).len(), world.snat_of(2).len()], [3, 3]);
}

/// [`World::perform`] checks that their planes have no port in common.
#[test]
fn a_service_of_all_ports_and_one_of_a_port_share_the_ports_of_a_snat_address() {
    let all = Listener { binds: vec![bind("192.0.2.2", None, Protocol::Tcp)], ..web() };
    let pools = [nat(&["10.0.1.1"], &[server(1)])];
    let chunks = |world: &World| world.maps.planes.values().map(|plane| plane.low.1).collect::<Vec<_>>();
    let mut world = World::fresh(&desired(&[web()], &pools));
    assert_eq!(chunks(&world), [252]);
    assert_eq!(kinds(&world.converge(&desired(&[web(), all.clone()], &pools)))[2..4], ["plane", "member"]);
    assert_eq!(chunks(&world), [126, 126]);
    world.come_to_rest(&desired(&[all], &pools));
    assert_eq!(
        world.maps.planes.values().map(|plane| (plane.server_port, plane.low, plane.high)).collect::<Vec<_>>(),
        [(0, (4, 252), (0, 0))]
    );
}

#[test]
fn the_flows_of_a_service_that_turns_from_nat_are_closed() {
    let translated = desired(&[web()], &[nat(&["10.0.1.1"], &[server(1)])]);
    let mut world = World::fresh(&translated);
    let before = world.member(1).unwrap().0;
    let plain = web_on(&[server(1)]);
    assert_eq!(kinds(&world.converge(&plain)), ["member", "header", "slots", "service", "member"]);
    let closing = MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING;
    assert_eq!((world.maps.members[&before].state, world.slots_of(before)), (closing, 0));
    assert_eq!(world.earlier(ServiceId(1)), [Some(before)].into());
    assert!(world.leads_where_it_can());
    world.converge(&translated);
    assert_eq!((world.maps.members[&before].state, world.slots_of(before)), (0, 256), "what comes back in time is as it was");
    world.come_to_rest(&plain);
    assert!(!world.maps.members.contains_key(&before));
}

#[test]
fn a_change_between_other_modes_keeps_members_and_slots() {
    let by = |forward| desired(&[web()], &[Pool { forward, ..pool(&[server(1)]) }]);
    let mut world = World::fresh(&by(Forward::Dsr));
    for forward in [Forward::Ipip, Forward::Gue { port: 6080 }, Forward::Dsr] {
        assert_eq!(kinds(&world.converge(&by(forward))), ["member", "header"]);
    }
}

#[test]
fn a_service_stays_with_nat_while_those_who_take_over_have_no_room() {
    let mut world = World::new();
    world.maps.capacity.members = 1;
    world.converge(&desired(&[web()], &[nat(&["10.0.1.1"], &[server(1)])]));
    let plan = world.plan(&web_on(&[server(1)]), &Freeable::default());
    assert_eq!((plan.ops, plan.unplaced.len()), (vec![], 1));
}

#[test]
fn a_member_half_written_is_written_again() {
    let web = web_on(&[server(1)]);
    let mut world = World::fresh(&web);
    let id = world.member(1).unwrap().0;
    world.maps.members.get_mut(&id).unwrap().service = ServiceId::NONE;
    assert_eq!(kinds(&world.converge(&web)), ["member"]);
}

#[test]
fn a_retired_member_that_a_slot_still_names_is_not_freed_and_the_slot_is_mended() {
    let one = web_on(&[server(2)]);
    let mut world = World::fresh(&web_on(&[server(1), server(2)]));
    world.converge(&one);
    world.now += 500;
    let id = world.member(1).unwrap().0;
    let service = world.maps.services.get_mut(&ServiceId(1)).unwrap();
    (service.current, service.shares) = ([Some(id); 256].into(), None);
    let freeable = Freeable { members: [id].into(), ..Freeable::default() };
    assert_eq!(kinds(&world.ops(&one, &freeable)), ["slots"]);
}

/// What has no room of `desired` in empty maps that were changed.
fn left_out(change: &dyn Fn(&mut Installed), desired: &Desired) -> Vec<(Option<IpAddr>, Table)> {
    let mut world = World::new();
    change(&mut world.maps);
    let Plan { ops, unplaced } = world.plan(desired, &Freeable::default());
    ops.iter().for_each(|op| world.perform(op));
    let again = world.plan(desired, &Freeable::default());
    assert_eq!((again.ops, &again.unplaced), (vec![], &unplaced));
    unplaced.iter().map(|one| (one.server.map(|server| server.address), one.table)).collect()
}

#[test]
fn what_a_full_table_has_no_room_for_is_named() {
    let second = Some(ip("10.0.0.2"));
    let web = web_on(&[server(1), server(2)]);
    assert_eq!(left_out(&|maps| maps.capacity.services = 0, &web), [(None, Table::Services)]);
    assert_eq!(left_out(&|maps| maps.capacity.members = 1, &web), [(second, Table::Members)]);
    assert_eq!(left_out(&|maps| maps.capacity.vips = 0, &web), [(None, Table::Vips)]);
    let translated = desired(&[world::web()], &[nat(&["10.0.1.1"], &[server(1), server(2)])]);
    assert_eq!(left_out(&|maps| maps.capacity.planes = 1, &translated), [(second, Table::Planes)]);
    let vips = left_out(&|maps| maps.capacity.vips = 1, &desired(&[world::web()], &[nat(&["10.0.1.1"], &[server(1)])]));
    assert_eq!(vips, [(None, Table::Vips)]);
}

#[test]
fn a_service_without_room_for_its_slots_is_left_out() {
    let fill = |maps: &mut Installed| {
        let record = Service { slot_mask: 65_535 * 4096, ..bytemuck::Zeroable::zeroed() };
        let service = crate::control::installed::InstalledService { record, current: [].into(), shares: None };
        maps.services.insert(ServiceId(1), service);
    };
    let mut large = web_on(&[server(1)]);
    large.services.values_mut().for_each(|service| Arc::make_mut(service).slots = 8192);
    let mut maps = Installed::new(CAPACITY);
    fill(&mut maps);
    maps.vips.insert(1, lb_common::maps::Vip { address: ip("192.0.2.9").into(), any_tcp: 1, any_udp: 0, flags: 0, reserved: [0; 2] });
    let plan = plan(&large, &maps, 1, &Freeable::default(), &mut || 1);
    assert_eq!(plan.unplaced.iter().map(|one| (one.server, one.table)).collect::<Vec<_>>(), [(None, Table::SlotPages)]);
}

#[test]
fn slot_pages_side_by_side_are_created_at_once() {
    let binds = (1..9).map(|port| bind("192.0.2.1", Some(port), Protocol::Tcp)).collect();
    let created = |ops: Vec<Op>| ops.into_iter().filter(|op| matches!(op, Op::CreateSlots { .. })).collect::<Vec<_>>();
    let desired = desired(&[Listener { binds, slots: 8192, ..web() }], &[pool(&[server(1)])]);
    assert_eq!(created(World::new().converge(&desired)), [Op::CreateSlots { first_page: 0, pages: 16 }]);
}

#[test]
fn what_has_no_room_is_told_in_a_line_for_each_table() {
    let one = |number: Option<u8>, table| {
        let server = number.map(|number| Endpoint { address: IpAddr::from([10, 0, 0, number]), port: 0 });
        Unplaced { service: ServiceKey { vip: ip("192.0.2.1"), port: 80, protocol: Protocol::Tcp }, server, table }
    };
    let unplaced = [one(Some(1), Table::Planes), one(None, Table::Services), one(Some(2), Table::Planes)];
    assert_eq!(
        in_words(&unplaced, CAPACITY),
        [
            "no room for service 192.0.2.1 port 80: all 16 services are in use; dropped ones are freed an idle timeout after their last packet, or raise limits.services",
            "no room for server 10.0.0.1 of 192.0.2.1 port 80 and 1 more: too few of 400 NAT planes are free; dropped ones are freed an idle timeout after their last packet, or raise limits.nat_planes",
        ]
    );
}

#[test]
fn a_server_without_room_holds_up_nothing_else() {
    let pool = |servers: &[Server]| desired(&[web()], &[nat(&["10.0.1.1"], servers)]);
    let mut world = World::new();
    world.maps.capacity.planes = 3;
    world.converge(&pool(&[server(1), server(2), server(3)]));
    let down = Server { state: ServerState::Down, ..server(1) };
    let changed = pool(&[down, server(2), server(4)]);
    let Plan { ops, unplaced } = world.plan(&changed, &Freeable::default());
    assert_eq!(unplaced.len(), 1);
    ops.iter().for_each(|op| world.perform(op));
    let state = |world: &World, number| world.member(number).map(|(id, member)| (member.state, world.slots_of(id)));
    assert_eq!(state(&world, 1), Some((MemberWord::NO_NEW | MemberWord::DOWN, 0)));
    assert_eq!((state(&world, 2), state(&world, 3)), (Some((0, 256)), Some((MemberWord::NO_NEW, 0))));
    assert_eq!(state(&world, 4), None);
    world.come_to_rest(&changed);
    let slots = [2, 4].map(|number| state(&world, number).unwrap().1);
    assert_eq!((slots.iter().sum::<usize>(), slots.iter().all(|slots| *slots > 100)), (256, true));
}

#[test]
fn a_service_none_of_whose_servers_has_room_goes_on_with_those_it_has() {
    let mut world = World::new();
    world.maps.capacity.members = 3;
    world.converge(&web_on(&[server(1), server(2), server(3)]));
    let others = web_on(&[server(4), server(5), server(6)]);
    world.plan(&others, &Freeable::default()).ops.iter().for_each(|op| world.perform(op));
    let slots = |world: &World| [1, 2, 3, 4, 5, 6].map(|number| world.member(number).map(|(id, _)| world.slots_of(id) > 0));
    assert_eq!(slots(&world), [Some(true), Some(true), Some(false), None, None, None], "one goes to make room");
    assert_eq!(world.plan(&others, &Freeable::default()).ops, []);
    world.come_to_rest(&others);
    assert_eq!(slots(&world), [None, None, None, Some(true), Some(true), Some(true)]);
}

#[test]
fn a_last_server_without_a_successor_stays() {
    let mut world = World::new();
    world.maps.capacity.members = 1;
    world.converge(&web_on(&[server(1)]));
    world.come_to_rest(&web_on(&[server(2)]));
    assert_eq!(world.member(1).map(|(id, member)| (member.state, world.slots_of(id))), Some((0, 256)));
    let down = Server { state: ServerState::Down, ..server(2) };
    world.come_to_rest(&web_on(&[down]));
    assert_eq!(world.member(1).map(|(_, member)| member.state), Some(MemberWord::NO_NEW), "not for one that should not serve");
}

#[test]
fn every_service_gets_some_of_many_servers() {
    let other = Listener { binds: vec![bind("192.0.2.2", Some(80), Protocol::Tcp)], ..web() };
    let mut world = World::new();
    world.maps.capacity.members = 4;
    let desired = desired(&[web(), other], &[pool(&[server(1), server(2), server(3)])]);
    world.plan(&desired, &Freeable::default()).ops.iter().for_each(|op| world.perform(op));
    let of = |id| world.maps.members.values().filter(|member| member.service == id).count();
    assert_eq!([of(ServiceId(1)), of(ServiceId(2))], [2, 2]);
}

#[test]
fn planes_in_use_stay_while_there_is_no_room_for_others() {
    let list = |snat: &[&str]| desired(&[web()], &[nat(snat, &[server(1)])]);
    let mut world = World::new();
    world.maps.capacity.planes = 1;
    world.converge(&list(&["10.0.1.1"]));
    let Plan { ops, unplaced } = world.plan(&list(&["10.0.1.2"]), &world.freeable());
    assert_eq!((ops, unplaced.len()), (vec![], 1));
    assert_eq!(world.snat_of(1), [ip("10.0.1.1")]);
}

#[test]
fn numbers_of_dropped_members_are_taken_once_they_are_free() {
    let mut world = World::new();
    world.maps.capacity.members = 2;
    world.converge(&web_on(&[server(1)]));
    world.converge(&web_on(&[server(2)]));
    let third = web_on(&[server(3)]);
    assert_eq!(world.plan(&third, &Freeable::default()).unplaced.len(), 1);
    world.wait(500);
    let freeable = world.freeable();
    let ops = world.ops(&third, &freeable);
    assert_eq!(kinds(&ops), ["free member", "member", "header", "slots", "member"]);
    ops.iter().for_each(|op| world.perform(op));
}
