//! The start of the MySQL protocol: the server's greeting, a login without a password, its answer. Pure.
//!
//! ```text
//! packet:   length (3 bytes, little endian) | sequence (1) | payload
//! greeting: 10 | version, NUL | thread (4) | salt (8) | 0 | capabilities, low (2) | …
//! error:    255 | code (2, little endian) | '#' and SQL state (6), after the greeting | text
//! ```
//! MySQL Internals, "Connection Phase"; MariaDB's documentation, "Connection" of its protocol.

use super::{
    MOST_BYTES,
    quote::{first_line, quote},
};
use crate::health::outcome::{Failure, Layer};

const PROTOCOL: u8 = 10;
const ERROR: u8 = 0xff;
const OK: u8 = 0;
const MORE: u8 = 1;
const SWITCH: u8 = 0xfe;
const HEAD_BYTES: usize = 4;
const MOST_PACKET_BYTES: u32 = 1 << 24;
const UTF8: u8 = 33;
const NATIVE: &[u8] = b"mysql_native_password";
/// The command that ends a connection, with its packet's head.
pub(super) const QUIT: [u8; 5] = [1, 0, 0, 0, 1];

/// CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_TRANSACTIONS, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 1 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
const CLIENT_SSL: u32 = 0x800;

/// A packet of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    /// Its number.
    pub(super) sequence: u8,
    /// What is in it.
    pub(super) payload: Vec<u8>,
}

/// What a server says to a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// The user is in.
    Ok,
    /// The user's password is asked for in another way: by a plugin that takes this for an empty one.
    Switch(&'static [u8]),
    /// Another packet follows.
    More,
}

/// Takes a packet off the bytes that came; none if it is not complete.
///
/// # Errors
/// It would be longer than any that is awaited.
pub(super) fn take_packet(received: &mut Vec<u8>) -> Result<Option<Packet>, Failure> {
    let Some(&[low, middle, high, sequence]) = received.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    if length > MOST_BYTES {
        return Err(no_mysql(received));
    }
    let Some(payload) = received.get(HEAD_BYTES..HEAD_BYTES + length) else { return Ok(None) };
    let packet = Packet { sequence, payload: payload.to_owned() };
    received.drain(..HEAD_BYTES + length);
    Ok(Some(packet))
}

/// Whether the server greets; if so, whether it offers TLS.
///
/// # Errors
/// It refuses: it has too many connections, or has blocked this host. Or this is no MySQL server.
pub(super) fn judge_greeting(payload: &[u8]) -> Result<Offer, Failure> {
    match payload.split_first() {
        Some((&PROTOCOL, rest)) => {
            let after_version = rest.iter().position(|&byte| byte == 0).map(|end| &rest[end + 1..]);
            // The thread's number, the salt and a zero come before the capabilities.
            let low = after_version.and_then(|fixed| fixed.get(13..15)).ok_or_else(|| no_mysql(payload))?;
            let has_tls = u32::from(low[0]) | u32::from(low[1]) << 8;
            Ok(if has_tls & CLIENT_SSL == 0 { Offer::Plain } else { Offer::Tls })
        }
        Some((&ERROR, error)) => Err(refusal(error)),
        Some(_) | None => Err(no_mysql(payload)),
    }
}

/// What a server's greeting offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offer {
    /// No TLS.
    Plain,
    /// TLS, to those who ask for it.
    Tls,
}

/// The packet that asks for TLS: the beginning of a login.
pub(super) fn tls_request(sequence: u8) -> Vec<u8> {
    packet(sequence, &login_head(CAPABILITIES | CLIENT_SSL))
}

/// The login of a user without a password.
pub(super) fn login(user: &str, sequence: u8, is_within_tls: bool) -> Vec<u8> {
    let mut payload = login_head(CAPABILITIES | if is_within_tls { CLIENT_SSL } else { 0 });
    payload.extend(user.bytes().filter(|&byte| byte != 0).take(MOST_BYTES));
    // The name's end, and a password of no bytes.
    payload.extend_from_slice(&[0, 0]);
    payload.extend_from_slice(NATIVE);
    payload.push(0);
    packet(sequence, &payload)
}

/// What the server says to the login.
///
/// # Errors
/// It refuses the user, or this is no answer.
pub(super) fn judge_reply(payload: &[u8]) -> Result<Reply, Failure> {
    match payload.split_first() {
        Some((&OK, _)) => Ok(Reply::Ok),
        Some((&MORE, _)) => Ok(Reply::More),
        Some((&SWITCH, plugin)) => Ok(Reply::Switch(if plugin.starts_with(NATIVE) || plugin.is_empty() { b"" } else { b"\0" })),
        Some((&ERROR, error)) => Err(refusal(error)),
        Some(_) | None => Err(no_mysql(payload)),
    }
}

