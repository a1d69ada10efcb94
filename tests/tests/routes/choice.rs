//! Which version: forced, carried along, kept by a session, by weight.

use std::collections::{BTreeMap, BTreeSet};

use weir_tests::{Http, Reply};

use crate::{doors, gateway, good, mesh};

fn version(reply: &Reply) -> String {
    good(reply)["version"].as_str().unwrap().to_owned()
}

fn cookie(reply: &Reply) -> String {
    let header = reply.header("set-cookie");
    header.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_stays_where_it_began() {
    for (door, http) in doors("web") {
        let mut places = BTreeSet::new();
        // More than there are workers, which split each for itself.
        for _ in 0..9 {
            let first = http.get("/session").send().await;
            let (place, cookie) = (version(&first), cookie(&first));
            let set = first.header("set-cookie");
            assert!(set.starts_with("seat=") && set.ends_with("Max-Age=3600"), "{door}: {set}");
            for (other, again) in doors("web") {
                let reply = again.get("/session").header("cookie", &cookie).send().await;
                assert_eq!(version(&reply), place, "{door}, then {other}");
                assert_eq!(reply.header("set-cookie"), "", "{door}, then {other}");
            }
            places.insert(place);
        }
        assert_eq!(places.len(), 2, "{door}: sessions are spread by weight");
    }
}

#[tokio::test]
async fn a_shift_moves_new_clients_and_no_session_but_those_of_what_gets_nothing() {
    let (_, http) = doors("web").into_iter().next().unwrap();
    let ask = |cookie: String| {
        let http = &http;
        async move { http.get("/grow").header("cookie", &cookie).send().await }
    };
    let mut cookies = BTreeMap::new();
    for _ in 0..8 {
        let first = ask(String::new()).await;
        cookies.insert(version(&first), cookie(&first));
    }
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for (v1, v2) in [(90, 10), (10, 90), (99, 1), (1, 0)] {
        let body = serde_json::json!({"weights": {"v1": v1, "v2": v2}, "wait": true});
        mesh().api().post("/v1/services/grow/shift", &body).ok().await;
        for (place, cookie) in &cookies {
            let now = version(&ask(cookie.clone()).await);
            let expected = if v2 == 0 { "v1" } else { place };
            assert_eq!(now, expected, "at {v1} to {v2}");
        }
    }
}

#[tokio::test]
async fn a_forged_session_is_a_new_one() {
    let (_, http) = doors("web").into_iter().next().unwrap();
    for forged in ["seat=AAAA", "seat=", "seat=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let reply = http.get("/session").header("cookie", forged).send().await;
        assert!(["v1", "v2"].contains(&&*version(&reply)), "{forged}");
        assert!(cookie(&reply).starts_with("seat="), "{forged}: a new one is set");
    }
}

#[tokio::test]
async fn a_session_can_be_a_header_and_stays_on_a_version_of_a_split() {
    for (door, http) in doors("web") {
        let first = http.get("/session-split").send().await;
        let (place, seat) = (version(&first), first.header("x-seat").to_owned());
        assert!(!seat.is_empty(), "{door}");
        for _ in 0..4 {
            let reply = http.get("/session-split").header("x-seat", &seat).send().await;
            assert_eq!(version(&reply), place, "{door}");
        }
    }
}

#[tokio::test]
async fn a_forced_version_wins_over_the_session_and_that_over_weight() {
    for (door, http) in doors("web") {
        let first = http.get("/force").send().await;
        let (place, cookie) = (version(&first), cookie(&first));
        for _ in 0..3 {
            let ask = |want: &str| {
                http.get("/force").header("cookie", &cookie).header("x-want", want).send()
            };
            assert_eq!(version(&ask("v3").await), "v3", "{door}: weight 0, but forced");
            assert_eq!(version(&ask("v9").await), place, "{door}: there is no v9");
            let kept = http.get("/force").header("cookie", &cookie).send().await;
            assert_eq!(version(&kept), place, "{door}");
        }
        // Another route does not listen to the header.
        let asked = http.get("/plain").header("x-want", "v3").send().await;
        assert_ne!(version(&asked), "v3", "{door}");
    }
}

#[tokio::test]
async fn the_gateway_pins_versions_and_routers_inside_keep_to_them() {
    let outside = Http::http2_via("http://web", gateway());
    for want in ["v1", "v2", "v3"] {
        let call = outside.get("/pin").header("cookie", &format!("want={want}"));
        let call = call.header("baggage", "a=b, weir.version=web:v9/other:v1,c=d");
        let json = good(&call.send().await);
        assert_eq!(json["version"], want);
        let baggage = json["headers"]["baggage"].as_str().unwrap();
        assert_eq!(baggage, format!("a=b,c=d,weir.version=web:{want}"), "the outside's is gone");
        // What an application would send on.
        for (door, http) in doors("web").into_iter().filter(|(door, _)| door.starts_with("sidecar"))
        {
            for _ in 0..3 {
                let reply = http.get("/plain").header("baggage", baggage).send().await;
                assert_eq!(version(&reply), want, "{door}");
            }
            let unknown = http.get("/plain").header("baggage", "weir.version=web:v9").send().await;
            let json = good(&unknown);
            let got = format!("weir.version=web:{}", json["version"].as_str().unwrap());
            assert_eq!(json["headers"]["baggage"], got, "{door}: what it got instead is told");
        }
    }
    // Routes that do not pin add nothing, and the outside pins nothing.
    let call = outside.get("/plain").header("baggage", "weir.version=web:v3");
    let json = good(&call.send().await);
    assert_ne!(json["version"], "v3");
    assert_eq!(json["headers"].get("baggage"), None);
    assert!(mesh().up_pid().is_some());
}

#[tokio::test]
async fn the_share_of_a_backend_that_cannot_be_used_is_answered_500() {
    let gone = serde_json::json!({
        "service": "gone", "weight": 1, "invalid": "there is no Service gone",
    });
    let route = serde_json::json!({
        "kind": "HTTP_ROUTE",
        "parentRefs": [{"kind": "Gateway", "name": "gateway"}],
        "rules": [{
            "matches": [{"pathType": "PATH_PREFIX", "path": "/half"}],
            "backendRefs": [{"service": "web", "version": "v1", "weight": 1}, gone],
        }, {
            "matches": [{"pathType": "PATH_PREFIX", "path": "/half.v1.Half"}],
            "backendRefs": [gone],
        }],
    });
    let answer = mesh().api().call(http::Method::PUT, "/v1/routes/half").json(&route).ok().await;
    assert_ne!(answer["revision"], serde_json::Value::Null, "{answer}");
    weir_tests::eventually("the route is used", || async {
        (mesh().http().get("/half").send().await.status != 404).then_some(())
    })
    .await;
    // One connection, and so one worker, which splits exactly.
    let http = mesh().http();
    let mut bad = 0;
    for _ in 0..10 {
        let reply = http.get("/half").send().await;
        if reply.status == 200 {
            continue;
        }
        bad += 1;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &13.into()));
        let text = reply.text();
        assert!(text.contains("half/0 cannot be used: there is no Service gone"), "{text}");
    }
    assert!((4..=6).contains(&bad), "{bad} of 10");
    let reply = crate::say(&Http::http2(&mesh().gateway), "/half.v1.Half/Say").await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "14"));
    mesh().api().call(http::Method::DELETE, "/v1/routes/half").ok().await;
}
