//! Loading, adopting, refusing, stopping.

use super::*;

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
    command.args(argv).args(["--ignored", "--exact", "life::child_that_is_killed"]).env(CHILD_PIN_DIR, pin_dir);
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
    assert!(!output.status.success() && said.contains("Privileges {"), "{said}");
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
        macs: OwnMacs::ANY,
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
    drop(record);
    let pin = lab.pin_dir().join("abi");
    fs::remove_file(&pin).unwrap();
    let mut shorter: Array<_, [u32; 10]> = Array::create(1, 0).unwrap();
    shorter.set(0, [2; 10], 0).unwrap();
    shorter.pin(&pin).unwrap();
    let refused = lab.start(&["in0"]);
    assert!(matches!(refused, Err(LoadError::Abi(AbiError::Version { found: 2 }))), "a record of another size: {refused:?}");
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
fn a_start_waits_for_the_moment_that_a_dead_daemon_holds_the_directory() {
    let lab = Lab::new();
    drop(lab.start(&["in0"]).unwrap());
    let held = open(lab.pin_dir(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(lab.pins().holder(), Some(std::process::id()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(held);
        });
        assert!(lab.start(&["in0"]).is_ok());
    });
}
