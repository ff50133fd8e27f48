//! The certificate in use, which changes while connections go on.
//!
//! Comes in: a certificate with its key, whenever the keeper has read a new one. Goes out: the same, to each handshake.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certs::provider;

/// The certificate in use. Clones are the same.
#[derive(Clone, Default)]
pub struct Live(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl fmt::Debug for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Live").field(&self.get().is_some()).finish()
    }
}

impl Live {
    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every handshake from now on uses `key`. True if it is another one than before.
    pub fn set(&self, key: CertifiedKey) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = current.as_ref().is_none_or(|current| current.cert != key.cert);
        if new {
            *current = Some(Arc::new(key));
        }
        new
    }

    /// Whether there is a certificate; without one every handshake fails.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.get().is_some()
    }

    /// The server's side of TLS with this certificate.
    ///
    /// # Errors
    /// When ring has no suitable cipher suites, which would be a bug.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}
