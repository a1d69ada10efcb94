//! The webhook's certificate: made here and shared by the replicas in the Secret
//! `weir-webhook`, or read from a directory that cert-manager fills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::watch;
use weir_mesh::identity::provider;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::cluster::{Cluster, ClusterError};
use super::secrets;
use crate::serve::Tls;
use crate::text;

const SECRET: &str = "weir-webhook";
/// The MutatingWebhookConfiguration that the chart makes.
pub const WEBHOOK: &str = "weir-injector";
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// How far clocks may be behind.
const SKEW: Duration = Duration::from_secs(300);
/// Between looks at the Secret, the directory and the API server's configuration.
const LOOK: Duration = Duration::from_secs(10);
/// `tls.crt`, `tls.key`, `ca.crt`, as Secrets of type kubernetes.io/tls have them.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
const CA_KEY: &str = "ca.key";

/// By key of the Secret or name of the file.
type Files = BTreeMap<String, Vec<u8>>;

/// Where the certificate comes from.
enum Source {
    /// The Secret; names to be valid for.
    Own(Cluster, Vec<String>),
    Directory(PathBuf),
}

/// What the webhook's listener shows.
pub struct WebhookTls {
    source: Source,
    current: RwLock<(Files, Arc<ServerConfig>)>,
    /// Whom the API server is to trust: PEM; empty when others see to that.
    bundle: watch::Sender<Vec<u8>>,
}

