//! The messages of the gRPC health service, `grpc.health.v1.Health/Check`. Pure.
//!
//! ```text
//! a message: compressed (1 byte, 0) | length (4 bytes, big endian) | protocol buffer
//! request:   field 1, string: the service
//! response:  field 1, enum: 0 unknown, 1 serving, 2 not serving, 3 service unknown
//! ```
//! gRPC's doc/PROTOCOL-HTTP2.md, doc/health-checking.md.

use http::{HeaderMap, header};

use super::quote::{first_line, quote};
use crate::health::outcome::{Failure, Layer};

/// The path of the method.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// The names of the statuses of a call, from 0. gRPC's doc/statuscodes.md.
const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const HEALTH_NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;
const PREFIX_BYTES: usize = 5;

/// The request for the health of `service`.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 6);
    if !service.is_empty() {
        // Field 1, of a length that follows.
        message.push(0x0a);
        put_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("a name of the configuration is shorter than 4 GiB");
    [&[0], length.to_be_bytes().as_slice(), &message].concat()
}

/// Whether an answer's head is one of gRPC.
///
/// # Errors
/// It is not.
pub(super) fn judge_head(status: u16, fields: &HeaderMap) -> Result<(), Failure> {
    if status != 200 {
        return Err(bad(format!("status {status}")));
    }
    let kind = fields.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    if kind.starts_with(b"application/grpc") { Ok(()) } else { Err(bad(format!("answer is no gRPC: content-type {}", quote(kind)))) }
}

/// How the call ended, from its trailers, or from its head where that is all there is; none if these fields do not say it.
///
/// # Errors
/// It failed.
pub(super) fn judge_status(fields: &HeaderMap) -> Option<Result<(), Failure>> {
    let value = fields.get("grpc-status")?.as_bytes();
    let Some(code) = str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok()) else {
        return Some(Err(bad(format!("grpc-status {}", quote(value)))));
    };
    if code == 0 {
        return Some(Ok(()));
    }
    let name = STATUS_NAMES.get(code).copied().unwrap_or("unknown to gRPC");
    let message = fields.get("grpc-message").map(|value| first_line(&percent_decoded(value.as_bytes()))).unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    Some(Err(bad(format!("grpc-status {code} {name}{colon}{message}"))))
}

/// Whether the answer's body says that the service is well.
///
/// # Errors
/// It says otherwise, or is no such message.
pub(super) fn judge_message(body: &[u8]) -> Result<(), Failure> {
    let broken = || bad(format!("answer is no health message: {}", quote(body)));
    let (prefix, message) = body.split_first_chunk::<PREFIX_BYTES>().ok_or_else(broken)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(broken());
    }
    match health(message).ok_or_else(broken)? {
        SERVING => Ok(()),
        other => {
            let name = usize::try_from(other).ok().and_then(|at| HEALTH_NAMES.get(at));
            Err(bad(name.map_or_else(|| format!("health is {other}"), |name| format!("health is {name}"))))
        }
    }
}

/// Field 1 of a message, 0 if it is not there; none if this is no protocol buffer.
fn health(mut message: &[u8]) -> Option<u64> {
    let mut health = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let skipped = match (key & 7, key >> 3) {
            (0, 1) => {
                health = take_varint(&mut message)?;
                0
            }
            (0, _) => {
                take_varint(&mut message)?;
                0
            }
            (1, _) => 8,
            (2, _) => usize::try_from(take_varint(&mut message)?).ok()?,
            (5, _) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(health)
}

fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// gRPC's doc/PROTOCOL-HTTP2.md, "Percent-Encoded": what is no escape is taken as it is.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(escape.unwrap_or(byte));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    decoded
}

fn bad(text: String) -> Failure {
    Failure::new(Layer::L7, text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn message(bytes: &[u8]) -> Result<(), String> {
        judge_message(&[&[0, 0, 0, 0, bytes.len() as u8], bytes].concat()).map_err(|failure| failure.text)
    }

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(request(&"x".repeat(300))[..8], [0, 0, 0, 0x01, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_is_well() {
        assert_eq!(message(&[8, 1]), Ok(()));
        assert_eq!(message(&[8, 2]), Err("health is NOT_SERVING".to_owned()));
        assert_eq!(message(&[8, 3]), Err("health is SERVICE_UNKNOWN".to_owned()));
        assert_eq!(message(&[]), Err("health is UNKNOWN".to_owned()));
        assert_eq!(message(&[8, 9]), Err("health is 9".to_owned()));
    }

    #[test]
    fn fields_that_nobody_knows_are_skipped() {
        assert_eq!(message(&[0x12, 2, b'h', b'i', 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0x28, 7, 8, 1]), Ok(()));
    }

    #[test]
    fn what_is_no_message_is_quoted() {
        assert_eq!(message(&[8]), Err("answer is no health message: \"\\x00\\x00\\x00\\x00\\x01\\x08\"".to_owned()));
        assert_eq!(judge_message(b"no").unwrap_err().text, "answer is no health message: \"no\"");
        assert_eq!(judge_message(&[0, 0, 0, 0, 9, 8, 1]).unwrap_err().layer, Layer::L7);
    }

    #[test]
    fn a_call_that_failed_is_told_by_name() {
        let text = |given| judge_status(&fields(given)).unwrap().unwrap_err().text;
        assert_eq!(judge_status(&fields(&[])), None);
        assert_eq!(judge_status(&fields(&[("grpc-status", "0")])), Some(Ok(())));
        assert_eq!(text(&[("grpc-status", "5"), ("grpc-message", "no%20such service%")]), "grpc-status 5 NOT_FOUND: no such service%");
        assert_eq!(text(&[("grpc-status", "12")]), "grpc-status 12 UNIMPLEMENTED");
        assert_eq!(text(&[("grpc-status", "99")]), "grpc-status 99 unknown to gRPC");
        assert_eq!(text(&[("grpc-status", "x")]), "grpc-status \"x\"");
    }

    #[test]
    fn a_web_server_is_no_grpc_server() {
        assert_eq!(judge_head(404, &fields(&[])).unwrap_err().text, "status 404");
        assert_eq!(
            judge_head(200, &fields(&[("content-type", "text/html")])).unwrap_err().text,
            "answer is no gRPC: content-type \"text/html\""
        );
        assert_eq!(judge_head(200, &fields(&[("content-type", "application/grpc+proto")])), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let _ = judge_message(&bytes);
            let _ = message(&bytes[..bytes.len().min(255)]);
            let _ = percent_decoded(&bytes);
        }
    }
}
