//! Loads the TLS certificates of the listeners, and reads them again when a file changes or at SIGHUP. Open connections go on
//! with the old ones.

use super::error::StartError;
use crate::intake::listener::{ListenerOptions, TlsSettings};
use crate::intake::transport::tls::{MinVersion, TlsAcceptor, TlsOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two looks at the files. Looking is what works for files that are replaced by renaming a directory or a
/// symlink, as Kubernetes does with secrets.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Time between two warnings that a certificate expires.
const WARN_AGAIN: Duration = Duration::from_secs(86_400);

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// The acceptors, by listener.
#[derive(Clone, Default)]
pub struct Certificates {
    all: Arc<RwLock<Vec<Certificate>>>,
    is_watching: Arc<AtomicBool>,
}

/// The protocols that a listener offers.
type Alpn = &'static [&'static [u8]];

/// One listener's.
#[derive(Clone)]
pub struct Certificate {
    listener: String,
    made_of: Option<(TlsSettings, Alpn)>,
    acceptor: Option<Arc<TlsAcceptor>>,
}

fn tls_options(settings: &TlsSettings, alpn: Alpn) -> TlsOptions {
    TlsOptions {
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        client_ca: settings.client_ca.clone(),
        client_crl: settings.client_crl.clone(),
        client_subjects: settings.client_subjects.clone(),
        client_fingerprints: settings.client_fingerprints.clone(),
        alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        min_version: if settings.only_13 { MinVersion::Tls13 } else { MinVersion::Tls12 },
    }
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// The first listener whose files cannot be used.
    pub fn load(listeners: &[ListenerOptions]) -> Result<Certificates, StartError> {
        let certificates = Certificates::default();
        let all = listeners.iter().map(|l| certificates.of_options(l)).collect::<Result<_, _>>()?;
        certificates.replace(all);
        Ok(certificates)
    }

    /// The errors of all listeners whose files cannot be used.
    #[must_use]
    pub fn load_each(listeners: &[ListenerOptions]) -> Vec<StartError> {
        let none = Certificates::default();
        listeners.iter().filter_map(|listener| none.of_options(listener).err()).collect()
    }

    /// The certificate of a listener with these options: the present one, if the options are the same; otherwise its files are read.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn of_options(&self, listener: &ListenerOptions) -> Result<Certificate, StartError> {
        let made_of = listener.tls.clone().map(|tls| (tls, listener.profile().alpn));
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = all.iter().find(|c| c.listener == listener.name && c.made_of == made_of) {
            return Ok(same.clone());
        }
        let load = |(tls, alpn): &(TlsSettings, Alpn)| TlsAcceptor::load(tls_options(tls, alpn)).map(Arc::new);
        let acceptor = made_of.as_ref().map(load).transpose();
        let acceptor = acceptor.map_err(|error| StartError::Tls { name: listener.name.clone(), error })?;
        Ok(Certificate { listener: listener.name.clone(), made_of, acceptor })
    }

    /// Replaces all certificates, in the order of the listeners.
    pub fn replace(&self, all: Vec<Certificate>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// The acceptor of a listener.
    pub fn of(&self, listener: usize) -> Option<Arc<TlsAcceptor>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(listener).and_then(|c| c.acceptor.clone())
    }

    /// When the certificate of each listener expires, in seconds since 1970: the earliest time in its chain.
    #[must_use]
    pub fn expiry(&self) -> Vec<(String, i64)> {
        let until = |c: &Certificate| {
            let all = c.acceptor.as_ref()?.validity();
            Some((c.listener.clone(), all.iter().map(|validity| validity.until).min()?))
        };
        self.all.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(until).collect()
    }

    /// What has expired or will soon, in words, with the listener.
    #[must_use]
    pub fn warnings(&self, now: i64) -> Vec<(String, String)> {
        let of = |c: &Certificate| {
            let all = c.acceptor.as_ref().map(|a| a.validity()).unwrap_or_default();
            all.iter().filter_map(|v| Some((c.listener.clone(), v.warning(now)?))).collect::<Vec<_>>()
        };
        self.all.read().unwrap_or_else(PoisonError::into_inner).iter().flat_map(of).collect()
    }

    /// Warns in the log of what has expired or will soon.
    fn warn(&self) {
        for (listener, warning) in self.warnings(now()) {
            tracing::warn!(listener, "TLS: {warning}");
        }
    }

    /// Reads again what has changed.
    pub fn reload(&self) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner).clone();
        for Certificate { listener, acceptor, .. } in &all {
            match acceptor.as_ref().map(|a| a.reload_if_changed()) {
                Some(Ok(true)) => {
                    tracing::info!(listener, "the certificate has changed; new connections get the new one");
                    self.warn();
                }
                Some(Err(error)) => {
                    tracing::error!(listener, %error, "the new certificate cannot be used; the old one stays in use");
                }
                Some(Ok(false)) | None => {}
            }
        }
    }

    /// Starts a thread that looks at the files now and then, if there are any.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(&self) -> std::io::Result<()> {
        let is_empty = self.all.read().unwrap_or_else(PoisonError::into_inner).iter().all(|c| c.acceptor.is_none());
        if is_empty || self.is_watching.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let all = self.clone();
        let body = move || {
            all.warn();
            let mut warned = Instant::now();
            loop {
                std::thread::park_timeout(LOOK_AGAIN);
                all.reload();
                if warned.elapsed() > WARN_AGAIN {
                    all.warn();
                    warned = Instant::now();
                }
            }
        };
        std::thread::Builder::new().name("certificates".into()).spawn(body).map(drop)
    }
}
