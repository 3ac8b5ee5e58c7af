//! Operations on the tables, and what time makes of them.

use super::*;

#[test]
fn a_member_gets_a_fresh_header_each_time_and_keeps_its_state() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start_with(&Limits { members: 1, ..LIMITS }, Features(0), &["in0"]).unwrap();
    let info = MemberInfo {
        address: address("10.0.0.1"),
        service: 3,
        state: MemberWord::NO_NEW,
        forward: ForwardKind::Dsr as u8,
        ..MemberInfo::zeroed()
    };
    let set = |mtu| Op::SetHeader {
        id: member(1),
        header: Some(std::sync::Arc::new(Header { kind: ForwardKind::Dsr as u8, mtu, ..Header::zeroed() })),
    };
    apply_all(&mut dataplane, &[Op::WriteMember { id: member(1), info }, set(1500), set(1400), set(1300)], 100);
    let installed = dataplane.tables().members().unwrap();
    assert_eq!((installed[0].word, installed[0].info), (MemberWord::new(3, MemberWord::NO_NEW, ServiceId(3)), info));
    assert_eq!(installed[0].header.map(|header| header.mtu), Some(1300));

    assert!(matches!(dataplane.applier().apply(&set(1200), 101), Err(ApplyError::NoFreeHeader)));
    apply_all(&mut dataplane, &[set(1200)], 102);
    assert_eq!(dataplane.tables().members().unwrap()[0].word.header(), 1);
    apply_all(&mut dataplane, &[Op::FreeMember { id: member(1) }], 102);
    assert_eq!(dataplane.tables().members().unwrap(), []);
}

#[test]
fn slots_learn_settle_and_become_clean_and_an_adopter_restarts_the_timers() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let id = ServiceId(1);
    let all = |number| Op::SetSlots { service: id, shares: vec![], current: vec![MemberId::new(number); 8192].into() };
    let install = [Op::CreateSlots { first_page: 2, pages: 2 }, Op::WriteService { id, record: service(1) }, all(1)];
    apply_all(&mut dataplane, &install, 1000);
    assert_eq!(dataplane.tables().slot_pages().unwrap(), [2, 3]);
    assert_eq!(dataplane.applier().ripen_all(1000).unwrap(), Unripe::default());
    apply_all(&mut dataplane, &[all(2)], 1000);
    // The stores may take longer than the clock says that came with them: the first look after them starts the timers.
    for tick in [1061, 1121] {
        assert_eq!(dataplane.applier().ripen_all(tick).unwrap(), Unripe { learning: 8192, settled: 0 }, "{tick}");
    }
    drop(dataplane);

    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let adopted_at = dataplane.tick().unwrap();
    assert_eq!(dataplane.applier().ripen_all(adopted_at + 59).unwrap(), Unripe { learning: 8192, settled: 0 });
    let map = Map::from_map_data(MapData::from_pin(lab.pin_dir().join("TOUCHES")).unwrap()).unwrap();
    let mut no_room_at: Array<_, u64> = map.try_into().unwrap();
    no_room_at.set(1, u64::from(adopted_at + 10), 0).unwrap();
    assert_eq!(dataplane.applier().ripen_all(adopted_at + 61).unwrap(), Unripe { learning: 8192, settled: 0 });
    assert_eq!(dataplane.applier().ripen_all(adopted_at + 71).unwrap(), Unripe { learning: 0, settled: 8192 });
    assert_eq!(dataplane.applier().ripen_all(adopted_at + 200).unwrap(), Unripe::default());
    let slots = dataplane.tables().slots(id).unwrap();
    assert!(slots.iter().all(|slot| (slot.current(), slot.default()) == (MemberId::new(2), None)));

    apply_all(&mut dataplane, &[Op::FreeService { id, first_page: 2, pages: 2 }], 2000);
    assert_eq!(dataplane.tables().services().unwrap(), []);
    assert_eq!(dataplane.tables().slot_pages().unwrap(), [] as [u32; 0]);
}

/// The member that the clean entry of a slot in this page names.
fn clean_member(dataplane: &Dataplane, page: u32, slot: u32) -> Option<MemberId> {
    let word = dataplane.tables().slot_word(page, CleanWord::place(slot)).unwrap().unwrap();
    CleanWord(word.0).member(slot)
}

