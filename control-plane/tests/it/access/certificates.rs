//! The API by TLS, and client certificates.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use weir_control_plane::AccessArgs;
use weir_mesh::identity::provider;

use super::{sha256, token};
use crate::plane::{Plane, eventually};
use crate::router::Door;

/// An authority that signs for anybody.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Certified {
    pem: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem }
    }

    fn sign(&self, common_name: &str, uri: Option<&str>) -> Certified {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certified { pem, key: key.serialize_pem() }
    }
}

/// GET over TLS; none: the connection failed.
async fn get(
    plane: &Plane,
    ca: &str,
    own: Option<&Certified>,
    bearer: Option<&str>,
    path: &str,
) -> Option<(u16, Value)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(Certified { pem, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = tokio::net::TcpStream::connect(plane.running.api).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", "localhost");
    if let Some(token) = bearer {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    connection.abort();
    Some((status, serde_json::from_slice(&body).unwrap()))
}

fn write(dir: &Path, certified: &Certified) {
    std::fs::write(dir.join("key.pem"), &certified.key).unwrap();
    std::fs::write(dir.join("cert.pem"), &certified.pem).unwrap();
}

fn tls(dir: &Path) -> AccessArgs {
    AccessArgs {
        access: None,
        api_tls_cert: Some(dir.join("cert.pem")),
        api_tls_key: Some(dir.join("key.pem")),
        api_client_ca: Some(dir.join("clients.pem")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_says_who_calls() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let files = tempfile::tempdir().unwrap();
    write(files.path(), &ca.sign("control-plane", None));
    std::fs::write(files.path().join("clients.pem"), &ca.pem).unwrap();
    let robot = ca.sign("robot", None);
    let print = {
        let der = CertificateDer::from_pem_slice(robot.pem.as_bytes()).unwrap();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
        hash.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
    };
    let access = format!(
        "certificates:\n\
         - {{commonName: ci, role: operator}}\n\
         - {{spiffeId: 'spiffe://weir.local/ns/default/sa/deployer', role: shifter, services: [products]}}\n\
         - {{name: robot-7, fingerprint: '{print}', role: viewer}}\n\
         tokens:\n- {{name: ada, sha256: {}, role: viewer}}\n",
        sha256(&token("ada"))
    );
    let plane = Plane::with_access(&access, |config| {
        config.access = AccessArgs { access: config.access.access.take(), ..tls(files.path()) };
    })
    .await;
    let who = async |own: Option<&Certified>, bearer: Option<&str>| {
        get(&plane, &ca.pem, own, bearer, "/v1/whoami").await.unwrap()
    };
    let (status, answer) = who(Some(&ca.sign("ci", None)), None).await;
    assert_eq!((status, &answer["name"], &answer["role"]), (200, &json!("ci"), &json!("operator")));
    assert_eq!(answer["method"], "certificate");
    let id = "spiffe://weir.local/ns/default/sa/deployer";
    let (_, answer) = who(Some(&ca.sign("x", Some(id))), None).await;
    assert_eq!((&answer["name"], &answer["services"]), (&json!(id), &json!(["products"])));
    let (_, answer) = who(Some(&robot), None).await;
    assert_eq!(answer["name"], "robot-7");
    let (status, answer) = who(Some(&ca.sign("robot", None)), None).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 401 && message.contains("nobody is known by the certificate robot"));
    // A token says it too, with a certificate or without one.
    let ada = token("ada");
    assert_eq!(who(None, Some(&ada)).await.1["name"], "ada");
    assert_eq!(who(Some(&robot), Some(&ada)).await.1["name"], "ada");
    assert_eq!(who(None, None).await.0, 401);
    let forged = get(&plane, &ca.pem, Some(&stranger.sign("ci", None)), None, "/v1/whoami").await;
    assert!(forged.is_none(), "a certificate of somebody else's authority: {forged:?}");
    let (status, _) = get(&plane, &ca.pem, None, Some(&plane.token), "/v1/mesh").await.unwrap();
    assert_eq!(status, 200);

    // Another certificate of another authority, without a restart.
    write(files.path(), &stranger.sign("control-plane", None));
    eventually("the new certificate", async || {
        get(&plane, &stranger.pem, None, Some(&ada), "/v1/whoami").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_the_mesh_calls_by_its_own_certificate() {
    let ca = Ca::new();
    let files = tempfile::tempdir().unwrap();
    write(files.path(), &ca.sign("control-plane", None));
    let access = "certificates: [{spiffeId: 'spiffe://weir.local/ns/default/sa/products', \
                  role: viewer}]";
    let plane = Plane::with_access(access, |config| {
        // It is made at the first start; the option is about what is there already.
        let bundle = config.data.join("ca/bundle.pem");
        std::fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        config.access = AccessArgs {
            access: config.access.access.take(),
            api_client_ca: Some(bundle),
            ..tls(files.path())
        };
    })
    .await;
    let svid = Door::of(&plane).svid("products").await;
    svid.save(files.path().join("svid.pem")).unwrap();
    let text = std::fs::read_to_string(files.path().join("svid.pem")).unwrap();
    let own = Certified { pem: text.clone(), key: text };
    let (status, answer) = get(&plane, &ca.pem, Some(&own), None, "/v1/whoami").await.unwrap();
    assert_eq!((status, &answer["role"]), (200, &json!("viewer")), "{answer}");
}
