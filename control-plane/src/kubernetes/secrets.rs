//! Secrets that the control plane keeps in its namespace: made when they are not
//! there or empty, shared by its replicas, never logged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::{ObjectMeta, PostParams};
use weir_mesh::identity::Secret;

use super::cluster::{Cluster, ClusterError};
use crate::ca::{CaError, Vault};

/// The authority's.
pub const CA: &str = "weir-ca";
/// Key of the roots and their keys.
const AUTHORITY: &str = "authority.json";
/// Key of what everyone may know.
const BUNDLE: &str = "ca.pem";
const API_TOKEN: &str = "weir-api-token";
const TOKEN: &str = "token";

/// What is in a Secret, and its version.
pub struct Held {
    /// By key; empty when there is no such Secret.
    pub data: BTreeMap<String, Vec<u8>>,
    /// None: there is no such Secret.
    object: Option<Object>,
}

/// Reads a Secret. Blocks.
///
/// # Errors
/// [`ClusterError`].
pub fn read(cluster: &Cluster, name: &str) -> Result<Held, ClusterError> {
    let what = format!("Secret {name}");
    let object = cluster.wait(&what, cluster.secrets().get_opt(name))?;
    let data = object.iter().flat_map(|object| object.data.iter().flatten());
    let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
    Ok(Held { data, object })
}

/// Sets keys of a Secret that is as it was read. Blocks.
///
/// # Errors
/// [`ClusterError`]; a conflict when somebody else changed it meanwhile.
pub fn write(
    cluster: &Cluster,
    name: &str,
    held: Held,
    set: BTreeMap<String, Vec<u8>>,
) -> Result<Held, ClusterError> {
    let what = format!("Secret {name}");
    let params = PostParams { field_manager: Some("weir".into()), ..Default::default() };
    let there = held.object.is_some();
    let mut object = held.object.unwrap_or_else(|| Object {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        type_: Some("Opaque".to_owned()),
        ..Default::default()
    });
    let data = object.data.get_or_insert_default();
    data.extend(set.into_iter().map(|(key, value)| (key, ByteString(value))));
    let api = cluster.secrets();
    let object = if there {
        cluster.wait(&what, api.replace(name, &params, &object))?
    } else {
        cluster.wait(&what, api.create(&params, &object))?
    };
    let data = object.data.iter().flatten();
    let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
    Ok(Held { data, object: Some(object) })
}

/// The API's bearer token; a random one is made when there is none. Blocks.
///
/// # Errors
/// [`ClusterError`].
pub fn api_token(cluster: &Cluster) -> Result<Secret, ClusterError> {
    let mut held = read(cluster, API_TOKEN)?;
    if !held.data.contains_key(TOKEN) {
        let made = Secret::random().map_err(|error| content(API_TOKEN, &error.to_string()))?;
        let set = [(TOKEN.to_owned(), made.expose().as_bytes().to_vec())].into();
        held = match write(cluster, API_TOKEN, held, set) {
            Err(error) if error.is_conflict() => read(cluster, API_TOKEN)?,
            written => written?,
        };
    }
    let token = held.data.get(TOKEN).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let token = token.unwrap_or_default().trim().to_owned();
    if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "its key `token` must have at least 16 visible ASCII characters; delete the \
                   Secret to have one made";
        return Err(content(API_TOKEN, why));
    }
    Ok(Secret::new(token))
}

fn content(name: &str, why: &str) -> ClusterError {
    ClusterError::Content { what: format!("Secret {name}"), why: why.to_owned() }
}

/// The authority's roots, in the Secret `weir-ca`.
pub struct CaSecret {
    cluster: Cluster,
    held: Mutex<Option<Held>>,
}

impl CaSecret {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, held: Mutex::new(None) }
    }
}

fn ca_error(error: &ClusterError) -> CaError {
    if error.is_conflict() {
        return CaError::Conflict;
    }
    CaError::File(std::io::Error::other(error.to_string()))
}

impl Vault for CaSecret {
    fn name(&self) -> String {
        format!("Secret {CA}")
    }

    fn load(&self) -> Result<Option<Vec<u8>>, CaError> {
        let held = read(&self.cluster, CA).map_err(|e| ca_error(&e))?;
        let authority = held.data.get(AUTHORITY).filter(|bytes| !bytes.is_empty()).cloned();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(authority)
    }

    fn save(&self, authority: &str, bundle: &str) -> Result<(), CaError> {
        let mut own = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // What was written last is not known any more after a failure.
        let held = own.take().ok_or(CaError::Conflict)?;
        let is = |held: &Held, key: &str, text: &str| {
            held.data.get(key).is_some_and(|bytes| bytes == text.as_bytes())
        };
        if is(&held, AUTHORITY, authority) && is(&held, BUNDLE, bundle) {
            *own = Some(held);
            return Ok(());
        }
        let set = [(AUTHORITY, authority), (BUNDLE, bundle)];
        let set = set.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec())).into();
        *own = Some(write(&self.cluster, CA, held, set).map_err(|e| ca_error(&e))?);
        Ok(())
    }
}
