//! What may leave the mesh, by host.

use crate::world::{metric, world};

#[tokio::test]
async fn a_listed_host_is_reached_as_it_was_asked_for() {
    for host in ["localhost", "127.0.0.1", "LOCALHOST"] {
        let asked = format!("{host}:{}", world().open);
        for _ in 0..3 {
            let reply = world().outbound(&asked).get("/path?query").send().await;
            assert_eq!(reply.status, 200, "{host}: {}", reply.text());
            let head = reply.text();
            assert!(head.starts_with("GET /path?query HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains(&format!("host: {asked}").to_lowercase()));
            assert!(!head.contains("x-forwarded-client-cert"), "{head}");
        }
    }
    let allowed = metric("caller-v1-1-router", "weir_router_egress_total", "\"allowed\"").await;
    assert!(allowed >= 9.0, "{allowed}");
}

#[tokio::test]
async fn what_is_not_listed_is_forbidden_with_the_reason() {
    let not_listed = "the mesh's policy does not allow";
    let inner = "leads to a loopback, link-local or metadata address";
    for (host, why) in [
        ("example.com".to_owned(), not_listed),
        (format!("localhost.example.com:{}", world().open), not_listed),
        (format!("127.0.0.2:{}", world().open), not_listed),
        ("169.254.169.254".to_owned(), not_listed),
        (format!("[::1]:{}", world().open), not_listed),
        // The name is listed with this port, but not where it leads.
        (format!("localhost:{}", world().inner), inner),
    ] {
        let reply = world().outbound(&host).get("/").send().await;
        assert_eq!(reply.status, 403, "{host}: {}", reply.text());
        assert!(reply.text().contains(why), "{host}: {}", reply.text());
    }
    let flagged = metric("caller-v1-1-router", "weir_router_response_flags_total", "\"ED\"").await;
    assert!(flagged >= 6.0, "{flagged}");
}

#[tokio::test]
async fn a_misspelt_service_is_still_not_found() {
    let reply = world().outbound("ecko").get("/").send().await;
    assert_eq!(reply.status, 404, "{}", reply.text());
    // Nor does the gateway pass anything on to the outside.
    let gateway = world().mesh.http().get("/").header("host", "localhost").send().await;
    assert_eq!(gateway.status, 404, "{}", gateway.text());
}
