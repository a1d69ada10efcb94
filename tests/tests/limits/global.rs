//! What all routers count together, in Redis.

use weir_tests::{Http, eventually};

use crate::{gateway, logged, mesh, store, store_is};

#[tokio::test]
async fn routers_share_one_count() {
    let redis = store("shared", &["gateway", "notifications-v1-1-router"]).await;
    let outbound = mesh().process("notifications-v1-1-router").outbound.unwrap();
    let sidecar = Http::new(&format!("http://{outbound}")).with_header("host", "web");
    let doors = [gateway(), sidecar];
    for tenant in ["red", "blue"] {
        let mut passed = 0;
        for n in 0..30 {
            let reply = doors[n % 2].get("/shared").header("x-tenant", tenant).send().await;
            match reply.status.as_u16() {
                200 => passed += 1,
                status => assert_eq!(status, 429, "{}", reply.text()),
            }
        }
        assert_eq!(passed, 10, "{tenant}");
    }
    let refused = doors[1].get("/shared").header("x-tenant", "red").send().await;
    assert!(refused.header("ratelimit").starts_with("\"shared/tenant\";r=0;t="), "{refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3000..=3960).contains(&after), "{after}");
    // Names of tenants are not to be read there, and counts do not stay for ever.
    let keys = redis.say("KEYS *");
    assert!(keys.contains("weir:rl:{shared/tenant:") && !keys.contains("red"), "{keys}");
    let key = keys.lines().find(|line| line.starts_with("weir:rl:")).unwrap();
    let expires = redis.say(&format!("PTTL {key}"));
    let expires: u64 = expires.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=4_320_000).contains(&expires), "{expires}");
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() {
    let redis = store("flushed", &["gateway"]).await;
    let http = gateway();
    for _ in 0..2 {
        assert_eq!(http.get("/flushed").send().await.status, 200);
    }
    assert_eq!(redis.say("SCRIPT FLUSH"), "+OK\r\n");
    let mut passed = 0;
    for _ in 0..5 {
        passed += u32::from(http.get("/flushed").send().await.status == 200);
    }
    assert_eq!(passed, 2);
    store_is(&redis, "gateway", 1).await;
}

/// onFailure: Open. What was counted before it hung is not forgotten.
#[tokio::test]
async fn a_server_that_hangs_leaves_each_router_to_itself() {
    let redis = store("stopped", &["gateway"]).await;
    let http = gateway();
    for _ in 0..2 {
        assert_eq!(http.get("/stopped").send().await.status, 200);
    }
    redis.hold();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(http.get("/stopped").send().await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    store_is(&redis, "gateway", 0).await;
    redis.go_on();
    store_is(&redis, "gateway", 1).await;
    // It had counted two, and has read by now what hung in its socket.
    eventually("its own count decides again", || async {
        let reply = http.get("/stopped").send().await;
        (reply.status == 429).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_closes_what_is_to_be_closed() {
    let http = gateway();
    let refused = |why: &'static str| {
        let http = http.clone();
        async move {
            eventually(why, || async {
                let reply = http.get("/closed").send().await;
                assert!([200, 503].contains(&reply.status.as_u16()), "{}", reply.text());
                (reply.status == 503).then_some(reply)
            })
            .await
        }
    };
    let reply = refused("there is no server yet").await;
    assert!(reply.text().contains("rate limit closed/all cannot be asked"), "{}", reply.text());
    logged("/closed", "RLSE").await;
    let redis = store("closed", &["gateway"]).await;
    assert_eq!(http.get("/closed").send().await.status, 200);
    drop(redis);
    refused("it was killed").await;
    let redis = store("closed", &["gateway"]).await;
    assert_eq!(http.get("/closed").send().await.status, 200);
    drop(redis);
}
