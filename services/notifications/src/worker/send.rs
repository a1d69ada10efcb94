//! One attempt to send one webhook, over HTTP/1.1 without TLS.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use prost_types::Timestamp;
use serde_json::json;
use tokio::net::TcpStream;

use crate::notification::Notification;
use crate::store::now;
use crate::webhook::{Secret, WebhookUrl, is_public};

/// Why an attempt failed. The text holds nothing of the URL but its host.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: String,
    /// Trying again would be in vain.
    pub(super) permanent: bool,
    /// What the receiver asked for.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: false, retry_after: None }
    }

    fn permanent(error: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::new(error) }
    }
}

/// Sends and waits for the answer's status: 2xx is success. Redirects are not
/// followed, as they could lead to where webhooks must not go.
pub(super) async fn send(
    notification: &Notification,
    secret: &Secret,
    private: bool,
) -> Result<(), Failure> {
    let Some(url) = &notification.draft.webhook else {
        return Err(Failure::permanent("the notification has no webhook"));
    };
    let stream = connect(url, private).await?;
    let request = request(notification, url, secret)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::new(format!("HTTP: {error}")))?;
    // Polled here rather than spawned, so that it ends with the attempt.
    let answer = async { sender.send_request(request).await };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = &mut connection => answer.await,
    };
    let response = response.map_err(|error| Failure::new(format!("HTTP: {error}")))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let error = format!("the receiver answered {}", status.as_u16());
    if status == StatusCode::GONE {
        return Err(Failure::permanent(format!("{error}: it wants no more webhooks")));
    }
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
    let retry_after = retry_after.and_then(|v| v.parse().ok()).map(Duration::from_secs);
    Err(Failure { retry_after, ..Failure::new(error) })
}

/// Resolves once, judges every address, and connects to just these: a name
/// that resolves to something else a moment later gains nothing.
async fn connect(url: &WebhookUrl, private: bool) -> Result<TcpStream, Failure> {
    let host = url.host();
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, url.port()))
        .await
        .map_err(|error| Failure::new(format!("{host} cannot be resolved: {error}")))?
        .collect();
    let allowed: Vec<_> =
        addresses.iter().filter(|address| private || is_public(address.ip())).collect();
    if allowed.is_empty() && !addresses.is_empty() {
        return Err(Failure::permanent(format!("{host} has no public address")));
    }
    let mut last = Failure::new(format!("{host} has no address"));
    for address in allowed {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Failure::new(format!("{host} cannot be connected to: {error}")),
        }
    }
    Err(last)
}

/// The message as Standard Webhooks 1.0.0 has it. `webhook-id` is the same at
/// each attempt: receivers tell by it what they have had already.
fn request(
    notification: &Notification,
    url: &WebhookUrl,
    secret: &Secret,
) -> Result<Request<Full<Bytes>>, Failure> {
    let micros = notification.create_time;
    let created = Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    };
    let id = notification.id.to_string();
    let body = json!({
        "type": notification.draft.kind.as_str(),
        "timestamp": created.to_string(),
        "data": {
            "notificationId": id,
            "userId": notification.draft.user.as_str(),
            "title": notification.draft.title.as_str(),
            "body": notification.draft.body.as_str(),
        },
    });
    let body = body.to_string();
    let timestamp = now() / 1_000_000;
    Request::post(url.path_and_query())
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, concat!("weir-notifications/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header("idempotency-key", &id)
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", secret.sign(&id, timestamp, body.as_bytes()))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::permanent(format!("the request cannot be made: {error}")))
}
