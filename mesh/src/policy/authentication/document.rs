//! The document, and its way into what routers see.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri, header};
use serde::Deserialize;

use super::{ActiveUser, Authentication, Issuer, Keys};
use crate::model::Violations;
use crate::policy::value::DurationText;
use crate::token::{Algorithm, KeySet, Rules};

const MAX: usize = 16;
const CLOCK_SKEW: Duration = Duration::from_secs(30);
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
const MAX_TOKEN_AGE: Duration = Duration::from_secs(300);

/// The spec of an AuthenticationPolicy: JSON Web Tokens (RFC 7519) as
/// `Authorization: Bearer` (RFC 6750).
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationDocument {
    /// Whose tokens are believed.
    issuers: Vec<IssuerDocument>,
    /// Whether there must be a token; else only one that is not valid is refused.
    #[serde(default)]
    required: bool,
    /// A cookie that may hold the token.
    #[serde(default)]
    cookie: Option<String>,
    /// Asks whether the token's subject still is a user.
    #[serde(default)]
    active_user: Option<ActiveUserDocument>,
}

/// Whose tokens are believed, and which of them.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerDocument {
    /// `iss`.
    issuer: String,
    /// Where the public keys are.
    jwks: JwksDocument,
    /// One of these must be in `aud`.
    audiences: Vec<String>,
    /// One of these must be `alg`; all that sign with a private key, if not set.
    #[serde(default)]
    algorithms: Option<Vec<String>>,
    /// How far clocks may differ: 30s by default, 5m at most.
    #[serde(default)]
    clock_skew: Option<DurationText>,
    /// Since `iat`: 5m by default; 0s does not ask for `iat`.
    #[serde(default)]
    max_token_age: Option<DurationText>,
    /// Headers that the upstream gets, from claims.
    #[serde(default)]
    claims_to_headers: Vec<ClaimDocument>,
    /// Whether the upstream gets the token; true if not set.
    #[serde(default)]
    forward: Option<bool>,
}

/// One of these.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JwksDocument {
    /// `http://...`; a host that is a service of the mesh is asked by mutual TLS.
    uri: Option<String>,
    /// The JSON Web Key Set itself, as text.
    inline: Option<String>,
    /// A service that speaks `weir.auth.v1.AuthService`.
    service: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimDocument {
    /// With dots, of claims within claims.
    claim: String,
    /// Copies of it that a client sends are removed.
    header: String,
}

/// Asks whether the token's subject still is a user.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActiveUserDocument {
    /// A service that speaks `weir.users.v1.UsersService`.
    service: String,
    /// How long an answer holds: 5 by default.
    #[serde(default)]
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 300)))]
    cache_seconds: Option<u32>,
}

pub(super) fn read(
    document: AuthenticationDocument,
    at: &str,
    bad: &mut Violations,
) -> Option<Authentication> {
    let mut issuers: Vec<Issuer> = Vec::new();
    let count = document.issuers.len();
    if count == 0 || count > MAX {
        bad.add(format!("{at}.issuers"), format_args!("must have 1 to {MAX} entries"));
    }
    for (i, sent) in document.issuers.into_iter().take(MAX).enumerate() {
        let at = format!("{at}.issuers[{i}]");
        if issuers.iter().any(|other| *other.rules.issuer == *sent.issuer) {
            bad.add(format!("{at}.issuer"), format_args!("{:?} is here twice", sent.issuer));
        }
        issuers.extend(issuer(sent, &at, bad));
    }
    if let Some(name) = &document.cookie
        && (name.is_empty() || name.len() > 256 || HeaderName::from_bytes(name.as_bytes()).is_err())
    {
        bad.add(
            format!("{at}.cookie"),
            format_args!("{name:?} is no cookie name (RFC 6265 §4.1.1)"),
        );
    }
    let active_user = document.active_user.and_then(|sent| {
        let at = format!("{at}.activeUser");
        let seconds = sent.cache_seconds.unwrap_or(5);
        if !(1..=300).contains(&seconds) {
            bad.add(format!("{at}.cacheSeconds"), "must be from 1 to 300");
        }
        let service = bad.take(&format!("{at}.service"), sent.service.parse())?;
        Some(ActiveUser { service, cache: Duration::from_secs(seconds.into()) })
    });
    Some(Authentication {
        issuers,
        required: document.required,
        cookie: document.cookie.map(Into::into),
        active_user,
    })
}

