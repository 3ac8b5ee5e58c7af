//! The start of the PostgreSQL protocol: a start-up message and the first answer. Pure.
//!
//! ```text
//! start-up:    length (4 bytes, with itself) | 3.0 (4) | name, NUL, value, NUL … | NUL
//! TLS request: 8 (4) | 80877103 (4); its answer is one byte, S or N
//! answer:      kind (1) | length (4, with itself) | …
//! error:       E | length | field (1), text, NUL … | NUL
//! ```
//! PostgreSQL 15's documentation, "Frontend/Backend Protocol".

use super::{
    MOST_BYTES,
    quote::{first_line, quote},
};
use crate::health::outcome::{Failure, Layer};

const VERSION: u32 = 3 << 16;
const HEAD_BYTES: usize = 5;
/// The message that asks for TLS.
pub(super) const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The message that ends a connection.
pub(super) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// A good answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// The user is in.
    LoggedIn,
    /// The server answers, and no more is to be said.
    Answered,
}

/// The message that starts a session of a user, in the database of the same name.
pub(super) fn startup(user: &str) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend_from_slice(&VERSION.to_be_bytes());
    message.extend_from_slice(b"user\0");
    message.extend(user.bytes().filter(|&byte| byte != 0).take(MOST_BYTES));
    message.extend_from_slice(b"\0application_name\0weir\0\0");
    let length = u32::try_from(message.len()).expect("a message of at most 64 KiB and some bytes");
    message[..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// What the server says to the start-up message, from all that came; none if more has to come.
///
/// # Errors
/// It starts, stops, is out of connections, memory or disk: classes 57P and 53 of errors. Or this is no PostgreSQL server.
pub(super) fn judge_reply(received: &[u8]) -> Option<Result<Reply, Failure>> {
    let (&kind, _) = received.split_first()?;
    if !b"REvNS".contains(&kind) {
        return Some(Err(no_pgsql(received)));
    }
    let (&[_, length @ ..], rest) = received.split_first_chunk::<HEAD_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..MOST_BYTES).contains(&length) {
        // A server that has no memory or no process left writes its error as versions before 7.4 did.
        return Some(Err(if kind == b'E' { bad(format!("error: {}", first_line(&received[1..]))) } else { no_pgsql(received) }));
    }
    let body = rest.get(..length - 4)?;
    match kind {
        b'E' => Some(judge_error(body).map(|()| Reply::Answered)),
        b'R' if body == [0; 4] => Some(Ok(Reply::LoggedIn)),
        _ => Some(Ok(Reply::Answered)),
    }
}

/// Whether the server goes on with TLS.
///
/// # Errors
/// It has none, is unwell, or is no PostgreSQL server.
pub(super) fn judge_tls_answer(received: &[u8]) -> Option<Result<(), Failure>> {
    match received.first()? {
        // Bytes that come before the handshake were put there by somebody else: CVE-2021-23222.
        b'S' if received.len() > 1 => Some(Err(no_pgsql(received))),
        b'S' => Some(Ok(())),
        b'N' => Some(Err(Failure::new(Layer::L6, "server offers no TLS"))),
        b'E' => Some(judge_reply(received)?.and_then(|_| Err(Failure::new(Layer::L6, "server refused the TLS request")))),
        _ => Some(Err(no_pgsql(received))),
    }
}

fn judge_error(body: &[u8]) -> Result<(), Failure> {
    let field = |name: u8| body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(&[name])).unwrap_or_default();
    let state = field(b'C');
    if state.starts_with(b"57P") || state.starts_with(b"53") {
        return Err(bad(format!("error {}: {}", first_line(state), first_line(field(b'M')))));
    }
    Ok(())
}

fn bad(text: String) -> Failure {
    Failure::new(Layer::L7, text)
}

fn no_pgsql(bytes: &[u8]) -> Failure {
    bad(format!("answer is no PostgreSQL: {}", quote(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(state: &str, message: &str) -> Vec<u8> {
        let body = format!("SFATAL\0VFATAL\0C{state}\0M{message}\0\0");
        [b"E", (body.len() as u32 + 4).to_be_bytes().as_slice(), body.as_bytes()].concat()
    }

    #[test]
    fn a_startup_message_names_the_user() {
        assert_eq!(startup("weir"), b"\0\0\0\x29\0\x03\0\0user\0weir\0application_name\0weir\0\0");
    }

    #[test]
    fn a_login_and_a_question_are_good() {
        assert_eq!(judge_reply(b"R\0\0\0\x08\0\0\0\0"), Some(Ok(Reply::LoggedIn)));
        assert_eq!(judge_reply(b"R\0\0\0\x0c\0\0\0\x05salt"), Some(Ok(Reply::Answered)));
        assert_eq!(judge_reply(b"R\0\0\0\x08\0\0"), None);
        assert_eq!(judge_reply(b""), None);
    }

    #[test]
    fn errors_are_good_unless_the_server_cannot_serve() {
        assert_eq!(judge_reply(&error("28P01", "password authentication failed")), Some(Ok(Reply::Answered)));
        assert_eq!(judge_reply(&error("3D000", "database does not exist")), Some(Ok(Reply::Answered)));
        let text = |state, message| judge_reply(&error(state, message)).unwrap().unwrap_err().text;
        assert_eq!(text("57P03", "the database system is starting up"), "error 57P03: the database system is starting up");
        assert_eq!(text("53300", "sorry, too many clients already"), "error 53300: sorry, too many clients already");
    }

    #[test]
    fn an_error_of_old_is_told() {
        let text = judge_reply(b"Ecould not fork new process for connection\n\0").unwrap().unwrap_err().text;
        assert_eq!(text, "error: could not fork new process for connection");
    }

    #[test]
    fn what_is_no_postgresql_is_quoted() {
        assert_eq!(judge_reply(b"HTTP/1.1 400").unwrap().unwrap_err().text, "answer is no PostgreSQL: \"HTTP/1.1 400\"");
        assert_eq!(judge_reply(b"Random text").unwrap().unwrap_err().text, "answer is no PostgreSQL: \"Random text\"");
    }

    #[test]
    fn tls_is_offered_or_not() {
        assert_eq!(judge_tls_answer(b"S"), Some(Ok(())));
        assert_eq!(judge_tls_answer(b"N"), Some(Err(Failure::new(Layer::L6, "server offers no TLS"))));
        assert_eq!(judge_tls_answer(b"Sx").unwrap().unwrap_err().layer, Layer::L7);
        assert_eq!(judge_tls_answer(&error("57P03", "starting up")).unwrap().unwrap_err().text, "error 57P03: starting up");
        assert_eq!(judge_tls_answer(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(kind in 0..3_usize, bytes: Vec<u8>) {
            let received = [[b"E".as_slice(), b"R\0\0\0\x10", b""][kind], &bytes].concat();
            let _ = judge_reply(&received);
            let _ = judge_tls_answer(&received);
        }
    }
}
