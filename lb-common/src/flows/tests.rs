use FlowState::{Acknowledged, Closed, Proven, Syn};

use super::*;

const NOW: Tick = 20_000;

fn entry(state: FlowState, time: Tick) -> FlowWord {
    FlowWord::new(7, MemberId::new(1).expect("1 is a member"), state, time)
}

/// State before, flags of a packet in another second, state after, state after one in the same second.
const TRANSITIONS: &[(FlowState, u8, FlowState, FlowState)] = &[
    (Syn, 0, Acknowledged, Acknowledged),
    (Syn, tcp::SYN, Syn, Syn),
    (Syn, tcp::ACK, Acknowledged, Acknowledged),
    (Syn, tcp::SYN | tcp::ACK, Syn, Syn),
    (Acknowledged, 0, Proven, Acknowledged),
    (Acknowledged, tcp::SYN, Proven, Acknowledged),
    (Acknowledged, tcp::ACK, Proven, Acknowledged),
    (Acknowledged, tcp::SYN | tcp::ACK, Proven, Acknowledged),
    (Proven, 0, Proven, Proven),
    (Proven, tcp::SYN, Proven, Proven),
    (Proven, tcp::ACK, Proven, Proven),
    (Proven, tcp::SYN | tcp::ACK, Proven, Proven),
    (Closed, 0, Closed, Closed),
    (Closed, tcp::SYN, Closed, Closed),
    (Closed, tcp::ACK, Closed, Closed),
    (Closed, tcp::SYN | tcp::ACK, Closed, Closed),
];

#[test]
fn a_packet_moves_a_flow_as_the_table_says() {
    for &(state, flags, later, at_once) in TRANSITIONS {
        for push in [0, tcp::PSH] {
            assert_eq!(next_state(entry(state, NOW - 1), flags | push, NOW), later, "{state:?} {flags:#x}, a second later");
            assert_eq!(next_state(entry(state, NOW), flags | push, NOW), at_once, "{state:?} {flags:#x}, in the same second");
            for end in [tcp::FIN, tcp::RST, tcp::FIN | tcp::RST] {
                assert_eq!(next_state(entry(state, NOW - 1), flags | end, NOW), Closed, "{state:?} {flags:#x} {end:#x}");
            }
        }
    }
}

#[test]
fn the_table_names_every_state_and_meaningful_combination_of_flags() {
    let mut seen = 0;
    for state in [Syn, Acknowledged, Proven, Closed] {
        for flags in [0, tcp::SYN, tcp::ACK, tcp::SYN | tcp::ACK] {
            seen += TRANSITIONS.iter().filter(|row| (row.0, row.1) == (state, flags)).count();
        }
    }
    assert_eq!((seen, TRANSITIONS.len()), (16, 16));
}

#[test]
fn a_word_keeps_what_it_is_made_of() {
    for state in [Syn, Acknowledged, Proven, Closed] {
        for member in [1, 2, 0x8000, u16::MAX] {
            for time in [0, 1, FlowWord::TIME_MASK] {
                let id = MemberId::new(member);
                let word = FlowWord::new(u32::MAX - 1, id.expect("not 0"), state, time);
                assert_eq!((word.tag(), word.member(), word.state(), word.time()), (u32::MAX - 1, id, state, time));
            }
        }
    }
}

#[test]
fn idle_seconds_are_told_across_the_wrap_of_the_clock() {
    for now in [0, 16_383, 16_384, 40_000, Tick::MAX] {
        for idle in [0, 1, 14_400, FlowWord::TIME_MASK - 255] {
            assert_eq!(entry(Proven, now.wrapping_sub(idle)).idle(now), idle, "{now}");
        }
    }
}
