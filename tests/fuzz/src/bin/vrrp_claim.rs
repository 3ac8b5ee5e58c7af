//! Frames of strangers on the link: what is read as a claim to an address of this node has passed the kernel's filter before, and nothing else is read.
#![no_main]

use std::{collections::BTreeSet, net::IpAddr};

use lb_userspace::{
    speaker::claim::{FRAME_BYTES, Instruction, Watch, claim_of, filter},
    vrrp::terms::Family,
};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const HELD4: [u8; 4] = [192, 0, 2, 1];
const HELD6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// More addresses than the filter compares.
const MANY: u8 = 200;

/// A gratuitous request (RFC 826), or an unsolicited advertisement with one option (RFC 4861 s4.4).
fn announcement(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => [&[0xff; 6][..], &OTHER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &OTHER, &HELD4, &[0; 6], &HELD4].concat(),
        Family::V6 => {
            let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &HELD6, &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
            let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &HELD6, &[2, 1], &OTHER].concat();
            [&[0x33, 0x33, 0, 0, 0, 1][..], &OTHER, &[0x86, 0xdd], &header, &message].concat()
        }
    }
}

/// What of a frame to all a filter of loads, comparisons and returns lets pass, in bytes (linux Documentation/networking/filter.rst).
fn passed(filter: &[Instruction], frame: &[u8]) -> u32 {
    const PACKET_TYPE: u32 = 0xffff_f004;
    const BROADCAST: u32 = 1;
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, if_so, if_not, value } = filter[at];
        at += 1;
        let load = |bytes: usize| frame.get(value as usize..).and_then(|rest| rest.get(..bytes));
        let jump = |holds: bool| usize::from(if holds { if_so } else { if_not });
        accumulator = match code {
            0x06 => return value,
            0x15 => {
                at += jump(accumulator == value);
                continue;
            }
            0x25 => {
                at += jump(accumulator > value);
                continue;
            }
            0x20 if value == PACKET_TYPE => BROADCAST,
            // Beyond the frame's end the filter ends, and nothing passes.
            0x20 | 0x28 | 0x30 => match load(1 << (2 - (code >> 3 & 3))) {
                Some(bytes) => bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
                None => return 0,
            },
            _ => panic!("an instruction that is not expected: {code:#x}"),
        };
    }
}

fn watch(is_long: bool) -> Watch {
    let further = (0..if is_long { MANY } else { 2 })
        .flat_map(|last| [IpAddr::from([198, 51, 100, last]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()])]);
    let addresses = [IpAddr::from(HELD4), IpAddr::from(HELD6)].into_iter().chain(further).collect();
    Watch { ifindex: 1, addresses, own: BTreeSet::from([OWN]) }
}

// Two switches, then a whole frame, or changes to one that is right: each where and what; then how much of it is there.
fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let Ok(switches) = bytes.arbitrary::<u8>() else { return };
    let family = if switches & 1 == 0 { Family::V4 } else { Family::V6 };
    let frame = if switches & 2 == 0 {
        let mut frame = announcement(family);
        let length: u8 = bytes.arbitrary().unwrap_or(u8::MAX);
        while let (false, Ok([at, value])) = (bytes.is_empty(), bytes.arbitrary::<[u8; 2]>()) {
            match frame.get_mut(usize::from(at)) {
                Some(byte) => *byte = value,
                None => frame.push(value),
            }
        }
        frame.truncate(usize::from(length));
        frame
    } else {
        bytes.take_rest().to_vec()
    };
    let is_long = switches & 4 != 0;
    let watch = watch(is_long);
    let claim = claim_of(&frame[..frame.len().min(FRAME_BYTES)]);
    if let Some(claim) = claim {
        let bytes = match claim.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert!(frame.windows(bytes.len()).any(|part| part == bytes), "it names what the frame does not");
        assert!(frame.windows(6).any(|part| part == claim.mac), "it names what the frame does not");
    }
    let is_arp = frame.get(12..14) == Some(&[8, 6]);
    let is_ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    // The kernel gives each socket the frames of its protocol only.
    for (family, is_its, from) in [(Family::V4, is_arp, 22), (Family::V6, is_ipv6, 6)] {
        let heard = passed(&filter(family, &watch), &frame);
        assert!(heard == 0 || heard as usize == FRAME_BYTES);
        let is_own = frame.get(from..from + 6) == Some(&OWN);
        let is_ours = claim.is_some_and(|claim| watch.addresses.contains(&claim.address));
        if is_its && is_ours && !is_own {
            assert_ne!(heard, 0, "a claim to an address of ours is not heard: {claim:?}");
        }
        // Of few addresses nothing passes that names none of them, and never this node's own words.
        assert!(heard == 0 || !is_own || !is_its);
        let at = if family == Family::V4 { 28 } else { 62 };
        let names = |address: &IpAddr| match address {
            IpAddr::V4(address) => family == Family::V4 && frame[at..].starts_with(&address.octets()),
            IpAddr::V6(address) => family == Family::V6 && frame[at..].starts_with(&address.octets()),
        };
        assert!(heard == 0 || is_long || watch.addresses.iter().any(names));
    }
});