#[test]
fn clean_entries_follow_their_slots_and_an_adopter_mends_them() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let id = ServiceId(1);
    let all = |number| Op::SetSlots { service: id, shares: vec![], current: vec![MemberId::new(number); 8192].into() };
    let install = [Op::CreateSlots { first_page: 2, pages: 2 }, Op::WriteService { id, record: service(1) }, all(1)];
    apply_all(&mut dataplane, &install, 1000);
    let at = [(2, 0), (2, 4095), (3, 1)];
    assert_eq!(at.map(|(page, slot)| clean_member(&dataplane, page, slot)), [MemberId::new(1); 3]);
    apply_all(&mut dataplane, &[all(2)], 1000);
    assert_eq!(at.map(|(page, slot)| clean_member(&dataplane, page, slot)), [None; 3], "they learn");
    drop(dataplane);

    // As a daemon leaves them that dies between a slot and its clean entry.
    let pages = Map::from_map_data(MapData::from_pin(lab.pin_dir().join("SLOT_PAGES")).unwrap()).unwrap();
    let pages: ArrayOfMaps<_, MapData> = pages.try_into().unwrap();
    let mut page: Array<_, u64> = Map::from_map_data(pages.get(&3, 0).unwrap()).unwrap().try_into().unwrap();
    page.set(CleanWord::place(1), 1 << 16, 0).unwrap();
    let (dataplane, origin) = lab.start(&["in0"]).unwrap();
    assert_eq!((origin, clean_member(&dataplane, 3, 1)), (Origin::Adopted, None));
}

#[test]
fn a_list_of_another_length_than_the_table_changes_no_slot() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let id = ServiceId(1);
    apply_all(&mut dataplane, &[Op::CreateSlots { first_page: 2, pages: 2 }, Op::WriteService { id, record: service(1) }], 0);
    let short = Op::SetSlots { service: id, shares: vec![], current: vec![MemberId::new(1); 4096].into() };
    assert!(matches!(dataplane.applier().apply(&short, 0), Err(ApplyError::SetSlots(_))));
    assert!(dataplane.tables().slots(id).unwrap().iter().all(|slot| slot.0 == 0));
    let unknown = Op::SetSlots { service: ServiceId(2), shares: vec![], current: [].into() };
    assert!(matches!(dataplane.applier().apply(&unknown, 0), Err(ApplyError::SetSlots(_))));
}

#[test]
fn vips_ports_and_source_rules_are_published_and_taken_back() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let (id, source) = (ServiceId(4), "10.1.0.0/16".parse().unwrap());
    let vip = |flags: u16| Vip { address: address("192.0.2.1"), flags: u32::from(flags), ..Vip::zeroed() };
    let ops = [
        Op::PublishVip { index: 2, vip: vip(VipWord::VIP) },
        Op::PublishVip { index: 2, vip: vip(VipWord::VIP | VipWord::SNAT) },
        Op::PublishPort { vip: 2, port: 443, protocol: 6, service: ServiceId(3) },
        Op::PublishPort { vip: 2, port: 443, protocol: 6, service: id },
        Op::AddSourceRule { service: id, source, rule: SOURCE_DENY },
        Op::AddSourceRule { service: id, source: "2001:db8::/32".parse().unwrap(), rule: SOURCE_ALLOW },
    ];
    apply_all(&mut dataplane, &ops, 0);
    let tables = dataplane.tables();
    let word = tables.vips().unwrap()[0].2.unwrap();
    assert_eq!((word.flags(), word.tag()), (VipWord::VIP | VipWord::SNAT, address("192.0.2.1").v4_word()));
    assert_eq!(tables.ports().map(|port| port.service()).collect::<Vec<_>>(), [id]);
    assert_eq!(tables.source_rules().unwrap().len(), 2);
    assert_eq!(tables.source_rule(id, "10.1.2.3".parse().unwrap()).unwrap(), Some(SOURCE_DENY));
    assert_eq!(tables.source_rule(id, "2001:db8::7".parse().unwrap()).unwrap(), Some(SOURCE_ALLOW));
    assert_eq!(tables.source_rule(ServiceId(3), "10.1.2.3".parse().unwrap()).unwrap(), None);

    let back = [
        Op::UnpublishPort { vip: 2, port: 443, protocol: 6 },
        Op::UnpublishVip { index: 2 },
        Op::RemoveSourceRule { service: id, source },
        Op::RemoveSourceRule { service: id, source },
    ];
    apply_all(&mut dataplane, &back, 0);
    let tables = dataplane.tables();
    assert_eq!((tables.vips().unwrap().len(), tables.ports().count(), tables.source_rules().unwrap().len()), (0, 0, 1));
}

