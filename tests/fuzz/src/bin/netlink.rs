//! Datagrams of the notification socket: what they say is bounded, and said twice it is the same.
#![no_main]

use lb_userspace::netlink::{
    Change,
    change::{NEIGHBOURS_MAX, ROUTES_MAX},
};
use libfuzzer_sys::fuzz_target;

/// The most that one datagram is read of.
const DATAGRAM_BYTES: usize = 32 << 10;

fuzz_target!(|data: &[u8]| {
    let mut change = Change::default();
    for datagram in data.chunks(DATAGRAM_BYTES) {
        change.absorb(datagram);
    }
    assert!(change.neighbours.len() <= NEIGHBOURS_MAX && change.routes.len() <= ROUTES_MAX);
    let mut twice = Change::default();
    for datagram in data.chunks(DATAGRAM_BYTES).flat_map(|datagram| [datagram, datagram]) {
        twice.absorb(datagram);
    }
    if change.neighbours.len() < NEIGHBOURS_MAX && change.routes.len() < ROUTES_MAX {
        assert_eq!(twice, change);
    }
});
