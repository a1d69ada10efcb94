//! Workloads prove whose they are by a service-account token that Kubernetes signed
//! for this purpose alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;
use weir_mesh::identity::SpiffeId;

use super::cluster::{Cluster, ClusterError};
use super::mirror::Mirror;
use super::objects::Kind;
use crate::access::Reviews;
use crate::api::Attest;
use crate::registry::Role;

/// Whom a token must be for.
const AUDIENCE: &str = "weir";
/// Whom a token of a caller of the API must be for: no router's token is.
const API_AUDIENCE: &str = "weir-api";
/// How long an answer about a caller's token is believed.
const BELIEVED: Duration = Duration::from_secs(30);
/// Answers that are remembered.
const MAX_BELIEVED: usize = 1000;
/// Questions to the API server at once.
const REVIEWS: usize = 32;
/// How long a router waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Certificates of one pod in [`WINDOW`].
const MAX_SIGNATURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Where Kubernetes says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Identity by TokenReview.
pub struct Tokens {
    cluster: Cluster,
    mirror: Arc<Mirror>,
    trust_domain: Arc<str>,
    /// Namespace and name of the service accounts whose routers may be gateways.
    gateways: BTreeSet<(String, String)>,
    turns: Semaphore,
    /// By pod: when its window began, and how many certificates it got since.
    signatures: Mutex<BTreeMap<String, (Instant, u32)>>,
}

impl Tokens {
    /// Asks `cluster` about tokens, and `mirror` about pods.
    #[must_use]
    pub fn new(
        cluster: Cluster,
        mirror: Arc<Mirror>,
        trust_domain: Arc<str>,
        gateways: BTreeSet<(String, String)>,
    ) -> Self {
        let turns = Semaphore::new(REVIEWS);
        Self { cluster, mirror, trust_domain, gateways, turns, signatures: Mutex::default() }
    }

    /// Counts a certificate for a pod; false: it had too many.
    fn count(&self, pod: &str) -> bool {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        signatures.retain(|_, (since, _)| since.elapsed() < WINDOW);
        let (_, count) = signatures.entry(pod.to_owned()).or_insert((Instant::now(), 0));
        *count += 1;
        *count <= MAX_SIGNATURES
    }
}

#[tonic::async_trait]
impl Attest for Tokens {
    async fn attest(&self, token: &str) -> Result<SpiffeId, Status> {
        if token.trim().is_empty() {
            return Err(refused("there is no token; mount a projected one for audience `weir`"));
        }
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| Status::resource_exhausted("too many routers ask at once"))?;
        let review = ask(&self.cluster, AUDIENCE, token).await;
        let status = review.map_err(|error| {
            tracing::error!(%error, "a token cannot be checked");
            Status::unavailable("the Kubernetes API did not check the token; come back")
        })?;
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "it is not valid".to_owned());
            return Err(refused(&format!("Kubernetes refuses the token: {why}")));
        }
        // A server that does not know audiences would accept any token.
        if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
            return Err(refused("the token is not for audience `weir`"));
        }
        let user = status.user.unwrap_or_default();
        let username = user.username.unwrap_or_default();
        let account = username.strip_prefix("system:serviceaccount:");
        let account = account.and_then(|account| account.split_once(':'));
        let Some((namespace, name)) = account else {
            return Err(refused(&format!("{username:?} is no service account")));
        };
        let pod = user.extra.as_ref().and_then(|extra| extra.get(POD_NAME)?.first());
        let whose = format!("{namespace}/{}", pod.map_or(name, String::as_str));
        if !self.count(&whose) {
            let why = format!("{whose} had {MAX_SIGNATURES} certificates in a minute; come back");
            return Err(Status::resource_exhausted(why));
        }
        let own = SpiffeId::control_plane(&self.trust_domain);
        if own.is_ok_and(|own| own.namespace() == namespace && own.service() == name) {
            return Err(refused(&format!(
                "{username:?} would be the control plane's own identity"
            )));
        }
        SpiffeId::new(&self.trust_domain, namespace, name)
            .map_err(|error| refused(&format!("{username:?} makes no SPIFFE id: {error}")))
    }

    fn admit(&self, peer: &SpiffeId, router_id: &str, role: Role) -> Result<(), String> {
        let Some((namespace, pod)) = router_id.split_once('/') else {
            return Err(format!("the router id {router_id:?} is not NAMESPACE/POD"));
        };
        if namespace != peer.namespace() {
            return Err(format!(
                "the certificate is {peer}, which is not of namespace {namespace}"
            ));
        }
        let account = self.mirror.read(|objects| {
            let pod = objects.get(Kind::Pod, namespace, pod)?;
            Some(pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned())
        });
        // A pod that is not known yet was started a moment ago.
        if account.as_ref().is_some_and(|account| account != peer.service()) {
            return Err(format!("the certificate is {peer}, which is not pod {router_id}'s"));
        }
        let own = (peer.namespace().to_owned(), peer.service().to_owned());
        if role == Role::Gateway && !self.gateways.contains(&own) {
            return Err(format!(
                "{}/{} is no gateway's service account; gateways get private keys: name it in \
                 --gateway-accounts",
                own.0, own.1
            ));
        }
        Ok(())
    }
}

fn refused(why: &str) -> Status {
    tracing::warn!(why, "a router was not believed");
    Status::unauthenticated(why)
}

async fn ask(
    cluster: &Cluster,
    audience: &str,
    token: &str,
) -> Result<TokenReviewStatus, ClusterError> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![audience.to_owned()]),
            token: Some(token.trim().to_owned()),
        },
        ..Default::default()
    };
    let api: Api<TokenReview> = Api::all(cluster.client.clone());
    let params = PostParams::default();
    let review = cluster.call("TokenReview", api.create(&params, &review)).await?;
    Ok(review.status.unwrap_or_default())
}

/// Callers of the API by their service accounts' tokens.
pub struct Callers {
    cluster: Cluster,
    turns: Semaphore,
    /// By SHA-256 of the token: whose it is, and since when that is known.
    believed: Mutex<BTreeMap<[u8; 32], (Instant, String)>>,
}

impl Callers {
    /// Asks `cluster` about tokens.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, turns: Semaphore::new(REVIEWS), believed: Mutex::default() }
    }
}

#[tonic::async_trait]
impl Reviews for Callers {
    async fn review(&self, token: &str) -> Result<String, String> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        {
            let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
            believed.retain(|_, (since, _)| since.elapsed() < BELIEVED);
            if let Some((_, username)) = believed.get(&hash) {
                return Ok(username.clone());
            }
        }
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| "too many callers ask at once; come back".to_owned())?;
        let status = ask(&self.cluster, API_AUDIENCE, token).await.map_err(|error| {
            tracing::error!(%error, "a token cannot be checked");
            "the Kubernetes API did not check the token; come back".to_owned()
        })?;
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "it is not valid".to_owned());
            return Err(format!("Kubernetes refuses the token: {why}"));
        }
        // A server that does not know audiences would accept any token.
        if !status.audiences.iter().flatten().any(|audience| audience == API_AUDIENCE) {
            return Err(format!("the token is not for audience `{API_AUDIENCE}`"));
        }
        let username = status.user.unwrap_or_default().username.unwrap_or_default();
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if believed.len() < MAX_BELIEVED {
            believed.insert(hash, (Instant::now(), username.clone()));
        }
        Ok(username)
    }
}
