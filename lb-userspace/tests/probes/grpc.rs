use std::{net::SocketAddr, process::Command};

use lb_userspace::{config::model::Probe, health::target::Target};

use crate::{
    ask::{ask, briefly, failure, target},
    fake::{self, End},
    http::Nginx,
    real::{Folder, Server, free},
};

/// Debian's own: python3-grpcio is for no other.
const PYTHON: &str = "/usr/bin/python3";

fn grpc(address: SocketAddr, service: &str) -> Target {
    target(address, Probe::Grpc { service: service.to_owned() })
}

fn server(folder: &Folder, more: &[&str]) -> Server {
    let script = folder.write("health_server.py", include_str!("health_server.py"));
    let address = free();
    let mut command = Command::new(PYTHON);
    command.arg(script).arg(address.to_string()).args(more);
    Server::start(command, address, folder)
}

#[test]
fn a_service_is_well_if_it_serves() {
    let folder = Folder::new();
    let server = server(&folder, &[]);
    assert_eq!(ask(&grpc(server.address, "")), Ok(()));
    assert_eq!(ask(&grpc(server.address, "good.Service")), Ok(()));
    assert_eq!(failure(&grpc(server.address, "sick.Service")), "L7 health is NOT_SERVING");
    assert_eq!(failure(&grpc(server.address, "unsure.Service")), "L7 health is UNKNOWN");
    assert_eq!(failure(&grpc(server.address, "no.Service")), "L7 grpc-status 5 NOT_FOUND: no such service: 100%");
    assert_eq!(failure(&grpc(server.address, "broken.Service")), "L7 answer is no health message: \"\\x00\\x00\\x00\\x00\\x02\\xff\\xff\"");
}

#[test]
fn a_server_without_the_service_is_told() {
    let folder = Folder::new();
    let server = server(&folder, &["without"]);
    assert_eq!(failure(&grpc(server.address, "")), "L7 grpc-status 12 UNIMPLEMENTED: Method not found!");
}

#[test]
fn a_web_server_is_told() {
    let nginx = Nginx::start();
    assert_eq!(failure(&grpc(nginx.prior, "")), "L7 status 404");
    assert_eq!(failure(&grpc(free(), "")), "L4 connection refused");
    let text = failure(&grpc(fake::greeting("220 mail.example ESMTP\r\n"), ""));
    assert!(text.starts_with("L7 answer is no HTTP/2: "), "{text}");
}

#[test]
fn a_silent_server_times_out() {
    assert_eq!(failure(&briefly(grpc(fake::silent(), ""))), "L7 timeout after 500ms: no answer to the request");
    // `:status 200` and the content type, RFC 7541 appendix A and s6.2.2.
    let head = b"\0\0\x14\x01\x04\0\0\0\x01\x88\x0f\x10\x10application/grpc";
    assert_eq!(failure(&briefly(grpc(fake::http2(head, End::Wait), ""))), "L7 timeout after 500ms: the answer does not end");
}
