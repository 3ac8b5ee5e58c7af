//! The programs by which probes take the data path's way, on kernels with and without links for them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    time::Duration,
};

use bytemuck::Zeroable as _;
use lb_common::{
    maps::ForwardKind,
    ways::{WAY_MARK, Way, WayFlow},
};
use lb_userspace::dataplane::{Detour, Hook};
use socket2::SockRef;

use crate::{Lab, ip};

fn filters() -> String {
    let output = Command::new("tc").args(["filter", "show", "dev", "in0", "egress"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Attaches by this hook, and sends a marked datagram to 192.0.2.9.
fn a_marked_datagram_takes_its_way(hook: Hook) {
    let _lab = Lab::new();
    ip(&["addr", "add", "192.0.2.1/24", "dev", "in0"]);
    ip(&["neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "in0"]);
    let index = rustix::net::netdevice::name_to_index(UdpSocket::bind("0.0.0.0:0").unwrap(), "in0").unwrap();
    let mut detour = Detour::load(hook).unwrap();
    let vip = Ipv4Addr::new(198, 51, 100, 1);
    let way = Way { vip: std::net::IpAddr::from(vip).into(), kind: ForwardKind::Dsr as u8, ..Way::zeroed() };
    detour.set(WAY_MARK | 5, &way).unwrap();
    let interfaces: BTreeMap<u32, String> = [(index, "in0".to_owned())].into();
    assert!(detour.attach(&interfaces).is_empty());
    assert_eq!(filters().contains("weir_way_out"), hook == Hook::Clsact);

    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    SockRef::from(&socket).set_mark(WAY_MARK | 5).unwrap();
    let witness = detour.witness().unwrap();
    let own = socket.local_addr().unwrap();
    let ports = [7_u16, own.port()].map(|port| u16::from_ne_bytes(port.to_be_bytes()));
    let flow = WayFlow::new(std::net::IpAddr::from(vip).into(), own.ip().into(), ports, 17);
    assert!(!witness.saw(&flow));
    socket.send_to(b"?", "192.0.2.9:7").unwrap();
    assert!(witness.saw(&flow));

    detour.remove(WAY_MARK | 5).unwrap();
    detour.remove(WAY_MARK | 5).unwrap();
    assert!(detour.attach(&BTreeMap::new()).is_empty());
    std::thread::sleep(Duration::from_millis(1));
    assert!(!filters().contains("weir_way_out"), "{}", filters());
    assert!(detour.attach(&[(4711, "nosuch0".to_owned())].into())[0].to_string().contains("failed to attach weir_way_out to nosuch0"));
}

#[test]
fn a_marked_datagram_takes_its_way_by_links() {
    a_marked_datagram_takes_its_way(Hook::Tcx);
}

#[test]
fn a_marked_datagram_takes_its_way_by_filters() {
    a_marked_datagram_takes_its_way(Hook::Clsact);
}
