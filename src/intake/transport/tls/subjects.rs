//! Decides which clients with a valid certificate may connect.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Lets `inner` check the certificate and then looks for its subject among those allowed, and for its fingerprint. The handshake itself
/// fails if neither is there, with the alert `access_denied` (RFC 8446 section 6.2).
#[derive(Debug)]
pub(super) struct Subjects {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: HashSet<String>,
    fingerprints: HashSet<[u8; 32]>,
}

impl Subjects {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, allowed: &[String], fingerprints: &[[u8; 32]]) -> Subjects {
        let (allowed, fingerprints) = (allowed.iter().cloned().collect(), fingerprints.iter().copied().collect());
        Subjects { inner, allowed, fingerprints }
    }

    /// True if it is one of the certificates with these fingerprints.
    fn is_known(&self, certificate: &CertificateDer<'_>) -> bool {
        let fingerprint: [u8; 32] = Sha256::digest(certificate).into();
        self.fingerprints.contains(&fingerprint)
    }

    /// True if one of the certificate's names is allowed, letter for letter.
    fn is_allowed(&self, certificate: &X509Certificate<'_>) -> bool {
        let has = |name: &str| self.allowed.contains(name);
        let subject = certificate.subject();
        if subject.iter_common_name().filter_map(|cn| cn.as_str().ok()).any(has) {
            return true;
        }
        if distinguished_name(subject).is_some_and(|dn| has(&dn)) {
            return true;
        }
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => has(name),
            _ => false,
        })
    }
}

/// The name as RFC 4514 writes it: the last part first, `CN=web-1,OU=shop,O=Example,C=DE`. `None` if it is empty or a value
/// is not text.
fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let values = part.iter().map(attribute).collect::<Option<Vec<_>>>()?;
        parts.push(values.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// Section 2.3 and 2.4.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let oid = attribute.attr_type().to_id_string();
    let kind = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        other => other,
    };
    let value = attribute.as_str().ok()?;
    let mut text = format!("{kind}=");
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        let is_special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (i == 0 && matches!(c, ' ' | '#'))
            || (i == last && c == ' ');
        match c {
            '\0' => text.push_str("\\00"),
            c if is_special => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    Some(text)
}

impl ClientCertVerifier for Subjects {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match X509Certificate::from_der(end_entity) {
            Ok((_, certificate)) if self.is_known(end_entity) || self.is_allowed(&certificate) => Ok(verified),
            Ok(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}
