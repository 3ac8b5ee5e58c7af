//! A server whose certificate is itself one of the authorities that the check trusts: what `openssl req -x509` makes, with CA:TRUE. webpki takes no
//! authority for a server (RFC 5280 s4.2.1.9), but whoever gives a check that very certificate says that it trusts the key. Its name and its time have to
//! be right all the same. Pure.

use std::sync::Arc;

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
use x509_parser::prelude::{FromDer as _, X509Certificate};

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
        let (_, certificate) = X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let (validity, now_s) = (certificate.validity(), now.as_secs().cast_signed());
        if now_s < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now_s > validity.not_after.timestamp() {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
