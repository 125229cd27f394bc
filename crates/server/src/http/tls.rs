//! TLS for the dashboard and the API, on a port of its own and with a certificate that the lab is given.
//! What nodes boot from stays as it is on the other port: firmware and boot programs know no certificate
//! of this lab, and what they fetch is trusted by the lab's signature alone.
//!
//! The certificate is read again with the configuration, so that one that is renewed every few weeks
//! needs no restart; connections that are open keep theirs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, crypto};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::lab::settings::TlsSettings;

/// How long a handshake may take: several round trips on any network, and retransmissions.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What waits encrypted for a peer that does not read: one record of TLS (RFC 8446 section 5.1).
const BUFFER_LEN_MAX: usize = 16 << 10;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read a {what} in PEM from {}", path.display())]
    Pem { what: &'static str, path: PathBuf, source: pem::Error },
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    #[error("the certificate {} and the key {} cannot be used together", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// What connections begin with; a copy is another reference.
#[derive(Clone)]
pub(crate) struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// With the certificate and key of these files.
    ///
    /// # Errors
    /// If they cannot be read, or are not of each other.
    pub(crate) fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(read(settings)?)))))
    }

    /// Reads the files again; if they cannot be used, those before stay.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn reload(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        let config = Arc::new(read(settings)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The connection once it is encrypted.
    ///
    /// # Errors
    /// If the peer speaks something else, or does not go on.
    pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let handshake: Accept<S> = TlsAcceptor::from(config).accept(stream);
        let mut stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        stream.get_mut().1.set_buffer_limit(Some(BUFFER_LEN_MAX));
        Ok(stream)
    }
}

fn read(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let TlsSettings { certificate, key, .. } = settings;
    let refuse = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { what, path, source }
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(refuse("certificate", certificate))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(certificate.clone()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(refuse("key", key))?;
    let refuse =
        |source| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source };
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refuse)?
            .with_no_client_auth()
            .with_single_cert(certificates, secret)
            .map_err(refuse)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::client::{Base, Client, Trust};
    use crate::http::Keeper;
    use crate::http::serve::{Door, serve};

    #[tokio::test]
    async fn what_is_asked_under_tls_is_answered_under_it_and_nothing_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "\"hello\"" }));
        let settings = TlsSettings::for_tests();
        let tls = Tls::load(&settings).unwrap();
        let door = Door::Tls(tls.clone());
        let serving = tokio::spawn(serve(listener, door, router, Keeper::for_tests()));
        let base: Base = format!("https://localhost:{}", to.port()).parse().unwrap();
        let client = Client::remote(base, None, Trust::File(settings.certificate.clone()));
        for _ in 0..2 {
            let client = client.clone();
            let asked = tokio::task::spawn_blocking(move || client.get::<String>("/"));
            assert_eq!(asked.await.unwrap().unwrap(), "hello");
            tls.reload(&settings).unwrap();
        }
        let mut plain = TcpStream::connect(to).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = vec![];
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("hello"));
        serving.abort();
    }

    #[test]
    fn what_cannot_be_used_is_named_and_changes_nothing() {
        let tls = Tls::load(&TlsSettings::for_tests()).unwrap();
        let check = |settings: TlsSettings, expect: &str| {
            let error = tls.reload(&settings).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        let TlsSettings { port, certificate, key } = TlsSettings::for_tests();
        let wrong = TlsSettings { port, certificate: key.clone(), key: key.clone() };
        check(wrong, "key.pem has no certificate");
        let wrong =
            TlsSettings { port, certificate: certificate.clone(), key: certificate.clone() };
        check(wrong, "cannot read a key in PEM from");
        let wrong = TlsSettings { port, certificate, key: "/nonexistent".into() };
        check(wrong, "/nonexistent");
    }
}
