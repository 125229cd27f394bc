//! A connection to a server: through the socket in its lab, over TCP, or over TLS.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::Base;

/// How long it may take until a server has answered on the way to a connection: several retransmissions on
/// any network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those that this system believes.
    System,
    /// Those of this file in PEM alone: the server's own, or that of who signed it.
    File(PathBuf),
}

pub(super) struct Connection(SendRequest<Body>);

impl Connection {
    pub(super) async fn through(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::over(tokio::net::UnixStream::from_std(stream)?).await
    }

    pub(super) async fn to(base: &Base, trust: &Trust) -> io::Result<Self> {
        let connected = async {
            let stream = TcpStream::connect((base.host.as_str(), base.port)).await?;
            stream.set_nodelay(true)?;
            if !base.is_encrypted {
                return Self::over(stream).await;
            }
            let name = ServerName::try_from(base.host.clone()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(trust.config()?));
            Self::over(connector.connect(name, stream).await?).await
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connected).await?
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<Self> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        // What goes wrong with it is what its request is answered.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        self.0.send_request(request).await
    }
}

impl Trust {
    fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = builder.with_root_certificates(self.roots()?).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match self {
            // Those that cannot be read or used are as if they were not there.
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::File(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| wrong(path, error))?;
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<CertificateDer<'static>> = read.map_err(|error| wrong(path, error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(wrong(path, "it has none")),
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("cannot use the certificates in {}: {why}", path.display()))
}
