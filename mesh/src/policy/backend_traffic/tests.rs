use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, PolicySpec};

fn read(mut spec: Value) -> Result<BackendTraffic, Vec<String>> {
    spec["targetRefs"] = json!([{ "kind": "Service", "name": "web" }]);
    match Policy::read("BackendTrafficPolicy", "web", &spec, "") {
        Ok(Policy { spec: PolicySpec::BackendTraffic(traffic), .. }) => Ok((*traffic).clone()),
        Ok(other) => panic!("{other:?}"),
        Err(invalid) => Err(invalid.0.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(read(json!({})), Ok(BackendTraffic::default()));
    let outlier = read(json!({"outlierDetection": {}})).unwrap().outlier_detection.unwrap();
    assert_eq!((outlier.consecutive_errors, outlier.max_ejection_percent), (5, 50));
    let constraint = BackendTraffic::default().retry_constraint;
    assert_eq!((constraint.percent, constraint.count), (20, 10));
}

#[test]
fn all_of_it_is_read() {
    let traffic = read(json!({
        "loadBalancer": {
            "type": "RingHash",
            "hashOn": [{"header": "x-user"}, {"sourceIP": true}, {"claim": "sub"}],
            "slowStart": {"window": "10s", "minWeightPercent": 20},
        },
        "zoneAwareness": {"preferLocal": true},
        "failover": [{"service": "spare", "version": "v2"}],
        "panicThresholdPercent": 30,
        "outlierDetection": {"successRate": {}, "returnSlow": "5s"},
        "healthCheck": {"type": "HTTP", "path": "/health", "expectedStatuses": [204]},
        "limits": {"maxConnections": 4, "maxRequests": 10, "maxPending": 5, "pendingTimeout": "50ms"},
        "adaptiveConcurrency": {"maxLimit": 100},
        "retryConstraint": {"budget": {"percent": 10}, "minRetryRate": {"count": 1}},
        "retry": {"attempts": 3, "grpcStatuses": ["UNAVAILABLE", "ABORTED"], "backoff": {"base": "1s"}},
        "hedging": {"delay": "20ms"},
    }))
    .unwrap();
    assert_eq!(traffic.load_balancer.hash_on.len(), 3);
    assert_eq!(traffic.failover[0].version.as_ref().unwrap().as_str(), "v2");
    assert_eq!(traffic.retry.as_ref().unwrap().grpc_statuses, [14, 10]);
    assert_eq!(traffic.retry.unwrap().backoff.max, std::time::Duration::from_secs(1));
    assert_eq!(traffic.limits.max_pending, 5);
}

#[test]
fn every_number_out_of_its_bounds_is_told() {
    let told = read(json!({
        "loadBalancer": {"type": "Maglev", "slowStart": {"minWeightPercent": 0}},
        "panicThresholdPercent": 101,
        "outlierDetection": {"baseEjectionTime": "2h", "successRate": {"stdevFactor": 1}},
        "healthCheck": {"type": "TCP", "path": "/x", "timeout": "0s"},
        "retry": {"attempts": 11, "statusCodes": [200], "backoff": {"base": "2s", "max": "1s"}},
        "hedging": {"maxAttempts": 1},
        "adaptiveConcurrency": {"minLimit": 10, "maxLimit": 5},
        "failover": [{"service": "No Service"}],
    }))
    .unwrap_err();
    for wanted in [
        "spec.loadBalancer.hashOn: is empty",
        "spec.loadBalancer.slowStart.minWeightPercent: 0 is below 1; use 1 to 100",
        "spec.panicThresholdPercent: 101 is above 100",
        "spec.outlierDetection.baseEjectionTime: 2h is not possible; use 10ms to 1h",
        "spec.outlierDetection.successRate.stdevFactor: 1 is below 100",
        "spec.healthCheck.path: is for the type HTTP only",
        "spec.healthCheck.timeout: 0s is not possible",
        "spec.retry.attempts: 11 is above 10",
        "spec.retry.statusCodes[0]: 200 is below 400",
        "spec.retry.backoff.max: 1s is not possible; use 2s to 1h",
        "spec.hedging.maxAttempts: 1 is below 2",
        "spec.adaptiveConcurrency.maxLimit: 5 is below 10",
        "spec.failover[0].service: ",
    ] {
        assert!(told.iter().any(|t| t.starts_with(wanted)), "{wanted} not in {told:#?}");
    }
}

#[test]
fn one_thing_is_hashed_at_a_time() {
    let told = read(json!({"loadBalancer": {"type": "RingHash", "hashOn": [{}]}})).unwrap_err();
    assert!(told[0].contains("exactly one of header"), "{told:?}");
    let told = read(json!({"loadBalancer": {"hashOn": [{"header": "x"}]}})).unwrap_err();
    assert!(told[0].contains("for the types RingHash and Maglev only"), "{told:?}");
}
