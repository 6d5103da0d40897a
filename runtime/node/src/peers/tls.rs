//! The certificates of mutual TLS, read once at start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error as Rustls, InconsistentKeys, RootCertStore, ServerConfig, version,
};

/// The protocol that both sides agree on within TLS.
const ALPN: &[u8] = b"h2";

/// Where a node's certificate, its key and the cluster's authorities are: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, followed by the intermediate ones. Good for server and client, and naming the host of the
    /// node's advertised address.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The certificates of the authorities that sign the nodes' certificates, and nobody else's.
    pub ca: PathBuf,
}

/// Why the files of [`TlsFiles`] cannot be used. No message shows what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} `{}`: {source}", path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file has no PEM section of the kind that is needed.
    #[error("the {what} `{}` holds no PEM section `{expected}`; convert it to PEM, or check that the files are not mixed up", path.display())]
    NotPem {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The label of the section.
        expected: &'static str,
    },
    /// A file is PEM but broken, or what it holds cannot be used.
    #[error("the {what} `{}` cannot be used: {reason}", path.display())]
    Unfit {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The key is of another certificate.
    #[error(
        "the private key `{}` does not belong to the certificate `{}`: check that both were made together and that \
         the node's own certificate is the first in its file", key.display(), cert.display()
    )]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The node's own certificate would be refused by every peer that has the same authorities.
    #[error("peers would refuse the certificate `{}`: {reason}", cert.display())]
    OwnRefused {
        /// The certificate.
        cert: PathBuf,
        /// The reason.
        reason: String,
    },
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";
const AUTHORITIES: &str = "authorities' file";

/// What [`TlsFiles`] hold, ready for both sides.
pub(super) struct Tls {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    files: TlsFiles,
}

impl Tls {
    /// Reads and checks the files.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = certificates(CERTIFICATE, &files.cert)?;
        let key = private_key(&files.key)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(AUTHORITIES, &files.ca)? {
            roots.add(authority).map_err(|error| unfit(AUTHORITIES, &files.ca, &error))?;
        }
        let provider = Arc::new(ring::default_provider());
        let tls = Self { chain, key, roots: Arc::new(roots), provider, files: files.clone() };
        tls.check_own()?;
        Ok(tls)
    }

    /// Whether a peer with the same authorities would accept this node.
    fn check_own(&self) -> Result<(), TlsError> {
        let Some((own, intermediates)) = self.chain.split_first() else { return Ok(()) };
        let refused = |error: &Rustls| TlsError::OwnRefused {
            cert: self.files.cert.clone(),
            reason: match error {
                Rustls::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    format!("it is not signed by any authority in `{}`", self.files.ca.display())
                }
                Rustls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                    format!("it has expired ({error}); renew it")
                }
                _ => error.to_string(),
            },
        };
        self.client_verifier()?
            .verify_client_cert(own, intermediates, UnixTime::now())
            .map(drop)
            .map_err(|error| refused(&error))
    }

    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(|error| unfit(AUTHORITIES, &self.files.ca, &error))
    }

    /// What a server needs: it refuses clients without a certificate of the cluster's authorities.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unfit(CERTIFICATE, &self.files.cert, &error))?
            .with_client_cert_verifier(self.client_verifier()?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.pair_error(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    /// What a client needs.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(|error| unfit(AUTHORITIES, &self.files.ca, &error))?;
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unfit(CERTIFICATE, &self.files.cert, &error))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.pair_error(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    fn pair_error(&self, error: &Rustls) -> TlsError {
        match error {
            Rustls::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { cert: self.files.cert.clone(), key: self.files.key.clone() }
            }
            Rustls::InvalidCertificate(_) => unfit(CERTIFICATE, &self.files.cert, error),
            _ => unfit(KEY, &self.files.key, error),
        }
    }
}

fn unfit(what: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unfit { what, path: path.to_owned(), reason: reason.to_string() }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&read(what, path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unfit(what, path, &error))?;
    if found.is_empty() {
        return Err(TlsError::NotPem { what, path: path.to_owned(), expected: "CERTIFICATE" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(KEY, path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NotPem { what: KEY, path: path.to_owned(), expected: "PRIVATE KEY" },
        error => unfit(KEY, path, &error),
    })
}
