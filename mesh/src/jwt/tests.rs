use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tonic::metadata::MetadataMap;
use weir_proto::weir::auth::v1::Jwk;

use super::*;

struct Key {
    kid: &'static str,
    pkcs8: Vec<u8>,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { kid, pkcs8: pkcs8.as_ref().to_vec() }
    }

    fn jwk(&self) -> Jwk {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8).unwrap();
        let point = pair.public_key().as_ref();
        Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: URL_SAFE_NO_PAD.encode(&point[33..]),
            kid: self.kid.into(),
            alg: "ES256".into(),
            r#use: "sig".into(),
        }
    }

    fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.into());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).unwrap()
    }
}

fn claims() -> Claims {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Claims {
        iss: ISSUER.into(),
        sub: "ada".into(),
        aud: AUDIENCE.into(),
        exp: now + 300,
        nbf: now,
        iat: now,
        jti: "1".into(),
        roles: vec!["editor".into()],
    }
}

/// An auth service: its keys, whether it is there, how often it was asked.
#[derive(Clone, Default)]
struct Source {
    keys: Arc<Mutex<Option<Vec<Jwk>>>>,
    asked: Arc<AtomicUsize>,
}

impl Source {
    fn publish(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = Some(keys.iter().map(|key| key.jwk()).collect());
    }

    fn disappear(&self) {
        *self.keys.lock().unwrap() = None;
    }

    fn verifier(&self) -> Verifier {
        let source = self.clone();
        let fetch: Fetch = Arc::new(move || {
            source.asked.fetch_add(1, SeqCst);
            let keys = source.keys.lock().unwrap().clone();
            Box::pin(async move {
                keys.map(|keys| Jwks { keys }).ok_or_else(|| Status::unavailable("away"))
            })
        });
        Verifier::new(ISSUER, AUDIENCE, fetch)
    }
}

#[tokio::test]
async fn a_true_token_gives_its_claims_and_each_lie_is_told_apart() {
    let (key, stranger) = (Key::new("a"), Key::new("a"));
    let source = Source::default();
    source.publish(&[&key]);
    let verifier = source.verifier();
    let good = claims();
    assert_eq!(verifier.verify(&key.sign(&good)).await, Ok(good.clone()));

    let lie = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        key.sign(&claims)
    };
    for (token, error) in [
        (stranger.sign(&good), TokenError::Signature),
        (lie(|c| c.exp = c.iat - 31), TokenError::Expired),
        (lie(|c| c.nbf += 60), TokenError::NotYet),
        (lie(|c| c.iss = "someone".into()), TokenError::Foreign),
        (lie(|c| c.aud = "elsewhere".into()), TokenError::Foreign),
        ("not a token".into(), TokenError::Malformed),
        ("a.b.c".into(), TokenError::Malformed),
        ("x".repeat(9000), TokenError::Malformed),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(error));
    }
    // Clocks may differ by 30 seconds.
    assert!(verifier.verify(&lie(|c| c.exp = c.iat - 20)).await.is_ok());
    assert!(verifier.verify(&lie(|c| c.nbf += 20)).await.is_ok());
}

#[tokio::test]
async fn no_algorithm_but_es256_is_looked_at() {
    let key = Key::new("a");
    let source = Source::default();
    source.publish(&[&key]);
    let verifier = source.verifier();
    // Signed with the public key as if that were a secret.
    let secret = URL_SAFE_NO_PAD.decode(key.jwk().x).unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".into());
    let forged =
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
    assert_eq!(verifier.verify(&forged).await, Err(TokenError::Malformed));
    let (_, rest) = forged.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"a"}"#);
    assert_eq!(verifier.verify(&format!("{none}.{rest}")).await, Err(TokenError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_and_an_unknown_key_asks_once_a_second() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let source = Source::default();
    let verifier = source.verifier();
    let old_token = old.sign(&claims());
    assert_eq!(verifier.verify(&old_token).await, Err(TokenError::Unavailable), "never reached");

    tokio::time::advance(Duration::from_secs(2)).await;
    source.publish(&[&old]);
    assert!(verifier.verify(&old_token).await.is_ok());
    source.disappear();
    tokio::time::advance(Duration::from_secs(3600)).await;
    let before = source.asked.load(SeqCst);
    assert!(verifier.verify(&old_token).await.is_ok(), "the cached key serves on");
    // Behind its back the keys are asked for, in vain.
    while source.asked.load(SeqCst) == before {
        tokio::task::yield_now().await;
    }

    tokio::time::advance(Duration::from_secs(2)).await;
    source.publish(&[&old, &new]);
    let before = source.asked.load(SeqCst);
    assert!(verifier.verify(&new.sign(&claims())).await.is_ok());
    for _ in 0..50 {
        let unknown = Key::new("unknown").sign(&claims());
        assert_eq!(verifier.verify(&unknown).await, Err(TokenError::Signature));
    }
    assert_eq!(source.asked.load(SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_no_longer_published_stops_working() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let source = Source::default();
    source.publish(&[&old, &new]);
    let verifier = source.verifier();
    let (old_token, new_token) = (old.sign(&claims()), new.sign(&claims()));
    assert!(verifier.verify(&old_token).await.is_ok());
    source.publish(&[&new]);
    tokio::time::advance(Duration::from_secs(301)).await;
    // This one finds the keys old and has them fetched behind its back.
    assert!(verifier.verify(&new_token).await.is_ok());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while verifier.verify(&old_token).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(verifier.verify(&old_token).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn the_header_must_be_one_bearer_token() {
    let key = Key::new("a");
    let source = Source::default();
    source.publish(&[&key]);
    let verifier = source.verifier();
    let token = key.sign(&claims());
    let user = async |values: &[String]| {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", value.parse().unwrap());
        }
        verifier.user(&metadata).await
    };
    assert_eq!(user(&[format!("Bearer {token}")]).await.unwrap().sub, "ada");
    assert_eq!(user(&[format!("bearer {token}")]).await.unwrap().roles, ["editor"]);
    let wrong = [
        vec![],
        vec![token.clone()],
        vec![format!("Basic {token}")],
        vec![format!("Bearer {token}"); 2],
    ];
    for values in wrong {
        let status = user(&values).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert!(!format!("{status:?}").contains(&token), "a token is never repeated");
    }
}
