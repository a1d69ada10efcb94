//! The stream to the control plane: snapshots in; applied, health and reports out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use weir_mesh::identity::{ALPN_H2, SpiffeId, TrustBundle, client_config};
use weir_mesh::shutdown::Shutdown;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient;
use weir_proto::weir::mesh::v1::watch_request::Message as Out;
use weir_proto::weir::mesh::v1::watch_response::Message as In;

use super::connect::connect;
use super::{Control, apply};
use crate::config::Role;
use crate::table::Builder;

const BACKOFF: Duration = Duration::from_millis(100);
/// Most before the first try after a stream that had lasted: all of a mesh's routers
/// lose a control plane at the same moment, and each comes back at its own.
const SPREAD: Duration = Duration::from_secs(1);
/// Most that a control plane may keep a router waiting.
const RECONNECT_MAX: Duration = Duration::from_secs(60);
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
        let had_lasted = began.elapsed() > BACKOFF_MAX;
        let wait = match ended {
            Ok(Ended::Leaving) => return,
            Ok(Ended::Reconnect(after)) => {
                backoff = BACKOFF;
                spread(after)
            }
            Err(_) if had_lasted => {
                backoff = BACKOFF;
                SPREAD.mul_f64(fastrand::f64())
            }
            Err(_) => {
                let wait = spread(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                wait
            }
        };
        match ended {
            Ok(_) => tracing::info!(retry_in = ?wait, "asked to come back to the control plane"),
            Err(error) => {
                tracing::warn!(%error, retry_in = ?wait, "not connected to the control plane");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// How a stream ended that did not break.
enum Ended {
    /// The router goes.
    Leaving,
    /// The control plane wants it to come back after about so long.
    Reconnect(Duration),
}

/// A half to one and a half times as long, by chance.
fn spread(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64())
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
) -> Result<Ended, Error> {
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
                return Ok(Ended::Leaving);
            }
            message = incoming.message() => match message?.and_then(|m| m.message) {
                None => return Err("the control plane closed the stream".into()),
                Some(In::Snapshot(bytes)) => {
                    say(apply::snapshot(control, builder, bytes)).await?;
                }
                Some(In::Delta(bytes)) => say(apply::delta(control, builder, bytes)).await?,
                Some(In::Renew(renew)) => trust(control, &renew)?,
                // Without a word of leaving: its instance stays where it is.
                Some(In::Reconnect(reconnect)) => {
                    let after = Duration::from_millis(reconnect.after_ms.into());
                    return Ok(Ended::Reconnect(after.min(RECONNECT_MAX)));
                }
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
    let table = control.shared.table.load();
    let (sequence, revision) =
        table.as_ref().map_or((0, 0), |table| (table.sequence(), table.revision()));
    pb::Hello {
        router_id: config.instance_id.to_string(),
        role: role.into(),
        instance,
        admin_address: control.addresses.admin.map(|a| a.to_string()).unwrap_or_default(),
        sequence,
        certificate_not_after: *control.renewed.borrow(),
        service: config.service.to_string(),
        revision,
        digest: apply::current_digest(control).map(Vec::from).unwrap_or_default(),
        deltas: true,
        opened: opened(),
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