#[test]
fn a_full_line_is_refused_and_keeps_its_entries() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let publish = |port| Op::PublishPort { vip: 1, port, protocol: 6, service: ServiceId(1) };
    let (refused, error) =
        (1..=u16::MAX).find_map(|port| Some((port, dataplane.applier().apply(&publish(port), 0).err()?))).expect("8192 places");
    assert!(matches!(error, ApplyError::LineFull { table: "PORT_LINES", .. }), "{error:?}");
    assert_eq!(dataplane.tables().ports().count(), usize::from(refused) - 1);
    apply_all(&mut dataplane, &[publish(1)], 0);
}

#[test]
fn nat_is_turned_on_without_touching_other_tables_and_its_chunks_return() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let vip = Vip { address: address("192.0.2.1"), ..Vip::zeroed() };
    apply_all(&mut dataplane, &[Op::PublishVip { index: 1, vip }], 0);
    assert_eq!((dataplane.tables().nat_flows.len(), dataplane.tables().nat_usage().unwrap().free_chunks), (1, 0));
    let before = xdp_of("in0");
    dataplane.rebuild(Features(Settings::NAT)).unwrap();
    assert_ne!(xdp_of("in0"), before);
    assert_eq!((dataplane.tables().nat_flows.len(), dataplane.tables().nat_usage().unwrap().free_chunks), (1024, 4));
    assert_eq!(dataplane.tables().vips().unwrap().len(), 1);

    let (snat, server) = (address("10.0.0.9"), address("10.0.0.1"));
    let plane = PlaneSpec { snat, server, server_port: 8080, protocol: 6, low: (4, 100), high: (200, 50) };
    apply_all(&mut dataplane, &[Op::WritePlane { index: 3, plane }, Op::WritePlane { index: 3, plane }], 0);
    let usage = dataplane.tables().nat_usage().unwrap();
    assert_eq!((usage.planes[0].index, usage.planes[0].server_port, usage.planes[0].chunks), (3, 8080, 150));
    drop(dataplane);

    // The kernel would give a chunk like this: the ring's head, then the plane's position.
    let pin = |name: &str| Map::from_map_data(MapData::from_pin(lab.pin_dir().join(name)).unwrap()).unwrap();
    let mut ring: Array<_, u64> = pin("NAT_FREE").try_into().unwrap();
    ring.set(0, 1, 0).unwrap();
    let mut chunks: Array<_, u64> = pin("NAT_CHUNKS").try_into().unwrap();
    chunks.set(3 * 256 + 4, 1, 0).unwrap();
    let mut used: Array<_, u64> = pin("NAT_USED").try_into().unwrap();
    used.set(3, 1, 0).unwrap();

    // Turned off again, the maps stay.
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let usage = dataplane.tables().nat_usage().unwrap();
    assert_eq!((usage.free_chunks, usage.planes[0].chunks_used), (3, 1));
    apply_all(&mut dataplane, &[Op::FreePlane { index: 3 }, Op::FreePlane { index: 3 }], 0);
    let usage = dataplane.tables().nat_usage().unwrap();
    assert_eq!((usage.free_chunks, usage.planes.len()), (4, 0));
}

