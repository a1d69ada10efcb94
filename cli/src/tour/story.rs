//! What a user does, what a stranger cannot, and what is left to see of it.

use std::time::Instant;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_proto::weir::control::v1::{GetTraceRequest, Trace, TraceSpan};

use super::{DEADLINE, PATH, POLL, Tour, ensure, say};
use crate::Error;
use crate::http_client::{Answer, HttpClient};
use crate::trace_tree;
use crate::up::spawn::Role;

/// An account that the tour made.
pub struct Account {
    email: String,
    password: String,
    trace_id: String,
}

/// The hops of a registration, each within the one before: service, span kind.
/// The two server spans of a service are its router's and its own.
const TO_USERS: [Hop; 7] = [
    ("gateway", "server"),
    ("gateway", "client"),
    ("auth", "server"),
    ("auth", "server"),
    ("auth", "client"),
    ("users", "server"),
    ("users", "server"),
];

/// The other branch, which begins where auth makes its second call.
const TO_NOTIFICATIONS: [Hop; 4] = [
    ("auth", "server"),
    ("auth", "client"),
    ("notifications", "server"),
    ("notifications", "server"),
];

type Hop = (&'static str, &'static str);

impl Tour<'_> {
    /// Speaks plain HTTP to a port where only mutual TLS is spoken.
    pub(super) async fn plaintext_is_refused(&mut self) -> Result<(), Error> {
        let states = self.running.supervisor.states();
        let (name, inbound) = states
            .iter()
            .filter(|state| state.role == Role::Sidecar)
            .find_map(|state| Some((&state.name, state.addresses.get("inbound")?)))
            .ok_or_else(|| Error::new("there is no router beside an application"))?;
        let mut answer = Vec::new();
        let talk = async {
            let mut stream = TcpStream::connect(inbound).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: products\r\n\r\n").await?;
            stream.read_to_end(&mut answer).await
        };
        let ended = tokio::time::timeout(DEADLINE, talk).await;
        ensure(ended.is_ok(), || format!("{name} kept a plaintext connection open"))?;
        // A TLS alert (RFC 8446 §6) may come, but no HTTP.
        ensure(!answer.starts_with(b"HTTP/"), || {
            format!("{name} answered plaintext: {}", String::from_utf8_lossy(&answer))
        })?;
        say(&format!("{name} at {inbound} closed it after {} bytes, none of HTTP", answer.len()));
        Ok(())
    }

    /// Registers, logs in, lists products.
    pub(super) async fn a_user_comes(&mut self) -> Result<(), Error> {
        let mut http = HttpClient::new(self.running.gateway);
        let unique = format!("{:016x}", fastrand::u64(..));
        let email = format!("tour-{unique}@example.com");
        let password = format!("password-{unique}");
        let trace_id = format!("{:032x}", fastrand::u128(1..));
        let traceparent = format!("00-{trace_id}-{:016x}-01", fastrand::u64(1..));

        let body = json!({"email": email, "password": password, "displayName": "Tour"});
        let headers = [("traceparent", traceparent.as_str())];
        let began = Instant::now();
        let answer = post(&mut http, "/v1/auth/register", &headers, &body).await?;
        let user = answer.json()["userId"].as_str().unwrap_or_default().to_owned();
        ensure(!user.is_empty(), || "registering gave no userId".into())?;
        say(&format!("registered user {user} in {}", ms(began)));

        let body = json!({"email": email, "password": password});
        let began = Instant::now();
        let answer = post(&mut http, "/v1/auth/login", &[], &body).await?;
        let token = answer.json()["accessToken"].as_str().unwrap_or_default().to_owned();
        ensure(token.split('.').count() == 3, || "logging in gave no access token".into())?;
        say(&format!("logged in in {}", ms(began)));

        let bearer = format!("Bearer {token}");
        let me = http
            .send(Method::GET, "/v1/users/me", &[("authorization", &bearer)], None)
            .await
            .map_err(|error| Error::new(format!("GET /v1/users/me: {error}")))?;
        expect_ok("GET /v1/users/me", &me)?;
        ensure(me.json()["email"] == json!(email), || "the profile is another's".into())?;

        let began = Instant::now();
        let answer =
            http.get(PATH).await.map_err(|error| Error::new(format!("GET {PATH}: {error}")))?;
        expect_ok(&format!("GET {PATH}"), &answer)?;
        let count = answer.json()["products"].as_array().map_or(0, Vec::len);
        ensure(count > 0, || "the catalogue is empty".into())?;
        let version = answer.header("x-weir-version");
        say(&format!("listed {count} products, served by {version}, in {}", ms(began)));
        self.account = Some(Account { email, password, trace_id });
        Ok(())
    }

    /// Draws the trace of the registration and asserts all its hops.
    pub(super) async fn a_trace_is_whole(&mut self) -> Result<(), Error> {
        let account =
            self.account.take().ok_or_else(|| Error::new("there is no registration to trace"))?;
        // The control plane keeps traces in memory and was killed on the way,
        // so this is a second registration: of an account that exists.
        let mut http = HttpClient::new(self.running.gateway);
        let trace_id = format!("{:032x}", fastrand::u128(1..));
        ensure(trace_id != account.trace_id, || "two traces have one id".into())?;
        let traceparent = format!("00-{trace_id}-{:016x}-01", fastrand::u64(1..));
        let body = json!({
            "email": format!("again-{}", account.email), "password": account.password
        });
        let headers = [("traceparent", traceparent.as_str())];
        post(&mut http, "/v1/auth/register", &headers, &body).await?;
        let trace = self.wait_trace(&trace_id).await?;
        for line in trace_tree::draw(&trace).lines() {
            say(line);
        }
        Ok(())
    }

    async fn wait_trace(&mut self, trace_id: &str) -> Result<Trace, Error> {
        let began = Instant::now();
        loop {
            let request = GetTraceRequest { trace_id: trace_id.to_owned() };
            let trace = match self.running.client.get_trace(request).await {
                Ok(trace) => trace.into_inner(),
                // Spans are sent in batches: it may not be there yet.
                Err(status) if status.code() == tonic::Code::NotFound => Trace::default(),
                Err(status) => return Err(status.into()),
            };
            if has_hops(&trace, &TO_USERS) && has_hops(&trace, &TO_NOTIFICATIONS) {
                return Ok(trace);
            }
            if began.elapsed() > DEADLINE {
                return Err(Error::new(format!(
                    "trace {trace_id} lacks hops of {TO_USERS:?} or {TO_NOTIFICATIONS:?}"
                ))
                .with(trace_tree::draw(&trace).lines().map(str::to_owned)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether some span's ancestors, from the root on, hold all hops in order.
fn has_hops(trace: &Trace, hops: &[Hop]) -> bool {
    trace.spans.iter().any(|span| {
        let mut line = lineage(trace, span).into_iter();
        hops.iter().all(|hop| line.any(|span| (span.service.as_str(), span.kind.as_str()) == *hop))
    })
}

fn lineage<'a>(trace: &'a Trace, span: &'a TraceSpan) -> Vec<&'a TraceSpan> {
    let mut line = vec![span];
    while let Some(parent) = trace
        .spans
        .iter()
        .find(|other| Some(&other.span_id) == line.last().map(|last| &last.parent_span_id))
        .filter(|_| line.len() <= trace.spans.len())
    {
        line.push(parent);
    }
    line.reverse();
    line
}

async fn post(
    http: &mut HttpClient,
    path: &str,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
) -> Result<Answer, Error> {
    let answer = http
        .send(Method::POST, path, headers, Some(body))
        .await
        .map_err(|error| Error::new(format!("POST {path}: {error}")))?;
    expect_ok(&format!("POST {path}"), &answer)?;
    Ok(answer)
}

fn expect_ok(what: &str, answer: &Answer) -> Result<(), Error> {
    ensure(answer.status == StatusCode::OK, || {
        let body: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        format!("{what}: {} {body}", answer.status)
    })
}

fn ms(began: Instant) -> String {
    format!("{:.1} ms", began.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPS: [Hop; 7] = TO_USERS;

    fn chain(hops: &[(&str, &str)]) -> Trace {
        let span = |(i, hop): (usize, &(&str, &str))| TraceSpan {
            span_id: format!("{}", i + 1),
            parent_span_id: format!("{i}"),
            service: hop.0.into(),
            kind: hop.1.into(),
            ..TraceSpan::default()
        };
        Trace { trace_id: "t".into(), spans: hops.iter().enumerate().map(span).collect() }
    }

    #[test]
    fn hops_are_in_order_and_none_is_missing() {
        assert!(has_hops(&chain(&HOPS), &HOPS));
        for gone in 0..HOPS.len() {
            let mut hops = HOPS.to_vec();
            hops.remove(gone);
            assert!(!has_hops(&chain(&hops), &HOPS), "{gone}");
        }
        let mut hops = HOPS.to_vec();
        hops.reverse();
        assert!(!has_hops(&chain(&hops), &HOPS));
    }
}
