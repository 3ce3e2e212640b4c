//! Client certificates that need no authority, because each one that may connect is known by its fingerprint.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Takes a certificate that is within its time, whoever has signed it, from the client that has its key. It says nothing of who the client
/// is: the fingerprint must.
#[derive(Debug)]
pub(super) struct AnySigner(WebPkiSupportedAlgorithms);

impl AnySigner {
    pub(super) fn new(provider: &CryptoProvider) -> AnySigner {
        AnySigner(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnySigner {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = |why| Err(Error::InvalidCertificate(why));
        let Ok((_, certificate)) = X509Certificate::from_der(end_entity) else {
            return refused(CertificateError::BadEncoding);
        };
        let (validity, now) = (certificate.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if now < validity.not_before.timestamp() {
            return refused(CertificateError::NotValidYet);
        }
        if now > validity.not_after.timestamp() {
            return refused(CertificateError::Expired);
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
