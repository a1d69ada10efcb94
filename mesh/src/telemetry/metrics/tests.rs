use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn renders_the_text_format() {
    let registry = Registry::new();
    let requests = registry.counter(
        "weir.router.requests",
        "Requests.\nAll of them.",
        "{request}",
        &[("service.name", "a\"b\\c\nd"), ("direction", "in")],
    );
    requests.add(3);
    registry.gauge("http.server.active_requests", "Now.", "{request}", &[]).set(-2);
    registry.gauge("weir.certificate.remaining", "Left.", "s", &[]).set(60);
    let size: &'static [f64] = &[10.0, 100.0];
    let bytes =
        registry.histogram_with_bounds("http.body.size", "Sizes.", "By", size, &[("a", "b")]);
    for value in [5.0, 10.0, 10.5, 1000.0] {
        bytes.observe(value);
    }
    assert_eq!(
        registry.render(),
        r#"# HELP http_body_size_bytes Sizes.
# TYPE http_body_size_bytes histogram
http_body_size_bytes_bucket{a="b",le="10"} 2
http_body_size_bytes_bucket{a="b",le="100"} 3
http_body_size_bytes_bucket{a="b",le="+Inf"} 4
http_body_size_bytes_sum{a="b"} 1025.5
http_body_size_bytes_count{a="b"} 4
# HELP http_server_active_requests Now.
# TYPE http_server_active_requests gauge
http_server_active_requests -2
# HELP weir_certificate_remaining_seconds Left.
# TYPE weir_certificate_remaining_seconds gauge
weir_certificate_remaining_seconds 60
# HELP weir_router_requests_total Requests.\nAll of them.
# TYPE weir_router_requests_total counter
weir_router_requests_total{direction="in",service_name="a\"b\\c\nd"} 3
"#
    );
}

#[test]
fn durations_are_in_seconds_by_the_agreed_bounds() {
    let registry = Registry::new();
    let durations = registry.histogram("http.server.request.duration", "Took.", "s", &[]);
    durations.observe_duration(Duration::from_micros(500));
    durations.observe_duration(Duration::from_secs(3600));
    let text = registry.render();
    for line in [
        "http_server_request_duration_seconds_bucket{le=\"0.0005\"} 1\n",
        "http_server_request_duration_seconds_bucket{le=\"10\"} 1\n",
        "http_server_request_duration_seconds_bucket{le=\"+Inf\"} 2\n",
        "http_server_request_duration_seconds_sum 3600.0005\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(text.matches("_bucket").count(), 18);
}

#[test]
fn the_same_name_and_labels_are_the_same_instrument() {
    let registry = Registry::new();
    let a = registry.counter("x", "", "", &[("a", "1"), ("b", "2")]);
    let b = registry.clone().counter("x", "", "", &[("b", "2"), ("a", "1")]);
    a.inc();
    b.inc();
    registry.counter("x", "", "", &[("a", "2"), ("b", "1")]).inc();
    assert_eq!(a.get(), 2);
    assert!(registry.render().contains("x_total{a=\"1\",b=\"2\"} 2\n"));
}

#[test]
fn series_beyond_the_limit_are_counted_together() {
    let registry = Registry::with_limit(2);
    for path in ["a", "b", "c", "d", "a"] {
        registry.counter("x", "", "", &[("path", path)]).inc();
    }
    registry.counter("y", "", "", &[("path", "a")]).inc();
    let text = registry.render();
    for line in [
        "x_total{path=\"a\"} 2\n",
        "x_total{path=\"b\"} 1\n",
        "x_total{otel_metric_overflow=\"true\"} 2\n",
        "y_total{otel_metric_overflow=\"true\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("path=\"c\""));
}

#[test]
fn nothing_is_lost_between_threads() {
    let registry = Registry::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let count = registry.counter("n", "", "", &[]);
                let sizes = registry.histogram("h", "", "s", &[]);
                for _ in 0..10_000 {
                    count.inc();
                    sizes.observe(0.25);
                }
            });
        }
    });
    assert_eq!(registry.counter("n", "", "", &[]).get(), 40_000);
    let sizes = registry.histogram("h", "", "s", &[]);
    assert_eq!((sizes.counts().iter().sum::<u64>(), sizes.sum()), (40_000, 10_000.0));
}

#[test]
fn quantiles_are_interpolated() {
    let mut buckets = [0; 18];
    assert_eq!(quantile(&buckets, 0.99), 0.0);
    // 100 between 0.05 s and 0.075 s.
    buckets[7] = 100;
    assert!((quantile(&buckets, 0.5) - 0.0625).abs() < 1e-9);
    assert!((quantile(&buckets, 1.0) - 0.075).abs() < 1e-9);
    buckets[17] = 100;
    assert_eq!(quantile(&buckets, 0.99), 10.0);
}

proptest! {
    #[test]
    fn a_quantile_grows_with_q_and_is_near_the_truth(
        mut values in prop::collection::vec(0.0..10.0_f64, 1..200), q in 0.0..=1.0_f64, r in 0.0..=1.0_f64,
    ) {
        let histogram = Histogram::new(&DURATION_BOUNDS);
        values.iter().for_each(|v| histogram.observe(*v));
        let counts = histogram.counts();
        prop_assert!(quantile(&counts, q.min(r)) <= quantile(&counts, q.max(r)));
        // Within the bucket that the true one is in.
        values.sort_by(f64::total_cmp);
        let rank = ((q * values.len() as f64).ceil() as usize).max(1);
        let truth = values[rank - 1];
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < truth);
        let lower = if bucket == 0 { 0.0 } else { DURATION_BOUNDS[bucket - 1] };
        let estimate = quantile(&counts, q);
        prop_assert!(lower <= estimate && estimate <= DURATION_BOUNDS[bucket], "{truth} {estimate}");
    }
}