impl Tls for WebhookTls {
    fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl WebhookTls {
    /// The certificate in the Secret; it is made when there is none. Blocks.
    ///
    /// # Errors
    /// What is wrong with the Secret or the directory.
    pub fn open(
        cluster: &Cluster,
        cluster_domain: &str,
        directory: Option<&Path>,
    ) -> Result<Self, String> {
        let namespace = &cluster.namespace;
        let service = format!("weir-injector.{namespace}.svc");
        let source = match directory {
            Some(directory) => Source::Directory(directory.to_owned()),
            None => {
                let full = format!("{service}.{cluster_domain}");
                Source::Own(cluster.clone(), vec![service, full])
            }
        };
        let files = source.read()?;
        let config = server_config(&files)?;
        let bundle = watch::Sender::new(source.bundle(&files));
        Ok(Self { source, current: RwLock::new((files, config)), bundle })
    }

    /// Renews the certificate, and takes up what others renewed. Never returns.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let own = self.clone();
            let looked = tokio::task::spawn_blocking(move || own.look()).await;
            if let Ok(Err(error)) = looked {
                tracing::warn!(error, "the webhook goes on with the certificate that it has");
            }
        }
    }

    fn look(&self) -> Result<(), String> {
        let files = self.source.read()?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == files {
            return Ok(());
        }
        let config = server_config(&files)?;
        self.bundle.send_replace(self.source.bundle(&files));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (files, config);
        tracing::info!("the webhook has a new certificate");
        Ok(())
    }

    /// Tells the API server whom to trust, again and again: only the leader does.
    /// Never returns.
    pub async fn tell(self: Arc<Self>, cluster: Cluster) {
        let mut bundle = self.bundle.subscribe();
        let mut told = String::new();
        loop {
            let pem = bundle.borrow_and_update().clone();
            if !pem.is_empty() {
                match patch(&cluster, pem).await {
                    Ok(()) => told.clear(),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => {
                        let text = error.to_string();
                        if text != told {
                            tracing::warn!(%error, "the API server does not trust the webhook");
                            told = text;
                        }
                    }
                }
            }
            tokio::select! {
                _ = bundle.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

async fn patch(cluster: &Cluster, pem: Vec<u8>) -> Result<(), ClusterError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let what = format!("MutatingWebhookConfiguration {WEBHOOK}");
    let found = cluster.call(&what, api.get(WEBHOOK)).await?;
    let webhooks = found.webhooks.unwrap_or_default();
    let wanted = ByteString(pem);
    let right = |bundle: &Option<ByteString>| bundle.as_ref() == Some(&wanted);
    if webhooks.iter().all(|webhook| right(&webhook.client_config.ca_bundle)) {
        return Ok(());
    }
    let webhooks: Vec<_> = webhooks
        .iter()
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": wanted } }))
        .collect();
    // Lists of webhooks are merged by name.
    let patch = json!({ "webhooks": webhooks });
    let params = PatchParams { field_manager: Some("weir".to_owned()), ..Default::default() };
    cluster.call(&what, api.patch(WEBHOOK, &params, &Patch::Strategic(&patch))).await?;
    tracing::info!("the API server trusts the webhook");
    Ok(())
}

impl Source {
    fn read(&self) -> Result<Files, String> {
        match self {
            Self::Own(cluster, names) => own(cluster, names).map_err(|e| e.to_string()),
            Self::Directory(directory) => {
                let mut files = Files::new();
                for name in FILES {
                    let path = directory.join(name);
                    match std::fs::read(&path) {
                        Ok(bytes) => drop(files.insert(name.to_owned(), bytes)),
                        // cert-manager's own injector may know the roots.
                        Err(_) if name == "ca.crt" => {}
                        Err(error) => {
                            let path = path.display();
                            return Err(format!("--webhook-certificate-dir: {path}: {error}"));
                        }
                    }
                }
                Ok(files)
            }
        }
    }

    /// Empty for certificates that others make: they tell the API server, too.
    fn bundle(&self, files: &Files) -> Vec<u8> {
        match self {
            Self::Own(..) => files.get("ca.crt").cloned().unwrap_or_default(),
            Self::Directory(_) => Vec::new(),
        }
    }
}

/// What is in the Secret; made, or renewed, when it is time.
fn own(cluster: &Cluster, names: &[String]) -> Result<Files, ClusterError> {
    let held = secrets::read(cluster, SECRET)?;
    if !due(&held.data) {
        return Ok(held.data);
    }
    let failed = |error: rcgen::Error| ClusterError::Content {
        what: format!("Secret {SECRET}"),
        why: format!("no certificate can be made: {error}; delete it to have a new one made"),
    };
    let made = make(&held.data, names).map_err(failed)?;
    match secrets::write(cluster, SECRET, held, made) {
        // Another replica was faster; its certificate is as good.
        Err(error) if error.is_conflict() => Ok(secrets::read(cluster, SECRET)?.data),
        written => Ok(written?.data),
    }
}

/// Whether two thirds of the certificate's life are over.
fn due(files: &Files) -> bool {
    let all = FILES.iter().chain([&CA_KEY]).all(|name| files.contains_key(*name));
    let life = || {
        let der = CertificateDer::from_pem_slice(files.get("tls.crt")?).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    };
    match life() {
        Some((from, to)) if all => text::unix_seconds() >= from + (to - from) / 3 * 2,
        _ => true,
    }
}

/// A certificate by the authority that is there, or by a new one.
fn make(files: &Files, names: &[String]) -> Result<Files, rcgen::Error> {
    let text = |name: &str| files.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let there = text("ca.crt").zip(text(CA_KEY)).filter(|(ca, _)| !ca.is_empty());
    let (ca, ca_key) = match there {
        Some((ca, key)) => (ca.to_owned(), KeyPair::from_pem(key)?),
        None => authority()?,
    };
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.not_before = (SystemTime::now() - SKEW).into();
    params.not_after = (SystemTime::now() + YEAR).into();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    let made = [
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", ca),
        (CA_KEY, ca_key_pem),
    ];
    Ok(made.map(|(name, text)| (name.to_owned(), text.into_bytes())).into())
}

fn authority() -> Result<(String, KeyPair), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.not_before = (SystemTime::now() - SKEW).into();
    params.not_after = (SystemTime::now() + YEAR * 10).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Weir webhook");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key))
}

fn server_config(files: &Files) -> Result<Arc<ServerConfig>, String> {
    let part = |name: &str| {
        files.get(name).ok_or_else(|| format!("the webhook's certificate has no {name}"))
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(part("tls.crt")?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls.crt: {error}"))?;
    // The text never quotes the key.
    let key = PrivateKeyDer::from_pem_slice(part("tls.key")?)
        .map_err(|_| "tls.key: is no private key as PEM".to_owned())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("the webhook's certificate: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
