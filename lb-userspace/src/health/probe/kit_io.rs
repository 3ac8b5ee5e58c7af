//! What all probes share and is made once: configurations of TLS and compiled patterns.
#![allow(clippy::disallowed_methods, reason = "reads files of certificate authorities")]

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use regex::bytes::Regex;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::{fault, own_authority::TrustedAsTheyAre};
use crate::{
    config::model::CheckTls,
    dataplane::Witness,
    health::outcome::{Failure, Layer},
};

/// The most patterns, and the most configurations, that are kept; they are all forgotten when there are more.
const MOST_KEPT: usize = 1024;

/// What probes share. Files of authorities are read when they are first needed, and when they are others; if they are of no use then, what they said before
/// counts.
#[derive(Default)]
pub struct Kit {
    patterns: Mutex<BTreeMap<String, Regex>>,
    tls: Mutex<Vec<Kept>>,
    /// Who sees probes take the data path's way; or why they cannot.
    pub(super) witness: Option<Result<Witness, String>>,
}

/// A configuration of TLS.
struct Kept {
    of: CheckTls,
    alpn: Alpn,
    /// The file of authorities when it was read last.
    file: Option<FileState>,
    config: Arc<ClientConfig>,
}

/// Inode, size in bytes, and time of the last change in seconds and nanoseconds; none for a file that is not there.
type FileState = Option<(u64, u64, i64, i64)>;

fn state(ca: &Path) -> FileState {
    let about = fs::metadata(ca).ok()?;
    Some((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

/// The protocol that is offered within TLS. RFC 7301.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alpn {
    /// None is named.
    None,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Kit {
    /// An empty one: everything is made when it is first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with whoever sees probes take the data path's way, or why they cannot.
    #[must_use]
    pub fn with_witness(self, witness: Result<Witness, String>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The compiled pattern.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn pattern(&self, text: &str) -> Result<Regex, Failure> {
        let mut patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = patterns.get(text) {
            return Ok(pattern.clone());
        }
        let pattern = Regex::new(text).map_err(|error| Failure::new(Layer::Local, format!("failed to compile a pattern: {error}")))?;
        if patterns.len() >= MOST_KEPT {
            patterns.clear();
        }
        patterns.insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    }

    /// The configuration of TLS with `alpn`.
    ///
    /// # Errors
    /// The authorities that it trusts cannot be read.
    pub(super) fn tls(&self, tls: &CheckTls, alpn: Alpn) -> Result<Arc<ClientConfig>, Failure> {
        let mut kept = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let file = tls.ca.as_deref().map(state);
        if let Some(known) = kept.iter_mut().find(|kept| kept.of == *tls && kept.alpn == alpn) {
            if known.file != file {
                known.file = file;
                // One that is broken the daemon tells.
                if let Ok(config) = client_config(tls, alpn) {
                    known.config = Arc::new(config);
                }
            }
            return Ok(Arc::clone(&known.config));
        }
        let config = Arc::new(client_config(tls, alpn)?);
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.push(Kept { of: tls.clone(), alpn, file, config: Arc::clone(&config) });
        Ok(config)
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").finish_non_exhaustive()
    }
}

fn client_config(tls: &CheckTls, alpn: Alpn) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::new(Layer::Local, format!("failed to set up tls: {error}")))?;
    let mut config = if tls.verify {
        match tls.ca.as_deref() {
            None => builder.with_root_certificates(roots_of_machine()?).with_no_client_auth(),
            Some(ca) => {
                let (roots, certificates) = roots(ca)?;
                let verifier = TrustedAsTheyAre::new(roots, certificates, provider);
                let verifier = verifier.map_err(|error| Failure::new(Layer::Local, format!("failed to set up tls: {error}")))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        }
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth()
    };
    config.alpn_protocols = match alpn {
        Alpn::None => Vec::new(),
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2 => vec![b"h2".to_vec()],
    };
    // A session that is resumed shows no certificate: its expiry would go unnoticed.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whether checks can use a file of certificate authorities.
///
/// # Errors
/// Why not.
pub fn authorities(ca: &Path) -> Result<(), Failure> {
    roots(ca).map(drop)
}

fn roots_of_machine() -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(Failure::new(Layer::Local, "this machine trusts no certificate authority")) } else { Ok(roots) }
}

/// The authorities of a file, and their certificates.
fn roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Failure> {
    let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
    let pem = fs::read(path).map_err(|error| fault::local(format!("failed to read {}", path.display()), &error))?;
    let broken =
        |cause: &dyn fmt::Display| Failure::new(Layer::Local, format!("failed to read a certificate of {}: {cause}", path.display()));
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| broken(&error))?;
        roots.add(certificate.clone()).map_err(|error| broken(&error))?;
        certificates.push(certificate);
    }
    if roots.is_empty() {
        return Err(Failure::new(Layer::Local, format!("no certificate in {}", path.display())));
    }
    Ok((roots, certificates))
}

/// Takes any certificate whose key signs the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(ca: &Path) -> String {
        let tls = CheckTls { verify: true, ca: Some(ca.to_owned()), sni: None };
        let failure = Kit::new().tls(&tls, Alpn::None).unwrap_err();
        assert_eq!(failure.layer, Layer::Local);
        failure.text
    }

    #[test]
    fn authorities_that_cannot_be_read_are_this_machines_fault() {
        assert_eq!(failure(Path::new("/nowhere/ca.pem")), "failed to read /nowhere/ca.pem: no such file or directory");
        assert_eq!(failure(Path::new("/dev/null")), "no certificate in /dev/null");
    }

    #[test]
    fn authorities_that_change_are_read_again_and_broken_ones_leave_those_before() {
        let path = std::env::temp_dir().join(format!("weir-ca-{}.pem", std::process::id()));
        let pem = || rcgen::generate_simple_self_signed(["ca.lab".to_owned()]).unwrap().cert.pem();
        fs::write(&path, pem()).unwrap();
        let tls = CheckTls { verify: true, ca: Some(path.clone()), sni: None };
        let kit = Kit::new();
        let ask = || kit.tls(&tls, Alpn::None).unwrap();
        let first = ask();
        assert!(Arc::ptr_eq(&first, &ask()));
        fs::write(&path, "broken").unwrap();
        assert!(Arc::ptr_eq(&first, &ask()) && authorities(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&first, &ask()));
        fs::write(&path, pem()).unwrap();
        let second = ask();
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &ask()));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_configuration_is_made_once_for_each_kind_of_question() {
        let kit = Kit::new();
        let tls = CheckTls { verify: false, ca: None, sni: None };
        let first = kit.tls(&tls, Alpn::Http1).unwrap();
        assert!(Arc::ptr_eq(&first, &kit.tls(&tls, Alpn::Http1).unwrap()));
        assert_eq!(kit.tls(&tls, Alpn::Http2).unwrap().alpn_protocols, [b"h2"]);
        assert_eq!(kit.tls.lock().unwrap().len(), 2);
    }

    #[test]
    fn patterns_are_bounded() {
        let kit = Kit::new();
        for number in 0..=MOST_KEPT {
            kit.pattern(&number.to_string()).unwrap();
        }
        assert_eq!(kit.patterns.lock().unwrap().len(), 1);
        assert_eq!(kit.pattern("(").unwrap_err().layer, Layer::Local);
    }
}
