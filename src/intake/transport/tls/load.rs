//! Makes the configuration of rustls from the files of a listener.

use super::any_signer::AnySigner;
use super::stage::TlsStage;
use super::subjects::Subjects;
use super::{MinVersion, TlsError, TlsOptions, Validity, inspect};
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read; the CAs of all browsers are 250 KB.
const FILE_MAX: u64 = 4 << 20;
const CERT: &str = "certificate file";
const KEY: &str = "key file";
const CA: &str = "client CA file";
const CRL: &str = "client CRL file";

/// What the files contain. Compared to see whether they have changed.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files") // one of them is secret
    }
}

impl Files {
    /// Reads them.
    pub(super) fn read(options: &TlsOptions) -> Result<Files, TlsError> {
        if options.client_ca.is_none() && !options.client_subjects.is_empty() {
            return Err(TlsError::SubjectsWithoutCa);
        }
        if options.client_ca.is_none() && options.client_crl.is_some() {
            return Err(TlsError::CrlWithoutCa);
        }
        Ok(Files {
            cert: read(CERT, &options.cert)?,
            key: read(KEY, &options.key)?,
            client_ca: options.client_ca.as_deref().map(|path| read(CA, path)).transpose()?,
            client_crl: options.client_crl.as_deref().map(|path| read(CRL, path)).transpose()?,
        })
    }

    /// How long what is in them holds.
    pub(super) fn validity(&self) -> Vec<Validity> {
        let mut all = inspect::certificates(&self.cert);
        all.extend(self.client_ca.iter().flat_map(|pem| inspect::certificates(pem)));
        all.extend(self.client_crl.iter().flat_map(|pem| inspect::revocation_lists(pem)));
        all
    }

    /// Checks them and makes the configuration, with new keys for session tickets.
    pub(super) fn config(&self, options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = match options.min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let builder = builder.map_err(|e| TlsError::Setup(e.to_string()))?;
        let builder = match (&options.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => {
                let roots = Arc::new(roots(path, pem)?);
                let mut clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                if let (Some(path), Some(pem)) = (&options.client_crl, &self.client_crl) {
                    // Those of the CAs in between are rarely published with those of clients.
                    clients = clients.with_crls(revocation_lists(path, pem)?).only_check_end_entity_revocation();
                }
                let clients = clients.build();
                let clients = clients.map_err(|e| unusable(CA, path, &e))?;
                builder.with_client_cert_verifier(allowed(clients, &options.client_subjects, options))
            }
            _ if !options.client_fingerprints.is_empty() => {
                // Without an authority a subject says nothing: anybody could have written it.
                builder.with_client_cert_verifier(allowed(Arc::new(AnySigner::new(&provider)), &[], options))
            }
            _ => builder.with_no_client_auth(),
        };
        let (cert, key) = (&options.cert, &options.key);
        let chain = certificates(CERT, cert, &self.cert)?;
        if let Some(reason) = inspect::unusable_key(&self.key) {
            return Err(TlsError::Form { what: KEY, path: key.clone(), reason });
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| match e {
            pem::Error::NoItemsFound => nothing(KEY, key, "private key", "-----BEGIN PRIVATE KEY-----"),
            other => not_pem(KEY, key, &other),
        })?;
        let signer = provider.key_provider.load_private_key(private).map_err(|e| unusable(KEY, key, &e))?;
        let pair = CertifiedKey::new(chain, signer);
        match pair.keys_match() {
            // Unknown: the provider cannot say; the handshake will.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(TlsError::KeyMismatch { cert: cert.clone(), key: key.clone() });
            }
            Err(other) => return Err(unusable(CERT, cert, &other)),
        }
        let mut config = builder.with_cert_resolver(Arc::new(Always(Arc::new(pair))));
        config.alpn_protocols = options.alpn.clone();
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {}); // tickets hold the sessions
        config.ticketer = ring::Ticketer::new().map_err(|e| TlsError::Setup(e.to_string()))?;
        // A client that only writes never reads its ticket, and its system resets the connection at the end for that: what
        // it sent last may be lost. So there are tickets only for protocols that have answers.
        config.send_tls13_tickets = usize::from(!options.alpn.is_empty());
        let config = Arc::new(config);
        TlsStage::new(config.clone()).map_err(|e| TlsError::Setup(e.to_string()))?;
        Ok(config)
    }
}

/// The same certificate for everybody.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn allowed(
    clients: Arc<dyn ClientCertVerifier>,
    subjects: &[String],
    options: &TlsOptions,
) -> Arc<dyn ClientCertVerifier> {
    let fingerprints = &options.client_fingerprints;
    if subjects.is_empty() && fingerprints.is_empty() {
        return clients;
    }
    Arc::new(Subjects::new(clients, subjects, fingerprints))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { what, path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(TlsError::TooLarge { what, path: path.to_path_buf(), most: FILE_MAX });
    }
    if let Some(reason) = inspect::other_form(&bytes) {
        return Err(TlsError::Form { what, path: path.to_path_buf(), reason: reason.into() });
    }
    Ok(inspect::without_bom(bytes))
}

fn revocation_lists(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| not_pem(CRL, path, &e))?;
    if found.is_empty() {
        return Err(nothing(CRL, path, "revocation list", "-----BEGIN X509 CRL-----"));
    }
    Ok(found)
}

fn certificates(what: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| not_pem(what, path, &e))?;
    if found.is_empty() {
        return Err(nothing(what, path, "certificate", "-----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, path, pem)? {
        roots.add(certificate).map_err(|e| unusable(CA, path, &e))?;
    }
    Ok(roots)
}

fn not_pem(what: &'static str, path: &Path, reason: &pem::Error) -> TlsError {
    TlsError::Pem { what, path: path.to_path_buf(), reason: reason.to_string() }
}

fn nothing(what: &'static str, path: &Path, item: &'static str, marker: &'static str) -> TlsError {
    TlsError::Nothing { what, path: path.to_path_buf(), item, marker }
}

fn unusable(what: &'static str, path: &Path, reason: &impl ToString) -> TlsError {
    TlsError::Unusable { what, path: path.to_path_buf(), reason: inspect::in_words(&reason.to_string()) }
}
