use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Signer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(alg, &SystemRandom::new()).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(alg, der.as_ref()).unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "alg": "ES256" })
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64url(signature))
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid });
        self.sign(&header.to_string(), &claims.to_string())
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rules() -> Rules {
    Rules {
        issuer: "https://issuer.example".into(),
        audiences: vec!["weir".into()],
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        clock_skew: Duration::from_secs(30),
        max_age: Some(Duration::from_secs(300)),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "weir", "sub": "ada", "exp": NOW + 100,
        "iat": NOW - 100,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn check(token: &str, keys: &KeySet) -> Result<Value, TokenError> {
    verify(Token::parse(token)?, &rules(), keys, NOW).map(Value::Object)
}

#[test]
fn a_good_token_is_believed() {
    let signer = Signer::new("a");
    let keys = set(&[signer.jwk()]);
    assert_eq!(check(&signer.token(&claims()), &keys), Ok(claims()));
    for (name, value) in [
        ("aud", json!(["other", "weir"])),
        ("exp", json!(NOW - 29)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", json!(NOW + 29)),
        ("iat", json!(NOW - 329)),
    ] {
        let claims = with(name, value);
        assert_eq!(check(&signer.token(&claims), &keys), Ok(claims));
    }
}

#[test]
fn claims_that_are_wrong_are_named() {
    use TokenError as E;
    let signer = Signer::new("a");
    let keys = set(&[signer.jwk()]);
    for (name, value, error) in [
        ("iss", json!("https://other.example"), E::Issuer),
        ("iss", Value::Null, E::Issuer),
        ("aud", json!("other"), E::Audience),
        ("aud", json!([]), E::Audience),
        ("aud", Value::Null, E::Claim("aud")),
        ("aud", json!(7), E::Claim("aud")),
        ("exp", Value::Null, E::Claim("exp")),
        ("exp", json!((NOW + 100).to_string()), E::Claim("exp")),
        ("exp", json!(true), E::Claim("exp")),
        ("exp", json!(1e300), E::Claim("exp")),
        ("exp", json!(-1), E::Claim("exp")),
        ("exp", json!(NOW - 30), E::Expired),
        ("nbf", json!("0"), E::Claim("nbf")),
        ("nbf", json!(NOW + 31), E::NotYet),
        ("iat", json!(NOW + 31), E::NotYet),
        ("iat", json!(NOW - 331), E::Old),
        ("iat", Value::Null, E::Claim("iat")),
        ("iat", json!("1"), E::Claim("iat")),
    ] {
        let claims = with(name, value);
        assert_eq!(check(&signer.token(&claims), &keys), Err(error), "{claims}");
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    use TokenError as E;
    let (signer, thief) = (Signer::new("a"), Signer::new("b"));
    let keys = set(&[signer.jwk()]);
    let payload = claims().to_string();
    let unsigned = |alg: &str| {
        let header = json!({ "alg": alg, "kid": "a" }).to_string();
        format!("{}.{}.", base64url(header), base64url(&payload))
    };
    for alg in ["none", "None", "NONE", "HS256", "RS1", ""] {
        assert_eq!(check(&unsigned(alg), &keys), Err(E::Algorithm), "{alg}");
    }
    assert_eq!(check(&unsigned("ES256"), &keys), Err(E::Signature));
    // Of another kind than the key, or not among the issuer's.
    assert_eq!(check(&unsigned("EdDSA"), &keys), Err(E::UnknownKey));
    assert_eq!(check(&unsigned("RS256"), &keys), Err(E::Algorithm));

    for (name, value) in [
        ("jwk", thief.jwk()),
        ("jku", json!("http://thief.example")),
        ("x5u", json!("http://thief.example")),
        ("x5c", json!(["MII"])),
        ("crit", json!(["exp"])),
    ] {
        let header = json!({ "alg": "ES256", "kid": "a", name: value }).to_string();
        assert_eq!(check(&thief.sign(&header, &payload), &keys), Err(E::Header(name)));
    }
    for kid in ["../../dev/null", "b", "' or 1=1", ""] {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        assert_eq!(check(&thief.sign(&header, &payload), &keys), Err(E::UnknownKey), "{kid}");
    }
    let stolen = json!({ "alg": "ES256", "kid": "a" }).to_string();
    assert_eq!(check(&thief.sign(&stolen, &payload), &keys), Err(E::Signature));
    let no_kid = json!({ "alg": "ES256" }).to_string();
    assert_eq!(check(&thief.sign(&no_kid, &payload), &keys), Err(E::Signature));
    assert!(check(&signer.sign(&no_kid, &payload), &keys).is_ok());
    assert_eq!(
        check(&signer.sign(r#"{"alg":"ES256","kid":7}"#, &payload), &keys),
        Err(E::Header("kid"))
    );
}

#[test]
fn what_parsers_read_in_two_ways_is_malformed() {
    let signer = Signer::new("a");
    let keys = set(&[signer.jwk()]);
    let header = r#"{"alg":"ES256","kid":"a"}"#;
    let twice = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let inner = claims().to_string().replacen('{', r#"{"x":[{"y":1,"y":2}],"#, 1);
    let text = signer.token(&claims());
    for token in [
        signer.sign(header, &twice),
        signer.sign(header, &inner),
        signer.sign(r#"{"alg":"none","alg":"ES256","kid":"a"}"#, &claims().to_string()),
        signer.sign(header, "[]"),
        signer.sign(header, &format!("{} x", claims())),
        format!("{text}="),
        format!("{text}.x"),
        text.replacen('.', "..", 1),
        format!(" {text}"),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(check(&token, &keys), Err(TokenError::Malformed), "{token}");
    }
    assert_eq!(check(&"a".repeat(MAX_TOKEN_BYTES + 1), &keys), Err(TokenError::Long));
}

#[test]
fn a_key_is_good_for_what_it_is() {
    let signer = Signer::new("a");
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    let x = base64url(ed.public_key().as_ref());
    let signed = format!(
        "{}.{}",
        base64url(r#"{"alg":"EdDSA","kid":"e"}"#),
        base64url(claims().to_string())
    );
    let token = format!("{signed}.{}", base64url(ed.sign(signed.as_bytes())));
    let key = |more: Value| {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "e" });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        set(&[key, signer.jwk()])
    };
    assert!(check(&token, &key(json!({}))).is_ok());
    assert!(check(&token, &key(json!({ "alg": "EdDSA", "use": "sig" }))).is_ok());
    for other in [json!({ "alg": "ES256" }), json!({ "use": "enc" }), json!({ "kid": "f" })] {
        assert_eq!(check(&token, &key(other)), Err(TokenError::UnknownKey));
    }
}

#[test]
fn a_set_is_read_within_bounds() {
    use KeySetError as E;
    let parse = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let jwk = Signer::new("a").jwk();
    let odd = json!({ "kty": "oct2" });
    assert!(parse(json!([odd, 7, jwk])).is_ok(), "what is not known is left out");
    assert_eq!(parse(json!([odd])), Err(E::None));
    assert_eq!(parse(json!([{ "kty": "oct", "k": "AAAA" }])), Err(E::Secret));
    assert_eq!(parse(json!(vec![jwk; 65])), Err(E::Many(65)));
    assert_eq!(KeySet::parse(b"[]"), Err(E::Form));
    assert_eq!(KeySet::parse(&vec![b' '; KeySet::MAX_BYTES + 1]), Err(E::Long));
    let short = json!({ "kty": "RSA", "n": base64url([1; 128]), "e": "AQAB" });
    assert_eq!(parse(json!([short])), Err(E::None), "1024 bits are not enough");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_is_believed(text in "[a-zA-Z0-9_.=-]{0,80}") {
        let issuer: Arc<str> = "x".into();
        prop_assert!(Token::parse(&text).map_or(true, |token| token.issuer() != Some(&*issuer)));
    }

    #[test]
    fn a_changed_byte_is_found(at in 0usize..400, to in "[a-zA-Z0-9_-]") {
        let signer = Signer::new("a");
        let keys = set(&[signer.jwk()]);
        let mut text = signer.token(&claims());
        let at = at % text.len();
        prop_assume!(text.as_bytes()[at] != b'.' && text[at..=at] != to);
        text.replace_range(at..=at, &to);
        prop_assert!(check(&text, &keys).is_err());
    }
}
