//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) on the server's side, with rustls and its `ring` provider.
//!
//! 0-RTT is off, because replayed early data would be lines that nobody sent. Session tickets are on. They end with a reload,
//! so that a client whose certificate is no longer allowed has to show it again.

mod any_signer;
mod hello;
mod inspect;
mod load;
mod stage;
mod subjects;

pub use self::inspect::Validity;
use self::load::Files;
use self::stage::TlsStage;
use super::{Stage, StageError};
use rustls::ServerConfig;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Memory of one TLS connection's stage, at most: what rustls holds of a handshake with certificates on both sides, the
/// flight of the server, an unfinished record, and one record of plaintext. Not in it: plaintext beyond what the session
/// took, at most what landed in one receive, and session bytes that wait for the end of the handshake (64 KiB at most, and
/// none with sessions that only answer).
///
/// `tests/tls_memory.rs` holds the real use against it. An idle connection after the handshake uses about an eighth of it.
pub const BYTES_PER_TLS_CONNECTION: usize = 64 * 1024;

/// Oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// What a listener says of its TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// PEM file with the server's certificate and behind it those of the CAs in between.
    pub cert: PathBuf,
    /// PEM file with the certificate's private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// PEM file with the CAs of clients. With it every client must show a certificate.
    pub client_ca: Option<PathBuf>,
    /// PEM file with the revocation lists of those CAs: a certificate of a client that is on one is refused, and so is one whose CA has none
    /// there.
    pub client_crl: Option<PathBuf>,
    /// Who of those may connect: common name, whole DN (RFC 4514), DNS name or URI of the certificate; empty: everybody.
    pub client_subjects: Vec<String>,
    /// SHA-256 of the certificates (DER) of those who may connect, beside those subjects; without `client_ca` whoever has signed them.
    /// Empty: none.
    pub client_fingerprints: Vec<[u8; 32]>,
    /// Protocols to choose from (RFC 7301), the preferred one first. Clients without ALPN are taken; those with another one
    /// are not, unless this is empty.
    pub alpn: Vec<Vec<u8>>,
    /// Oldest version that is spoken.
    pub min_version: MinVersion,
}

/// Why a TLS configuration cannot be used. The old one, if there is one, stays.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is larger than any real one.
    #[error("the {what} {} has more than {most} bytes", path.display())]
    TooLarge {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Bytes it may have.
        most: u64,
    },
    /// A file is not PEM.
    #[error("the {what} {} is not valid PEM: {reason}", path.display())]
    Pem {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file has nothing in it of what it is for.
    #[error("the {what} {} contains no {item} (PEM, {marker})", path.display())]
    Nothing {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing in it.
        item: &'static str,
        /// How that begins.
        marker: &'static str,
    },
    /// A certificate or a key that cannot be used.
    #[error("the {what} {} cannot be used: {reason}", path.display())]
    Unusable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Key and certificate are not a pair.
    #[error("the key {} does not belong to the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A key that cannot be used as it is, with what helps.
    #[error("the {what} {} cannot be used: {reason}", path.display())]
    Form {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// Revocation lists without a CA.
    #[error("client_crl needs client_ca: without it clients show no certificate")]
    CrlWithoutCa,
    /// Subjects without a CA.
    #[error("client_subjects needs client_ca: without it clients show no certificate")]
    SubjectsWithoutCa,
    /// Something else.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Makes the stages of a listener's connections; shared by all threads.
#[derive(Debug)]
pub struct TlsAcceptor {
    options: TlsOptions,
    /// What is in use; locked once per connection and while it is exchanged.
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    files: Arc<Files>,
    config: Arc<ServerConfig>,
}

impl TlsAcceptor {
    /// Reads the files and checks that connections can be made with them.
    ///
    /// # Errors
    /// A file cannot be used; the error names it and says why.
    pub fn load(options: TlsOptions) -> Result<TlsAcceptor, TlsError> {
        let files = Files::read(&options)?;
        let config = files.config(&options)?;
        Ok(TlsAcceptor { options, current: Mutex::new(Current { files: Arc::new(files), config }) })
    }

    /// What it was made from.
    #[must_use]
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// How long what is in use holds: the server's certificate first, then those behind it, and what clients are checked with.
    #[must_use]
    pub fn validity(&self) -> Vec<Validity> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).files.validity()
    }

    /// For a new connection, with the present configuration.
    #[must_use]
    pub fn stage(&self) -> Box<dyn Stage> {
        let config = self.current.lock().unwrap_or_else(PoisonError::into_inner).config.clone();
        match TlsStage::new(config) {
            Ok(stage) => Box::new(stage),
            Err(error) => Box::new(Closed(error)),
        }
    }

    /// Reads the files again and takes what is in them for new connections; those that are open go on as they are. The
    /// contents count, not the times, so that it does not matter whether files are written over, replaced, or reached by
    /// symbolic links that change (as the secrets of Kubernetes are). True: something had changed.
    ///
    /// # Errors
    /// What is there now cannot be used (perhaps because it is being replaced just now); the old configuration stays, and
    /// the next call tries again.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.options)?;
        let before = self.current.lock().unwrap_or_else(PoisonError::into_inner).files.clone();
        if *before == files {
            return Ok(false);
        }
        let config = files.config(&self.options)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Current { files: Arc::new(files), config };
        Ok(true)
    }
}

/// Instead of a connection that cannot be begun. [`TlsAcceptor::load`] has tried one, so this is for the compiler.
struct Closed(StageError);

impl Stage for Closed {
    fn decode(&mut self, _space: &mut [u8], _landed: usize, _most: usize) -> Result<usize, StageError> {
        Err(self.0.clone())
    }

    fn encode(&mut self, _bytes: &mut Vec<u8>) -> Result<(), StageError> {
        Err(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
