//! Tokens of an issuer by OpenID Connect Core 1.0: its keys are found by OpenID
//! Connect Discovery 1.0 and checked strictly (`weir_mesh::token`).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use weir_mesh::token::{Algorithm, KeySet, Rules, Token, TokenError, verify};

use super::{Caller, Method, Role, fetch, methods};
use crate::text;

/// What a token may be signed with unless the file says otherwise.
pub const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
/// Keys older than this are fetched again, in the background.
const STALE: Duration = Duration::from_secs(300);
/// However many unknown keys are asked for, no more than one fetch in this.
const BETWEEN: Duration = Duration::from_secs(1);
/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(30);

/// Who a claim's value makes what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// A claim's name.
    pub claim: String,
    /// What it is, or what its list holds.
    pub value: String,
    /// The role that gives.
    pub role: Role,
    /// Of a shifter: which services. None: all.
    pub services: Option<Vec<String>>,
}

/// `oidc` of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `iss`.
    pub issuer: Arc<str>,
    /// What `aud` must be or hold.
    pub audience: Arc<str>,
    /// Where its keys are; none: where its discovery document says.
    pub jwks_uri: Option<String>,
    /// PEM roots for https; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// What `alg` may be.
    pub algorithms: Vec<Algorithm>,
    /// The claim that is the caller's name.
    pub name: String,
    /// Stands before that name in the history.
    pub prefix: String,
    /// Who may do what.
    pub roles: Vec<Mapping>,
}

/// Whether a URL is one that keys may come from: https, or http of this machine.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<String, String> {
    let wrong = || format!("{:?} is no URL such as https://issuer.example", methods::plain(url));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(url.to_owned()),
        Some("http") if own => Ok(url.to_owned()),
        Some("http") => Err("must be https: anybody on the way could change the keys".to_owned()),
        _ => Err(wrong()),
    }
}

/// OpenID Connect Discovery 1.0 §3, as much as is needed.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    at: Instant,
}

/// Why a token gives no caller.
pub enum Refused {
    /// It is not believed.
    Token(String),
    /// It is, but its owner may not do anything here.
    NoRole(Caller, String),
}

