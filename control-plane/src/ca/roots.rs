//! The roots of the authority and how they are kept.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use weir_mesh::identity::TrustBundle;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{CLOCK_SKEW, CaError, serial};
use crate::text::hex;

/// Ten years.
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);

/// Why the authority's file makes no authority.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Not the JSON it should be. The text never quotes the file, which has keys.
    #[error("cannot be read at line {line}, column {column}; restore the file")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A root's certificate or key.
    #[error("root {0} cannot be read; restore the file")]
    Root(usize),
    /// It is someone else's.
    #[error("is the authority of {found:?}, not of {wanted:?}; check --trust-domain and --data")]
    TrustDomain {
        /// In the certificate.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// Nothing to sign with.
    #[error("has no root that signs; restore the file")]
    NoneSigns,
}

/// What a root does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub(super) enum Stage {
    /// Trusted, so that routers know it before the first certificate is from it.
    Pending,
    /// Certificates come from it.
    Signing,
    /// Trusted until then (Unix seconds); its key is gone.
    #[serde(rename_all = "camelCase")]
    Retired {
        /// Unix seconds.
        trusted_until: i64,
    },
}

#[derive(Clone)]
pub(super) struct Root {
    pub certificate: CertificateDer<'static>,
    /// PKCS#8 PEM; none once it is retired.
    key: Option<String>,
    pub stage: Stage,
    /// The longest that a certificate signed by it may live.
    pub longest_lifetime: Duration,
}

impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
            && self.stage == other.stage
            && self.longest_lifetime == other.longest_lifetime
    }
}

impl Root {
    /// A new key and its self-signed certificate (X.509-SVID standard, §4: a
    /// signing certificate names the trust domain, without a path).
    pub(super) fn generate(
        trust_domain: &str,
        stage: Stage,
        lifetime: Duration,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let serial = serial()?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Weir");
        // Two roots must not share a name: chains are found by the issuer's.
        name.push(DnType::CommonName, format!("{trust_domain} {}", hex(&serial.to_bytes()[..4])));
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - CLOCK_SKEW).into();
        params.not_after = (SystemTime::now() + ROOT_LIFETIME).into();
        params.serial_number = Some(serial);
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://{trust_domain}").as_str().try_into()?)];
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.into();
        let key = Some(key.serialize_pem());
        Ok(Self { certificate, key, stage, longest_lifetime: lifetime })
    }

    fn key(&self) -> Option<KeyPair> {
        KeyPair::from_pem(self.key.as_deref()?).ok()
    }

    fn trust_domain(&self) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://").map(str::to_owned),
            _ => None,
        })
    }
}

/// Exactly one signs; at most one is pending.
#[derive(Clone, PartialEq)]
pub(super) struct Roots(pub Vec<Root>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RootFile {
    certificate: String,
    key: Option<String>,
    stage: Stage,
    longest_lifetime_seconds: u64,
}

impl Roots {
    pub(super) fn parse(contents: &[u8], trust_domain: &str) -> Result<Self, RootsError> {
        let files: Vec<RootFile> = serde_json::from_slice(contents)
            .map_err(|e| RootsError::Json { line: e.line(), column: e.column() })?;
        let mut roots = Vec::with_capacity(files.len());
        for (i, file) in files.into_iter().enumerate() {
            let certificate = CertificateDer::from_pem_slice(file.certificate.as_bytes())
                .map_err(|_| RootsError::Root(i))?;
            let root = Root {
                certificate,
                key: file.key,
                stage: file.stage,
                longest_lifetime: Duration::from_secs(file.longest_lifetime_seconds),
            };
            let retired = matches!(root.stage, Stage::Retired { .. });
            if !retired && root.key().is_none() {
                return Err(RootsError::Root(i));
            }
            match root.trust_domain() {
                Some(found) if found == trust_domain => roots.push(root),
                Some(found) => {
                    return Err(RootsError::TrustDomain { found, wanted: trust_domain.to_owned() });
                }
                None => return Err(RootsError::Root(i)),
            }
        }
        match roots.iter().filter(|root| root.stage == Stage::Signing).count() {
            1 => Ok(Self(roots)),
            _ => Err(RootsError::NoneSigns),
        }
    }

    pub(super) fn to_json(&self) -> Result<String, CaError> {
        let mut files = Vec::with_capacity(self.0.len());
        for root in &self.0 {
            files.push(RootFile {
                certificate: TrustBundle::from_der([&root.certificate])?.to_pem(),
                key: root.key.clone(),
                stage: root.stage,
                longest_lifetime_seconds: root.longest_lifetime.as_secs(),
            });
        }
        Ok(serde_json::to_string_pretty(&files).map_err(io::Error::from)?)
    }

    pub(super) fn signing_mut(&mut self) -> Option<&mut Root> {
        self.0.iter_mut().find(|root| root.stage == Stage::Signing)
    }

    pub(super) fn pending(&self) -> Option<&Root> {
        self.0.iter().find(|root| root.stage == Stage::Pending)
    }

    /// What certificates are signed by.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CaError> {
        let missing = || CaError::Certificate(rcgen::Error::CouldNotParseKeyPair);
        let root = self.0.iter().find(|root| root.stage == Stage::Signing).ok_or_else(missing)?;
        let key = root.key().ok_or_else(missing)?;
        Ok(Issuer::from_ca_cert_der(&root.certificate, key)?)
    }

    /// Has the pending root sign and retires the one that did.
    pub(super) fn activate(&mut self, now: i64) {
        if self.pending().is_none() {
            return;
        }
        for root in &mut self.0 {
            match root.stage {
                Stage::Signing => {
                    let last = root.longest_lifetime + CLOCK_SKEW;
                    let last = i64::try_from(last.as_secs()).unwrap_or(i64::MAX);
                    root.stage = Stage::Retired { trusted_until: now.saturating_add(last) };
                    root.key = None;
                }
                Stage::Pending => root.stage = Stage::Signing,
                Stage::Retired { .. } => {}
            }
        }
    }

    pub(super) fn expire(&mut self, now: i64) {
        self.0.retain(
            |root| !matches!(root.stage, Stage::Retired { trusted_until } if trusted_until < now),
        );
    }

    pub(super) fn bundle(&self) -> Arc<[Bytes]> {
        self.0.iter().map(|root| Bytes::copy_from_slice(&root.certificate)).collect()
    }
}
