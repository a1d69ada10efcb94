//! Somebody else who is asked over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::read::Reader;
use crate::policy::value::DurationText;

/// How long an answer may take unless the document says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most headers of a webhook.
const MAX_HEADERS: usize = 16;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WebhookDocument {
    /// `http://` or `https://`. The control plane asks: it must be reachable from
    /// there.
    pub(super) url: String,
    /// How long an answer may take: 100ms to 1m. Default 10s.
    pub(super) timeout: Option<DurationText>,
    /// Sent with it. They are kept in the history as they are written here.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let why = "is not a URL; write one such as http://checks.example:8080/canary";
        let uri: Uri = text.parse().map_err(|_| why.to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(why.to_owned());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("has a user or password in it; send a header instead".to_owned());
        }
        Ok(Self(uri))
    }

    /// All of it.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Without its query, which may hold a secret: for logs and messages.
    #[must_use]
    pub fn place(&self) -> String {
        let scheme = self.0.scheme_str().unwrap_or("http");
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{}", self.0.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// Headers of a request, whose values are not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name.as_str())).finish()
    }
}

/// Somebody who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub url: Url,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Sent with it.
    pub headers: Headers,
}

pub(super) fn read(document: &WebhookDocument, reader: &mut Reader<'_>) -> Option<Webhook> {
    let url = reader.take("url", Url::parse(&document.url));
    let timeout = timeout(document.timeout, reader);
    let headers = headers(&document.headers, reader);
    Some(Webhook { url: url?, timeout, headers: headers? })
}

pub(super) fn timeout(sent: Option<DurationText>, reader: &mut Reader<'_>) -> Duration {
    reader.time("timeout", sent, TIMEOUT, (Duration::from_millis(100), Duration::from_secs(60)))
}

/// Headers by name; none only after noting why.
pub(super) fn headers(sent: &BTreeMap<String, String>, reader: &mut Reader<'_>) -> Option<Headers> {
    if sent.len() > MAX_HEADERS {
        let count = sent.len();
        reader.bad("headers", format_args!("has {count} headers; at most {MAX_HEADERS}"));
        return None;
    }
    let mut read = Vec::with_capacity(sent.len());
    for (name, value) in sent {
        let field = format!("headers.{name}");
        let name = reader.take(&field, name.parse::<HeaderName>());
        let value = reader.take(&field, value.parse::<HeaderValue>().map_err(|_| "is not text"));
        read.extend(name.zip(value));
    }
    (read.len() == sent.len()).then_some(Headers(read))
}
