//! What is said about values that are wrong.

use super::{helm, helm_is_there};

/// A typo is no default.
#[test]
fn a_value_that_is_not_known_or_does_not_fit_is_refused_by_its_name() {
    if !helm_is_there() {
        return;
    }
    for (set, at, why) in [
        ("controlPlane.replcas=2", "/controlPlane", "replcas"),
        ("replicas=2", "''", "replicas"),
        ("controlPlane.replicas=0", "/controlPlane/replicas", "minimum"),
        ("controlPlane.replicas=two", "/controlPlane/replicas", "want integer"),
        ("controlPlane.certificateLifetime=1 hour", "/controlPlane/certificateLifetime", "pattern"),
        ("controlPlane.logLevel=verbose", "/controlPlane/logLevel", "'debug'"),
        ("gateway.service.type=Loadbalancer", "/gateway/service/type", "'LoadBalancer'"),
        ("gateway.service.ports[0].prt=80", "/gateway/service/ports/0", "prt"),
        ("injector.failurePolicy=fail", "/injector/failurePolicy", "'Fail'"),
        ("injector.skipOutboundPorts={http}", "/injector/skipOutboundPorts/0", "pattern"),
        ("egress=allow", "/egress", "'Allow'"),
        ("tracing.sampling=2", "/tracing/sampling", "maximum"),
        ("tracing.endpoint=jaeger:4317", "/tracing/endpoint", "pattern"),
        ("services.prodcts.replicas=1", "/services", "prodcts"),
        ("services.products.replica=1", "/services/products", "replica"),
        ("services.database=mysql", "/services/database", "'sqlite'"),
    ] {
        let out = helm(&["lint", "helm/weir"], &[set]);
        let told = format!("{}{}", out.stdout, out.stderr);
        assert_eq!(out.code, Some(1), "{set}: {told}");
        assert!(told.contains(at) && told.contains(why), "{set}: {told}");
    }
}

/// What a schema cannot say.
#[test]
fn values_that_cannot_go_together_are_refused_with_what_to_do() {
    if !helm_is_there() {
        return;
    }
    for (set, told) in [
        (
            &["services.enabled=true", "services.products.replicas=2"][..],
            "services.products.replicas: is 2; more than 1 needs database: postgresql",
        ),
        (
            &["services.enabled=true", "services.database=postgresql"],
            "services.postgresql.secret: is empty",
        ),
        (
            &["services.enabled=true", "services.namespace.name=weir-system"],
            "services.namespace.name: weir-system is the control plane's namespace",
        ),
        (
            &["test.namespace=weir-system"],
            "test.namespace: weir-system is the control plane's namespace",
        ),
    ] {
        let out = helm(&["template", "weir", "helm/weir", "--namespace", "weir-system"], set);
        assert_eq!(out.code, Some(1), "{set:?}");
        assert!(out.stderr.contains(told), "{set:?}: {}", out.stderr);
    }
}