/// A packet with this payload, which is shorter than 16 MiB.
pub(super) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn login_head(capabilities: u32) -> Vec<u8> {
    let mut head = capabilities.to_le_bytes().to_vec();
    head.extend_from_slice(&MOST_PACKET_BYTES.to_le_bytes());
    head.push(UTF8);
    head.extend_from_slice(&[0; 23]);
    head
}

fn refusal(error: &[u8]) -> Failure {
    let Some((code, text)) = error.split_first_chunk::<2>() else { return no_mysql(error) };
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    Failure::new(Layer::L7, format!("error {}: {}", u16::from_le_bytes(*code), first_line(text)))
}

fn no_mysql(bytes: &[u8]) -> Failure {
    Failure::new(Layer::L7, format!("answer is no MySQL: {}", quote(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The greeting of a MariaDB 10.11, with TLS or without.
    fn greeting(capabilities: [u8; 2]) -> Vec<u8> {
        let mut payload = b"\x0a5.5.5-10.11.6-MariaDB\0\x05\0\0\0saltsalt\0".to_vec();
        payload.extend_from_slice(&capabilities);
        payload.extend_from_slice(b"\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0salt\0mysql_native_password\0");
        payload
    }

    #[test]
    fn a_greeting_says_whether_there_is_tls() {
        assert_eq!(judge_greeting(&greeting([0xfe, 0xf7])), Ok(Offer::Plain));
        assert_eq!(judge_greeting(&greeting([0xfe, 0xff])), Ok(Offer::Tls));
    }

    #[test]
    fn a_refusal_is_told_with_its_text() {
        let text = |payload: &[u8]| judge_greeting(payload).unwrap_err().text;
        assert_eq!(text(b"\xff\x10\x04Too many connections"), "error 1040: Too many connections");
        assert_eq!(text(b"\xff\x69\x04Host '10.0.0.1' is blocked"), "error 1129: Host '10.0.0.1' is blocked");
        let denied = judge_reply(b"\xff\x15\x04#28000Access denied for user 'weir'@'localhost'").unwrap_err();
        assert_eq!(denied, Failure::new(Layer::L7, "error 1045: Access denied for user 'weir'@'localhost'"));
    }

    #[test]
    fn what_is_no_greeting_is_quoted() {
        assert_eq!(judge_greeting(b"\x0a5.5").unwrap_err().text, "answer is no MySQL: \"\\n5.5\"");
        assert_eq!(judge_greeting(b"").unwrap_err().text, "answer is no MySQL: \"\"");
        let text = take_packet(&mut b"SSH-2.0\r\n".to_vec()).unwrap_err().text;
        assert_eq!(text, "answer is no MySQL: \"SSH-2.0\\r\\n\"");
    }

    #[test]
    fn packets_are_taken_one_by_one_when_they_are_whole() {
        let mut received = b"\x02\0\0\x07ab\x01\0\0\x08c\x05\0\0".to_vec();
        assert_eq!(take_packet(&mut received), Ok(Some(Packet { sequence: 7, payload: b"ab".into() })));
        assert_eq!(take_packet(&mut received), Ok(Some(Packet { sequence: 8, payload: b"c".into() })));
        assert_eq!(take_packet(&mut received), Ok(None));
        assert_eq!(received, b"\x05\0\0");
    }

    #[test]
    fn a_login_has_no_password() {
        let login = login("weir", 1, false);
        let mut wanted = b"\x3c\0\0\x01\x01\xa2\x08\0\0\0\0\x01\x21".to_vec();
        wanted.extend_from_slice(&[0; 23]);
        wanted.extend_from_slice(b"weir\0\0mysql_native_password\0");
        assert_eq!(login, wanted);
        assert_eq!(tls_request(1)[..8], [32, 0, 0, 1, 1, 0xaa, 8, 0]);
    }

    #[test]
    fn replies_are_understood() {
        assert_eq!(judge_reply(b"\0\0\0\x02\0\0\0"), Ok(Reply::Ok));
        assert_eq!(judge_reply(b"\xfemysql_native_password\0salt"), Ok(Reply::Switch(b"")));
        assert_eq!(judge_reply(b"\xfecaching_sha2_password\0salt"), Ok(Reply::Switch(b"\0")));
        assert_eq!(judge_reply(b"\x01\x03"), Ok(Reply::More));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let _ = judge_greeting(&bytes);
            let _ = judge_reply(&bytes);
            let mut received = bytes;
            while let Ok(Some(_)) = take_packet(&mut received) {}
        }
    }
}
