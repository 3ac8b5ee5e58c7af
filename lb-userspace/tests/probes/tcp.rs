use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::mpsc,
    time::Duration,
};

use lb_common::maps::ForwardKind;
use lb_userspace::{
    config::model::{Probe, Step},
    health::target::{Path, Route, Target},
};
use socket2::{Domain, Socket, Type};

use crate::{
    ask::{ask, briefly, failure, target, within_tls},
    fake,
    real::{Folder, Server, free},
};

fn connect(address: SocketAddr) -> Target {
    target(address, Probe::Tcp(Vec::new()))
}

fn ping(address: SocketAddr) -> Target {
    target(address, Probe::Tcp(vec![Step::Send(b"PING\r\n".into()), Step::Expect(b"+PONG\r\n".into())]))
}

#[test]
fn a_server_that_accepts_is_well_and_no_connection_lingers() {
    let server = fake::silent();
    assert_eq!(ask(&connect(server)), Ok(()));
    let port = format!(":{:04X} ", server.port());
    let connections = fs::read_to_string("/proc/net/tcp").unwrap();
    // 6 is TIME_WAIT: linux include/net/tcp_states.h.
    assert!(!connections.lines().any(|line| line.contains(&port) && line.contains(" 06 ")), "{connections}");
}

#[test]
fn a_bare_connection_leaves_nothing_for_the_servers_program() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(ask(&connect(listener.local_addr().unwrap())), Ok(()));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_server_that_refuses_is_sick() {
    assert_eq!(failure(&connect(free())), "L4 connection refused");
}

#[test]
fn a_server_that_does_not_answer_the_connection_times_out() {
    // A queue of one place, which is taken: the kernel drops what comes next.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _taken = std::net::TcpStream::connect(address).unwrap();
    assert_eq!(failure(&briefly(connect(address))), "L4 timeout after 500ms: no answer to the connection");
}

#[test]
fn a_way_that_this_process_does_not_have_says_nothing_of_the_server() {
    let server = fake::silent();
    let (vip, port, forward) = (server.ip(), server.port(), ForwardKind::Dsr);
    let route = Route::Datapath(vec![Path { vip, port, forward, gue_port: 0, tunnel_source: None, mark: 7 }]);
    assert_eq!(failure(&Target { route, ..connect(server) }), "not checked: checks through the data path need the daemon's programs");
}

#[test]
fn a_question_comes_from_the_address_that_it_is_to_come_from() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let says = |address| target(address, Probe::Tcp(vec![Step::Send(b"hello".into())]));
    let from = |source: &str| Target { route: Route::From(source.parse().unwrap()), ..says(listener.local_addr().unwrap()) };
    assert_eq!(ask(&from("127.0.0.9")), Ok(()));
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.9");
    assert_eq!(failure(&from("192.0.2.1")), "not checked: failed to ask from 192.0.2.1: cannot assign requested address");
}

#[test]
fn a_server_of_the_other_family_is_asked_as_well() {
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    assert_eq!(ask(&connect(listener.local_addr().unwrap())), Ok(()));
}

#[test]
fn a_question_that_is_given_up_closes_its_connection() {
    let (closed, is_closed) = mpsc::channel();
    let server = fake::serve(move |mut stream| {
        while stream.read(&mut [0; 64]).unwrap_or(0) > 0 {}
        closed.send(()).unwrap();
    });
    let dialogues = [ping(server), within_tls(ping(server))];
    for dialogue in dialogues {
        assert_eq!(ask(&briefly(dialogue)).unwrap_err().text.split(':').next(), Some("timeout after 500ms"));
        is_closed.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn redis_answers_a_ping() {
    let folder = Folder::new();
    let address = free();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string(), "--dir"]).arg(folder.path(""));
    let server = Server::start(command, address, &folder);
    assert_eq!(ask(&ping(server.address)), Ok(()));
    let steps = vec![
        Step::Send(b"INFO replication\r\n".into()),
        Step::ExpectMatch("role:(master|slave)\r\n".into()),
        Step::Send(b"QUIT\r\n".into()),
        Step::Expect(b"+OK\r\n".into()),
    ];
    assert_eq!(ask(&target(server.address, Probe::Tcp(steps))), Ok(()));
    let other = vec![Step::Send(b"NONSENSE\r\nQUIT\r\n".into()), Step::Expect(b"+PONG".into())];
    let text = failure(&target(server.address, Probe::Tcp(other)));
    assert!(text.starts_with("L7 server closed the connection; expected \"+PONG\", received \"-ERR unknown command"), "{text}");
}

#[test]
fn a_dialogue_that_goes_otherwise_is_told() {
    let text = failure(&ping(fake::answers(&[b"-LOADING Redis is loading\r\n"])));
    assert_eq!(text, "L7 server closed the connection; expected \"+PONG\\r\\n\", received \"-LOADING Redis is loading\\r\\n\"");
    assert_eq!(failure(&ping(fake::answers(&[b""]))), "L7 server closed the connection before \"+PONG\\r\\n\" came");
    let text = failure(&ping(fake::endless("", [b'a'; 1024])));
    assert_eq!(text, format!("L7 64 KiB came without \"+PONG\\r\\n\": \"{}…\"", "a".repeat(60)));
}

#[test]
fn a_dialogue_that_gets_no_answer_times_out() {
    assert_eq!(failure(&briefly(ping(fake::silent()))), "L7 timeout after 500ms: what is expected does not come");
    assert_eq!(failure(&briefly(ping(fake::greeting("+PO")))), "L7 timeout after 500ms: what is expected does not come");
}

#[test]
fn an_answer_in_pieces_is_put_together() {
    let pieces = fake::serve(|mut stream| {
        stream.set_nodelay(true).unwrap();
        let _ = stream.read(&mut [0; 64]);
        for byte in b"+PONG\r\n" {
            stream.write_all(&[*byte]).unwrap();
        }
        let _ = stream.read(&mut [0; 64]);
    });
    assert_eq!(ask(&ping(pieces)), Ok(()));
}

#[test]
fn a_dialogue_within_tls_needs_tls() {
    let text = failure(&within_tls(ping(fake::greeting("220 mail.example ESMTP\r\n"))));
    assert_eq!(text, "TLS answer is no TLS");
}
