use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use lb_userspace::{config::model::Probe, health::target::Target};
use rustix::process::Signal;

use crate::{
    ask::{ask, briefly, failure, target, within_tls},
    fake,
    real::{Authority, Folder, GOOD, Server, as_nobody, finish, free},
};

/// Places for clients.
const PLACES: usize = 3;

fn pgsql(address: SocketAddr, user: &str) -> Target {
    target(address, Probe::Pgsql { user: user.to_owned() })
}

/// The newest PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path().join("bin").join(name));
    versions.filter(|path| path.exists()).max().unwrap()
}

/// A server that trusts `weir`, asks all others for passwords, and offers TLS.
fn server(folder: &Folder) -> Server {
    let (files, address) = (folder.path("data"), free());
    finish(as_nobody(program("initdb")).args(["-U", "weir", "--auth", "trust", "--no-sync", "--no-locale", "-D"]).arg(&files));
    fs::write(files.join("pg_hba.conf"), "host all weir all trust\nhost all all all scram-sha-256\n").unwrap();
    let (certificate, key) = Authority::new().issue(&["127.0.0.1"], GOOD);
    let (certificate, key) = (folder.write_for_nobody("server.pem", &certificate), folder.write_for_nobody("server.key", &key));
    let mut command = as_nobody(program("postgres"));
    let folder_path = folder.path("");
    command.arg("-D").arg(&files).arg("-k").arg(&folder_path).args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-F"]);
    for setting in [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
        format!("max_connections={PLACES}"),
        "superuser_reserved_connections=0".to_owned(),
        "max_wal_senders=0".to_owned(),
    ] {
        command.args(["-c", &setting]);
    }
    let mut server = Server::start(command, address, folder);
    server.until("it is ready", |server| server.log().contains("ready to accept connections"));
    server
}

/// A session that takes a place.
fn session(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"\0\0\0\x25\0\x03\0\0user\0weir\0database\0postgres\0\0").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"R");
    stream
}

#[test]
fn postgresql_is_well_whomever_it_lets_in() {
    let folder = Folder::new();
    let server = server(&folder);
    for user in ["weir", "stranger"] {
        assert_eq!(ask(&pgsql(server.address, user)), Ok(()), "{user}");
        assert_eq!(ask(&within_tls(pgsql(server.address, user))), Ok(()), "{user}");
    }
    let log = server.log();
    assert!(!log.contains("could not") && !log.contains("expected password") && !log.contains("unexpected EOF"), "{log}");
}

#[test]
fn postgresql_without_a_place_or_in_its_shutdown_is_sick() {
    let folder = Folder::new();
    let mut server = server(&folder);
    let address = server.address;
    let sessions: Vec<TcpStream> = (0..PLACES).map(|_| session(address)).collect();
    assert_eq!(failure(&pgsql(address, "weir")), "L7 error 53300: sorry, too many clients already");
    server.signal(Signal::TERM);
    let stopping = "L7 error 57P03: the database system is shutting down";
    server.until("it is shutting down", |_| ask(&pgsql(address, "weir")).is_err_and(|failure| failure.to_string() == stopping));
    drop(sessions);
}

#[test]
fn a_server_that_lies_is_told() {
    assert_eq!(failure(&pgsql(fake::greeting("HTTP/1.1 400 Bad\r\n"), "weir")), "L7 answer is no PostgreSQL: \"HTTP/1.1 400 Bad\\r\\n\"");
    assert_eq!(failure(&pgsql(fake::answers(&[b"R\0\0"]), "weir")), "L7 server closed the connection without an answer");
    assert_eq!(failure(&pgsql(fake::greeting([b"E".as_slice(), &[0xff; 9]].concat()), "weir")).lines().count(), 1);
    assert_eq!(failure(&within_tls(pgsql(fake::answers(&[b"N"]), "weir"))), "TLS server offers no TLS");
    assert_eq!(failure(&within_tls(pgsql(fake::greeting("S\x16\x03"), "weir"))), "L7 answer is no PostgreSQL: \"S\\x16\\x03\"");
    assert_eq!(failure(&pgsql(free(), "weir")), "L4 connection refused");
}

#[test]
fn a_silent_server_times_out() {
    assert_eq!(failure(&briefly(pgsql(fake::silent(), "weir"))), "L7 timeout after 500ms: no answer to the start-up message");
    assert_eq!(failure(&briefly(within_tls(pgsql(fake::silent(), "weir")))), "TLS timeout after 500ms: no answer to the TLS request");
    let silent = fake::answers(&[b"S"]);
    assert_eq!(failure(&within_tls(pgsql(silent, "weir"))), "TLS server closed the connection within the handshake");
}
