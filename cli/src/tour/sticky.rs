//! A user who has met the canary does not go back while it grows.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use weir_proto::weir::mesh::v1 as pb;

use super::{PATH, Tour, ensure, say};
use crate::Error;
use crate::http_client::HttpClient;

const USERS: usize = 200;
/// Requests of each user at each weight.
const ASKED: usize = 3;
/// Users that ask at the same time.
const GROUPS: usize = 8;

impl Tour<'_> {
    /// 200 users ask again and again while the canary grows.
    pub(super) async fn users_stay(&mut self) -> Result<(), Error> {
        let sticky = || Some(pb::Sticky { by: Some(pb::sticky::By::User(true)) });
        let mut on: BTreeMap<usize, String> = BTreeMap::new();
        for canary in [10, 30, 60, 100] {
            self.shift([("v1", 100 - canary), ("v2", canary)], sticky()).await?;
            let now = ask_all(self.running.gateway).await?;
            for (user, version) in &now {
                let before = on.get(user).map_or("v1", String::as_str);
                ensure(before == "v1" || version == "v2", || {
                    format!("user {user} went back from {before} to {version} at v2={canary}")
                })?;
            }
            let met = now.values().filter(|version| *version == "v2").count();
            check_share(met, canary)?;
            say(&format!("v2={canary:<3} {met} of {USERS} users are on v2; none went back"));
            on = now;
        }
        self.shift([("v1", 100), ("v2", 0)], None).await?;
        Ok(())
    }
}

/// Users are points on a line, so their share is near the weight: within five
/// standard deviations of the binomial distribution.
fn check_share(met: usize, canary: i32) -> Result<(), Error> {
    let share = f64::from(canary) / 100.0;
    let users = USERS as f64;
    let deviation = (users * share * (1.0 - share)).sqrt();
    let off = (met as f64 - users * share).abs();
    ensure(off <= 5.0 * deviation, || {
        format!("{met} of {USERS} users are on v2; {canary}% are {}", users * share)
    })
}

/// The version that each user met. One who met two is an error.
async fn ask_all(gateway: SocketAddr) -> Result<BTreeMap<usize, String>, Error> {
    let group = |group: usize| {
        tokio::spawn(async move {
            let mut http = HttpClient::new(gateway);
            let mut met = Vec::new();
            for user in (group..USERS).step_by(GROUPS) {
                met.push((user, ask(&mut http, user).await?));
            }
            Ok::<_, Error>(met)
        })
    };
    let groups: Vec<_> = (0..GROUPS).map(group).collect();
    let mut all = BTreeMap::new();
    for group in groups {
        let met = group.await.map_err(|error| Error::new(error.to_string()))??;
        all.extend(met);
    }
    Ok(all)
}

async fn ask(http: &mut HttpClient, user: usize) -> Result<String, Error> {
    let bearer = format!("Bearer {}", token(user));
    let mut met: Option<String> = None;
    for _ in 0..ASKED {
        let answer = http
            .send(Method::GET, PATH, &[("authorization", &bearer)], None)
            .await
            .map_err(|error| Error::new(format!("user {user}: {error}")))?;
        ensure(answer.status == StatusCode::OK, || format!("user {user}: {}", answer.status))?;
        let version = answer.header("x-weir-version").to_owned();
        ensure(met.as_ref().is_none_or(|before| *before == version), || {
            format!("user {user} met {met:?} and {version} at one weight")
        })?;
        met = Some(version);
    }
    Ok(met.unwrap_or_default())
}

/// The form of a JWT (RFC 7519) with a `sub`. Its signature is none: routers
/// only pick a version by it, and products can be read by anyone.
fn token(user: usize) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(serde_json::json!({"alg": "ES256", "typ": "JWT"}));
    let claims = part(serde_json::json!({"sub": format!("tour-user-{user}")}));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0; 64]))
}
