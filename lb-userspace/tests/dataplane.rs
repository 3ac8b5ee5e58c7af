//! The data plane against the real kernel. Needs root: each test has a network namespace, interfaces and a BPF file system of its own.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test meets the real kernel")]
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use bytemuck::Zeroable as _;
use lb_common::{
    address::Address,
    maps::{ForwardKind, Header, MemberInfo, SOURCE_ALLOW, SOURCE_DENY, Service, Settings, Vip},
    words::{CleanWord, FlowState, FlowWord, MemberId, MemberWord, ServiceId, SlotState, SlotWord, Tick, VipWord},
};
use lb_userspace::{
    config::model::{Limits, XdpMode},
    control::op::{Op, PlaneSpec},
    dataplane::{
        AbiError, Access, AccessError, ApplyError, AttachError, Dataplane, Features, LinkState, LoadError, Origin, PinDir, PinDirError,
        Request, Samples, SlotRules, Tables, TablesError, Unripe, attached, attached_elsewhere, examine, stop, sweep,
    },
};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

static LABS: AtomicU32 = AtomicU32::new(0);

/// A namespace that the calling thread is in, with a veth pair `in0`, `peer0`, and a BPF file system.
struct Lab {
    namespace: String,
    root: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let name = format!("weir-dp-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { root: std::env::temp_dir().join(&name), namespace: name };
        fs::create_dir(&lab.root).expect("tests of the data plane need root");
        mount("bpf", &lab.root, "bpf", MountFlags::empty(), None).expect("tests of the data plane need root");
        ip(&["netns", "add", &lab.namespace]);
        let namespace = open(format!("/run/netns/{}", lab.namespace), OFlags::RDONLY, Mode::empty()).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
        lab.add_veth("in0", "peer0");
        lab
    }

    fn add_veth(&self, name: &str, peer: &str) {
        ip(&["link", "add", name, "type", "veth", "peer", "name", peer]);
        ip(&["link", "set", name, "up"]);
        ip(&["link", "set", peer, "up"]);
    }

    fn pin_dir(&self) -> PathBuf {
        self.root.join("weir")
    }

    fn pins(&self) -> PinDir {
        PinDir::at(&self.pin_dir())
    }

    fn start(&self, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
        self.start_with(&LIMITS, Features(0), interfaces)
    }

