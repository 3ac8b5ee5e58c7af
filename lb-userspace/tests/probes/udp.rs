use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
};

use lb_userspace::{config::model::Probe, health::target::Target};

use crate::{
    ask::{ask, briefly, failure, target},
    real::free,
};

fn udp(address: SocketAddr, expect: Option<&[u8]>) -> Target {
    target(address, Probe::Udp { send: b"ping".into(), expect: expect.map(<[u8]>::to_vec) })
}

/// Answers every datagram with this; with none, not at all.
fn server(answer: Option<&'static [u8]>) -> SocketAddr {
    server_of(answer.into_iter().collect())
}

/// Answers every datagram with all of these.
fn server_of(answers: Vec<&'static [u8]>) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut asked = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut asked) {
            assert_eq!(&asked[..length], b"ping");
            for answer in &answers {
                socket.send_to(answer, client).unwrap();
            }
        }
    });
    address
}

#[test]
fn the_answer_that_is_expected_is_well() {
    assert_eq!(ask(&udp(server(Some(b"a pong")), Some(b"pong"))), Ok(()));
    assert_eq!(ask(&udp(server(Some(b"what")), Some(b""))), Ok(()));
    assert_eq!(ask(&udp(server(Some(&[b'a'; 60_000])), Some(b"aaa"))), Ok(()));
}

#[test]
fn another_answer_is_sick() {
    let of = |answers: &[&'static [u8]]| failure(&briefly(udp(server_of(answers.to_vec()), Some(b"pong"))));
    assert_eq!(of(&[b"\x00no"]), "L7 answer does not contain \"pong\": \"\\x00no\"");
    assert_eq!(of(&[b""]), "L7 answer does not contain \"pong\": \"\"");
    assert_eq!(of(&[b"one", b"two"]), "L7 answer does not contain \"pong\": \"one\"");
}

#[test]
fn an_answer_that_is_expected_counts_behind_others() {
    assert_eq!(ask(&udp(server_of(vec![b"stale", b"", b"pong"]), Some(b"pong"))), Ok(()));
}

#[test]
fn a_port_that_is_closed_is_refused() {
    assert_eq!(failure(&udp(free(), Some(b"pong"))), "L4 connection refused");
    assert_eq!(failure(&udp(free(), None)), "L4 connection refused");
}

#[test]
fn silence_is_sick_only_where_an_answer_is_expected() {
    assert_eq!(ask(&udp(server(None), None)), Ok(()));
    assert_eq!(ask(&briefly(udp(server(None), None))), Ok(()));
    assert_eq!(failure(&briefly(udp(server(None), Some(b"pong")))), "L4 timeout after 500ms: no answer to the datagram");
}

#[test]
fn a_datagram_that_is_too_big_says_nothing_of_the_server() {
    let big = target(server(None), Probe::Udp { send: vec![0; 70_000], expect: None });
    assert_eq!(failure(&big), "not checked: failed to ask: message too long");
}