#[test]
fn a_sweep_empties_dead_flows_and_live_ones_are_counted_by_member() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let info = MemberInfo { service: 1, ..MemberInfo::zeroed() };
    let ops = [Op::WriteService { id: ServiceId(1), record: service(1) }, Op::WriteMember { id: member(7), info }];
    apply_all(&mut dataplane, &ops, 0);
    let mut flows: Array<_, [u64; 8]> =
        Map::from_map_data(MapData::from_pin(lab.pin_dir().join("FLOWS")).unwrap()).unwrap().try_into().unwrap();
    let now = 20_000;
    let flow = |id, state, idle| FlowWord::new(9, member(id), state, now - idle).0;
    let line = [
        flow(7, FlowState::Proven, 60),
        flow(7, FlowState::Proven, 61),
        flow(7, FlowState::Syn, 3),
        flow(7, FlowState::Syn, 4),
        flow(8, FlowState::Proven, 0),
        0,
        0,
        0,
    ];
    flows.set(5, line, 0).unwrap();
    assert_eq!(dataplane.tables().flows_by_member(now).unwrap().into_iter().collect::<Vec<_>>(), [(member(7), 2)]);
    let swept = sweep(dataplane.tables(), now).unwrap();
    assert_eq!((swept.kept, swept.emptied), (3, 2));
    assert_eq!(flows.get(&5, 0).unwrap(), [line[0], 0, line[2], line[3], 0, 0, 0, 0]);
}

#[test]
fn lookers_on_read_beside_the_daemon_and_cannot_write() {
    let lab = Lab::new();
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    let tables = Tables::open(&lab.pins(), Access::ReadOnly).unwrap();
    let ops = [Op::CreateSlots { first_page: 2, pages: 2 }, Op::WriteService { id: ServiceId(1), record: service(1) }];
    apply_all(&mut dataplane, &ops, 0);
    assert_eq!(tables.services().unwrap(), [(ServiceId(1), service(1))]);
    assert_eq!(tables.slots(ServiceId(1)).unwrap().len(), 8192);
    assert_eq!(tables.drops(ServiceId(1)).unwrap(), []);
    assert_eq!(tables.traffic(member(1)).unwrap(), Default::default());
    let mut flows: Array<_, [u64; 8]> =
        Map::from_map_data(MapData::from_pin(lab.pin_dir().join("FLOWS")).unwrap()).unwrap().try_into().unwrap();
    flows.set(0, [FlowWord::new(1, member(1), FlowState::Syn, 1).0; 8], 0).unwrap();
    assert_eq!(sweep(&tables, 1), Err(AccessError::ReadOnly { name: "FLOWS" }));
    let settings = tables.settings(Features(Settings::NAT));
    assert_eq!((settings.flow_mask, settings.endpoint_mask, settings.jiffy_us), (127, 0, 1_000_000 / dataplane.clock().hertz()));
    assert_eq!(Samples::open(&lab.pins()).unwrap().drain(8), []);
}

#[test]
fn the_kernels_clock_runs_at_the_rate_it_was_built_for() {
    let lab = Lab::new();
    let (dataplane, _) = lab.start(&["in0"]).unwrap();
    let (before, after) = (dataplane.tick().unwrap(), dataplane.tick().unwrap());
    assert!(after.wrapping_sub(before) <= 1);
    // jiffies64 begins five minutes before it wraps at 32 bits: linux include/linux/jiffies.h, INITIAL_JIFFIES.
    let hertz = u64::from(dataplane.clock().hertz());
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let expected = ((1u64 << 32) - 300 * hertz) / hertz + uptime_s as u64;
    assert!((expected as i64 - i64::from(after)).abs() <= 2, "{expected} {after} at {hertz} Hz");
}

#[test]
fn this_machine_passes_the_examination() {
    let _lab = Lab::new();
    let text =
        ConfigText::new("weir.toml", "[node]\ninterfaces = [\"in0\", \"nosuch0\"]\npin_dir = \"/sys/fs/bpf/weir-nosuch\"\n".to_owned());
    let (config, _) = parse(&text, "host").unwrap();
    let findings = examine(Some(&config));
    assert!(findings.iter().any(|finding| finding.what == "memory"), "{findings:#?}");
    let failed: Vec<_> = findings.iter().filter(|finding| !finding.ok).map(|finding| finding.what.as_str()).collect();
    assert_eq!(failed, ["interface nosuch0"], "{findings:#?}");
}