    fn start_with(&self, limits: &Limits, features: Features, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
        start_at(&self.pin_dir(), limits, features, interfaces)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

const SLOT_KEY: u64 = 0x5107;
const LIMITS: Limits =
    Limits { services: 16, members: 64, flows: 1024, nat_flows: 1024, nat_planes: 8, rate_sources: 1024, fragments: 256 };

const RULES: SlotRules = SlotRules { change: change_slot, ripen: ripen_slot };

fn change_slot(word: SlotWord, member: Option<MemberId>, now: Tick) -> SlotWord {
    match word.state() {
        _ if word.current() == member => word,
        SlotState::Learning { default } => SlotWord::new(member, Some(default), now),
        SlotState::Clean | SlotState::Settled => SlotWord::new(member, word.current(), now),
    }
}

fn ripen_slot(word: SlotWord, learning_since: Tick, last_no_room: Option<Tick>, idle_s: u32, now: Tick) -> Option<SlotWord> {
    let is_past = |tick: Tick| now.wrapping_sub(tick) > idle_s;
    match word.state() {
        SlotState::Learning { .. } if is_past(learning_since) && last_no_room.is_none_or(is_past) => {
            Some(SlotWord::new(word.current(), word.current(), now))
        }
        SlotState::Settled if is_past(word.stamp()) => Some(SlotWord::new(word.current(), None, now)),
        SlotState::Clean | SlotState::Learning { .. } | SlotState::Settled => None,
    }
}

fn start_at(pin_dir: &Path, limits: &Limits, features: Features, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
    let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
    Dataplane::start(&Request { pin_dir, limits, slot_key: SLOT_KEY, features, interfaces: &interfaces, mode: XdpMode::Auto, rules: RULES })
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number of the XDP program on an interface, and whether it is attached in generic mode.
fn xdp_of(interface: &str) -> Option<(u64, bool)> {
    let shown: serde_json::Value = serde_json::from_str(&ip(&["-j", "-d", "link", "show", interface])).unwrap();
    let xdp = shown[0].get("xdp")?;
    let id = xdp["prog"]["id"].as_u64().or_else(|| xdp["attached"][0]["prog"]["id"].as_u64())?;
    Some((id, xdp["mode"] == 2))
}

fn member(id: u16) -> MemberId {
    MemberId::new(id).unwrap()
}

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn service(id: u16) -> Service {
    Service { vip: address("192.0.2.1"), slot_page: 2, slot_mask: 8191, idle_s: 60, port: 80, protocol: 6, id, ..Service::zeroed() }
}

fn apply_all(dataplane: &mut Dataplane, ops: &[Op], now: Tick) {
    for op in ops {
        dataplane.applier().apply(op, now).unwrap_or_else(|error| panic!("{op:?}: {error}"));
    }
}

#[test]
fn a_data_plane_outlives_its_daemon_and_is_adopted_with_its_tables() {
    let lab = Lab::new();
    let (mut dataplane, origin) = lab.start(&["in0"]).unwrap();
    assert_eq!(origin, Origin::Fresh);
    let vip = Vip { address: address("2001:db8::1"), flags: u32::from(VipWord::VIP), ..Vip::zeroed() };
    apply_all(&mut dataplane, &[Op::PublishVip { index: 1, vip }], 0);
    let (key, first_program) = (dataplane.tables().table_key(), xdp_of("in0").unwrap());
    drop(dataplane);
    assert_eq!(xdp_of("in0"), Some(first_program));

    let (dataplane, origin) = lab.start(&["in0"]).unwrap();
    assert_eq!(origin, Origin::Adopted);
    assert_eq!(dataplane.tables().table_key(), key);
    let vips = dataplane.tables().vips().unwrap();
    assert_eq!((vips.len(), vips[0].0, vips[0].1), (1, 1, vip));
    assert_eq!(vips[0].2.map(|word| (word.index(), word.flags())), Some((1, VipWord::VIP | VipWord::IPV6)));
    assert_ne!(xdp_of("in0").unwrap().0, first_program.0);
    assert_eq!(attached(&lab.pins()).unwrap(), [("in0".to_owned(), LinkState::Attached)]);
}

const CHILD_PIN_DIR: &str = "WEIR_TEST_PIN_DIR";

/// Starts this test program again, in this thread's namespace, to run only [`child_that_is_killed`].
fn child(launcher: &[&str], pin_dir: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut argv = launcher.iter().map(std::ffi::OsStr::new).chain([exe.as_os_str()]);
    let mut command = Command::new(argv.next().unwrap());
    command.args(argv).args(["--ignored", "--exact", "child_that_is_killed"]).env(CHILD_PIN_DIR, pin_dir);
    command.stdout(std::process::Stdio::null());
    command
}

#[test]
#[ignore = "a process for other tests: it starts and changes the data plane until it is killed"]
fn child_that_is_killed() {
    let pin_dir = PathBuf::from(std::env::var_os(CHILD_PIN_DIR).unwrap());
    loop {
        let (mut dataplane, _) = start_at(&pin_dir, &LIMITS, Features(0), &["in0"]).unwrap();
        dataplane.add_interface("peer0").unwrap();
        dataplane.rebuild(Features(Settings::NAT | Settings::RATE)).unwrap();
        dataplane.remove_interface("peer0").unwrap();
        if pin_dir.starts_with("/sys/fs/bpf") {
            return;
        }
    }
}

#[test]
fn whenever_the_daemon_is_killed_the_next_one_takes_over() {
    let lab = Lab::new();
    let mut was_attached = false;
    let mut origins = Vec::new();
    for round in 0..12 {
        let mut process = child(&[], &lab.pin_dir()).spawn().unwrap();
        // Every round dies at another point of load, adoption and change.
        std::thread::sleep(std::time::Duration::from_millis(20 + round * 67 % 500));
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(!was_attached || xdp_of("in0").is_some(), "round {round}: forwarding stopped");

        let (dataplane, origin) = lab.start(&["in0"]).unwrap_or_else(|error| panic!("round {round}: {error}"));
        origins.push(origin);
        let usage = dataplane.tables().nat_usage().unwrap();
        assert!([0, 4].contains(&usage.free_chunks), "round {round}: {usage:?}");
        drop(dataplane);
        was_attached = round % 4 != 3;
        if !was_attached {
            assert_eq!(stop(&lab.pins()).unwrap().interfaces, ["in0"]);
            assert!(!lab.pin_dir().exists(), "round {round}");
        }
    }
    assert!(origins.contains(&Origin::Fresh) && origins.contains(&Origin::Adopted), "{origins:?}");
}

#[test]
fn the_bpf_file_system_is_mounted_where_nobody_did() {
    let lab = Lab::new();
    let in_a_mount_namespace = ["unshare", "--mount", "sh", "-c", "umount -q -l /sys/fs/bpf; \"$@\" && mountpoint -q /sys/fs/bpf", "sh"];
    let status = child(&in_a_mount_namespace, Path::new("/sys/fs/bpf/weir-test/pins")).status().unwrap();
    assert!(status.success());
    drop(lab);
}

#[test]
fn without_privileges_the_cure_is_named_and_nothing_stays_behind() {
    let lab = Lab::new();
    let without_privileges = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let output = child(&without_privileges, &lab.pin_dir()).stdout(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Permission {"), "{said}");
    assert!(!lab.pin_dir().exists());
}

#[test]
fn stop_leaves_nothing_and_may_be_repeated() {
    let lab = Lab::new();
    drop(lab.start(&["in0"]).unwrap());
    assert_eq!(stop(&lab.pins()).unwrap().interfaces, ["in0"]);
    assert_eq!(xdp_of("in0"), None);
    assert!(!lab.pin_dir().exists());
    assert_eq!(stop(&lab.pins()).unwrap(), Default::default());
}

#[test]
fn stop_finishes_a_stop_that_was_interrupted() {
    let lab = Lab::new();
    drop(lab.start(&["in0"]).unwrap());
    assert!(matches!(stop(&PinDir::at(Path::new("/tmp"))), Err(PinDirError::NotBpf { .. })));
    for pin in ["link-in0", "abi", "FLOWS"] {
        fs::remove_file(lab.pin_dir().join(pin)).unwrap();
    }
    stop(&lab.pins()).unwrap();
    assert!(!lab.pin_dir().exists());
}

#[test]
fn a_running_daemon_keeps_others_out() {
    let lab = Lab::new();
    let running = lab.start(&["in0"]).unwrap();
    assert!(matches!(lab.start(&["in0"]), Err(LoadError::PinDir(PinDirError::InUse { .. }))));
    assert!(matches!(stop(&lab.pins()), Err(PinDirError::InUse { .. })));
    drop(running);
    assert_eq!(lab.start(&["in0"]).unwrap().1, Origin::Adopted);
}

#[test]
fn an_interface_of_another_program_is_refused_and_nothing_stays_behind() {
    let lab = Lab::new();
    let other = lab.root.join("other");
    let _other = start_at(&other, &LIMITS, Features(0), &["in0"]).unwrap();
    let program = xdp_of("in0");
    let refused = lab.start(&["peer0", "in0"]);
    assert!(matches!(&refused, Err(LoadError::Attach(AttachError::Occupied { name, .. })) if name == "in0"), "{refused:?}");
    assert_eq!((xdp_of("in0"), xdp_of("peer0")), (program, None));
    assert!(!lab.pin_dir().exists());
}

#[test]
fn an_unknown_interface_is_refused_and_nothing_stays_behind() {
    let lab = Lab::new();
    let refused = lab.start(&["in0", "nosuch0"]);
    assert!(matches!(&refused, Err(LoadError::Attach(AttachError::UnknownInterface { name })) if name == "nosuch0"), "{refused:?}");
    assert!(!lab.pin_dir().exists());
    assert_eq!(xdp_of("in0"), None);
}

#[test]
fn an_adoption_that_fails_leaves_the_old_program_on_the_old_interfaces() {
    let lab = Lab::new();
    lab.add_veth("in1", "peer1");
    drop(lab.start(&["in0"]).unwrap());
    let _other = start_at(&lab.root.join("other"), &LIMITS, Features(0), &["in1"]).unwrap();
    let before = (xdp_of("in0"), xdp_of("in1"));
    let refused = lab.start(&["in0", "in1", "peer0"]);
    assert!(matches!(&refused, Err(LoadError::Attach(AttachError::Occupied { .. }))), "{refused:?}");
    assert_eq!((xdp_of("in0"), xdp_of("in1")), before);
    assert_eq!(xdp_of("peer0"), None);
    assert_eq!(lab.start(&["in0"]).unwrap().1, Origin::Adopted);
}

#[test]
fn an_interrupted_first_load_is_begun_again() {
    let lab = Lab::new();
    fs::create_dir(lab.pin_dir()).unwrap();
    Array::<MapData, u64>::create(3, 0).unwrap().pin(lab.pin_dir().join("FLOWS")).unwrap();
    let (dataplane, origin) = lab.start(&["in0"]).unwrap();
    assert_eq!((origin, dataplane.tables().flows.len()), (Origin::Fresh, LIMITS.flows / 8));
}

#[test]
fn maps_of_another_version_or_other_limits_are_refused_and_go_on_forwarding() {
    let lab = Lab::new();
    drop(lab.start(&["in0"]).unwrap());
    let program = xdp_of("in0");
    let larger = Limits { members: 65, ..LIMITS };
    let refused = lab.start_with(&larger, Features(0), &["in0"]);
    assert!(matches!(&refused, Err(LoadError::Abi(AbiError::Limits { found, .. })) if **found == LIMITS), "{refused:?}");

    let (pin_dir, interfaces) = (lab.pin_dir(), ["in0".to_owned()]);
    let slot_key = SLOT_KEY + 1;
    let request = Request {
        pin_dir: &pin_dir,
        limits: &LIMITS,
        slot_key,
        features: Features(0),
        interfaces: &interfaces,
        mode: XdpMode::Auto,
        rules: RULES,
    };
    let refused = Dataplane::start(&request);
    assert!(matches!(refused, Err(LoadError::Abi(AbiError::SlotSeed))), "{refused:?}");

    let map = Map::from_map_data(MapData::from_pin(lab.pin_dir().join("abi")).unwrap()).unwrap();
    let mut record: Array<_, [u32; 14]> = map.try_into().unwrap();
    let mut words = record.get(&0, 0).unwrap();
    words[0] = 99;
    record.set(0, words, 0).unwrap();
    let refused = lab.start(&["in0"]);
    assert!(matches!(refused, Err(LoadError::Abi(AbiError::Version { found: 99 }))), "{refused:?}");
    assert!(matches!(Tables::open(&lab.pins(), Access::ReadOnly), Err(TablesError::Abi(AbiError::Version { found: 99 }))));
    assert_eq!(xdp_of("in0"), program);
    stop(&lab.pins()).unwrap();
    assert_eq!(lab.start(&["in0"]).unwrap().1, Origin::Fresh);
}

#[test]
fn a_pin_directory_outside_a_bpf_file_system_is_refused() {
    let lab = Lab::new();
    let refused = start_at(Path::new("/tmp/weir-not-bpf"), &LIMITS, Features(0), &["in0"]);
    assert!(matches!(refused, Err(LoadError::PinDir(PinDirError::NotBpf { .. }))), "{refused:?}");
    assert!(!Path::new("/tmp/weir-not-bpf").exists());
    drop(lab);
}

#[test]
fn interfaces_come_and_go_while_it_runs() {
    let lab = Lab::new();
    lab.add_veth("in1.5", "peer1");
    let (mut dataplane, _) = lab.start(&["in0"]).unwrap();
    dataplane.add_interface("in1.5").unwrap();
    assert!(xdp_of("in1.5").is_some());
    assert_eq!(dataplane.interfaces().len(), 2);
    dataplane.remove_interface("in0").unwrap();
    assert_eq!(xdp_of("in0"), None);
    drop(dataplane);
    assert_eq!(attached(&lab.pins()).unwrap(), [("in1.5".to_owned(), LinkState::Attached)]);
    // The configuration names another set at the next start.
    let (dataplane, _) = lab.start(&["in0"]).unwrap();
    assert!(xdp_of("in0").is_some() && xdp_of("in1.5").is_none());
    assert_eq!(dataplane.interfaces().len(), 1);
}

#[test]
fn links_are_seen_from_another_network_namespace() {
    let lab = Lab::new();
    let (_dataplane, _) = lab.start(&["in0"]).unwrap();
    let from_elsewhere = || {
        std::thread::scope(|scope| {
            let outside = || {
                // This thread is in the namespace of a lab of its own from here on.
                let _other = Lab::new();
                ip(&["link", "del", "in0"]);
                (attached(&lab.pins()).unwrap(), attached_elsewhere(&lab.pins()).unwrap())
            };
            scope.spawn(outside).join().unwrap()
        })
    };
    let in0 = |state| vec![("in0".to_owned(), state)];
    assert_eq!(from_elsewhere(), (in0(LinkState::Gone), in0(LinkState::Attached)));
    ip(&["link", "del", "in0"]);
    assert_eq!(from_elsewhere(), (in0(LinkState::Gone), in0(LinkState::Gone)));
}

#[test]
fn an_interface_that_was_made_anew_is_attached_again() {
    let lab = Lab::new();
    drop(lab.start(&["in0"]).unwrap());
    ip(&["link", "del", "in0"]);
    lab.add_veth("in0", "peer0");
    assert_eq!(attached(&lab.pins()).unwrap(), [("in0".to_owned(), LinkState::Gone)]);
    let (_dataplane, origin) = lab.start(&["in0"]).unwrap();
    assert_eq!(origin, Origin::Adopted);
    assert!(xdp_of("in0").is_some());
}

#[test]
fn automatic_mode_is_native_where_it_can_be_and_generic_elsewhere() {
    let lab = Lab::new();
    ip(&["link", "add", "bridge0", "type", "bridge"]);
    let _dataplane = lab.start(&["in0", "bridge0"]).unwrap();
    assert_eq!((xdp_of("in0").unwrap().1, xdp_of("bridge0").unwrap().1), (false, true));
}

#[test]
fn native_mode_is_refused_by_a_bridge_with_a_way_out() {
    let lab = Lab::new();
    ip(&["link", "add", "bridge0", "type", "bridge"]);
    let interfaces = ["bridge0".to_owned()];
    let pin_dir = lab.pin_dir();
    let request = Request {
        pin_dir: &pin_dir,
        limits: &LIMITS,
        slot_key: SLOT_KEY,
        features: Features(0),
        interfaces: &interfaces,
        mode: XdpMode::Native,
        rules: RULES,
    };
    let error = Dataplane::start(&request).unwrap_err();
    assert!(matches!(&error, LoadError::Attach(AttachError::Refused { mode: "native", .. })), "{error:?}");
    assert!(error.to_string().contains("hint: node.xdp"));
    assert!(!pin_dir.exists());
}

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
    let set =
        |mtu| Op::SetHeader { id: member(1), header: Some(Box::new(Header { kind: ForwardKind::Dsr as u8, mtu, ..Header::zeroed() })) };
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
    let findings = examine(&["in0".to_owned(), "nosuch0".to_owned()]);
    let failed: Vec<_> = findings.iter().filter(|finding| !finding.ok).map(|finding| finding.what.as_str()).collect();
    assert_eq!(failed, ["interface nosuch0"], "{findings:#?}");
}
