//! The stream to the control plane: snapshots in; applied, health and reports out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use weir_mesh::identity::{ALPN_H2, SpiffeId, TrustBundle, client_config};
use weir_mesh::shutdown::Shutdown;
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient;
use weir_proto::weir::mesh::v1::watch_request::Message as Out;
use weir_proto::weir::mesh::v1::watch_response::Message as In;

use super::Control;
use super::connect::connect;
use crate::config::Role;
use crate::table::Builder;

const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const REPORT: Duration = Duration::from_secs(1);
/// For the goodbye to get out.
const GOODBYE: Duration = Duration::from_secs(1);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Keeps a stream open until `shutdown`.
pub(super) async fn run(control: &Arc<Control>, mut builder: Builder, shutdown: Shutdown) {
    let mut backoff = BACKOFF;
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = certificate(control) => {}
        }
        let began = Instant::now();
        let ended = tokio::select! {
            ended = stream(control, &mut builder, &shutdown) => ended,
            // A control plane that hangs must not keep us from going.
            () = after(&shutdown, 2 * GOODBYE) => return,
        };
        control.shared.metrics.connected.set(0);
        if shutdown.is_requested() {
            return;
        }
        if let Err(error) = ended {
            tracing::warn!(%error, retry_in = ?backoff, "not connected to the control plane");
        }
        if began.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF;
        }
        // Jitter, so that a mesh does not come back all at once.
        tokio::select! {
            () = tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64())) => {}
            () = shutdown.requested() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn after(shutdown: &Shutdown, time: Duration) {
    shutdown.requested().await;
    tokio::time::sleep(time).await;
}

/// Waits for the first certificate.
async fn certificate(control: &Control) {
    let mut renewed = control.renewed.subscribe();
    // The sender is as old as we are.
    let _ = renewed.wait_for(|not_after| *not_after > 0).await;
}

async fn stream(
    control: &Arc<Control>,
    builder: &mut Builder,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let config = &control.shared.config;
    let (svid, bundle) = control.shared.identity.current().ok_or("no certificate yet")?;
    let peer = SpiffeId::control_plane(&config.args.trust_domain)?;
    let tls = client_config(&svid, &bundle, &peer, ALPN_H2)?;
    let endpoint = Endpoint::from_static("http://control-plane")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let channel = connect(&config.args.control, &endpoint, tls).await?;
    let mut client = MeshServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let (out, outgoing) = mpsc::channel(16);
    let say = |message| out.send(pb::WatchRequest { message: Some(message) });
    say(Out::Hello(hello(control))).await?;
    let watching = client.watch(ReceiverStream::new(outgoing));
    let mut incoming = timeout(CONNECT, watching).await??.into_inner();
    control.shared.metrics.connected.set(1);

    let mut healthy = control.healthy.clone();
    let mut renewed = control.renewed.subscribe();
    renewed.mark_unchanged();
    let mut report = tokio::time::interval(REPORT);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => {
                say(Out::Leave(pb::Leave {})).await?;
                drop(out);
                // The control plane ends its side when it has taken us out.
                let _ = timeout(GOODBYE, async {
                    while incoming.message().await.is_ok_and(|m| m.is_some()) {}
                }).await;
                return Ok(());
            }
            message = incoming.message() => match message?.and_then(|m| m.message) {
                None => return Err("the control plane closed the stream".into()),
                Some(In::Snapshot(bytes)) => say(apply(control, builder, bytes)).await?,
                Some(In::Renew(renew)) => trust(control, &renew)?,
                Some(In::Delta(_)) => return Err("a delta that was not asked for".into()),
                Some(In::Reconnect(_)) => return Err("asked to come back".into()),
            },
            Ok(()) = healthy.changed() => say(Out::Health(health(control, 0))).await?,
            Ok(()) = renewed.changed() => {
                let not_after = *renewed.borrow_and_update();
                say(Out::Health(health(control, not_after))).await?;
            }
            _ = report.tick() => {
                let edges = control.shared.metrics.report(config.service.as_str());
                if !edges.is_empty() {
                    say(Out::Report(pb::Report { edges })).await?;
                }
            }
        }
    }
}

fn hello(control: &Control) -> pb::Hello {
    let config = &control.shared.config;
    let role = match config.role {
        Role::Gateway => pb::hello::Role::Gateway,
        Role::Sidecar { .. } => pb::hello::Role::Sidecar,
    };
    // The Kubernetes API knows the pods and how they are.
    let inbound = control.addresses.inbound.filter(|_| config.pod.is_none());
    let instance = inbound.map(|address| pb::Instance {
        id: config.instance_id.to_string(),
        service: config.service.to_string(),
        version: config.version.to_string(),
        address: address.to_string(),
        zone: config.args.zone.clone(),
        healthy: *control.healthy.borrow(),
        plain: false,
        identity: String::new(),
    });
    pb::Hello {
        router_id: config.instance_id.to_string(),
        role: role.into(),
        instance,
        admin_address: control.addresses.admin.map(|a| a.to_string()).unwrap_or_default(),
        sequence: control.shared.table.load().as_ref().map_or(0, |table| table.sequence()),
        certificate_not_after: *control.renewed.borrow(),
        service: config.service.to_string(),
        opened: opened(),
        ..Default::default()
    }
}

/// Now, by this machine's clock, in nanoseconds since the Unix epoch.
fn opened() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

fn health(control: &Control, certificate_not_after: i64) -> pb::Health {
    pb::Health { healthy: *control.healthy.borrow(), certificate_not_after }
}

/// Puts a snapshot into use, whole or not at all (invariant 2).
fn apply(control: &Arc<Control>, builder: &mut Builder, bytes: Bytes) -> Out {
    let began = Instant::now();
    let message = match pb::Snapshot::decode(bytes.clone()) {
        Ok(message) => message,
        Err(error) => return refuse(control, 0, error.to_string()),
    };
    let sequence = message.sequence;
    let snapshot = match wire::snapshot(&message) {
        Ok(snapshot) => snapshot,
        Err(error) => return refuse(control, sequence, error.to_string()),
    };
    let table = match builder.build(&snapshot) {
        Ok(table) => table,
        Err(error) => return refuse(control, sequence, error.to_string()),
    };
    control.shared.install(Arc::new(table));
    let took = began.elapsed();
    control.shared.metrics.applied.set(i64::try_from(sequence).unwrap_or(i64::MAX));
    tracing::debug!(sequence, revision = snapshot.revision, ?took, "applied");
    control.applied.send_replace(bytes);
    let apply_micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    Out::Applied(pb::Applied { sequence, apply_micros })
}

fn refuse(control: &Control, sequence: u64, reason: String) -> Out {
    tracing::error!(sequence, reason, "snapshot refused; the one in use stays");
    control.shared.metrics.refused.inc();
    Out::Refused(pb::Refused { sequence, reason })
}

/// Trusts the given roots from now on, and has the certificate renewed.
fn trust(control: &Control, renew: &pb::RenewCertificate) -> Result<(), Error> {
    if !renew.trust_bundle.is_empty()
        && let Some((svid, _)) = control.shared.identity.current()
    {
        let bundle = TrustBundle::from_der(&renew.trust_bundle)?;
        control.shared.identity.replace(svid, bundle)?;
    }
    control.renew.notify_one();
    Ok(())
}
