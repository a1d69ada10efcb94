//! The API server as the control plane uses it: every call has a deadline and an
//! error that says what was tried.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::client::Client;
use kube::config::Config;
use tokio::runtime::Handle;

use super::objects::Kind;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Who writes what the control-plane API was asked for.
pub const FIELD_MANAGER: &str = "weir";

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No way to the API server is configured.
    #[error("no Kubernetes API server: {0}; run inside a cluster, or set KUBECONFIG")]
    Config(String),
    /// The API server said no.
    #[error("{what}: the Kubernetes API answers {code} {reason}: {message}")]
    Answer {
        /// What was tried.
        what: String,
        /// HTTP status.
        code: u16,
        /// Kubernetes' word for it, such as `Conflict`.
        reason: String,
        /// Its sentence.
        message: String,
    },
    /// No answer.
    #[error("{what}: the Kubernetes API cannot be reached: {why}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// What happened.
        why: String,
    },
    /// What is there cannot be understood.
    #[error("{what}: {why}")]
    Content {
        /// Which object.
        what: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
}

impl ClusterError {
    fn of(what: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Answer {
                what: what.to_owned(),
                code: status.code,
                reason: status.reason,
                message: status.message,
            },
            other => Self::Unreachable { what: what.to_owned(), why: chain(&other) },
        }
    }

    fn code(&self) -> u16 {
        match self {
            Self::Answer { code, .. } => *code,
            _ => 0,
        }
    }

    /// Somebody else was faster: the object is there already, or is newer.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// There is no such object, or no such kind.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Asking again will not help: the request itself is refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.code(), 400 | 403 | 405 | 413 | 415 | 422)
    }
}

/// An error and what caused it. The client's own text leaves the causes out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    /// For watches, which go on for long.
    pub client: Client,
    /// The control plane's own namespace.
    pub namespace: Arc<str>,
    handle: Handle,
}

impl Cluster {
    /// Finds the API server by the pod's service account, or by KUBECONFIG. Does not
    /// wait for it to answer.
    ///
    /// # Errors
    /// [`ClusterError::Config`].
    pub async fn connect(namespace: &str) -> Result<Self, ClusterError> {
        let mut config = Config::infer().await.map_err(|e| ClusterError::Config(chain(&e)))?;
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(|e| ClusterError::Config(chain(&e)))?;
        Ok(Self { client, namespace: namespace.into(), handle: Handle::current() })
    }

    /// One whose API server is known.
    #[cfg(test)]
    #[must_use]
    pub fn of(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.into(), handle: Handle::current() }
    }

    /// ConfigMaps of the control plane's namespace.
    #[must_use]
    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Secrets of the control plane's namespace.
    #[must_use]
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Leases of the control plane's namespace.
    #[must_use]
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of a watched kind, in a version that the server has; of one namespace
    /// or, when that is empty, of all.
    #[must_use]
    pub fn objects(&self, kind: Kind, version: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, _, plural) = kind.resource();
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version(group, version),
            kind: kind.as_str().to_owned(),
            plural: plural.to_owned(),
        };
        if namespace.is_empty() || !kind.is_namespaced() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    /// Makes one call, which has a deadline.
    ///
    /// # Errors
    /// [`ClusterError`], with `what` in it.
    pub async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(answer) => answer.map_err(|error| ClusterError::of(what, error)),
            Err(_) => Err(ClusterError::Unreachable {
                what: what.to_owned(),
                why: format!("no answer in {} s", DEADLINE.as_secs()),
            }),
        }
    }

    /// Like [`Cluster::call`], from code that blocks. The runtime must have threads of
    /// its own.
    ///
    /// # Errors
    /// As [`Cluster::call`].
    pub fn wait<T>(
        &self,
        what: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        tokio::task::block_in_place(|| self.handle.block_on(self.call(what, call)))
    }
}

/// `apps/v1`; `v1` of the core group.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
