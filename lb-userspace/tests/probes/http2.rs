use lb_userspace::config::model::{HttpProbe, HttpVersion};

use crate::{
    ask::{ask, briefly, failure, within_tls},
    fake::{self, End},
    http::{Nginx, get, http},
};

fn probe(path: &str) -> HttpProbe {
    get(path, HttpVersion::Http2)
}

/// A head of stream 1 with `:status 200`, RFC 7541 appendix A; the body is still to come.
const HEAD: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88";

#[test]
fn nginx_is_well_with_and_without_tls() {
    let nginx = Nginx::start();
    let ok = || HttpProbe { contains: Some("all ok".to_owned()), ..probe("/") };
    assert_eq!(ask(&http(nginx.prior, ok())), Ok(()));
    assert_eq!(ask(&within_tls(http(nginx.tls, ok()))), Ok(()));
    assert_eq!(failure(&http(nginx.prior, probe("/sick"))), "L7 status 500");
    let other = HttpProbe { matches: Some("^ok".to_owned()), ..probe("/") };
    assert_eq!(failure(&within_tls(http(nginx.tls, other))), "L7 body does not match \"^ok\"");
    let post = HttpProbe {
        method: "POST".to_owned(),
        body: vec![b'x'; 1000],
        headers: [("host".to_owned(), "a.example".to_owned())].into(),
        matches: Some("^POST a.example weir ".to_owned()),
        ..probe("/host")
    };
    assert_eq!(ask(&http(nginx.prior, post)), Ok(()));
}

#[test]
fn a_server_of_http1_is_told() {
    let nginx = Nginx::start();
    let text = failure(&within_tls(http(nginx.old_tls, probe("/"))));
    assert!(
        ["TLS server does not offer h2 by ALPN", "TLS server refused the handshake: alert NoApplicationProtocol"].contains(&text.as_str()),
        "{text}"
    );
    let text = failure(&http(fake::answers(&[b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"]), probe("/")));
    assert!(text.starts_with("L7 answer is no HTTP/2: "), "{text}");
}

#[test]
fn a_server_that_closes_early_is_told() {
    let closed = "L7 server closed the connection before its answer was whole";
    assert_eq!(failure(&http(fake::answers(&[b""]), probe("/"))), closed);
    let half = fake::http2(HEAD, End::Close);
    let text = failure(&http(half, HttpProbe { contains: Some("ok".to_owned()), ..probe("/") }));
    assert_eq!(text, closed);
}

#[test]
fn a_server_that_refuses_or_lies_is_told() {
    // RST_STREAM with REFUSED_STREAM, GOAWAY with ENHANCE_YOUR_CALM, a frame of 16 MiB, a compressed field that is none.
    for (frames, text) in [
        (
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07".as_slice(),
            "L7 stream error received: refused stream before processing any application logic",
        ),
        (b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b", "L7 connection error received: detected excessive load generating behavior"),
        (b"\xff\xff\xff\0\0\0\0\0\x01", "L7 answer is no HTTP/2: connection error detected: frame with invalid size"),
        (b"\0\0\x01\x01\x04\0\0\0\x01\xfe", "L7 answer is no HTTP/2: connection error detected: unspecific protocol error detected"),
    ] {
        assert_eq!(failure(&http(fake::http2(frames, End::Wait), probe("/"))), text);
    }
}

#[test]
fn a_slow_server_times_out_where_it_is_slow() {
    assert_eq!(failure(&briefly(http(fake::silent(), probe("/")))), "L7 timeout after 500ms: no answer to the request");
    assert_eq!(failure(&briefly(http(fake::http2(b"", End::Wait), probe("/")))), "L7 timeout after 500ms: no answer to the request");
    let half = fake::http2(HEAD, End::Wait);
    let text = failure(&briefly(http(half, HttpProbe { contains: Some("ok".to_owned()), ..probe("/") })));
    assert_eq!(text, "L7 timeout after 500ms: the answer's body does not end");
}
