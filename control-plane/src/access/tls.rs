//! TLS of the API's listener, with client certificates for those who have one.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weir_mesh::identity::provider;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::serve::{ConnectionError, Tls};

/// Bytes of each file: certificate, key, roots.
type Contents = [Option<Vec<u8>>; 3];

/// Where certificate, key and roots are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The listener's chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Roots of client certificates, PEM. None: no client has one.
    pub client_ca: Option<PathBuf>,
}

/// What a client showed. The handshake has checked that a root of
/// `--api-client-ca` leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its only URI name, if that is a SPIFFE id.
    pub spiffe_id: Option<String>,
    /// Of its subject.
    pub common_name: Option<String>,
    /// SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
    /// Seconds since the Unix epoch.
    pub not_after: i64,
}

impl ClientCertificate {
    fn read(der: &CertificateDer<'_>) -> Result<Self, ConnectionError> {
        let (_, certificate) = X509Certificate::from_der(der)?;
        let names = certificate.subject_alternative_name()?;
        let uris = names.iter().flat_map(|names| &names.value.general_names);
        let uris: Vec<_> = uris
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let spiffe_id = match uris[..] {
            [uri] if uri.starts_with("spiffe://") => Some(uri.to_owned()),
            _ => None,
        };
        let mut common_names = certificate.subject().iter_common_name();
        let common_name = common_names.next().and_then(|name| name.as_str().ok());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
        Ok(Self {
            spiffe_id,
            // Of two, neither is it.
            common_name: common_name.filter(|_| common_names.next().is_none()).map(str::to_owned),
            fingerprint,
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// What to call it when nobody knows whose it is.
    #[must_use]
    pub fn shown(&self) -> String {
        let name = self.spiffe_id.as_ref().or(self.common_name.as_ref());
        let name = name.map(|name| super::methods::plain(name));
        let print = crate::text::hex(&self.fingerprint);
        format!("{} (SHA-256 {print})", name.as_deref().unwrap_or("without a name"))
    }
}

/// What the API's listener accepts connections with; files that change are read again.
pub struct ApiTls {
    files: Files,
    current: RwLock<(Contents, Arc<ServerConfig>)>,
}

impl Tls for ApiTls {
    fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn shown(
        &self,
        certificates: &[CertificateDer<'_>],
        extensions: &mut http::Extensions,
    ) -> Result<(), ConnectionError> {
        if let Some(leaf) = certificates.first() {
            extensions.insert(ClientCertificate::read(leaf)?);
        }
        Ok(())
    }
}

impl ApiTls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong, after the option.
    pub fn open(files: Files) -> Result<Self, String> {
        let contents = files.read()?;
        let config = files.config(&contents)?;
        Ok(Self { files, current: RwLock::new((contents, config)) })
    }

    /// Reads the files again if they changed. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with them; the old ones stay in use.
    pub fn look(&self) -> Result<(), String> {
        let contents = self.files.read()?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == contents {
            return Ok(());
        }
        let config = self.files.config(&contents)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (contents, config);
        tracing::info!("the API's listener has new certificates");
        Ok(())
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read = |option: &str, path: &PathBuf| {
            let read = std::fs::read(path);
            read.map(Some).map_err(|error| format!("{option}: {}: {error}", path.display()))
        };
        Ok([
            read("--api-tls-cert", &self.certificate)?,
            read("--api-tls-key", &self.key)?,
            match &self.client_ca {
                Some(path) => read("--api-client-ca", path)?,
                None => None,
            },
        ])
    }

    fn config(&self, contents: &Contents) -> Result<Arc<ServerConfig>, String> {
        let [certificate, key, client_ca] = contents;
        let chain = certificates("--api-tls-cert", certificate.as_deref().unwrap_or_default())?;
        // The text never quotes the key.
        let key = PrivateKeyDer::from_pem_slice(key.as_deref().unwrap_or_default())
            .map_err(|_| "--api-tls-key: is no private key as PEM".to_owned())?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let told = |error: &dyn std::fmt::Display| format!("--api-client-ca: {error}");
                let mut roots = RootCertStore::empty();
                for root in certificates("--api-client-ca", pem)? {
                    roots.add(root).map_err(|error| told(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                // Who has a token needs no certificate.
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| told(&error))?)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("--api-tls-cert, --api-tls-key: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session is not verified again: it would outlive a root.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn certificates(option: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(list) if list.is_empty() => Err(format!("{option}: holds no certificate as PEM")),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("{option}: {error}")),
    }
}
