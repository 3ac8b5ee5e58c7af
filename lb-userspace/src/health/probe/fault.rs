//! What an error of the system, or of TLS, says of the server that is checked. Pure.

use std::io;

use rustls::{CertificateError, Error as TlsError};

use super::quote;
use crate::health::outcome::{Failure, Layer};

/// Errors that the server or the way to it caused; all others are of this machine. The last four are ICMP's: linux net/ipv4/icmp.c `icmp_err_convert`,
/// net/ipv6/icmp.c `icmpv6_err_convert`.
const OF_THE_SERVER: [i32; 14] = [
    libc::ECONNREFUSED,
    libc::ECONNRESET,
    libc::ECONNABORTED,
    libc::EPIPE,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::EHOSTDOWN,
    libc::ENETDOWN,
    libc::ENOTCONN,
    libc::ENONET,
    libc::ENOPROTOOPT,
    libc::EPROTO,
    libc::EACCES,
];

/// What an error of a socket says: of layer 4 if the server or the way to it caused it, of this machine otherwise. An error that TLS wrapped into it is
/// told as [`tls`] does.
pub(super) fn socket(error: &io::Error) -> Failure {
    if let Some(error) = tls_of(error) {
        return tls(error);
    }
    match error.raw_os_error() {
        Some(number) if OF_THE_SERVER.contains(&number) => Failure::new(Layer::L4, text(error)),
        Some(_) => local("failed to ask", error),
        None => Failure::new(Layer::L7, text(error)),
    }
}

/// What an error within a TLS handshake says.
pub(super) fn handshake(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Failure::new(Layer::L6, "server closed the connection within the handshake");
    }
    socket(error)
}

/// A failure of this machine: what was tried, and why it failed.
pub(super) fn local(tried: impl AsRef<str>, error: &io::Error) -> Failure {
    Failure::new(Layer::Local, format!("{}: {}", tried.as_ref(), text(error)))
}

/// What an error of TLS says.
pub(super) fn tls(error: &TlsError) -> Failure {
    let text = if let TlsError::InvalidCertificate(cause) = error {
        certificate(cause)
    } else if let TlsError::AlertReceived(alert) = error {
        format!("server refused the handshake: alert {alert:?}")
    } else if matches!(error, TlsError::InvalidMessage(_)) {
        "answer is no TLS".to_owned()
    } else {
        quote::first_line(error.to_string().as_bytes())
    };
    Failure::new(Layer::L6, text)
}

fn certificate(cause: &CertificateError) -> String {
    use CertificateError::{Expired, ExpiredContext, NotValidForNameContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    if matches!(cause, Expired | ExpiredContext { .. }) {
        "certificate has expired".to_owned()
    } else if matches!(cause, NotValidYet | NotValidYetContext { .. }) {
        "certificate is not valid yet".to_owned()
    } else if matches!(cause, UnknownIssuer) {
        "certificate is of an unknown issuer".to_owned()
    } else if let NotValidForNameContext { expected, .. } = cause {
        format!("certificate is not for {}", quote::quote(expected.to_str().as_bytes()))
    } else if cause.to_string().contains("CaUsedAsEndEntity") {
        // rustls has no variant of its own for it.
        "certificate is an authority's (CA:TRUE), not a server's".to_owned()
    } else {
        format!("certificate is not accepted: {}", quote::first_line(cause.to_string().as_bytes()))
    }
}

fn tls_of(error: &io::Error) -> Option<&TlsError> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.source()?.downcast_ref())
}

/// The error's text as the rest of a sentence, without its number.
fn text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage};

    use super::*;

    fn of(number: i32) -> Failure {
        socket(&io::Error::from_raw_os_error(number))
    }

    #[test]
    fn what_the_network_says_is_layer_4() {
        assert_eq!(of(libc::ECONNREFUSED), Failure::new(Layer::L4, "connection refused"));
        assert_eq!(of(libc::ECONNRESET), Failure::new(Layer::L4, "connection reset by peer"));
        assert_eq!(of(libc::EHOSTUNREACH), Failure::new(Layer::L4, "no route to host"));
        assert_eq!(of(libc::ENETUNREACH), Failure::new(Layer::L4, "network is unreachable"));
        assert_eq!(of(libc::ETIMEDOUT), Failure::new(Layer::L4, "connection timed out"));
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_the_server() {
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::EPERM] {
            assert_eq!(of(number).layer, Layer::Local);
        }
        assert_eq!(of(libc::EMFILE), Failure::new(Layer::Local, "failed to ask: too many open files"));
    }

    #[test]
    fn errors_of_tls_are_layer_6_and_name_their_cause() {
        let wrapped = |error: TlsError| socket(&io::Error::new(io::ErrorKind::InvalidData, error));
        let certificate = |cause| wrapped(TlsError::InvalidCertificate(cause));
        assert_eq!(certificate(CertificateError::Expired), Failure::new(Layer::L6, "certificate has expired"));
        assert_eq!(certificate(CertificateError::NotValidYet), Failure::new(Layer::L6, "certificate is not valid yet"));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Failure::new(Layer::L6, "certificate is of an unknown issuer"));
        assert_eq!(certificate(CertificateError::Revoked), Failure::new(Layer::L6, "certificate is not accepted: Revoked"));
        let alert = TlsError::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(wrapped(alert), Failure::new(Layer::L6, "server refused the handshake: alert HandshakeFailure"));
        let nonsense = TlsError::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(wrapped(nonsense), Failure::new(Layer::L6, "answer is no TLS"));
    }
}
