//! A host before, during and after its setup.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "serves sockets")]

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use lb_userspace::cli::Exit;

use crate::{
    frames::{UDP, in_gue, ip as address, packet, protocol_of, syn, udp},
    lab::{DEADLINE, Lab, ip, set, setting_of, until},
};

const VIPS: &str = "--vip 192.0.2.1 --vip 2001:db8::1";
const SYN_ACK: u8 = 0x12;

/// Client and VIP, of both families.
fn inner_ends() -> [(IpAddr, IpAddr); 2] {
    [(address("198.51.100.7"), address("192.0.2.1")), (address("2001:db8:f::7"), address("2001:db8::1"))]
}

/// Load balancer and server, of both families.
fn outer_ends() -> [(IpAddr, IpAddr); 2] {
    [(address("10.9.0.9"), address("10.9.0.1")), (address("fd09::9"), address("fd09::1"))]
}

fn in_ipip(ends: (IpAddr, IpAddr), inner: &[u8]) -> Vec<u8> {
    packet(ends.0, ends.1, protocol_of(inner), 0, inner)
}

fn in_gue_of(variant: u8) -> impl Fn((IpAddr, IpAddr), &[u8]) -> Vec<u8> {
    move |ends, inner| {
        let head = [0, protocol_of(inner), 0, 0];
        packet(ends.0, ends.1, UDP, 0, &in_gue(if variant == 0 { &head } else { &[] }, inner))
    }
}

/// Packets of clients in tunnels of every combination of families reach sockets on the VIPs, which answer.
fn serves(lab: &Lab, wrap: impl Fn((IpAddr, IpAddr), &[u8]) -> Vec<u8>) {
    for (client, vip) in inner_ends() {
        let datagrams = UdpSocket::bind((vip, 53)).unwrap();
        datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
        let _connections = TcpListener::bind((vip, 80)).unwrap();
        for (number, ends) in outer_ends().into_iter().enumerate() {
            let said = format!("{client} in {ends:?}");
            lab.send(&wrap(ends, &packet(client, vip, UDP, 0, &udp(client, vip, 53, said.as_bytes()))));
            let mut heard = [0; 200];
            let (length, from) = datagrams.recv_from(&mut heard).unwrap_or_else(|error| panic!("{said}: {error}"));
            assert_eq!((&heard[..length], from), (said.as_bytes(), SocketAddr::new(client, 4000)));

            let port = 80 + number as u16;
            let _other = (number > 0).then(|| TcpListener::bind((vip, port)).unwrap());
            lab.send(&wrap(ends, &packet(client, vip, 6, 0, &syn(client, vip, port))));
            assert_eq!(lab.segment(client.is_ipv4()), (port, SYN_ACK), "{said}");
        }
    }
}

#[test]
fn tunnelled_packets_reach_sockets_on_the_vips_and_remove_leaves_nothing() {
    for (mode, variant) in [("ipip", None), ("gue", Some(0)), ("gue", Some(1))] {
        let lab = Lab::new();
        set("eth0", "rp_filter", 1);
        let before = lab.state();
        lab.add(&format!("{VIPS} --interface eth0 --mode {mode}"));
        assert!(ip("link show eth0").contains("xdp"), "native mode");
        match variant {
            None => serves(&lab, in_ipip),
            Some(variant) => serves(&lab, in_gue_of(variant)),
        }
        let (exit, out, _) = lab.weir("status");
        assert_eq!(exit, Exit::Fine, "{out}");
        let counted = out.lines().find(|line| line.starts_with("decapsulated")).unwrap();
        assert_eq!(counted.split_whitespace().nth(1), Some("8"), "{out}");

        lab.remove();
        assert_eq!(lab.state(), before);
        let (exit, out, _) = lab.weir("remove");
        assert_eq!((exit, out.as_str()), (Exit::Fine, "nothing was set up\n"));
    }
}

#[test]
fn an_interface_without_native_xdp_opens_tunnels_in_generic_mode() {
    let lab = Lab::new();
    ip("link add br0 type bridge");
    ip("address flush dev eth0");
    ip("link set eth0 master br0");
    ip("link set br0 up");
    lab.address("br0");
    lab.add(&format!("{VIPS} --interface br0 --mode gue"));
    assert!(ip("link show br0").contains("xdpgeneric"));
    serves(&lab, in_gue_of(0));
    lab.remove();
    assert!(!ip("link show br0").contains("xdp"));
}

