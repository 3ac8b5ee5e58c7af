//! Attaching: modes, interfaces that come and go.

use super::*;

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
        macs: OwnMacs::ANY,
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
fn an_interface_that_has_gone_keeps_nobody_from_a_rebuild_or_a_start() {
    let lab = Lab::new();
    lab.add_veth("in1", "peer1");
    let (mut dataplane, _) = lab.start(&["in0", "in1"]).unwrap();
    ip(&["link", "del", "in1"]);
    let before = xdp_of("in0").unwrap();
    dataplane.rebuild(Features(Settings::SOURCE_RULES)).unwrap();
    assert_ne!(xdp_of("in0").unwrap(), before);
    drop(dataplane);

    let (mut dataplane, origin) = lab.start(&["in0", "in1", "in2"]).unwrap();
    assert_eq!((origin, dataplane.interfaces().keys().map(String::as_str).collect::<Vec<_>>()), (Origin::Adopted, vec!["in0"]));
    dataplane.rebuild(Features(0)).unwrap();
    lab.add_veth("in1", "peer1");
    dataplane.add_interface("in1").unwrap();
    assert!(xdp_of("in1").is_some());
    assert_eq!(attached(&lab.pins()).unwrap(), ["in0", "in1"].map(|name| (name.to_owned(), LinkState::Attached)));
}

#[test]
fn what_an_adopter_finds_renamed_stays_attached_with_the_new_program() {
    let lab = Lab::new();
    lab.add_veth("in1", "peer1");
    drop(lab.start(&["in0", "in1"]).unwrap());
    let before = xdp_of("in1").unwrap();
    ip(&["link", "set", "in1", "down"]);
    ip(&["link", "set", "in1", "name", "renamed"]);
    let (_dataplane, _) = lab.start(&["in0", "in1"]).unwrap();
    let now = xdp_of("renamed").unwrap();
    assert_eq!(now, xdp_of("in0").unwrap());
    assert_ne!(now, before);
}

#[test]
fn a_fresh_start_refuses_an_interface_that_does_not_exist() {
    let lab = Lab::new();
    let error = lab.start(&["in0", "in1"]).unwrap_err();
    assert!(matches!(&error, LoadError::Attach(AttachError::UnknownInterface { name }) if name == "in1"), "{error:?}");
    assert!(!lab.pin_dir().exists());
}
