//! A server whose certificate is itself one of the authorities that the check trusts: what `openssl req -x509` makes, with CA:TRUE. webpki takes no
//! authority for a server (RFC 5280 s4.2.1.9), but whoever gives a check that very certificate says that it trusts the key. Its name and its time have to
//! be right all the same. Pure.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Trusts what authorities have signed, and a server that shows one of these certificates.
#[derive(Debug)]
pub(super) struct TrustedAsTheyAre {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl TrustedAsTheyAre {
    /// Of the authorities `roots`, whose certificates these are.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn new(
        roots: RootCertStore,
        certificates: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { authorities, certificates })
    }
}

impl ServerCertVerifier for TrustedAsTheyAre {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !self.certificates.contains(end_entity) {
            return self.authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        }
        let (first, last) = validity(end_entity).ok_or(CertificateError::BadEncoding)?;
        if now.as_secs() < first {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > last {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;

/// The first and the last second of the Unix epoch at which a certificate is valid; none if it is no certificate. RFC 5280 s4.1.
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (mut outer, _) = value(SEQUENCE, certificate)?;
    let (mut signed, _) = value(SEQUENCE, outer)?;
    if let Some((_, rest)) = value(VERSION, signed) {
        signed = rest;
    }
    // The serial number, the algorithm, the issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, signed) = value(tag, signed)?;
    }
    (outer, _) = value(SEQUENCE, signed)?;
    let (first, rest) = time(outer)?;
    let (last, _) = time(rest)?;
    Some((first, last))
}

/// The content of the element at the beginning, if it has this tag, and what follows it. X.690 s8.1, lengths of up to four bytes.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut length = usize::from(length);
    if length > 0x84 || length == 0x80 {
        return None;
    }
    if length > 0x80 {
        let (bytes, after) = rest.split_at_checked(length - 0x80)?;
        length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = after;
    }
    if found == tag { rest.split_at_checked(length) } else { None }
}

/// The time at the beginning, and what follows it. RFC 5280 s4.1.2.5: `YYMMDDHHMMSSZ` of 1950 to 2049, or `YYYYMMDDHHMMSSZ`. What is before the epoch is 0.
fn time(der: &[u8]) -> Option<(u64, &[u8])> {
    let (year, text, rest) = if let Some((text, rest)) = value(UTC_TIME, der) {
        let (year, text) = text.split_at_checked(2)?;
        let year = number(year)?;
        (if year < 50 { 2000 + year } else { 1900 + year }, text, rest)
    } else {
        let (text, rest) = value(GENERALIZED_TIME, der)?;
        let (year, text) = text.split_at_checked(4)?;
        (number(year)?, text, rest)
    };
    let mut parts = text.strip_suffix(b"Z").filter(|text| text.len() == 10)?.chunks(2).map(number);
    let mut part = || parts.next().flatten();
    let (month, day, hour, minute, second) = (part()?, part()?, part()?, part()?, part()?);
    let days = days_before(year, month, day)?;
    let of_day = Duration::from_secs(u64::from(hour * 3600 + minute * 60 + second));
    Some((days * 86_400 + of_day.as_secs(), rest))
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Days from the epoch to a day of the Gregorian calendar; 0 for days before it, none if there is no such month.
fn days_before(year: u32, month: u32, day: u32) -> Option<u64> {
    const BEFORE_MONTH: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u32| year / 4 - year / 100 + year / 400;
    let before = *BEFORE_MONTH.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let Some(years) = year.checked_sub(1970) else { return Some(0) };
    // Of the years before; a leap day of this one counts from March on.
    let leaps = leap_days(if month > 2 { year } else { year - 1 }) - leap_days(1969);
    Some(u64::from(years * 365 + leaps + before + day.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::crypto::aws_lc_rs;

    use super::*;

    fn authority(years: (i32, i32)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 3, 1), date_time_ymd(years.1, 1, 2));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(validity(&authority((2024, 2051))), Some((1_709_251_200, 2_556_230_400)));
        let utc = |text: &str| time(&[&[UTC_TIME, text.len() as u8], text.as_bytes()].concat()).map(|(at, _)| at);
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("000229235959Z"), Some(951_868_799));
        assert_eq!((utc("500101000000Z"), utc("001301000000Z"), utc("0001010000Z"), utc("0x0101000000Z")), (Some(0), None, None, None));
    }

    #[test]
    fn who_shows_a_trusted_certificate_needs_the_right_name_and_time() {
        let certificate = authority((2024, 2051));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let verifier = TrustedAsTheyAre::new(roots, vec![certificate.clone()], Arc::new(aws_lc_rs::default_provider())).unwrap();
        let verdict = |shown: &CertificateDer<'_>, name: &str, at_s: u64| {
            let (name, now) = (ServerName::try_from(name.to_owned()).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(at_s)));
            verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop)
        };
        assert_eq!(verdict(&certificate, "a.example", 1_800_000_000), Ok(()));
        assert_eq!(verdict(&certificate, "a.example", 1_700_000_000), Err(CertificateError::NotValidYet.into()));
        assert_eq!(verdict(&certificate, "a.example", 2_600_000_000), Err(CertificateError::Expired.into()));
        assert!(matches!(
            verdict(&certificate, "b.example", 1_800_000_000),
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        ));
        assert!(verdict(&authority((2024, 2051)), "a.example", 1_800_000_000).is_err(), "another certificate is another");
    }

    proptest! {
        #[test]
        fn whatever_a_certificate_holds_is_read_or_refused(bytes: Vec<u8>) {
            let _ = (validity(&bytes), time(&bytes));
        }
    }
}
