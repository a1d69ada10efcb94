//! What all routers count together, in Redis.

use weir_tests::{Http, eventually, free_port, installed};

use crate::redis::Redis;
use crate::{counted, gateway, logged, mesh, store, store_is};

#[tokio::test]
async fn routers_share_one_count() {
    if !installed("redis-server") {
        return;
    }
    let redis = store("shared", &["gateway", "notifications-v1-1-router"]).await;
    let outbound = mesh().process("notifications-v1-1-router").outbound.unwrap();
    let sidecar = Http::new(&format!("http://{outbound}")).with_header("host", "web");
    let doors = [gateway(), sidecar];
    for tenant in ["crimson", "blue"] {
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
    let refused = doors[1].get("/shared").header("x-tenant", "crimson").send().await;
    assert!(refused.header("ratelimit").starts_with("\"shared/tenant\";r=0;t="), "{refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3000..=3960).contains(&after), "{after}");
    // Names of tenants are not to be read there, and counts do not stay for ever.
    let keys = redis.say("KEYS *");
    assert!(keys.contains("weir:rl:{shared/tenant:") && !keys.contains("crimson"), "{keys}");
    let key = keys.lines().find(|line| line.starts_with("weir:rl:")).unwrap();
    let expires = redis.say(&format!("PTTL {key}"));
    let expires: u64 = expires.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=4_320_000).contains(&expires), "{expires}");
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() {
    if !installed("redis-server") {
        return;
    }
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
    // It was the server that counted, all the time.
    let failures = "weir_router_rate_limit_store_failures_total";
    let server = format!("127.0.0.1:{}\"", redis.port);
    for reason in ["away", "late", "failed"] {
        let labels = [&*server, &format!("reason=\"{reason}\"")];
        assert_eq!(counted("gateway", failures, &labels).await, 0, "{reason}");
    }
}

/// onFailure: Open. What was counted before it hung is not forgotten.
#[tokio::test]
async fn a_server_that_hangs_leaves_each_router_to_itself() {
    if !installed("redis-server") {
        return;
    }
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
    if !installed("redis-server") {
        return;
    }
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

/// The script itself, in the server, with times of our own: no window has more
/// than the limit, and who waits as told is let through.
#[test]
fn no_window_ever_has_more_than_the_limit() {
    if !installed("redis-server") {
        return;
    }
    const SCRIPT: &str = include_str!("../../../router/src/limit/window.lua");
    const PER: u64 = 10_000;
    let redis = Redis::start(free_port());
    let script = SCRIPT.replace("redis.call('TIME')", "{ARGV[4], ARGV[5]}");
    assert_ne!(script, SCRIPT);
    let mut client = redis.client();
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limit = random.u64(1..30);
        let mut now = 1_000_000_000 + random.u64(..PER);
        // (when, how many)
        let mut passed: Vec<(u64, u64)> = Vec::new();
        let mut ask = |now: u64, cost: u64| {
            let (seconds, micros) = (now / 1000, now % 1000 * 1000);
            let numbers = [PER, limit, cost, seconds, micros].map(|number| number.to_string());
            let key = format!("{{law:{seed}}}");
            let mut parts = vec!["EVAL", &script, "1", &key];
            parts.extend(numbers.iter().map(String::as_str));
            client.integers(&parts)
        };
        for _ in 0..300 {
            now += if random.f32() < 0.7 { random.u64(..100) } else { random.u64(..PER / 2) };
            let cost = random.u64(1..=limit.min(3));
            let [allowed, left, again, reset] = ask(now, cost);
            let window = |from: u64| {
                let of = passed.iter().filter(|(at, _)| *at > from && *at <= now);
                of.map(|(_, cost)| cost).sum::<u64>()
            };
            if allowed == 1 {
                assert!(window(now - PER) + cost <= limit, "seed {seed} at {now}");
                passed.push((now, cost));
                assert!(left < limit && reset <= PER / 10 * 11);
                continue;
            }
            assert!(window(now - PER / 10 * 11) + cost > limit, "seed {seed}: refused too long");
            assert!((1..=PER / 10 * 11).contains(&again), "{again}");
            if random.f32() < 0.3 {
                now += again;
                assert_eq!(ask(now, cost)[0], 1, "seed {seed}: waited {again} in vain");
                passed.push((now, cost));
            }
        }
    }
}
