//! What an HTTP check asks, in every version of HTTP, and which answers are good. Pure.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use regex::bytes::Regex;

use super::{MOST_BYTES, dialogue::end_of, quote::quote};
use crate::{
    config::model::HttpProbe,
    health::outcome::{Failure, Layer},
};

/// What a server is asked: the parts of a request, valid each.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The method.
    pub(super) method: Method,
    /// The path and query.
    pub(super) path: String,
    /// The field `host`, or the pseudo field `:authority`.
    pub(super) authority: HeaderValue,
    /// All other fields; none of them frames the message or is of the connection.
    pub(super) fields: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Fields that the writer of a message decides on. RFC 9112 s6, RFC 9110 s7.6.1.
const FRAMING: [HeaderName; 4] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

impl Request {
    /// The request of `probe` to this address and port.
    ///
    /// # Errors
    /// The configuration holds what is no method, path or field: nothing is sent that would split a request.
    pub(super) fn new(probe: &HttpProbe, address: IpAddr, port: u16, default_port: u16) -> Result<Self, Failure> {
        let method = Method::from_bytes(probe.method.as_bytes()).map_err(|error| invalid("method", &probe.method, &error))?;
        if probe.path.is_empty() || !probe.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("path", &probe.path, &"it is empty or not of printable ASCII"));
        }
        let mut authority = address_of(address, port, default_port);
        let mut fields = HeaderMap::new();
        fields.insert(header::USER_AGENT, HeaderValue::from_static("weir"));
        fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in &probe.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| invalid("field", name, &error))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|error| invalid("field", value, &error))?;
            if name == header::HOST {
                authority = value;
            } else if !FRAMING.contains(&name) {
                fields.insert(name, value);
            }
        }
        Ok(Self { method, path: probe.path.clone(), authority, fields, body: probe.body.clone() })
    }

    /// Whether the request has to say how long its body is. RFC 9110 s8.6.
    pub(super) fn has_length(&self) -> bool {
        !self.body.is_empty() || self.method == Method::POST || self.method == Method::PUT
    }
}

/// What is expected of an answer.
#[derive(Clone, Debug)]
pub(super) struct Expectation<'a> {
    /// Statuses that are good, both ends included.
    pub(super) status: &'a [(u16, u16)],
    /// What the body has to contain.
    pub(super) contains: Option<&'a str>,
    /// What the body has to match.
    pub(super) matches: Option<Regex>,
}

impl Expectation<'_> {
    /// Whether something is expected of the body: otherwise it need not be read.
    pub(super) fn is_of_body(&self) -> bool {
        self.contains.is_some() || self.matches.is_some()
    }

    /// Whether a status is good.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn judge_status(&self, status: u16) -> Result<(), Failure> {
        if self.status.iter().any(|&(first, last)| (first..=last).contains(&status)) {
            return Ok(());
        }
        Err(Failure::new(Layer::L7, format!("status {status}")))
    }

    /// Whether a body, or its first 64 KiB, is good.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn judge_body(&self, body: &[u8]) -> Result<(), Failure> {
        let what = if body.len() < MOST_BYTES { "body does not" } else { "first 64 KiB of the body do not" };
        if let Some(text) = self.contains.filter(|text| end_of(body, text.as_bytes()).is_none()) {
            return Err(Failure::new(Layer::L7, format!("{what} contain {}", quote(text.as_bytes()))));
        }
        if let Some(pattern) = self.matches.as_ref().filter(|pattern| !pattern.is_match(body)) {
            return Err(Failure::new(Layer::L7, format!("{what} match {}", quote(pattern.as_str().as_bytes()))));
        }
        Ok(())
    }
}

/// An address as the field `host` has it; the port is left out if it is the scheme's own.
fn address_of(address: IpAddr, port: u16, default_port: u16) -> HeaderValue {
    let whole = SocketAddr::new(address, port).to_string();
    let text = if port == default_port { whole.rsplit_once(':').map_or(whole.as_str(), |(host, _)| host) } else { &whole };
    HeaderValue::from_str(text).expect("an address is made of digits, colons, dots and brackets")
}

