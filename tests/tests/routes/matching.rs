//! Patterns, and gRPC methods.

use crate::{doors, good, http2_doors, say};

#[tokio::test]
async fn patterns_of_paths_headers_and_queries() {
    for (door, http) in doors("web") {
        for (path, user, rule) in [
            ("/regex/12/a", "ann", "path"),
            ("/regex/12/c", "ann", "header"),
            ("/regex/12/a/b", "zoe", "prefix"),
            ("/regex?q=7+x", "zoe", "query"),
            ("/regex?q=7%20X", "zoe", "prefix"),
            ("/regex?q=7+x", "bob", "header"),
        ] {
            let reply = http.get(path).header("x-user", user).send().await;
            good(&reply);
            assert_eq!(reply.header("x-rule"), rule, "{door}: {path} of {user}");
        }
    }
}

#[tokio::test]
async fn grpc_methods_without_services_and_by_patterns() {
    for (door, http) in http2_doors("talk") {
        for (path, rule) in [
            ("/talk.v1.Talk/Say", "service"),
            ("/talk.v1.Talk/Shout", "service"),
            ("/talk.v2.Talk/SayTwice", "regex"),
            ("/talk.v2.Talk/Shout", "method"),
            ("/other.Talk/Shout", "method"),
        ] {
            let reply = say(&http, path).await;
            assert_eq!(reply.trailers["grpc-status"], "0", "{door}: {path}");
            assert_eq!(reply.header("x-rule"), rule, "{door}: {path}");
        }
        let reply = say(&http, "/other.Talk/Say").await;
        assert_eq!(reply.header("grpc-status"), "12", "{door}: no route takes it");
    }
}