#[test]
fn a_client_that_is_reached_by_another_way_is_served_despite_a_strict_reverse_path() {
    let lab = Lab::new();
    ip("link add out0 type veth peer name out1");
    ip("link set out0 up");
    ip("link set out1 up");
    ip("route replace default dev out0");
    set("all", "rp_filter", 1);
    lab.add("--vip 192.0.2.1 --interface eth0 --mode ipip");
    assert_eq!((setting_of("all", "rp_filter").as_str(), setting_of("eth0", "rp_filter").as_str()), ("1", "2"));
    let ((client, vip), ends) = (inner_ends()[0], outer_ends()[0]);
    let socket = UdpSocket::bind((vip, 53)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    lab.send(&in_ipip(ends, &packet(client, vip, UDP, 0, &udp(client, vip, 53, b"x"))));
    assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn nobody_answers_for_the_vips() {
    let lab = Lab::new();
    for vip in ["192.0.2.1/32", "2001:db8::1/128"] {
        lab.far(&format!("route add {vip} dev eth0"));
    }
    lab.far_shell("echo 50 | tee /proc/sys/net/ipv4/neigh/eth0/retrans_time_ms /proc/sys/net/ipv6/neigh/eth0/retrans_time_ms");
    let neighbour = |vip: IpAddr| lab.far(&format!("neigh show {vip} dev eth0"));
    let asked = |vip: IpAddr| {
        let client = inner_ends().into_iter().find(|ends| ends.1 == vip).unwrap().0;
        lab.send(&packet(client, vip, UDP, 0, &udp(client, vip, 53, b"x")));
    };
    // Left to itself, Linux answers ARP for an address of lo: so this test can tell.
    let (vip4, vip6) = (inner_ends()[0].1, inner_ends()[1].1);
    ip(&format!("address add {vip4}/32 dev lo"));
    asked(vip4);
    until("ARP is answered without the setup", || neighbour(vip4).contains("lladdr"));
    ip(&format!("address del {vip4}/32 dev lo"));
    lab.far("neigh flush dev eth0");

    lab.add(&format!("{VIPS} --interface eth0"));
    for vip in [vip4, vip6] {
        asked(vip);
        until("resolution fails", || neighbour(vip).contains("FAILED"));
    }
}

#[test]
fn nobody_is_asked_in_the_name_of_a_vip() {
    let lab = Lab::new();
    lab.add(&format!("{VIPS} --interface eth0"));
    // The kernel learns a neighbour from who asks: what it learns are addresses of the server's interface and no VIP.
    for (client, vip) in inner_ends() {
        let socket = UdpSocket::bind((vip, 53)).unwrap();
        socket.send_to(b"x", (client, 9)).unwrap();
    }
    until("the server's addresses are known", || {
        let known = lab.far("neigh show dev eth0");
        known.contains("10.9.0.1 ") && (known.contains("fe80::1 ") || known.contains("fd09::1 "))
    });
    let known = lab.far("neigh show dev eth0");
    assert!(!known.contains("192.0.2.1 ") && !known.contains("2001:db8::1 "), "{known}");
}

#[test]
fn vips_are_added_to_a_setup_and_what_is_missing_is_made_again() {
    let lab = Lab::new();
    let before = lab.state();
    lab.add("--vip 192.0.2.1 --interface eth0 --mode ipip");
    lab.add("--vip 2001:db8::1 --interface eth0 --mode ipip");
    serves(&lab, in_ipip);
    ip("address del 192.0.2.1/32 dev lo");
    set("all", "arp_ignore", 0);
    std::fs::remove_dir_all(lab.pins()).unwrap();
    until("the link has gone with its pin", || !ip("link show eth0").contains("xdp"));
    let (exit, out, _) = lab.weir("status");
    let faults: Vec<_> = out.lines().filter(|line| line.starts_with("fault: ")).collect();
    let expected = [
        "fault: 192.0.2.1 is no address of this host",
        "fault: net/ipv4/conf/all/arp_ignore is 0, not 1",
        "fault: weir_decap is not attached to eth0",
    ];
    assert_eq!((exit, faults.as_slice()), (Exit::Refused, expected.as_slice()));

    lab.add("--vip 192.0.2.1 --interface eth0 --mode ipip");
    assert_eq!(lab.weir("status").0, Exit::Fine);
    serves(&lab, in_ipip);
    lab.remove();
    assert_eq!(lab.state(), before);
}

#[test]
fn remove_keeps_what_was_there_and_what_others_changed_since() {
    let lab = Lab::new();
    ip("address add 192.0.2.1/32 dev lo");
    set("eth0", "arp_announce", 2);
    lab.add(&format!("{VIPS} --interface eth0"));
    set("all", "arp_ignore", 2);
    let (exit, _, err) = lab.weir("remove");
    assert_eq!((exit, err.as_str()), (Exit::Fine, "warning: net/ipv4/conf/all/arp_ignore was changed since and stays as it is\n"));
    let addresses = ip("-o address show dev lo");
    assert!(addresses.contains("192.0.2.1/32") && !addresses.contains("2001:db8::1"), "{addresses}");
    assert_eq!((setting_of("all", "arp_ignore").as_str(), setting_of("eth0", "arp_announce").as_str()), ("2", "2"));
    assert_eq!((setting_of("all", "arp_announce").as_str(), setting_of("eth0", "arp_ignore").as_str()), ("0", "0"));
}

#[test]
fn a_setup_that_fails_half_way_is_taken_back() {
    let lab = Lab::new();
    let other = lab.pins().with_file_name("other");
    lb_userspace::dataplane::start_decap(
        &lb_userspace::dataplane::PinDir::at(&other),
        "eth0",
        lb_common::maps::DecapSettings::IPIP,
        &[address("192.0.2.9")].into(),
    )
    .unwrap();
    let before = lab.state();
    let (exit, _, err) = lab.weir(&format!("add {VIPS} --interface eth0 --mode ipip"));
    assert!(exit == Exit::Refused && err.contains("has an XDP program of somebody else"), "{err}");
    assert_eq!(lab.state(), before);
    let (exit, _, err) = lab.weir("add --vip 10.9.0.1 --interface eth0");
    assert!(exit == Exit::Usage && err.contains("answers ARP"), "{err}");
    assert_eq!(lab.state(), before);
}

#[test]
fn a_setup_survives_the_interface_it_was_for() {
    let lab = Lab::new();
    lab.add(&format!("{VIPS} --interface eth0 --mode gue"));
    ip("link del eth0");
    assert_eq!(lab.weir("status").0, Exit::Refused);
    lab.remove();
    assert!(!lab.pins().exists() && !lab.record().exists());
    assert_eq!((setting_of("all", "arp_ignore").as_str(), ip("-o address show dev lo").contains("192.0.2.1")), ("0", false));
}

#[test]
fn the_printed_commands_make_answers_offer_an_mss_that_fits() {
    let lab = Lab::new();
    let out = lab.add(&format!("{VIPS} --interface eth0 --mode ipip"));
    let commands: Vec<&str> = out.lines().filter(|line| line.starts_with("ip ")).collect();
    assert_eq!(
        commands,
        [
            "ip route change default via 10.9.0.9 dev eth0 proto 3 advmss 1440",
            "ip -6 route change default via fd09::9 dev eth0 proto 3 metric 1024 advmss 1420"
        ]
    );
    for command in commands {
        ip(command.trim_start_matches("ip "));
    }
    assert!(ip("route show default").contains("advmss 1440") && ip("-6 route show default").contains("advmss 1420"));
    let (exit, out, _) = lab.weir("status");
    assert!(exit == Exit::Fine && !out.contains("advmss"), "{out}");
    serves(&lab, in_ipip);
}

#[test]
fn tunnels_may_be_left_to_the_kernel() {
    let lab = Lab::new();
    let out = lab.add("--vip 192.0.2.1 --interface eth0 --mode gue --gue-port 7000 --decap kernel");
    assert!(out.contains("ip fou add port 7000 gue") && out.contains("tunl0"), "{out}");
    assert!(!ip("link show eth0").contains("xdp") && !lab.pins().exists());
    let (exit, json, _) = lab.weir("status -o json");
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((exit, &shown["setup"]["decap"], &shown["setup"]["tunnel"]["gue"]), (Exit::Fine, &"kernel".into(), &7000.into()));
    let (exit, _, err) = lab.weir("add --vip 192.0.2.1 --interface eth0 --mode ipip");
    assert!(exit == Exit::Usage && err.contains("hint: weir server-setup remove"), "{err}");
}

#[test]
fn commands_at_the_same_time_wait_for_each_other_and_lose_nothing() {
    let lab = Lab::new();
    let before = lab.state();
    // Threads begin in the namespace of the one that starts them.
    std::thread::scope(|scope| {
        for last in 1..=8 {
            let lab = &lab;
            scope.spawn(move || lab.add(&format!("--vip 192.0.2.{last} --interface eth0 --mode dsr")));
        }
    });
    let (exit, out, _) = lab.weir("status");
    assert_eq!(exit, Exit::Fine, "{out}");
    let on_loopback = ip("-4 -o address show dev lo");
    for last in 1..=8 {
        assert!(out.contains(&format!("192.0.2.{last}")) && on_loopback.contains(&format!("192.0.2.{last}/32")), "{last}: {out}");
    }
    lab.remove();
    assert_eq!(lab.state(), before);
}

#[test]
fn remove_and_status_find_the_program_wherever_add_pinned_it() {
    let lab = Lab::new();
    lab.add("--vip 192.0.2.1 --interface eth0 --mode ipip");
    let other = lab.pins().with_file_name("other");
    let (exit, out, err) = lab.weir_with_pins(&other, "status");
    assert_eq!(exit, Exit::Fine, "{out} {err}");
    let (exit, _, err) = lab.weir_with_pins(&other, "remove");
    assert_eq!((exit, err.as_str()), (Exit::Fine, ""));
    assert!(!lab.pins().exists() && !other.exists());
}
