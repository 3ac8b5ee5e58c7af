use PortState::{Answered, Claimed, ClientClosing, Closed, Established, Free, Opening, Reset, Resting, ServerClosing};
use Side::{Client, Server};

use super::*;

const STATES: [PortState; 10] = [Free, Claimed, Opening, Answered, Established, ClientClosing, ServerClosing, Closed, Resting, Reset];

/// State, then what it becomes: by the client's SYN, ACK, FIN, and the server's SYN, ACK, FIN.
const TRANSITIONS: [(PortState, [PortState; 3], [PortState; 3]); 10] = [
    (Free, [Free; 3], [Free; 3]),
    (Claimed, [Claimed; 3], [Claimed; 3]),
    (Opening, [Opening; 3], [Answered; 3]),
    (Answered, [Answered, Established, ClientClosing], [Answered; 3]),
    (Established, [Established, Established, ClientClosing], [Established, Established, ServerClosing]),
    (ClientClosing, [ClientClosing; 3], [ClientClosing, ClientClosing, Closed]),
    (ServerClosing, [ServerClosing, ServerClosing, Resting], [ServerClosing; 3]),
    (Closed, [Closed; 3], [Closed; 3]),
    (Resting, [Resting; 3], [Resting; 3]),
    (Reset, [Reset, Established, ClientClosing], [Reset, Established, ServerClosing]),
];

#[test]
fn a_segment_moves_a_flow_as_the_table_says() {
    for (state, by_client, by_server) in TRANSITIONS {
        for (side, expected) in [(Client, by_client), (Server, by_server)] {
            for (flags, expected) in [tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK].into_iter().zip(expected) {
                assert_eq!(next_state(state, side, flags), expected, "{state:?}, {side:?} sends {flags:#x}");
                assert_eq!(next_state(state, side, flags | tcp::PSH), expected);
            }
            for flags in [tcp::RST, tcp::RST | tcp::ACK, tcp::RST | tcp::SYN, tcp::RST | tcp::FIN] {
                let expected = if matches!(state, Closed | Resting) { state } else { Reset };
                assert_eq!(next_state(state, side, flags), expected, "{state:?}, {side:?} sends {flags:#x}");
            }
        }
    }
}

#[test]
fn a_datagram_moves_a_flow_only_when_the_server_answers() {
    for state in STATES {
        assert_eq!(next_udp_state(state, Client), state);
        assert_eq!(next_udp_state(state, Server), if state == Opening { Established } else { state });
    }
}

#[test]
fn a_port_word_keeps_what_it_is_made_of() {
    for state in STATES {
        for generation in [0, 1, PortWord::GENERATION_MASK] {
            let word = PortWord::new(state, generation, Tick::MAX - 3);
            assert_eq!((word.state(), word.generation(), word.time(), word.idle(2)), (state, generation, Tick::MAX - 3, 6));
        }
    }
    assert_eq!(PortWord::new(Opening, PortWord::GENERATION_MASK + 1, 0), PortWord::new(Opening, 0, 0));
}

/// State, seconds that its port rests under TCP and UDP; the idle timeout is 300.
const RESTS: [(PortState, Option<u32>, Option<u32>); 10] = [
    (Free, None, None),
    (Claimed, Some(2), Some(2)),
    (Opening, Some(5), Some(330)),
    (Answered, Some(8), Some(8)),
    (Established, Some(300), Some(330)),
    (ClientClosing, Some(300), Some(300)),
    (ServerClosing, Some(300), Some(300)),
    (Closed, Some(10), Some(10)),
    (Resting, Some(60), Some(60)),
    (Reset, Some(60), Some(60)),
];

#[test]
fn a_port_is_reusable_once_it_has_rested_for_its_state() {
    for (state, tcp_s, udp_s) in RESTS {
        for (protocol, rest_s) in [(protocol::TCP, tcp_s), (protocol::UDP, udp_s)] {
            for idle_s in 0..1000 {
                let is_reusable = is_reusable(PortWord::new(state, 1, 0), protocol, 300, idle_s);
                assert_eq!(is_reusable, rest_s.is_none_or(|rest_s| idle_s > rest_s), "{state:?} of protocol {protocol} after {idle_s} s");
            }
        }
    }
}

#[test]
fn a_flow_is_opened_anew_after_it_ended_or_timed_out() {
    for state in STATES {
        for (idle_s, is_timed_out) in [(0, false), (300, false), (301, true)] {
            let found = Found { index: 0, word: PortWord::new(state, 1, 1000) };
            let expected = is_timed_out || matches!(state, Closed | Resting) || (state == Reset && idle_s > RESET_REST_S);
            assert_eq!(reopens(found, 300, 1000 + idle_s), expected, "{state:?} idle {idle_s} s");
        }
    }
}

#[test]
fn the_port_that_is_spared_most_easily_is_of_an_ended_flow_then_of_an_unfinished_handshake() {
    let rank = |state, idle_s| spare(PortWord::new(state, 1, 0), protocol::TCP, 300, idle_s);
    for ended in [Closed, Resting, Reset] {
        assert!(rank(ended, 0) > rank(Answered, ANSWERED_IDLE_S));
        assert!(rank(ended, 5) > rank(ended, 4));
    }
    for half in [Opening, Answered] {
        assert_eq!((rank(half, 0), rank(half, 1)), (0, 0), "it may go on");
        assert!(rank(half, 3) > rank(half, 2) && rank(half, 2) > 0);
    }
    for alive in [Free, Claimed, Established, ClientClosing, ServerClosing] {
        assert_eq!(rank(alive, 299), 0, "{alive:?}");
    }
    let datagram = |idle_s| spare(PortWord::new(Established, 1, 0), protocol::UDP, 300, idle_s);
    assert_eq!((datagram(300), datagram(301) > 0), (0, true));
}

#[test]
fn a_port_used_after_the_readers_tick_is_not_idle() {
    let word = PortWord::new(PortState::Established, 1, 1001);
    assert_eq!((word.idle(1000), word.idle(1001), word.idle(1003)), (0, 0, 2));
    assert!(!is_reusable(word, protocol::TCP, 5, 1000));
    assert!(is_reusable(word, protocol::TCP, 5, 1007));
}
