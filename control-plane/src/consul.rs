//! Consul as a second source of services and instances, and as a place where this
//! mesh's instances can be found by others.
//!
//! `client` asks, by blocking queries whose place `cursor` keeps; `answer` reads what
//! comes; `damp` decides what of it is believed, and when; `state` holds that;
//! `register` writes. Consul away changes nothing: what is known stays, also across a
//! restart of the control plane (`saved`).
//!
//! Where Consul is the store of several control planes as well: `kv` reads and writes
//! keys, `election` decides who leads and knows who is there, `vault` keeps the
//! authority's key.

mod answer;
mod client;
mod config;
mod cursor;
mod damp;
pub mod election;
mod follow;
pub mod kv;
mod register;
mod saved;
mod state;
mod store_args;
pub mod vault;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::control::Control;
use crate::store::Discovered;
use answer::Reading;
use damp::Graces;
use state::State;

pub use client::ConsulError;
pub use config::{ConsulArgs, ConsulConfigError, Endpoint, Settings};
pub use state::Status;
pub use store_args::{StoreArgs, StoreKind};

/// Changes of Consul's come in bursts; they are gathered for so long.
const GATHER: Duration = Duration::from_millis(20);
/// Questions that Consul holds back at once: an agent takes 200 connections from one
/// address unless it is told otherwise, and others need some too.
const MAX_HELD: usize = 100;

/// What finds services in Consul.
pub struct Consul {
    settings: Settings,
    endpoint: Arc<Endpoint>,
    reading: Reading,
    state: State,
    held: Semaphore,
    file: PathBuf,
    settled: watch::Sender<bool>,
}

impl Consul {
    /// Takes up what was known when the control plane stopped.
    #[must_use]
    pub fn new(settings: Settings, trust_domain: Arc<str>, data: &Path) -> Self {
        let file = data.join(saved::FILE);
        let graces = Graces { leave: settings.leave_grace, empty: settings.empty_grace };
        Self {
            endpoint: Arc::new(settings.endpoint.clone()),
            reading: Reading { tag: settings.tag.clone(), trust_domain },
            state: State::new(graces, saved::load(&file)),
            held: Semaphore::new(MAX_HELD),
            settled: watch::Sender::new(false),
            file,
            settings,
        }
    }

    /// What is known now.
    #[must_use]
    pub fn discovered(&self) -> Discovered {
        self.state.picture(Instant::now()).discovered
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.status(&self.endpoint.url)
    }

    /// Waits until everything has been asked for once, or Consul is known to be away.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // It is dropped together with what it is part of.
        let _ = settled.wait_for(|settled| *settled).await;
    }

    /// Puts what is known into the mesh, at each change. Never returns.
    async fn keep(self: Arc<Self>, control: Arc<Control>) {
        let mut changed = self.state.changed.subscribe();
        let mut last = None;
        loop {
            changed.mark_unchanged();
            let picture = self.state.picture(Instant::now());
            if last.as_ref() != Some(&picture.discovered) {
                let (own, control) = (self.clone(), control.clone());
                let discovered = picture.discovered.clone();
                let put = tokio::task::spawn_blocking(move || {
                    control.discovered(discovered.clone());
                    if let Err(error) = saved::save(&own.file, &discovered) {
                        tracing::warn!(%error, "what is known of Consul cannot be written down");
                    }
                });
                if put.await.is_ok() {
                    last = Some(picture.discovered);
                }
            }
            if picture.settled {
                self.settled.send_replace(true);
            }
            let time = async {
                match picture.next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changed.changed() => tokio::time::sleep(GATHER).await,
                () = time => {}
            }
        }
    }
}
