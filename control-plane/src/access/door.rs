//! Finds out who calls.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use weir_mesh::identity::Secret;

use super::grants::{Current, GrantsFile, LOOK};
use super::oidc::Refused;
use super::tls::{ApiTls, ClientCertificate, Files};
use super::{Caller, Method};
use crate::serve::Tls;
use crate::text;

/// Whom the mesh's own token stands for.
const TOKEN_NAME: &str = "admin";
/// Characters of `x-weir-actor` that are kept.
const MAX_ACTOR: usize = 128;

/// Options about who may do what.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// File that says who else may use the API, in YAML or JSON: tokens, client
    /// certificates, an OIDC issuer; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub access: Option<PathBuf>,
    /// Serve the API by TLS, with this chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "api_tls_key")]
    pub api_tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "api_tls_cert")]
    pub api_tls_key: Option<PathBuf>,
    /// Roots (PEM) that certificates of the API's clients lead to; the mesh's own are
    /// in `ca/bundle.pem` of the data directory
    #[arg(long, value_name = "FILE", requires = "api_tls_cert")]
    pub api_client_ca: Option<PathBuf>,
}

/// Judges service-account tokens of Kubernetes.
#[tonic::async_trait]
pub trait Reviews: Send + Sync {
    /// The name of whose token it is: `system:serviceaccount:NAMESPACE:NAME`.
    ///
    /// # Errors
    /// Why the token is not believed, or cannot be judged.
    async fn review(&self, token: &str) -> Result<String, String>;
}

/// Why a request has no caller.
pub enum Denial {
    /// Nobody knows who it is: a reason that can be counted, and what to tell.
    Unknown(&'static str, String),
    /// It is known, but may not do anything here.
    Known(Caller, String),
}

/// Who may use the API.
pub struct Access {
    token: Secret,
    file: Option<GrantsFile>,
    tls: Option<Arc<ApiTls>>,
    reviews: Option<Arc<dyn Reviews>>,
}

impl Access {
    /// The mesh's own token, and what the options say.
    ///
    /// # Errors
    /// What is wrong with a file, after the option.
    pub fn open(token: Secret, args: &AccessArgs) -> Result<Self, String> {
        let file = args.access.as_deref().map(GrantsFile::open).transpose();
        let tls = args.api_tls_cert.clone().zip(args.api_tls_key.clone());
        let tls = tls.map(|(certificate, key)| {
            let files = Files { certificate, key, client_ca: args.api_client_ca.clone() };
            ApiTls::open(files).map(Arc::new)
        });
        Ok(Self {
            token,
            file: file.map_err(|error| format!("--access: {error}"))?,
            tls: tls.transpose()?,
            reviews: None,
        })
    }

    /// With somebody who judges service-account tokens.
    #[cfg(feature = "kubernetes")]
    #[must_use]
    pub fn with_reviews(self, reviews: Arc<dyn Reviews>) -> Self {
        Self { reviews: Some(reviews), ..self }
    }

    /// What the API's listener is to accept connections with; none: plaintext.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<dyn Tls>> {
        self.tls.clone().map(|tls| tls as Arc<dyn Tls>)
    }

    /// Reads files again when they change. Never returns.
    pub async fn keep(self: Arc<Self>) {
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let own = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let file = own.file.as_ref().map_or(Ok(()), GrantsFile::look);
                let file = file.map_err(|error| format!("--access: {error}"));
                file.and(own.tls.as_ref().map_or(Ok(()), |tls| tls.look()))
            });
            let wrong = looked.await.ok().and_then(Result::err).unwrap_or_default();
            if !wrong.is_empty() && wrong != told {
                tracing::error!(error = wrong, "what was known before stays");
            }
            told = wrong;
        }
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// [`Denial`].
    pub async fn caller(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Caller, Denial> {
        let current = self.file.as_ref().map(GrantsFile::current).unwrap_or_default();
        let certificate = extensions.get::<ClientCertificate>();
        let caller = match (headers.get(AUTHORIZATION), certificate) {
            (None, Some(certificate)) => shown(&current, certificate)?,
            (None, None) => return Err(self.nothing()),
            (Some(value), _) => {
                // RFC 9110 §11.1: the scheme's case does not matter.
                let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
                let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let (_, token) = bearer.ok_or_else(|| self.nothing())?;
                self.bearer(&current, token.trim()).await?
            }
        };
        let claimed = headers.get("x-weir-actor").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let claimed: String = claimed.chars().take(MAX_ACTOR).collect();
        let claimed = claimed.trim();
        let on_behalf_of = (!claimed.is_empty()).then(|| claimed.to_owned());
        Ok(Caller { on_behalf_of, ..caller })
    }

    fn nothing(&self) -> Denial {
        let also = match self.tls.is_some() {
            true => "; or show a client certificate",
            false => "",
        };
        let why = format!(
            "a token is needed: send `authorization: Bearer TOKEN`, with the token from the \
             control plane's --token-file or one that its --access knows{also}"
        );
        Denial::Unknown("no token", why)
    }

    async fn bearer(&self, current: &Current, token: &str) -> Result<Caller, Denial> {
        if self.token.matches(token) {
            return Ok(Caller::admin(TOKEN_NAME));
        }
        if let Some(known) = current.grants.token(token) {
            if known.expires.is_some_and(|at| at <= text::unix_seconds()) {
                let why = format!("the token of {} has expired; ask for another", known.grant.name);
                return Err(Denial::Unknown("an expired token", why));
            }
            return Ok(known.grant.caller(Method::Token));
        }
        if let Some(oidc) = current.oidc.as_ref().filter(|oidc| oidc.is_own(token)) {
            return oidc.caller(token).await.map_err(|refused| match refused {
                Refused::Token(why) => Denial::Unknown("an OIDC token that is not believed", why),
                Refused::NoRole(caller, why) => Denial::Known(caller, why),
            });
        }
        if let Some(reviews) = self.reviews.as_ref()
            && !current.grants.service_accounts.is_empty()
            && weir_mesh::token::Token::parse(token).is_ok()
        {
            return account(current, &**reviews, token).await;
        }
        let why = "the token is not the control plane's: compare it with its --token-file, and \
             with what its --access knows";
        Err(Denial::Unknown("a wrong token", why.to_owned()))
    }
}

fn shown(current: &Current, certificate: &ClientCertificate) -> Result<Caller, Denial> {
    // A connection may outlive it.
    if certificate.not_after <= text::unix_seconds() {
        let why = "the client certificate has expired; connect anew with another".to_owned();
        return Err(Denial::Unknown("an expired certificate", why));
    }
    match current.grants.certificate(certificate) {
        Some(grant) => Ok(grant.caller(Method::Certificate)),
        None => {
            let why = format!(
                "nobody is known by the certificate {}: name it in `certificates` of the control \
                 plane's --access",
                certificate.shown()
            );
            Err(Denial::Unknown("an unknown certificate", why))
        }
    }
}

async fn account(current: &Current, reviews: &dyn Reviews, token: &str) -> Result<Caller, Denial> {
    let username = reviews.review(token).await;
    let username = username.map_err(|why| Denial::Unknown("a refused service account", why))?;
    let accounts = &current.grants.service_accounts;
    let known = accounts.iter().find(|account| account.username == username);
    known.map(|account| account.grant.caller(Method::Token)).ok_or_else(|| {
        let caller = Caller { name: username, ..Caller::default() };
        let why = "it is not in serviceAccounts of the control plane's --access";
        Denial::Known(caller, why.to_owned())
    })
}
