use super::draft;
use crate::analysis::{Draft, LatencyCheck, Metric, Plan, SuccessCheck};

#[test]
fn all_violations_at_once_each_by_its_path() {
    let bad = Draft {
        alpha: 0.0,
        beta: f64::NAN,
        min_requests: 0,
        success: Some(SuccessCheck { tolerance_ratio: 0.5, margin: 0.0 }),
        latency: vec![
            LatencyCheck { quantile: 0.4, tolerance: -1.0, margin: 0.5 },
            LatencyCheck { quantile: 0.9, tolerance: f64::INFINITY, margin: 0.1 },
            LatencyCheck { quantile: 0.9, tolerance: 0.0, margin: 0.1 },
        ],
    };
    let fields: Vec<String> =
        Plan::new(bad).unwrap_err().0.into_iter().map(|violation| violation.field).collect();
    let expected = [
        "alpha",
        "beta",
        "success.toleranceRatio",
        "success.margin",
        "latency[0].quantile",
        "latency[0].tolerance",
        "latency[0].margin",
        "latency[1].tolerance",
        "latency[2].quantile",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_plan_that_compares_nothing_is_refused_also_as_json() {
    let empty = Draft { success: None, latency: vec![], ..draft() };
    assert!(Plan::new(empty).is_err());
    let json = r#"{"alpha":0.01,"beta":0.01,"minRequests":1,"success":null}"#;
    assert!(serde_json::from_str::<Plan>(json).is_err());
    let plan = Plan::new(draft()).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn metrics_have_names() {
    assert_eq!(Metric::SuccessRate.to_string(), "success rate");
    assert_eq!(Metric::Latency(0.99).to_string(), "p99 latency");
    assert_eq!(Metric::Latency(0.999).to_string(), "p99.9 latency");
}