fn invalid(what: &str, text: &str, cause: &dyn fmt::Display) -> Failure {
    Failure::new(Layer::Local, format!("{} is no {what} of a request: {cause}", quote(text.as_bytes())))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::model::HttpVersion;

    pub(in crate::health::probe) fn probe(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpProbe {
        let headers: BTreeMap<_, _> = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        HttpProbe {
            method: method.to_owned(),
            path: path.to_owned(),
            version: HttpVersion::Http11,
            headers,
            body: body.to_owned(),
            status: vec![(200, 399)],
            contains: None,
            matches: None,
        }
    }

    fn request(probe: &HttpProbe) -> Result<Request, Failure> {
        Request::new(probe, "10.0.0.1".parse().unwrap(), 8080, 80)
    }

    #[test]
    fn the_host_is_the_servers_address_unless_it_is_named() {
        let plain = probe("GET", "/", &[], b"");
        let host = |address: &str, port| Request::new(&plain, address.parse().unwrap(), port, 80).unwrap().authority;
        assert_eq!(host("10.0.0.1", 80), "10.0.0.1");
        assert_eq!(host("10.0.0.1", 8080), "10.0.0.1:8080");
        assert_eq!(host("fd00::1", 80), "[fd00::1]");
        assert_eq!(host("fd00::1", 8080), "[fd00::1]:8080");
        assert_eq!(request(&probe("GET", "/", &[("host", "a.example")], b"")).unwrap().authority, "a.example");
    }

    #[test]
    fn nothing_splits_a_request() {
        for broken in [
            probe("GET", "/ HTTP/1.1\r\nx: y", &[], b""),
            probe("GET /x", "/", &[], b""),
            probe("GET", "/", &[("x", "1\r\ny: 2")], b""),
            probe("GET", "/", &[("x: 1\r\ny", "2")], b""),
            probe("GET", "/", &[("host", "a\nb")], b""),
            probe("GET", "", &[], b""),
        ] {
            assert_eq!(request(&broken).unwrap_err().layer, Layer::Local, "{broken:?}");
        }
        let text = request(&probe("GET /x", "/", &[], b"")).unwrap_err().text;
        assert_eq!(text, "\"GET /x\" is no method of a request: invalid HTTP method");
        let smuggler = probe("POST", "/", &[("transfer-encoding", "chunked"), ("content-length", "9"), ("connection", "upgrade")], b"");
        let fields = request(&smuggler).unwrap().fields;
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["user-agent", "accept"]);
    }

    #[test]
    fn the_body_is_judged_by_text_and_by_pattern() {
        let expect =
            |contains, matches: Option<&str>| Expectation { status: &[], contains, matches: matches.map(|text| Regex::new(text).unwrap()) };
        assert_eq!(expect(Some("ok"), Some("^a.*k$")).judge_body(b"all ok"), Ok(()));
        let text = |expectation: Expectation<'_>, body: &[u8]| expectation.judge_body(body).unwrap_err().text;
        assert_eq!(text(expect(Some("ok"), None), b"sick"), "body does not contain \"ok\"");
        assert_eq!(text(expect(None, Some("^ok")), b"not ok"), "body does not match \"^ok\"");
        assert_eq!(text(expect(Some("ok"), None), &[0; MOST_BYTES]), "first 64 KiB of the body do not contain \"ok\"");
    }

    #[test]
    fn a_status_is_judged_by_its_ranges() {
        let expectation = Expectation { status: &[(200, 299), (401, 401)], contains: None, matches: None };
        assert_eq!(expectation.judge_status(204), Ok(()));
        assert_eq!(expectation.judge_status(401), Ok(()));
        assert_eq!(expectation.judge_status(500), Err(Failure::new(Layer::L7, "status 500")));
    }
}
