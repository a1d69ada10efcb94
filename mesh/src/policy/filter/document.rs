//! A HTTPRouteFilter's spec as it is written.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{
    Abort, AbortWith, BodyLimits, Compression, Delay, DirectResponse, Fault, Filter, Share,
};
use crate::duration;
use crate::model::Violations;
use crate::policy::value::DurationText;

/// Of a direct response's body.
const BODY: usize = 4096;
const HOUR: Duration = Duration::from_secs(3600);
/// What is larger no header could say exactly, and no one means.
const LARGEST: u64 = 1 << 40;
const MIN_BYTES: u64 = 1024;
const COMPRESSIBLE: [&str; 7] = [
    "text/*",
    "application/json",
    "application/x-ndjson",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];

/// The spec of a HTTPRouteFilter. It has one of these at least.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterDocument {
    /// Harm done on purpose, to see what callers do.
    fault: Option<FaultDocument>,
    /// The router answers itself; nothing is asked.
    direct_response: Option<DirectResponseDocument>,
    /// How large bodies may be.
    limits: Option<LimitsDocument>,
    /// Answers become smaller on the way to the client.
    compression: Option<CompressionDocument>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FaultDocument {
    /// Requests wait before they go on.
    delay: Option<DelayDocument>,
    /// Requests are answered with an error.
    abort: Option<AbortDocument>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DelayDocument {
    /// How long: 1ms to 1h.
    duration: DurationText,
    /// How many requests, in steps of 0.0001; 100 when it is left out.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 0, max = 100)))]
    percentage: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AbortDocument {
    /// The HTTP status. One of `httpStatus` and `grpcStatus`; clients of the
    /// other protocol get what corresponds.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 400, max = 599)))]
    http_status: Option<u16>,
    /// The gRPC status.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 16)))]
    grpc_status: Option<u8>,
    /// How many requests, in steps of 0.0001; 100 when it is left out.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 0, max = 100)))]
    percentage: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DirectResponseDocument {
    /// The HTTP status.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 200, max = 599)))]
    status: u16,
    /// Headers of the answer.
    #[serde(default)]
    #[cfg_attr(feature = "gateway-api", schemars(length(max = 16)))]
    headers: Vec<HeaderDocument>,
    /// Up to 4096 bytes.
    #[serde(default)]
    body: String,
    /// Of the body; `text/plain; charset=utf-8` when it is left out.
    content_type: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HeaderDocument {
    /// The header's name.
    name: String,
    /// Its value.
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitsDocument {
    /// Of a request's body: a larger one is refused.
    request_body_bytes: Option<u64>,
    /// Of an answer's body: a larger one is not passed on.
    response_body_bytes: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CompressionDocument {
    /// Codings, the preferred first; gzip when it is left out.
    types: Option<Vec<CodingWord>>,
    /// Answers that are known to be smaller stay as they are; 1024 when it is
    /// left out.
    min_bytes: Option<u64>,
    /// Media types; `text/*` is every one of its kind. Text, JSON, JavaScript,
    /// XML, SVG and WebAssembly when it is left out.
    content_types: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum CodingWord {
    /// RFC 1952.
    Gzip,
}

impl FilterDocument {
    /// None only after noting why.
    pub(super) fn read(self, at: &str, bad: &mut Violations) -> Option<Filter> {
        let nothing = self.fault.is_none()
            && self.direct_response.is_none()
            && self.limits.is_none()
            && self.compression.is_none();
        if nothing {
            let why = "says nothing; set fault, directResponse, limits or compression";
            bad.add(at, why);
            return None;
        }
        let fault = self.fault.map(|fault| fault.read(&format!("{at}.fault"), bad));
        let direct = format!("{at}.directResponse");
        let direct = self.direct_response.map(|answer| answer.read(&direct, bad));
        let limits = self.limits.map(|limits| limits.read(&format!("{at}.limits"), bad));
        let compression = format!("{at}.compression");
        let compression = self.compression.map(|wanted| wanted.read(&compression, bad));
        Some(Filter {
            fault: transpose(fault)?,
            direct_response: transpose(direct)?,
            limits: transpose(limits)?.unwrap_or_default(),
            compression: transpose(compression)?,
        })
    }
}

/// What was not said is none; what could not be read ends it.
fn transpose<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
    }
}

impl FaultDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<Fault> {
        if self.delay.is_none() && self.abort.is_none() {
            bad.add(at, "says nothing; set delay or abort");
            return None;
        }
        let delay = self.delay.map(|delay| delay.read(&format!("{at}.delay"), bad));
        let abort = self.abort.map(|abort| abort.read(&format!("{at}.abort"), bad));
        Some(Fault { delay: transpose(delay)?, abort: transpose(abort)? })
    }
}

fn share(percentage: Option<f64>, at: &str, bad: &mut Violations) -> Option<Share> {
    let Some(percentage) = percentage else { return Some(Share::ALL) };
    let share = Share::of_percentage(percentage);
    if share.is_none() {
        let why = format!("{percentage} is not from 0 to 100 in steps of 0.0001");
        bad.add(format!("{at}.percentage"), why);
    }
    share
}

impl DelayDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<Delay> {
        let duration = self.duration.0;
        if duration.is_zero() || duration > HOUR {
            let why = format!("{} is not from 1ms to 1h", duration::print(duration));
            bad.add(format!("{at}.duration"), why);
        }
        Some(Delay { duration, share: share(self.percentage, at, bad)? })
    }
}

impl AbortDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<Abort> {
        let with = match (self.http_status, self.grpc_status) {
            (Some(_), Some(_)) | (None, None) => {
                bad.add(at, "needs one of httpStatus and grpcStatus");
                return None;
            }
            (Some(status), None) => match StatusCode::from_u16(status) {
                Ok(code) if (400..600).contains(&status) => AbortWith::Http(code),
                _ => {
                    let why = format!("{status} is not from 400 to 599");
                    bad.add(format!("{at}.httpStatus"), why);
                    return None;
                }
            },
            (None, Some(code)) if (1..=16).contains(&code) => AbortWith::Grpc(code),
            (None, Some(code)) => {
                bad.add(format!("{at}.grpcStatus"), format_args!("{code} is not from 1 to 16"));
                return None;
            }
        };
        Some(Abort { with, share: share(self.percentage, at, bad)? })
    }
}

impl DirectResponseDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<DirectResponse> {
        let status = StatusCode::from_u16(self.status).ok().filter(|s| s.as_u16() >= 200);
        let status = status.filter(|s| s.as_u16() < 600);
        if status.is_none() {
            bad.add(format!("{at}.status"), format_args!("{} is not from 200 to 599", self.status));
        }
        let length = self.body.len();
        if length > BODY {
            let why = format!("has {length} bytes; at most {BODY} are possible");
            bad.add(format!("{at}.body"), why);
        }
        if length > 0 && matches!(self.status, 204 | 205 | 304) {
            let why = format!("an answer {} has none (RFC 9110)", self.status);
            bad.add(format!("{at}.body"), why);
        }
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        if length > 0 {
            let text = self.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
            let value = bad.take(&format!("{at}.contentType"), HeaderValue::from_str(text));
            headers.push(value.map(|value| (header::CONTENT_TYPE, value)));
        } else if self.content_type.is_some() {
            bad.add(format!("{at}.contentType"), "is not used: there is no body");
        }
        for (i, sent) in self.headers.into_iter().enumerate() {
            headers.push(sent.read(&format!("{at}.headers[{i}]"), bad));
        }
        let headers = headers.into_iter().collect::<Option<Vec<_>>>()?;
        Some(DirectResponse { status: status?, headers, body: self.body.into() })
    }
}

impl HeaderDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(self.name.as_bytes());
        let name = name.map_err(|_| format!("{:?} is no header name", self.name));
        let name = bad.take(&format!("{at}.name"), name);
        let value = bad.take(&format!("{at}.value"), HeaderValue::from_str(&self.value));
        let name = name?;
        let framing = [
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::TRAILER,
        ];
        if framing.contains(&name) {
            let why = "cannot be set here; the router sets it (contentType for content-type)";
            bad.add(format!("{at}.name"), why);
        }
        Some((name, value?))
    }
}

