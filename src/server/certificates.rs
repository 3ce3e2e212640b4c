//! TLS of the listeners: loaded at the start, read again when a file changes or SIGHUP asks for it. Connections that are
//! open go on with what they began with.

use super::error::StartError;
use crate::intake::listener::{ListenerOptions, TlsSettings};
use crate::intake::transport::tls::{MinVersion, TlsAcceptor, TlsOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Time between two looks at the files. Looking is what works for files that are replaced by renaming a directory or a
/// symlink, as Kubernetes does with secrets.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

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
        client_subjects: settings.client_subjects.clone(),
        alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        min_version: if settings.only_13 { MinVersion::Tls13 } else { MinVersion::Tls12 },
    }
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// The first listener whose files do not do.
    pub fn load(listeners: &[ListenerOptions]) -> Result<Certificates, StartError> {
        let certificates = Certificates::default();
        let all = listeners.iter().map(|l| certificates.of_options(l)).collect::<Result<_, _>>()?;
        certificates.replace(all);
        Ok(certificates)
    }

    /// The errors of all listeners whose files do not do.
    #[must_use]
    pub fn load_each(listeners: &[ListenerOptions]) -> Vec<StartError> {
        let none = Certificates::default();
        listeners.iter().filter_map(|listener| none.of_options(listener).err()).collect()
    }

    /// The certificate of a listener with these options: the one that there is, where nothing but its files may have changed.
    ///
    /// # Errors
    /// The files do not do.
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

    /// From now on these, by the places of the listeners.
    pub fn replace(&self, all: Vec<Certificate>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// The acceptor of a listener.
    pub fn of(&self, listener: usize) -> Option<Arc<TlsAcceptor>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(listener).and_then(|c| c.acceptor.clone())
    }

    /// Reads again what has changed.
    pub fn reload(&self) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner).clone();
        for Certificate { listener, acceptor, .. } in &all {
            match acceptor.as_ref().map(|a| a.reload_if_changed()) {
                Some(Ok(true)) => tracing::info!(listener, "new certificate: new connections get it"),
                Some(Err(error)) => {
                    tracing::error!(listener, %error, "the certificate has changed and does not do; the old one stays");
                }
                Some(Ok(false)) | None => {}
            }
        }
    }

    /// Looks at the files now and then, for as long as the process lives, once there is any.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch(&self) -> std::io::Result<()> {
        let is_empty = self.all.read().unwrap_or_else(PoisonError::into_inner).iter().all(|c| c.acceptor.is_none());
        if is_empty || self.is_watching.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let all = self.clone();
        let body = move || {
            loop {
                std::thread::park_timeout(LOOK_AGAIN);
                all.reload();
            }
        };
        std::thread::Builder::new().name("certificates".into()).spawn(body).map(drop)
    }
}
