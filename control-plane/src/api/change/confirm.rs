//! After a shift: how requests were really split.

use std::time::Duration;

use tokio::time::Instant;
use weir_mesh::model::{ServiceName, Split, Violations};
use weir_proto::weir::control::v1 as pb;

use crate::control::Control;
use crate::edges::Sum;
use crate::store::Revision;

const DEFAULT: Duration = Duration::from_secs(5);

/// For how long to count; none: not at all.
pub(super) fn check_confirm(confirm: bool, seconds: u32, bad: &mut Violations) -> Option<Duration> {
    let time = match seconds {
        0 => DEFAULT,
        1..=60 => Duration::from_secs(seconds.into()),
        _ => {
            bad.add("confirmSeconds", format_args!("{seconds} is above 60"));
            DEFAULT
        }
    };
    confirm.then_some(time)
}

/// Counts requests that were decided by weights of `revision`. Ends early when the
/// service changes: what comes then is another split.
pub(super) async fn measure(
    control: &Control,
    service: &ServiceName,
    revision: Revision,
    time: Duration,
) -> pb::Measured {
    let mut desired = control.desired.subscribe();
    let split = desired
        .borrow_and_update()
        .services
        .get(service)
        .map(|held| (held.revision, held.value.split.clone()));
    let began = Instant::now();
    // Since the service's last change the weights are the same: also when the shift
    // asked for what was already.
    let since = split.as_ref().map_or(revision, |(held, _)| *held);
    let measuring = control.edges.measure(service.clone(), since);
    let changed = async {
        let same = |held: Option<Revision>| held == split.as_ref().map(|(revision, _)| *revision);
        // The sender is the control plane's own: it outlives this.
        let moved = desired
            .wait_for(|desired| !same(desired.services.get(service).map(|held| held.revision)));
        let _ = moved.await;
    };
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = changed => {}
    }
    let sum = measuring.sum();
    let live = control.registry.routers();
    let live = live.iter().filter(|router| router.awaited());
    let silent = live.filter(|r| !sum.routers.contains(&*r.registration.id)).count();
    proto(split.as_ref().map(|(_, split)| split), &sum, silent, began.elapsed())
}

fn proto(split: Option<&Split>, sum: &Sum, silent: usize, time: Duration) -> pb::Measured {
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let requests = sum.versions.values().map(|counted| counted.requests).sum();
    let weights = split.map(Split::versions).unwrap_or_default();
    let whole = weights.iter().map(|(_, weight)| u64::from(weight.get())).sum();
    let mut versions: Vec<_> = weights
        .iter()
        .map(|(name, weight)| {
            let counted = sum.versions.get(name).copied().unwrap_or_default();
            pb::MeasuredVersion {
                version: name.to_string(),
                requests: counted.requests,
                failures: counted.failures,
                share: share(counted.requests, requests),
                expected: share(weight.get().into(), whole),
            }
        })
        .collect();
    // Where a route, a session or a header says so, versions without a weight serve too.
    let others = sum.versions.iter().filter(|(name, _)| weights.iter().all(|(n, _)| n != *name));
    versions.extend(others.map(|(name, counted)| pb::MeasuredVersion {
        version: name.to_string(),
        requests: counted.requests,
        failures: counted.failures,
        share: share(counted.requests, requests),
        expected: 0.0,
    }));
    pb::Measured {
        seconds: time.as_secs_f64(),
        requests,
        versions,
        silent_routers: u32::try_from(silent).unwrap_or(u32::MAX),
    }
}
