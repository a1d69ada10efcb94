//! Rewrites, redirects, and filters of single backends.

use std::collections::BTreeSet;

use crate::{doors, good};

#[tokio::test]
async fn the_upstream_sees_the_rewritten_host_and_path() {
    for (door, http) in doors("web") {
        for (asked, seen) in [
            ("/rewrite/x?y=z&%20", "/inner/x?y=z&%20"),
            ("/rewrite", "/inner"),
            ("/rewrite/", "/inner/"),
            ("/rewrite?a", "/inner?a"),
        ] {
            let json = good(&http.get(asked).send().await);
            assert_eq!(
                (&json["target"], &json["host"]),
                (&seen.into(), &"new.test".into()),
                "{door}"
            );
            if door.starts_with("gateway") {
                assert_eq!(json["headers"]["x-forwarded-host"], "web", "{door}: {json}");
            }
        }
        let json = good(&http.get("/full/x/y?z").send().await);
        assert_eq!((&json["target"], &json["host"]), (&"/all?z".into(), &"web".into()), "{door}");
    }
}

#[tokio::test]
async fn a_redirect_names_the_place() {
    for (door, http) in doors("web") {
        for (asked, status, location) in [
            ("/redirect/a/b?c=d", 308, "https://new.test/moved/a/b?c=d"),
            ("/redirect", 308, "https://new.test/moved"),
            ("/redirect-port/a", 302, "http://web:8443/redirect-port/a"),
            ("/redirect-here/a?b", 302, "http://web/there?b"),
        ] {
            let reply = http.get(asked).send().await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("location")),
                (status, location),
                "{door}"
            );
            assert!(reply.body.is_empty(), "{door}");
        }
        assert_eq!(http.get("/redirect").send().await.header("x-why"), "moved", "{door}");
    }
}

#[tokio::test]
async fn each_backend_has_filters_of_its_own() {
    for (door, http) in doors("web") {
        let mut seen = BTreeSet::new();
        for _ in 0..9 {
            let reply = http.get("/each/x").send().await;
            if reply.status == 307 {
                assert_eq!(reply.header("location"), "http://three.test/each/x", "{door}");
                seen.insert("v3".to_owned());
                continue;
            }
            let json = good(&reply);
            let first = json["version"] == "v1";
            let target = if first { "/each/x" } else { "/two/x" };
            assert_eq!(json["target"], target, "{door}");
            assert_eq!(json["headers"]["x-for"] == "one", first, "{door}");
            assert_eq!(reply.header("x-from") == "one", first, "{door}");
            seen.insert(json["version"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen.len(), 3, "{door}: {seen:?}");
    }
}

#[tokio::test]
async fn a_try_has_a_time_of_its_own() {
    for (door, http) in doors("web") {
        let reply = http.get("/patience/slow").send().await;
        assert_eq!(reply.status, 504, "{door}: {}", reply.text());
        assert!(reply.text().contains("no answer within 200 ms"), "{door}: {}", reply.text());
    }
}
