//! Tokens at the gateway, and tricks with them.

use serde_json::{Value, json};
use weir_tests::{Reply, eventually};

use crate::token::{Signer, base64url, claims, now, with};
use crate::{World, mesh, world};

async fn show(path: &str, token: &str) -> Reply {
    mesh().http().with_token(token).get(path).send().await
}

#[track_caller]
fn refused(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 401, "{what}: {}", reply.text());
    assert_eq!(reply.json()["code"], 16, "{what}");
    assert!(reply.header("www-authenticate").starts_with("Bearer realm=\"weir\""), "{what}");
}

#[tokio::test]
async fn a_good_token_passes_and_its_claims_become_headers() {
    let token = world().signer.token(&claims());
    let reply = mesh()
        .http()
        .with_token(&token)
        .get("/jwt/x")
        .header("x-user", "root")
        .header("x-roles", "admin")
        .header("connection", "x-user")
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let headers = &reply.json()["headers"];
    assert_eq!((&headers["x-user"], &headers["x-roles"]), (&json!("ada"), &json!("user")));
    assert_eq!(headers["authorization"], Value::Null, "forward: false");
    // A copy of the header is no claim, wherever it is sent.
    for path in ["/web/x", "/optional"] {
        let reply = mesh().http().get(path).header("x-user", "root").send().await;
        assert_eq!(reply.json()["headers"]["x-user"], Value::Null, "{path}");
    }
    // Nor does a route take it for one.
    let reply = mesh().http().get("/claimed").header("x-roles", "admin").send().await;
    assert_eq!(reply.status, 404, "{}", reply.text());
    let cookie = format!("a=b; session={token}");
    let reply = mesh().http().get("/jwt").header("cookie", &cookie).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_service_asks_for_tokens_at_its_own_router() {
    let http = crate::from("caller", "stranger");
    refused(&http.get("/").send().await, "none");
    let signer = &world().signer;
    let token = signer.token(&claims());
    let ask = http.clone().with_token(&token).get("/").header("x-user", "root");
    let headers = ask.ok().await["headers"].clone();
    assert_eq!(headers["x-user"], "ada");
    assert_eq!(headers["authorization"], format!("Bearer {token}"), "it is passed on");
    let guest = signer.token(&with("sub", json!("guest")));
    let reply = http.with_token(&guest).get("/").send().await;
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(reply.text().contains("inside, rule guests"), "{}", reply.text());
}

#[tokio::test]
async fn without_a_token_it_is_401_and_with_the_wrong_role_403() {
    let reply = mesh().http().get("/jwt").send().await;
    refused(&reply, "none");
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"weir\"");
    assert_eq!(mesh().http().get("/optional").send().await.status, 200);
    refused(&show("/optional", "a.b.c").await, "not valid");

    refused(&mesh().http().get("/role").send().await, "none");
    let signer = &world().signer;
    let reply = show("/role", &signer.token(&claims())).await;
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(reply.text().contains("admins"), "{}", reply.text());
    let admin = with("roles", json!(["user", "admin"]));
    assert_eq!(show("/role", &signer.token(&admin)).await.status, 200);
}

#[tokio::test]
async fn claims_that_are_wrong_are_refused() {
    let signer = &world().signer;
    for (name, value) in [
        ("iss", json!("https://other.test")),
        ("iss", Value::Null),
        ("aud", json!("others")),
        ("aud", Value::Null),
        ("exp", Value::Null),
        ("exp", json!((now() + 200).to_string())),
        ("exp", json!(now() - 100)),
        ("nbf", json!(now() + 100)),
        ("iat", json!(now() - 400)),
        ("iat", json!(now() + 100)),
        ("iat", Value::Null),
    ] {
        let what = format!("{name}: {value}");
        let reply = show("/jwt", &signer.token(&with(name, value))).await;
        refused(&reply, &what);
        assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""), "{what}");
    }
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let signer = &world().signer;
    let thief = Signer::new("thief");
    let payload = claims().to_string();
    let header = |header: Value| header.to_string();
    let unsigned = |alg: &str| {
        format!(
            "{}.{}.",
            base64url(header(json!({ "alg": alg, "kid": "first" }))),
            base64url(&payload)
        )
    };
    let public = signer.jwk().to_string();
    let hmac = {
        use aws_lc_rs::hmac;
        let signed = format!(
            "{}.{}",
            base64url(header(json!({ "alg": "HS256", "kid": "first" }))),
            base64url(&payload)
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
        format!("{signed}.{}", base64url(hmac::sign(&key, signed.as_bytes())))
    };
    let twice = payload.replacen('{', "{\"sub\":\"root\",", 1);
    let es256 = |name: &str, value: Value| {
        let mut header = json!({ "alg": "ES256", "kid": "first" });
        header[name] = value;
        header.to_string()
    };
    let good = signer.token(&claims());
    for (what, token) in [
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("no signature", unsigned("ES256")),
        ("HS256 with the public key", hmac),
        ("another algorithm", unsigned("ES384")),
        ("embedded jwk", thief.sign(&es256("jwk", thief.jwk()), &payload)),
        ("jku", thief.sign(&es256("jku", json!("http://127.0.0.1:1/")), &payload)),
        ("x5u", thief.sign(&es256("x5u", json!("http://127.0.0.1:1/")), &payload)),
        ("crit", signer.sign(&es256("crit", json!(["x"])), &payload)),
        ("kid traversal", thief.sign(&es256("kid", json!("../../../dev/null")), &payload)),
        ("another key", thief.sign(&es256("kid", json!("first")), &payload)),
        ("a name twice", signer.sign(&es256("typ", json!("JWT")), &twice)),
        ("huge", signer.token(&with("x", json!("x".repeat(10_000))))),
        ("cut off", good[..good.len() - 4].to_owned()),
        ("padded", format!("{good}=")),
        ("empty", String::new()),
    ] {
        refused(&show("/jwt", &token).await, what);
        refused(&show("/optional", &token).await, what);
    }
    // Two headers could mean one token to us and another to the upstream.
    assert_eq!(show("/jwt", &good).await.status, 200);
    refused(&two_headers(&good).await, "two Authorization headers");
    refused(&mesh().http().get("/jwt").header("authorization", "Basic YTpi").send().await, "Basic");
}

async fn two_headers(token: &str) -> Reply {
    use http_body_util::BodyExt as _;
    let stream = tokio::net::TcpStream::connect(mesh().gateway.strip_prefix("http://").unwrap());
    let io = hyper_util::rt::TokioIo::new(stream.await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/jwt")
        .header("host", "x")
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", "Bearer other")
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    let (parts, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    Reply {
        status: parts.status,
        headers: parts.headers,
        trailers: http::HeaderMap::new(),
        body: body.to_bytes(),
    }
}

#[tokio::test]
async fn new_keys_are_found_and_an_outage_is_survived() {
    let World { jwks, signer, .. } = world();
    let new = Signer::new("second");
    let good = async |signer: &Signer| show("/jwt", &signer.token(&claims())).await.status == 200;
    assert!(good(signer).await);
    assert!(!good(&new).await);
    jwks.publish(&[signer, &new]);
    // At most one fetch in a second is made.
    eventually("the new key is found", || async { good(&new).await.then_some(()) }).await;
    jwks.go_away();
    let third = Signer::new("third");
    refused(&show("/jwt", &third.token(&claims())).await, "a key that nobody can ask for");
    assert!(good(signer).await && good(&new).await, "known keys go on");
    jwks.publish(&[signer, &new]);
}