impl LimitsDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<BodyLimits> {
        if self.request_body_bytes.is_none() && self.response_body_bytes.is_none() {
            bad.add(at, "says nothing; set requestBodyBytes or responseBodyBytes");
            return None;
        }
        let both = [
            ("requestBodyBytes", self.request_body_bytes),
            ("responseBodyBytes", self.response_body_bytes),
        ];
        for (name, bytes) in both {
            if let Some(bytes) = bytes
                && bytes > LARGEST
            {
                bad.add(format!("{at}.{name}"), format_args!("{bytes} is above {LARGEST}"));
            }
        }
        Some(BodyLimits { request: self.request_body_bytes, response: self.response_body_bytes })
    }
}

impl CompressionDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<Compression> {
        if self.types.as_ref().is_some_and(Vec::is_empty) {
            bad.add(format!("{at}.types"), "is empty; leave it out for gzip");
        }
        let content_types: Vec<Arc<str>> = match self.content_types {
            None => COMPRESSIBLE.into_iter().map(Arc::from).collect(),
            Some(list) => list.into_iter().map(|text| text.to_ascii_lowercase().into()).collect(),
        };
        if content_types.is_empty() || content_types.len() > 64 {
            let why = format!("has {} entries; 1 to 64 are possible", content_types.len());
            bad.add(format!("{at}.contentTypes"), why);
        }
        for (i, media) in content_types.iter().enumerate() {
            let token = |part: &str| {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
                !part.is_empty() && part.bytes().all(fits)
            };
            let fits = media.len() <= 127
                && media
                    .split_once('/')
                    .is_some_and(|(kind, sub)| token(kind) && (sub == "*" || token(sub)));
            if !fits {
                let why = format!("{media:?} is no media type, such as text/html or text/*");
                bad.add(format!("{at}.contentTypes[{i}]"), why);
            }
        }
        Some(Compression { min_bytes: self.min_bytes.unwrap_or(MIN_BYTES), content_types })
    }
}
