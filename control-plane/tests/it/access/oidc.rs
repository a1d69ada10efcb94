//! Tokens of an OIDC issuer: a small one in this process, with real keys.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::plane::{Plane, eventually};

struct Key {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Self { kid, pair: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
               "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.kid}).to_string();
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// An issuer: its keys can be changed, and it can be away.
struct IdP {
    url: String,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
}

impl IdP {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys: Arc<Mutex<Option<Vec<Value>>>> = Arc::default();
        let asked: Arc<AtomicUsize> = Arc::default();
        let (own, held, count) = (url.clone(), keys.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut some = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut some).await {
                        Ok(read) if read > 0 => request.extend(&some[..read]),
                        _ => break,
                    }
                }
                let path = String::from_utf8(request).unwrap();
                let path = path.split(' ').nth(1).unwrap_or_default().to_owned();
                count.fetch_add(1, SeqCst);
                let keys = held.lock().unwrap().clone();
                let body = match (path.as_str(), keys) {
                    ("/.well-known/openid-configuration", Some(_)) => {
                        Some(json!({"issuer": own, "jwks_uri": format!("{own}/keys")}))
                    }
                    ("/keys", Some(keys)) => Some(json!({"keys": keys})),
                    _ => None,
                };
                let status = if body.is_some() { "200 OK" } else { "503 Away" };
                let body = body.unwrap_or_default().to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, keys, asked }
    }

    fn publish(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = Some(keys.iter().map(|key| key.jwk()).collect());
    }

    fn access(&self) -> String {
        format!(
            "oidc:\n  issuer: {}\n  audience: weir-api\n  claims:\n    name: email\n    roles:\n\
             \x20   - {{claim: groups, value: sre, role: operator}}\n\
             \x20   - {{claim: groups, value: shop, role: shifter, services: [products]}}\n\
             \x20   - {{claim: groups, value: people, role: shifter, services: [users]}}\n\
             \x20   - {{claim: tenant, value: acme, role: viewer}}\n",
            self.url
        )
    }

    fn claims(&self) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_secs();
        json!({"iss": self.url, "aud": ["other", "weir-api"], "sub": "42", "iat": now,
               "exp": now + 300, "email": "ada@example.com", "groups": ["staff", "sre"]})
    }
}

async fn who(plane: &Plane, token: &str) -> (u16, Value) {
    plane.http_as(token, "GET", "/v1/whoami", Value::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_issuer_gives_its_owners_role() {
    let (idp, key) = (IdP::start().await, Key::new("a"));
    idp.publish(&[&key]);
    let plane = Plane::with_access(&idp.access(), |_| {}).await;
    plane.seed().await;
    let with = |change: Value| {
        let mut claims = idp.claims();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let (status, answer) = who(&plane, &key.sign(&idp.claims())).await;
    assert_eq!(
        (status, answer),
        (
            200,
            json!({"name": "oidc:ada@example.com", "method": "oidc", "role": "operator",
                   "services": []})
        )
    );
    let both = with(json!({"groups": ["shop", "people"]}));
    let (_, answer) = who(&plane, &key.sign(&both)).await;
    assert_eq!(
        (&answer["role"], &answer["services"]),
        (&json!("shifter"), &json!(["products", "users"]))
    );
    let tenant = with(json!({"groups": [], "tenant": "acme"}));
    assert_eq!(who(&plane, &key.sign(&tenant)).await.1["role"], "viewer");

    let nobody = key.sign(&with(json!({"groups": ["staff"]})));
    let (status, answer) = who(&plane, &nobody).await;
    assert_eq!((status, &answer["status"]), (403, &json!("PERMISSION_DENIED")), "{answer}");
    let entries = plane.get("/v1/history").await;
    let newest = &entries["entries"][0];
    assert_eq!(
        (&newest["action"], &newest["actor"]),
        (&json!("refused"), &json!("oidc:ada@example.com"))
    );

    let now = idp.claims()["iat"].as_u64().unwrap();
    for (claims, expected) in [
        (with(json!({"exp": now - 31})), "has expired"),
        (with(json!({"aud": "elsewhere"})), "is for another audience"),
        (with(json!({"aud": null})), "claim \"aud\""),
        (with(json!({"nbf": now + 60})), "is not valid yet"),
        (with(json!({"email": null})), "has no claim \"email\""),
        (with(json!({"email_verified": false})), "is not verified"),
        (with(json!({"iss": "https://somebody.example"})), "is not the control plane's"),
    ] {
        let (status, answer) = who(&plane, &key.sign(&claims)).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status == 401 && message.contains(expected), "{status} {message}");
    }
    let stranger = Key::new("a");
    let (status, answer) = who(&plane, &stranger.sign(&idp.claims())).await;
    assert!(status == 401 && answer["message"].as_str().unwrap().contains("signature"), "{answer}");
    let good = key.sign(&idp.claims());
    let none = BASE64.encode(json!({"alg": "none", "kid": "a"}).to_string());
    let (_, rest) = good.split_once('.').unwrap();
    assert_eq!(who(&plane, &format!("{none}.{rest}")).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_followed_and_an_issuer_that_is_away_stops_nobody_else() {
    let (idp, old, new) = (IdP::start().await, Key::new("old"), Key::new("new"));
    let plane = Plane::with_access(&idp.access(), |_| {}).await;
    let (status, answer) = who(&plane, &old.sign(&idp.claims())).await;
    let message = answer["message"].as_str().unwrap();
    assert!(
        status == 401 && message.contains("are not known") && message.contains("503"),
        "{message}"
    );
    assert_eq!(who(&plane, &plane.token).await.0, 200, "the mesh's own token goes on");

    idp.publish(&[&old]);
    eventually("the first keys", async || {
        (who(&plane, &old.sign(&idp.claims())).await.0 == 200).then_some(())
    })
    .await;
    *idp.keys.lock().unwrap() = None;
    assert_eq!(who(&plane, &old.sign(&idp.claims())).await.0, 200, "known keys serve on");
    idp.publish(&[&new]);
    eventually("the new key", async || {
        (who(&plane, &new.sign(&idp.claims())).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(who(&plane, &old.sign(&idp.claims())).await.0, 401, "a key that is gone");
    // Keys that nobody knows make few questions, however many there are.
    let before = idp.asked.load(SeqCst);
    let started = std::time::Instant::now();
    let unknown = Key::new("unknown");
    for _ in 0..50 {
        assert_eq!(who(&plane, &unknown.sign(&idp.claims())).await.0, 401);
    }
    let fetches = (idp.asked.load(SeqCst) - before) / 2;
    assert!(fetches as u64 <= 2 + started.elapsed().as_secs(), "{fetches}");
}
