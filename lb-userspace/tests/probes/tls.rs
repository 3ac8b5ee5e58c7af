use std::{net::SocketAddr, path::PathBuf, process::Command};

use lb_userspace::{
    config::model::{CheckTls, Probe, Step},
    health::target::Target,
};

use crate::{
    ask::{ask, briefly, failure, target, verified, within_tls},
    fake,
    real::{Authority, Folder, GOOD, Server, free},
};

fn hello(address: SocketAddr) -> Target {
    target(address, Probe::Tls)
}

/// OpenSSL's server, with a certificate for these names and years, and the file of its authority.
fn server(folder: &Folder, names: &[&str], years: (i32, i32), more: &[&str]) -> (Server, PathBuf) {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(names, years);
    let server = openssl(folder, &certificate, &key, more);
    (server, folder.write("ca.pem", &authority.pem))
}

/// OpenSSL's server with a certificate that signed itself, as `openssl req -x509` makes it.
fn authority_as_server(folder: &Folder) -> (Server, PathBuf) {
    let (certificate, key) = Authority::self_signed("127.0.0.1");
    (openssl(folder, &certificate, &key, &[]), folder.path("server.pem"))
}

fn openssl(folder: &Folder, certificate: &str, key: &str, more: &[&str]) -> Server {
    let (certificate, key) = (folder.write("server.pem", certificate), folder.write("server.key", key));
    let address = free();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &address.to_string(), "-cert"]).arg(certificate).arg("-key").arg(key).args(more);
    Server::start(command, address, folder)
}

#[test]
fn a_handshake_is_well_with_the_right_certificate_or_with_any() {
    let folder = Folder::new();
    let (server, ca) = server(&folder, &["127.0.0.1", "a.example"], GOOD, &[]);
    let hello = || hello(server.address);
    assert_eq!(ask(&within_tls(hello())), Ok(()));
    assert_eq!(ask(&verified(hello(), &ca, None)), Ok(()));
    assert_eq!(ask(&verified(hello(), &ca, Some("a.example"))), Ok(()));
    assert_eq!(failure(&verified(hello(), &ca, Some("b.example"))), "TLS certificate is not for \"b.example\"");
    let strange = folder.write("strange.pem", &Authority::named("a stranger").pem);
    assert_eq!(failure(&verified(hello(), &strange, None)), "TLS certificate is of an unknown issuer");
    assert_eq!(failure(&hello()), "not checked: no TLS is configured");
}

#[test]
fn the_machines_authorities_are_asked_if_none_is_named() {
    let folder = Folder::new();
    let (server, _) = server(&folder, &["127.0.0.1"], GOOD, &[]);
    let tls = CheckTls { verify: true, ca: None, sni: None };
    let text = failure(&Target { tls: Some(tls), ..hello(server.address) });
    assert_eq!(text, "TLS certificate is of an unknown issuer");
}

#[test]
fn a_server_may_show_the_trusted_certificate_itself() {
    let folder = Folder::new();
    let (server, ca) = authority_as_server(&folder);
    assert_eq!(ask(&verified(hello(server.address), &ca, None)), Ok(()));
    assert_eq!(failure(&verified(hello(server.address), &ca, Some("b.example"))), "TLS certificate is not for \"b.example\"");
}

#[test]
fn another_authority_than_the_trusted_one_is_no_server() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (server, _) = authority_as_server(&folder);
    let ca = other.write("ca.pem", &Authority::self_signed("127.0.0.1").0);
    let text = failure(&verified(hello(server.address), &ca, None));
    assert!(
        ["TLS certificate is an authority's (CA:TRUE), not a server's", "TLS certificate is of an unknown issuer"].contains(&text.as_str()),
        "{text}"
    );
}

#[test]
fn a_dialogue_goes_on_within_tls() {
    let folder = Folder::new();
    let (server, _) = server(&folder, &["127.0.0.1"], GOOD, &["-tls1_2"]);
    let steps = vec![
        Step::Send(b"GET / HTTP/1.0\r\n\r\n".into()),
        Step::ExpectMatch("^HTTP/1.0 200 ok\r\n".into()),
        Step::Expect(b"TLSv1.2".into()),
    ];
    assert_eq!(ask(&within_tls(target(server.address, Probe::Tcp(steps)))), Ok(()));
}

#[test]
fn a_certificate_out_of_its_time_is_sick() {
    let folder = Folder::new();
    let (old, ca) = server(&folder, &["127.0.0.1"], (2020, 2021), &[]);
    assert_eq!(failure(&verified(hello(old.address), &ca, None)), "TLS certificate has expired");
    assert_eq!(ask(&within_tls(hello(old.address))), Ok(()));
    let folder = Folder::new();
    let (early, ca) = server(&folder, &["127.0.0.1"], (2080, 2090), &[]);
    assert_eq!(failure(&verified(hello(early.address), &ca, None)), "TLS certificate is not valid yet");
}

#[test]
fn a_server_that_refuses_the_handshake_is_sick() {
    let folder = Folder::new();
    let (server, _) = server(&folder, &["127.0.0.1"], GOOD, &["-tls1_2", "-cipher", "AES128-SHA"]);
    assert_eq!(failure(&within_tls(hello(server.address))), "TLS server refused the handshake: alert HandshakeFailure");
    let alert = fake::answers(&[b"\x15\x03\x03\x00\x02\x02\x50"]);
    assert_eq!(failure(&within_tls(hello(alert))), "TLS server refused the handshake: alert InternalError");
}

#[test]
fn a_server_without_tls_is_told() {
    assert_eq!(failure(&within_tls(hello(fake::answers(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"])))), "TLS answer is no TLS");
    assert_eq!(failure(&within_tls(hello(fake::answers(&[b""])))), "TLS server closed the connection within the handshake");
    assert_eq!(failure(&within_tls(hello(free()))), "L4 connection refused");
}

#[test]
fn a_silent_server_times_out() {
    assert_eq!(failure(&briefly(within_tls(hello(fake::silent())))), "TLS timeout after 500ms: no answer to the TLS hello");
}

#[test]
fn an_authority_that_is_not_there_says_nothing_of_the_server() {
    let folder = Folder::new();
    let missing = folder.path("nowhere.pem");
    let text = failure(&verified(hello(fake::silent()), &missing, None));
    assert_eq!(text, format!("not checked: failed to read {}: no such file or directory", missing.display()));
}
