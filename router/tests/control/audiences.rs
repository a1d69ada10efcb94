//! Who gets a version whatever the weights.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use weir_mesh::policy::value::to_struct;
use weir_proto::weir::mesh::v1 as pb;

use crate::world::{Client, World};

fn by_headers(headers: &[(&str, &str)], version: &str) -> pb::Audience {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let by = pb::audience::By::Headers(pb::HeaderAudience { headers });
    pb::Audience { by: Some(by), version: version.into() }
}

fn by_claim(name: &str, values: &[&str], version: &str) -> pb::Audience {
    let values = values.iter().map(ToString::to_string).collect();
    let by = pb::audience::By::Claim(pb::ClaimAudience { name: name.into(), values });
    pb::Audience { by: Some(by), version: version.into() }
}

fn sticky(name: &str) -> pb::Sticky {
    pb::Sticky { by: Some(pb::sticky::By::Header(name.into())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_choose_a_version_at_the_gateway_and_at_sidecars() {
    let world = World::start(200).await;
    world
        .publish(2, |snapshot| {
            let web = &mut snapshot.services[0];
            web.audiences = vec![
                by_headers(&[("x-beta", "yes"), ("x-country", "at")], "v2"),
                by_headers(&[("x-beta", "yes")], "v1"),
                by_headers(&[("x-old", "no")], "v2"),
            ];
            // Who sticks to v1 as well is of the audience all the same.
            web.sticky = Some(sticky("x-user"));
        })
        .await;
    for at in [world.gateway.at("gateway"), world.caller.at("outbound")] {
        let mut client = Client::new(at);
        let mut ask = |path: &str, headers: &[(&str, &str)]| client.version("web", path, headers);
        let user = ("x-user", "me");
        assert_eq!(ask("/", &[user]), "v1");
        assert_eq!(ask("/", &[user, ("x-beta", "yes")]), "v1", "the second audience");
        assert_eq!(ask("/", &[user, ("x-beta", "yes"), ("x-country", "at")]), "v2");
        assert_eq!(ask("/", &[user, ("x-beta", "YES"), ("x-country", "at")]), "v1");
        assert_eq!(ask("/", &[user, ("x-old", "no")]), "v2");
        assert_eq!(ask("/", &[user]), "v1");
    }
    let mut client = Client::new(world.gateway.at("gateway"));
    let named = client.version("web", "/named", &[("x-old", "no")]);
    assert_eq!(named, "v1", "the route names the version");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_whose_version_has_no_instance_goes_where_others_go() {
    let world = World::start(200).await;
    world
        .publish(2, |snapshot| {
            snapshot.services[0].audiences = vec![by_headers(&[("x-beta", "yes")], "v2")];
            snapshot.instances.retain(|instance| instance.version == "v1");
        })
        .await;
    let mut client = Client::new(world.gateway.at("gateway"));
    assert_eq!(client.version("web", "/", &[("x-beta", "yes")]), "v1");
}

/// Signs tokens of an issuer.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref()).unwrap())
    }

    fn jwks(&self) -> String {
        let point = self.0.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "alg": "ES256"});
        json!({"keys": [key]}).to_string()
    }

    fn bearer(&self, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "https://issuer.test", "aud": "weir", "sub": "ada",
            "exp": now + 600, "iat": now,
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "k"});
        let parts = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = parts.join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_claims_of_a_verified_token_choose_a_version() {
    let world = World::start(200).await;
    let signer = Signer::new();
    let spec = json!({
        "targetRefs": [{"kind": "HTTPRoute", "name": "web", "sectionName": "tokens"}],
        "issuers": [{
            "issuer": "https://issuer.test", "audiences": ["weir"],
            "jwks": {"inline": signer.jwks()},
        }],
    });
    let policy = pb::Policy {
        kind: "AuthenticationPolicy".into(),
        name: "jwt".into(),
        spec: Some(to_struct(&spec)),
    };
    world
        .publish(2, |snapshot| {
            snapshot.services[0].audiences =
                vec![by_claim("realm.roles", &["tester", "admin"], "v2")];
            snapshot.policies = vec![policy];
        })
        .await;
    let mut client = Client::new(world.gateway.at("gateway"));
    let tester = signer.bearer(&json!({"realm": {"roles": ["user", "tester"]}}));
    let one = signer.bearer(&json!({"realm": {"roles": "admin"}}));
    let user = signer.bearer(&json!({"realm": {"roles": ["user"]}}));
    let none = signer.bearer(&json!({}));
    for (token, version) in [(&tester, "v2"), (&one, "v2"), (&user, "v1"), (&none, "v1")] {
        assert_eq!(client.version("web", "/tokens", &[("authorization", token)]), version);
    }
    assert_eq!(client.version("web", "/tokens", &[]), "v1");
    // Somebody else's signature: refused where tokens are verified.
    let forged = Signer::new().bearer(&json!({"realm": {"roles": ["tester"]}}));
    let reply = client.get("web", "/tokens", &[("authorization", &forged)]);
    assert_eq!(reply.status, 401, "{reply:?}");
    // And where they are not, even a true one says nothing.
    assert_eq!(client.version("web", "/", &[("authorization", &tester)]), "v1");
    let mut inside = Client::new(world.caller.at("outbound"));
    assert_eq!(inside.version("web", "/tokens", &[("authorization", &tester)]), "v1");
}
