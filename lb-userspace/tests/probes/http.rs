use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, process::Command};

use lb_userspace::{
    config::model::{HttpProbe, HttpVersion, Probe},
    health::target::Target,
};

use crate::{
    ask::{ask, briefly, failure, target, within_tls},
    fake,
    real::{Authority, Folder, GOOD, Server, free},
};

pub(crate) fn get(path: &str, version: HttpVersion) -> HttpProbe {
    HttpProbe {
        method: "GET".to_owned(),
        path: path.to_owned(),
        version,
        headers: BTreeMap::new(),
        body: Vec::new(),
        status: vec![(200, 399)],
        contains: None,
        matches: None,
    }
}

pub(crate) fn http(address: SocketAddr, probe: HttpProbe) -> Target {
    target(address, Probe::Http(Box::new(probe)))
}

/// A question for the text "ok".
fn ok(address: SocketAddr, version: HttpVersion) -> Target {
    http(address, HttpProbe { contains: Some("ok".to_owned()), ..get("/", version) })
}

/// nginx: HTTP/1 at `plain`, HTTP/2 at `prior` without TLS, both at `tls`.
pub(crate) struct Nginx {
    _server: Server,
    _folder: Folder,
    pub(crate) plain: SocketAddr,
    pub(crate) prior: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// With TLS, HTTP/1 alone.
    pub(crate) old_tls: SocketAddr,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let (plain, prior, tls, old_tls) = (free(), free(), free(), free());
        let (certificate, key) = Authority::new().issue(&["127.0.0.1"], GOOD);
        folder.write("server.pem", &certificate);
        folder.write("server.key", &key);
        folder.write("big", &format!("{}the end", "a".repeat(200_000)));
        let at = folder.path("");
        let at = at.display();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).concat();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {at}/pid; error_log {at}/error.log info;
            events {{}}
            http {{
                access_log off;
                {temporary}
                ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key;
                server {{
                    listen {plain}; listen {prior} http2; listen {tls} ssl http2; listen {old_tls} ssl;
                    location = / {{ return 200 \"all ok\"; }}
                    location = /sick {{ return 500 \"ok\"; }}
                    location = /moved {{ return 302 /; }}
                    location = /host {{ return 200 \"$request_method $host $http_user_agent $http_x_asked $request_length\"; }}
                    location = /big {{ root {at}; }}
                }}
            }}"
        );
        let config = folder.write("nginx.conf", &config);
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.path("start.log")).arg("-c").arg(config).arg("-p").arg(folder.path(""));
        Self { _server: Server::start(command, plain, &folder), _folder: folder, plain, prior, tls, old_tls }
    }
}

#[test]
fn nginx_is_well_in_every_version() {
    let nginx = Nginx::start();
    for version in [HttpVersion::Http10, HttpVersion::Http11] {
        assert_eq!(ask(&ok(nginx.plain, version)), Ok(()), "{version:?}");
        assert_eq!(ask(&within_tls(ok(nginx.tls, version))), Ok(()), "{version:?}");
        assert_eq!(ask(&http(nginx.plain, get("/moved", version))), Ok(()), "{version:?}");
        assert_eq!(failure(&http(nginx.plain, get("/sick", version))), "L7 status 500");
        assert_eq!(failure(&http(nginx.plain, get("/nowhere", version))), "L7 status 404");
    }
    let head = HttpProbe { method: "HEAD".to_owned(), ..get("/", HttpVersion::Http11) };
    assert_eq!(ask(&http(nginx.plain, head)), Ok(()));
}

#[test]
fn nginx_sees_the_fields_that_are_configured() {
    let nginx = Nginx::start();
    let asked = |headers: &[(&str, &str)], matches: &str| {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        http(nginx.plain, HttpProbe { headers, matches: Some(matches.to_owned()), ..get("/host", HttpVersion::Http11) })
    };
    assert_eq!(ask(&asked(&[], "^GET 127.0.0.1 weir  ")), Ok(()));
    assert_eq!(ask(&asked(&[("host", "a.example"), ("user-agent", "me"), ("x-asked", "yes no")], "^GET a.example me yes no ")), Ok(()));
    let post = HttpProbe {
        method: "POST".to_owned(),
        body: vec![b'x'; 10_000],
        matches: Some("^POST ".to_owned()),
        ..get("/host", HttpVersion::Http11)
    };
    assert_eq!(ask(&http(nginx.plain, post)), Ok(()));
}

#[test]
fn only_the_first_64_kib_of_a_body_count() {
    let nginx = Nginx::start();
    for (address, version) in [(nginx.plain, HttpVersion::Http11), (nginx.prior, HttpVersion::Http2)] {
        let big = |contains: &str| http(address, HttpProbe { contains: Some(contains.to_owned()), ..get("/big", version) });
        assert_eq!(ask(&big("aaa")), Ok(()));
        assert_eq!(failure(&big("the end")), "L7 first 64 KiB of the body do not contain \"the end\"");
    }
}

#[test]
fn a_server_that_is_sick_or_lies_is_told() {
    let version = HttpVersion::Http11;
    assert_eq!(
        failure(&ok(fake::answers(&[b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsick"]), version)),
        "L7 body does not contain \"ok\""
    );
    assert_eq!(failure(&ok(fake::greeting("SSH-2.0-OpenSSH_9.2\r\n"), version)), "L7 answer is no HTTP: \"SSH-2.0-OpenSSH_9.2\\r\\n\"");
    assert_eq!(failure(&ok(fake::answers(&[b""]), version)), "L7 server closed the connection without an answer");
    assert_eq!(
        failure(&ok(fake::answers(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"]), version)),
        "L7 body ends 7 bytes too early"
    );
    assert_eq!(failure(&ok(fake::endless("HTTP/1.1 200 OK\r\n", [b'a'; 1000]), version)), "L7 answer's head is longer than 64 KiB");
    assert_eq!(
        failure(&ok(fake::endless("HTTP/1.1 200 OK\r\n\r\n", [b'a'; 1000]), version)),
        "L7 first 64 KiB of the body do not contain \"ok\""
    );
    assert_eq!(failure(&ok(free(), version)), "L4 connection refused");
    let text = failure(&ok(fake::closing(), version));
    assert!(
        ["L4 connection reset by peer", "L4 broken pipe", "L7 server closed the connection without an answer"].contains(&text.as_str()),
        "{text}"
    );
}

#[test]
fn an_answer_counts_that_comes_before_the_request_is_read() {
    let busy = fake::serve(|mut stream| stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").unwrap());
    let post = HttpProbe { method: "POST".to_owned(), body: vec![0; 16 << 20], ..get("/", HttpVersion::Http11) };
    assert_eq!(failure(&http(busy, post)), "L7 status 503");
}

#[test]
fn a_slow_server_times_out_where_it_is_slow() {
    let version = HttpVersion::Http11;
    assert_eq!(failure(&briefly(ok(fake::silent(), version))), "L7 timeout after 500ms: no answer to the request");
    assert_eq!(failure(&briefly(ok(fake::greeting("HTTP/1.1 2"), version))), "L7 timeout after 500ms: no answer to the request");
    let slow = fake::greeting("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok");
    assert_eq!(failure(&briefly(ok(slow, version))), "L7 timeout after 500ms: the answer's body does not end");
    assert_eq!(ask(&http(slow, get("/", version))), Ok(()));
    let silent = within_tls(ok(fake::silent(), version));
    assert_eq!(failure(&briefly(silent)), "TLS timeout after 500ms: no answer to the TLS hello");
}
