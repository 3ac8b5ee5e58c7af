use proptest::prelude::*;
use regex::bytes::Regex;

use super::{super::http::tests::probe, *};

const OK: &[(u16, u16)] = &[(200, 399)];

fn contains(text: &str) -> Expectation<'_> {
    Expectation { status: OK, contains: Some(text), matches: None }
}

fn status_only() -> Expectation<'static> {
    Expectation { status: OK, contains: None, matches: None }
}

/// What comes of an answer that comes in pieces of `size` bytes, and ends with the connection.
fn judge(expectation: &Expectation<'_>, method: &Method, answer: &[u8], size: usize) -> Result<(), String> {
    let mut state = Answer::new(expectation, method);
    for piece in answer.chunks(size) {
        match state.handle_received(piece) {
            Ok(Verdict::Good) => return Ok(()),
            Ok(Verdict::Await) => {}
            Err(failure) => return Err(failure.text),
        }
    }
    state.handle_end().map_err(|failure| failure.text)
}

fn get(expectation: &Expectation<'_>, answer: &str) -> Result<(), String> {
    let whole = judge(expectation, &Method::GET, answer.as_bytes(), usize::MAX);
    assert_eq!(judge(expectation, &Method::GET, answer.as_bytes(), 7).is_ok(), whole.is_ok());
    whole
}

#[test]
fn a_request_is_written_with_its_fields_and_closes() {
    let request = |probe| Request::new(&probe, "10.0.0.1".parse().unwrap(), 80, 80).unwrap();
    let plain = request(probe("GET", "/healthz?a=b", &[("x-a", "1")], b""));
    assert_eq!(
        String::from_utf8(write(&plain, Minor::One)).unwrap(),
        "GET /healthz?a=b HTTP/1.1\r\nhost: 10.0.0.1\r\nuser-agent: weir\r\naccept: */*\r\nx-a: 1\r\nconnection: close\r\n\r\n"
    );
    let post = request(probe("POST", "/", &[("user-agent", "me")], b"{}"));
    assert_eq!(
        String::from_utf8(write(&post, Minor::Zero)).unwrap(),
        "POST / HTTP/1.0\r\nhost: 10.0.0.1\r\nuser-agent: me\r\naccept: */*\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    );
}

#[test]
fn a_status_decides_if_nothing_is_asked_of_the_body() {
    assert_eq!(get(&status_only(), "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"), Ok(()));
    assert_eq!(get(&status_only(), "HTTP/1.0 500 Oops\r\n\r\n"), Err("status 500".to_owned()));
    assert_eq!(get(&contains("ok"), "HTTP/1.1 503 No\r\n\r\nok"), Err("status 503".to_owned()));
}

#[test]
fn interim_answers_are_skipped() {
    assert_eq!(get(&status_only(), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n"), Ok(()));
    assert_eq!(get(&status_only(), "HTTP/1.1 100 Continue\r\n\r\n"), Err("server closed the connection without an answer".to_owned()));
    assert_eq!(get(&status_only(), "HTTP/1.1 101 Switching\r\n\r\n"), Err("status 101".to_owned()));
}

#[test]
fn bodies_end_by_length_by_chunk_and_by_close() {
    assert_eq!(get(&contains("ok"), "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall ok"), Ok(()));
    assert_eq!(get(&contains("ok"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4\r\nwe o\r\n2;x=y\r\nk!\r\n0\r\n\r\n"), Ok(()));
    assert_eq!(get(&contains("ok"), "HTTP/1.0 200 OK\r\n\r\nall ok"), Ok(()));
    assert_eq!(get(&contains("ok"), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsickok"), Err("body does not contain \"ok\"".to_owned()));
    let pattern = Expectation { matches: Some(Regex::new("^all (ok|well)$").unwrap()), ..status_only() };
    assert_eq!(get(&pattern, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n3\r\n ok\r\n0\r\n\r\n"), Ok(()));
}

#[test]
fn answers_without_a_body_do_not_wait_for_one() {
    let head = judge(&contains("ok"), &Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", usize::MAX);
    assert_eq!(head, Err("body does not contain \"ok\"".to_owned()));
    let none = Answer::new(&contains("ok"), &Method::GET).handle_received(b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\n").unwrap_err();
    assert_eq!(none.text, "body does not contain \"ok\"");
}

#[test]
fn bodies_that_end_early_are_bad() {
    assert_eq!(get(&contains("ok"), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"), Err("body ends 7 bytes too early".to_owned()));
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
    assert_eq!(get(&contains("ok"), chunks), Err("body ends within its chunks".to_owned()));
}

#[test]
fn what_is_no_http_is_quoted() {
    assert_eq!(get(&status_only(), "SSH-2.0-OpenSSH_9.2\r\n"), Err("answer is no HTTP: \"SSH-2.0-OpenSSH_9.2\\r\\n\"".to_owned()));
    assert_eq!(get(&status_only(), "HTTP/1.1 2"), Err("answer ends within its head: \"HTTP/1.1 2\"".to_owned()));
    assert_eq!(get(&status_only(), ""), Err("server closed the connection without an answer".to_owned()));
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk";
    assert_eq!(get(&contains("ok"), chunks), Err("body is not in chunks: \"no chunk\"".to_owned()));
    let lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    assert_eq!(get(&contains("ok"), lengths), Err("answer has more than one length".to_owned()));
    assert_eq!(
        get(&contains("ok"), "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        Err("answer's length is no number: \"-1\"".to_owned())
    );
}

#[test]
fn what_has_no_end_is_cut() {
    let fields = "a: b\r\n".repeat(MOST_FIELDS + 1);
    assert_eq!(get(&status_only(), &format!("HTTP/1.1 200 OK\r\n{fields}\r\n")), Err("answer has more than 128 fields".to_owned()));
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MOST_BYTES));
    assert_eq!(get(&status_only(), &long), Err("answer's head is longer than 64 KiB".to_owned()));
    let text = "first 64 KiB of the body do not contain \"ok\"".to_owned();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "a".repeat(MOST_BYTES));
    assert_eq!(get(&contains("ok"), &endless), Err(text.clone()));
    let chunks = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n{}", "a".repeat(MOST_BYTES));
    assert_eq!(get(&contains("ok"), &chunks), Err(text));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_come_to_a_verdict(head in 0..4_usize, bytes: Vec<u8>, size in 1..20_usize) {
        let heads = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"];
        let answer = [heads[head].as_bytes(), &bytes].concat();
        let _ = judge(&contains("ok"), &Method::GET, &answer, size);
    }

    #[test]
    fn a_body_in_any_chunks_and_pieces_is_read_whole(chunks in prop::collection::vec("[a-z]{1,20}", 1..10), size in 1..50_usize) {
        let body = chunks.concat();
        let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for chunk in &chunks {
            answer.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        answer.push_str("0\r\n\r\n");
        let whole = Expectation { matches: Some(Regex::new(&format!("^{body}$")).unwrap()), ..status_only() };
        prop_assert_eq!(judge(&whole, &Method::GET, answer.as_bytes(), size), Ok(()));
    }
}
