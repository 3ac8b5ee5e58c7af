use std::net::{IpAddr, Ipv4Addr};

use bytemuck::Zeroable;

use super::*;

fn maps() -> Installed {
    Installed::new(Capacity { services: 3, members: 2, vips: 2, planes: 2 })
}

fn record(slot_page: u32, slots: u32) -> Service {
    Service { slot_page, slot_mask: slots - 1, ..Service::zeroed() }
}

#[test]
fn pages_go_to_the_first_gap_that_holds_them() {
    let mut maps = maps();
    let take = |maps: &Installed, pages: &[u32]| {
        let mut free = maps.free_pages();
        pages.iter().map(|pages| free.take(*pages)).collect::<Vec<_>>()
    };
    assert_eq!(take(&maps, &[16, 1]), [Some(0), Some(16)]);
    maps.apply(&Op::WriteService { id: ServiceId(1), record: record(0, 256) });
    maps.apply(&Op::WriteService { id: ServiceId(2), record: record(3, 8192) });
    assert_eq!(take(&maps, &[3, 1, 2, 1]), [Some(5), Some(1), Some(8), Some(2)]);
    assert_eq!(take(&maps, &[2, 1]), [Some(1), Some(5)]);
    maps.apply(&Op::WriteService { id: ServiceId(3), record: record(5, 65_536) });
    assert_eq!((take(&maps, &[SLOT_PAGES - 21]), take(&maps, &[SLOT_PAGES - 20])), (vec![Some(21)], vec![None]));
}

#[test]
fn the_lowest_free_numbers_are_given() {
    let mut maps = maps();
    let member = MemberId::new(1).unwrap();
    maps.apply(&Op::WriteMember { id: member, info: MemberInfo { service: 1, ..MemberInfo::zeroed() } });
    assert_eq!(maps.free_members().map(MemberId::number).collect::<Vec<_>>(), [2]);
    assert_eq!(maps.free_services().next(), Some(ServiceId(2)), "a member left behind names the first");
    maps.apply(&Op::FreeMember { id: member });
    assert_eq!(maps.free_services().next(), Some(ServiceId(1)));
}

#[test]
fn a_new_service_has_nobody_in_its_slots_and_a_rewritten_one_keeps_them() {
    let mut maps = maps();
    let (id, member) = (ServiceId(1), MemberId::new(2));
    maps.apply(&Op::WriteService { id, record: record(0, 256) });
    assert_eq!(maps.services[&id].current[..], [None; 256]);
    maps.apply(&Op::SetSlots { service: id, shares: Vec::new(), current: [member; 256].into() });
    maps.apply(&Op::WriteService { id, record: Service { idle_s: 9, ..record(0, 256) } });
    assert_eq!((maps.services[&id].record.idle_s, &maps.services[&id].current[..]), (9, &[member; 256][..]));
}

#[test]
fn services_of_ports_and_of_whole_addresses_are_published() {
    let mut maps = maps();
    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)).into();
    let vip = Vip { address, any_tcp: 3, any_udp: 0, flags: 0, reserved: [0; 2] };
    maps.apply(&Op::PublishVip { index: 1, vip });
    maps.apply(&Op::PublishPort { vip: 1, port: 80, protocol: 6, service: ServiceId(1) });
    assert_eq!(maps.published_services(), [ServiceId(1), ServiceId(3)].into());
    maps.apply(&Op::UnpublishPort { vip: 1, port: 80, protocol: 6 });
    maps.apply(&Op::UnpublishVip { index: 1 });
    assert_eq!(maps.published_services(), [].into());
}

#[test]
fn a_member_half_written_differs_from_its_info() {
    let mut maps = maps();
    let (id, info) = (MemberId::new(1).unwrap(), MemberInfo { service: 1, ..MemberInfo::zeroed() });
    maps.apply(&Op::WriteMember { id, info });
    assert!(maps.members[&id].is_as(&info));
    maps.members.get_mut(&id).unwrap().state = 1;
    assert!(!maps.members[&id].is_as(&info));
}
