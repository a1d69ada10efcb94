//! CORS as rules have it, before what the mesh has.

use http::Method;

use crate::{doors, good, mesh};

#[tokio::test]
async fn a_preflight_says_what_the_rule_of_the_call_to_come_allows() {
    for (door, http) in doors("web") {
        let ask = |path: &str, origin: &str, method: &str| {
            let call = http.call(Method::OPTIONS, path).header("origin", origin);
            let call = call.header("access-control-request-headers", "x-z");
            call.header("access-control-request-method", method).send()
        };
        let reply = ask("/cors/x", "https://a.b.shop.test", "PUT").await;
        assert_eq!(reply.status, 204, "{door}");
        for (name, value) in [
            ("access-control-allow-origin", "https://a.b.shop.test"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-max-age", "600"),
            ("access-control-allow-credentials", ""),
            ("vary", "origin"),
        ] {
            assert_eq!(reply.header(name), value, "{door}: {name}");
        }
        for origin in ["https://shop.test.evil.test", "https://mesh.test", "null"] {
            let reply = ask("/cors/x", origin, "PUT").await;
            let told = reply.headers.keys().any(|name| name.as_str().starts_with("access-control"));
            assert!(!told, "{door}: {origin}: {:?}", reply.headers);
        }
        let reply = ask("/cors-any", "https://any.test", "PATCH").await;
        for (name, value) in [
            ("access-control-allow-origin", "https://any.test"),
            ("access-control-allow-methods", "PATCH"),
            ("access-control-allow-headers", "x-z"),
            ("access-control-max-age", "5"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(reply.header(name), value, "{door}: {name}");
        }
    }
}

#[tokio::test]
async fn an_answer_says_what_the_rule_allows_and_not_what_the_upstream_says() {
    for (door, http) in doors("web") {
        let ask = |path: &str, origin: &str| http.get(path).header("origin", origin).send();
        let reply = ask("/cors", "http://local.test:8080").await;
        good(&reply);
        assert_eq!(reply.header("access-control-allow-origin"), "http://local.test:8080", "{door}");
        assert_eq!(reply.header("access-control-expose-headers"), "x-upstream", "{door}");
        let reply = ask("/cors", "http://local.test").await;
        good(&reply);
        assert_eq!(reply.header("access-control-allow-origin"), "", "{door}");
    }
}

#[tokio::test]
async fn where_no_rule_has_cors_the_mesh_has() {
    let ask = |path: &'static str| {
        mesh().http().get(path).header("host", "web").header("origin", "https://mesh.test").send()
    };
    let reply = ask("/plain").await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://mesh.test");
    assert!(reply.header("access-control-expose-headers").contains("grpc-status"));
    let reply = ask("/cors").await;
    assert_eq!(reply.header("access-control-allow-origin"), "", "the rule wins");
}
