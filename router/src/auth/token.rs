//! Whose request it is, by the token that it has.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header, request};
use serde_json::{Map, Value};
use weir_mesh::policy::authentication::{Issuer, Keys};
use weir_mesh::token::{Token, TokenError, verify};

use super::claims::{self, VerifiedClaims};
use super::denial::Unauthenticated;
use super::guard::Tokens;
use crate::error::RouterError;
use crate::request::call::Call;
use crate::worker::Worker;

/// The claims of a request's token, if it has one and must not have. Headers of
/// claims are set, and the token removed where it is not to be passed on.
///
/// # Errors
/// [`RouterError::Unauthenticated`].
pub(super) async fn check(
    worker: &Rc<Worker>,
    tokens: &Tokens,
    required: bool,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<Option<VerifiedClaims>, RouterError> {
    let cookie = tokens.policy.cookie.as_deref();
    let Some((text, place)) = find(&parts.headers, cookie, required)? else {
        if !required {
            return Ok(None);
        }
        let text = "no token: send Authorization: Bearer TOKEN".to_owned();
        return Err(Unauthenticated { reason: "missing", text, sent: false }.into());
    };
    let (issuer, claims) = verified(worker, tokens, &text).await?;
    if let Some(active) = &tokens.active {
        let holds = tokens.policy.active_user.as_ref().map(|asked| asked.cache).unwrap_or_default();
        active.check(worker, &claims, holds).await?;
    }
    for (claim, name) in &issuer.claims_to_headers {
        if let Some(value) = claims::find(&claims, claim).and_then(header_value) {
            parts.headers.insert(name, value);
        }
    }
    if !issuer.forward && place == Place::Header {
        parts.headers.remove(header::AUTHORIZATION);
    }
    call.explain("enduser.id", claims.get("sub").and_then(claims::text).unwrap_or_default().into());
    Ok(Some(VerifiedClaims(Arc::new(claims))))
}

async fn verified<'a>(
    worker: &Rc<Worker>,
    tokens: &'a Tokens,
    text: &str,
) -> Result<(&'a Issuer, Map<String, Value>), RouterError> {
    let token = Token::parse(text).map_err(refused)?;
    let issuers = tokens.policy.issuers.iter().zip(&tokens.keys);
    let named = |(issuer, _): &(&Issuer, _)| token.issuer() == Some(&issuer.rules.issuer);
    let (issuer, cached) =
        issuers.into_iter().find(named).ok_or_else(|| refused(TokenError::Issuer))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let cached = match (&issuer.keys, cached) {
        (Keys::Inline(keys), _) => {
            let claims = verify(token, &issuer.rules, keys, now).map_err(refused)?;
            return Ok((issuer, claims));
        }
        (_, Some(cached)) => cached,
        (_, None) => return Err(refused(TokenError::UnknownKey)),
    };
    let keys = cached.get(worker).await.ok_or_else(no_keys)?;
    match verify(token, &issuer.rules, &keys, now) {
        Ok(claims) => Ok((issuer, claims)),
        // A key that is newer than what we have.
        Err(TokenError::UnknownKey) => {
            let keys = cached.again(worker).await.ok_or_else(no_keys)?;
            let token = Token::parse(text).map_err(refused)?;
            let claims = verify(token, &issuer.rules, &keys, now).map_err(refused)?;
            Ok((issuer, claims))
        }
        Err(error) => Err(refused(error)),
    }
}

/// Never 500: who somebody is cannot be told without keys.
fn no_keys() -> RouterError {
    let text = "the keys of the token's issuer cannot be fetched right now".to_owned();
    Unauthenticated { reason: "no_keys", text, sent: true }.into()
}

fn refused(error: TokenError) -> RouterError {
    let reason = match error {
        TokenError::Expired | TokenError::Old => "expired",
        TokenError::NotYet => "not_yet",
        TokenError::Issuer | TokenError::Audience => "foreign",
        TokenError::UnknownKey | TokenError::Signature => "signature",
        TokenError::Algorithm | TokenError::Header(_) => "algorithm",
        TokenError::Long | TokenError::Malformed | TokenError::Claim(_) => "malformed",
    };
    Unauthenticated { reason, text: error.to_string(), sent: true }.into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Cookie,
}

/// The one token of a request.
fn find(
    headers: &HeaderMap,
    cookie: Option<&str>,
    required: bool,
) -> Result<Option<(String, Place)>, RouterError> {
    let wrong = |text: &str| {
        let text = text.to_owned();
        RouterError::from(Unauthenticated { reason: "malformed", text, sent: true })
    };
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(value) = sent.next() {
        if sent.next().is_some() {
            return Err(wrong("more than one Authorization header"));
        }
        let text = value.to_str().map_err(|_| wrong("the Authorization header is not ASCII"))?;
        let bearer =
            text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if let Some((_, token)) = bearer {
            return Ok(Some((token.trim().to_owned(), Place::Header)));
        }
        if text.eq_ignore_ascii_case("bearer") {
            return Err(wrong("the Authorization header has no token"));
        }
        if required && cookie.is_none() {
            return Err(wrong("the Authorization header is not of the form Bearer TOKEN"));
        }
    }
    let Some(name) = cookie else { return Ok(None) };
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';'));
    let mut tokens = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => Ok(Some((token, Place::Cookie))),
        (Some(_), Some(_)) => Err(wrong("more than one cookie with a token")),
    }
}

/// A list as its entries with commas; what holds others is left out.
fn header_value(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Array(list) => {
            let texts: Option<Vec<_>> = list.iter().map(claims::text).collect();
            texts?.join(",").into()
        }
        value => claims::text(value)?,
    };
    HeaderValue::from_str(&text).ok()
}
