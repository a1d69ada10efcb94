//! A control plane among others, on a store in Consul.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_mesh::identity::{Secret, SpiffeId, TrustBundle};
use weir_mesh::shutdown::Shutdown;

use super::{Config, Listeners, Parts, Running, StartError, saved, serve_parts};
use crate::ca::{Authority, CaError, JoinTokens};
use crate::consul::election::{Election, LeadSession};
use crate::consul::vault::{self, ConsulVault};
use crate::consul::{Consul, Endpoint, Settings};
use crate::control::Control;
use crate::files;
use crate::registry::{self, Registry};
use crate::replica::Replica;
use crate::store::{ConsulStore, Store as _};
use crate::text;

/// Starts one. When this returns, it serves; who leads is found out meanwhile.
pub(super) async fn start(
    config: &Config,
    listeners: Listeners,
    token: Secret,
    own_id: SpiffeId,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    let settings = Settings::read(&config.consul)?.ok_or_else(|| {
        StartError::Option("--store consul: needs --consul, the URL of Consul's API".to_owned())
    })?;
    let mesh = listeners.mesh()?;
    let address = config.store.mesh_advertise.unwrap_or(mesh);
    if address.ip().is_unspecified() || address.port() == 0 {
        let why = format!(
            "--mesh-advertise: is missing; {address} is where this control plane listens, and no \
             address that others could reach it by"
        );
        return Err(StartError::Option(why));
    }
    let endpoint = Arc::new(settings.endpoint.clone());
    let prefix: Arc<str> = config.store.store_prefix.as_str().into();
    let trust_domain: Arc<str> = config.trust_domain.as_str().into();
    let lead = Arc::new(LeadSession::default());
    let authority = authority(config, &endpoint, &prefix)?;
    let store = Arc::new(ConsulStore::open(endpoint.clone(), prefix.clone(), lead.clone())?);
    let consul = Arc::new(Consul::new(settings, trust_domain.clone(), &config.data));
    let mut desired = store.newest()?;
    desired.discover(consul.discovered());
    let parts = Parts {
        desired,
        consul: Some(consul),
        store: store.clone(),
        authority,
        trust_domain,
        registry: Registry::restore(registry::load(&saved(config))?),
        join_tokens: JoinTokens::open(config.join_tokens.as_deref())?,
        attest: None,
        resources: None,
        replica: Arc::new(Replica::among(config.store.name(address), Some(address))),
        shutdown,
    };
    let bundle = config.data.join("ca").join("bundle.pem");
    files::directory(&config.data.join("ca"))?;
    write_bundle(&parts.authority, &bundle)?;
    let mut running = serve_parts(config, parts, listeners, token, own_id).await?;
    let control = running.control.clone();
    running.background.spawn(store.keep());
    running.background.spawn(keep_bundle(control.clone(), bundle));
    running.background.spawn(vault::follow(endpoint.clone(), prefix.clone(), control.clone()));
    let run = text::unix_nanos();
    let election = Arc::new(Election { endpoint, prefix, session: lead, address, control, run });
    running.servers.spawn(election.run());
    Ok(running)
}

/// What everyone may know of the authority, for routers that join.
fn write_bundle(authority: &Authority, path: &Path) -> Result<(), CaError> {
    Ok(TrustBundle::from_der(&*authority.bundle())?.save(path)?)
}

/// Writes it at each change. Never returns.
async fn keep_bundle(control: Arc<Control>, path: PathBuf) {
    let mut bundle = control.authority.watch_bundle();
    while bundle.changed().await.is_ok() {
        let (own, path) = (control.clone(), path.clone());
        let written = tokio::task::spawn_blocking(move || write_bundle(&own.authority, &path));
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the roots for routers that join are not written");
        }
    }
}

/// The authority that all of them share.
fn authority(
    config: &Config,
    endpoint: &Arc<Endpoint>,
    prefix: &Arc<str>,
) -> Result<Authority, CaError> {
    let file = config.store.store_key_file.clone();
    let file = file.unwrap_or_else(|| config.data.join("store.key"));
    let domain = &config.trust_domain;
    let vault = ConsulVault::open(endpoint.clone(), prefix.clone(), &file, domain)?;
    Authority::open_in(Box::new(vault), domain, config.certificate_lifetime)
}
