//! TLS of the listeners: loaded at the start, read again when a file changes or SIGHUP asks for it. Connections that are
//! open go on with what they began with.

use super::StartError;
use crate::config::Options;
use crate::config::listener::TlsSettings;
use crate::transport::tls::{MinVersion, TlsAcceptor, TlsOptions};
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at the files. Looking is what works for files that are replaced by renaming a directory or a
/// symlink, as Kubernetes does with secrets.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The acceptors, by listener.
#[derive(Clone, Default)]
pub struct Certificates {
    all: Arc<[(String, Option<Arc<TlsAcceptor>>)]>,
}

fn tls_options(settings: &TlsSettings, is_http: bool) -> TlsOptions {
    TlsOptions {
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        client_ca: settings.client_ca.clone(),
        client_subjects: settings.client_subjects.clone(),
        alpn: if is_http { vec![b"http/1.1".to_vec()] } else { Vec::new() },
        min_version: if settings.only_13 { MinVersion::Tls13 } else { MinVersion::Tls12 },
    }
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// The first listener whose files do not do.
    pub fn load(options: &Options) -> Result<Certificates, StartError> {
        let load = |l: &crate::config::listener::ListenerOptions| {
            let acceptor = match &l.tls {
                None => None,
                Some(tls) => Some(Arc::new(
                    TlsAcceptor::load(tls_options(tls, l.http.is_some()))
                        .map_err(|error| StartError::Tls { name: l.name.clone(), error })?,
                )),
            };
            Ok((l.name.clone(), acceptor))
        };
        Ok(Certificates { all: options.listeners.iter().map(load).collect::<Result<Vec<_>, StartError>>()?.into() })
    }

    /// The acceptor of a listener.
    pub fn of(&self, listener: usize) -> Option<Arc<TlsAcceptor>> {
        self.all.get(listener).and_then(|(_, acceptor)| acceptor.clone())
    }

    /// Reads again what has changed.
    pub fn reload(&self) {
        for (name, acceptor) in self.all.iter() {
            match acceptor.as_ref().map(|a| a.reload_if_changed()) {
                Some(Ok(true)) => tracing::info!(listener = name, "new certificate: new connections get it"),
                Some(Err(error)) => {
                    tracing::error!(listener = name, %error, "the certificate has changed and does not do; the old one stays");
                }
                Some(Ok(false)) | None => {}
            }
        }
    }

    /// Looks at the files now and then, for as long as the process lives.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch(&self) -> std::io::Result<()> {
        if self.all.iter().all(|(_, acceptor)| acceptor.is_none()) {
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