/// Checks tokens of one issuer.
pub struct Oidc {
    /// What it was made from.
    pub settings: Settings,
    rules: Rules,
    tls: Arc<ClientConfig>,
    known: RwLock<Option<Known>>,
    /// When keys were last asked for, and what went wrong. Held while they are, so
    /// that those who need the answer wait for it.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Oidc {
    /// Asks for nothing yet.
    ///
    /// # Errors
    /// What is wrong with `oidc.caFile`.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let tls = fetch::tls(settings.ca_file.as_deref());
        let rules = Rules {
            issuer: settings.issuer.clone(),
            audiences: vec![settings.audience.clone()],
            algorithms: settings.algorithms.clone(),
            clock_skew: SKEW,
            max_age: None,
        };
        Ok(Self {
            tls: tls.map_err(|error| format!("oidc.caFile: {error}"))?,
            rules,
            settings,
            known: RwLock::default(),
            last: tokio::sync::Mutex::default(),
        })
    }

    /// Whether a text says to be a token of this issuer.
    #[must_use]
    pub fn is_own(&self, text: &str) -> bool {
        Token::parse(text).is_ok_and(|token| token.issuer() == Some(&self.settings.issuer))
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn caller(self: &Arc<Self>, text: &str) -> Result<Caller, Refused> {
        let wrong = |error: TokenError| Refused::Token(error.to_string());
        let asked = Instant::now();
        let known = match self.known() {
            Some(known) => {
                if known.at.elapsed() > STALE {
                    let own = self.clone();
                    tokio::spawn(async move { own.refresh(asked).await });
                }
                known
            }
            None => self.fetched(asked).await.map_err(Refused::Token)?,
        };
        let now = u64::try_from(text::unix_seconds()).unwrap_or(0);
        let check = |keys: &KeySet| verify(Token::parse(text)?, &self.rules, keys, now);
        let claims = match check(&known.keys) {
            // The issuer may have changed its keys.
            Err(TokenError::UnknownKey) => {
                let newer = self.fetched(asked).await.map_err(Refused::Token)?;
                check(&newer.keys).map_err(wrong)?
            }
            checked => checked.map_err(wrong)?,
        };
        self.granted(&claims)
    }

    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetched(self: &Arc<Self>, asked: Instant) -> Result<Known, String> {
        // A task of its own: a caller that goes away must not lose it for the others.
        let own = self.clone();
        let refreshed = tokio::spawn(async move { own.refresh(asked).await }).await;
        let refreshed = refreshed.map_err(|lost| lost.to_string()).flatten();
        self.known().ok_or_else(|| {
            let why = refreshed.err().unwrap_or_default();
            format!("the keys of {} are not known: {why}", self.settings.issuer)
        })
    }

    /// Fetches keys, unless somebody did after `asked`, or a moment ago.
    async fn refresh(&self, asked: Instant) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && (*at >= asked || at.elapsed() < BETWEEN)
        {
            return result.clone();
        }
        let at = Instant::now();
        let result = self.keys().await.map(|keys| {
            let known = Known { keys: Arc::new(keys), at };
            *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        });
        if let Err(error) = &result {
            tracing::warn!(error, "the keys of the OIDC issuer cannot be had");
        }
        *last = Some((at, result.clone()));
        result
    }

    async fn keys(&self) -> Result<KeySet, String> {
        let uri = match &self.settings.jwks_uri {
            Some(uri) => uri.clone(),
            None => self.discover().await?,
        };
        let document = fetch::get(&uri, &self.tls).await?;
        KeySet::parse(&document).map_err(|error| format!("{uri}: {error}"))
    }

    async fn discover(&self) -> Result<String, String> {
        let issuer = &*self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = fetch::get(&url, &self.tls).await?;
        let found: Discovered =
            serde_json::from_slice(&document).map_err(|error| format!("{url}: {error}"))?;
        if found.issuer != issuer {
            let other = methods::plain(&found.issuer);
            return Err(format!("{url}: is of issuer {other:?}, not of {issuer:?}"));
        }
        check_url(&found.jwks_uri).map_err(|why| format!("{url}: jwks_uri {why}"))
    }

    fn granted(&self, claims: &Map<String, Value>) -> Result<Caller, Refused> {
        let Settings { name: claim, prefix, roles, .. } = &self.settings;
        let name = claims.get(claim).and_then(Value::as_str).unwrap_or_default().trim();
        let name = methods::plain(name);
        if name.is_empty() {
            return Err(Refused::Token(format!("the token has no claim {claim:?} with a name")));
        }
        // OpenID Connect Core 1.0 §5.7: nobody may be known by an address of others.
        if claim == "email" && claims.get("email_verified") == Some(&Value::Bool(false)) {
            return Err(Refused::Token("the token's e-mail address is not verified".to_owned()));
        }
        let fits = |mapping: &&Mapping| match claims.get(&mapping.claim) {
            Some(Value::String(text)) => *text == mapping.value,
            Some(Value::Array(list)) => list.iter().any(|v| v.as_str() == Some(&mapping.value)),
            _ => false,
        };
        let fitting: Vec<_> = roles.iter().filter(fits).collect();
        let mut caller = Caller {
            name: format!("{prefix}{name}"),
            method: Method::Oidc,
            role: Role::Viewer,
            services: None,
            on_behalf_of: None,
        };
        let Some(role) = fitting.iter().map(|mapping| mapping.role).max() else {
            let why =
                "no claim of its token is in oidc.claims.roles of the control plane's --access";
            return Err(Refused::NoRole(caller, why.to_owned()));
        };
        caller.role = role;
        let lists = fitting.iter().filter(|mapping| mapping.role == role);
        let lists: Option<Vec<_>> = lists.map(|mapping| mapping.services.clone()).collect();
        caller.services = lists.map(|lists| lists.concat());
        Ok(caller)
    }
}
