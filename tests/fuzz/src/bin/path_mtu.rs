//! ICMP messages about tunnels, which anybody can send: none makes a path narrower than senders can follow, or one that no tunnel takes.
#![no_main]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_userspace::path_mtu::{
    Heard, PathMtus, TooBig,
    tunnel::{Carrier, Outer, Tunnel},
};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};

const ROOM: u16 = 1480;

fn tunnels() -> [Tunnel; 4] {
    let v4 = |last| IpAddr::from([10, 0, 0, last]);
    let v6 = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let tunnel = |source, server, carrier, overhead, carries_v6| Tunnel {
        outer: Outer { source, server, carrier },
        overhead,
        carries_v6,
        room: ROOM,
    };
    [
        tunnel(v4(1), v4(2), Carrier::Packet(4), 20, false),
        tunnel(v4(1), v4(2), Carrier::Packet(41), 20, true),
        tunnel(v4(1), v4(3), Carrier::Gue(6080), 32, false),
        tunnel(v6(1), v6(2), Carrier::Packet(41), 40, true),
    ]
}

// Messages one behind the other, each with its length, its family and the time that passed before it.
fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let mut paths = PathMtus::default();
    paths.set_tunnels(tunnels());
    let mut now = Instant::now();
    while let (false, Ok([length, is_v6, tenths])) = (bytes.is_empty(), bytes.arbitrary::<[u8; 3]>()) {
        now += Duration::from_millis(u64::from(tenths) * 100);
        let length = bytes.len().min(length.into());
        let message = bytes.bytes(length).expect("there are so many");
        let said = if is_v6 & 1 == 0 { TooBig::from_icmp4(message) } else { TooBig::from_icmp6(message) };
        let Some(said) = said else { continue };
        let server = said.outer.server;
        let before = paths.mtu(server);
        match paths.handle_too_big(said, now) {
            Heard::Learned => assert_eq!(paths.mtu(server), Some(said.mtu)),
            Heard::Nothing | Heard::Unbelievable | Heard::TooNarrow => assert_eq!(paths.mtu(server), before),
        }
        for tunnel in tunnels() {
            assert!(paths.mtu(tunnel.outer.server).is_none_or(|mtu| mtu >= tunnel.least_mtu()));
        }
        let is_known = tunnels().iter().any(|tunnel| tunnel.outer == said.outer);
        assert!(is_known || paths.mtu(server) == before);
        assert!(paths.troubles().len() <= 2 * tunnels().len());
        paths.handle_timeout(now);
    }
});