fn issuer(sent: IssuerDocument, at: &str, bad: &mut Violations) -> Option<Issuer> {
    if sent.issuer.is_empty() || sent.issuer.len() > 2048 {
        bad.add(format!("{at}.issuer"), "must have 1 to 2048 characters");
    }
    if sent.audiences.is_empty() || sent.audiences.len() > MAX {
        let why = "must have 1 to 16 entries: tokens for others must not be good here";
        bad.add(format!("{at}.audiences"), why);
    }
    let algorithms = match sent.algorithms {
        None => Algorithm::ALL.to_vec(),
        Some(names) => {
            if names.is_empty() {
                bad.add(format!("{at}.algorithms"), "is empty; leave it out for all safe ones");
            }
            let read = |(i, name): (usize, &String)| {
                bad.take(&format!("{at}.algorithms[{i}]"), name.parse::<Algorithm>())
            };
            names.iter().enumerate().filter_map(read).collect()
        }
    };
    let clock_skew = sent.clock_skew.map_or(CLOCK_SKEW, |text| text.0);
    if clock_skew > MAX_CLOCK_SKEW {
        bad.add(format!("{at}.clockSkew"), "is longer than 5m; set the clocks instead");
    }
    let max_age = sent.max_token_age.map_or(MAX_TOKEN_AGE, |text| text.0);
    let mut claims_to_headers = Vec::new();
    for (i, sent) in sent.claims_to_headers.iter().enumerate() {
        let at = format!("{at}.claimsToHeaders[{i}]");
        if sent.claim.is_empty() || sent.claim.len() > 256 {
            bad.add(format!("{at}.claim"), "must have 1 to 256 characters");
        }
        claims_to_headers.extend(claim_header(&sent.header, &format!("{at}.header"), bad).map(
            |name| {
                let claim: Arc<str> = sent.claim.as_str().into();
                (claim, name)
            },
        ));
    }
    Some(Issuer {
        keys: keys(sent.jwks, &format!("{at}.jwks"), bad)?,
        rules: Rules {
            issuer: sent.issuer.into(),
            audiences: sent.audiences.into_iter().map(Into::into).collect(),
            algorithms,
            clock_skew,
            max_age: (!max_age.is_zero()).then_some(max_age),
        },
        claims_to_headers,
        forward: sent.forward.unwrap_or(true),
    })
}

/// Headers that mean something else already must not be taken over.
fn claim_header(text: &str, at: &str, bad: &mut Violations) -> Option<HeaderName> {
    let name = bad
        .take(at, text.parse::<HeaderName>().map_err(|_| format!("{text:?} is no header name")))?;
    let taken = [
        header::AUTHORIZATION,
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::COOKIE,
    ];
    let text = name.as_str();
    if taken.contains(&name)
        || ["grpc-", "x-forwarded-", "traceparent"].iter().any(|start| text.starts_with(start))
    {
        bad.add(at, format_args!("{text:?} means something else; use a name like x-user"));
        return None;
    }
    Some(name)
}

fn keys(sent: JwksDocument, at: &str, bad: &mut Violations) -> Option<Keys> {
    match (sent.uri, sent.inline, sent.service) {
        (Some(uri), None, None) => uri_of(&uri, &format!("{at}.uri"), bad).map(Keys::Uri),
        (None, Some(text), None) => {
            let set = bad.take(&format!("{at}.inline"), KeySet::parse(text.as_bytes()))?;
            Some(Keys::Inline(Arc::new(set)))
        }
        (None, None, Some(name)) => {
            bad.take(&format!("{at}.service"), name.parse()).map(Keys::Service)
        }
        _ => {
            bad.add(at, "must have one of uri, inline and service");
            None
        }
    }
}

fn uri_of(text: &str, at: &str, bad: &mut Violations) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    let Some(uri) = uri else {
        bad.add(
            at,
            format_args!("{text:?} is no URL; use one like http://auth/.well-known/jwks.json"),
        );
        return None;
    };
    match uri.scheme_str() {
        Some("http") => Some(uri),
        Some("https") => {
            let why = "is https, which routers do not speak to the outside: bring the keys into \
                       the mesh (a service that fetches them, http://NAME/...), or put them into \
                       inline";
            bad.add(at, why);
            None
        }
        _ => {
            bad.add(at, format_args!("{text:?} is no http URL"));
            None
        }
    }
}
