//! Real handshakes, with certificates that rcgen makes.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const DOMAIN: &str = "weir.local";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn bundle(cas: &[&Ca]) -> TrustBundle {
    TrustBundle::from_der(cas.iter().map(|ca| ca.der().as_ref())).unwrap()
}

fn id(service: &str) -> SpiffeId {
    SpiffeId::of_service(DOMAIN, service).unwrap()
}

/// A certificate for `uris`, changed by `change` before it is signed.
fn issue(
    ca: &Ca,
    uris: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, ca).unwrap();
    (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn svid(ca: &Ca, service: &str) -> Svid {
    let (chain, key) = issue(ca, &[id(service).as_str()], |_| {});
    Svid::new(chain, key).unwrap()
}

/// A handshake and one byte each way, which is when a TLS 1.3 client hears that
/// its certificate was refused. Answers whom the server saw.
async fn talk(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (io::Result<Option<SpiffeId>>, io::Result<SpiffeId>) {
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await?;
        Ok(stream.get_ref().1.peer_certificates().map(|chain| peer_id(chain).unwrap()))
    };
    let call = async {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        assert_eq!(stream.read_u8().await?, 7);
        Ok(peer_id(stream.get_ref().1.peer_certificates().unwrap()).unwrap())
    };
    tokio::join!(serve, call)
}

fn h2_server(svid: &Svid, bundle: &TrustBundle) -> Arc<ServerConfig> {
    server_config(svid, bundle, ALPN_H2).unwrap()
}

fn h2_client(svid: &Svid, bundle: &TrustBundle, expected: &str) -> Arc<ClientConfig> {
    client_config(svid, bundle, &id(expected), ALPN_H2).unwrap()
}

#[tokio::test]
async fn each_side_learns_who_the_other_is() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let server = h2_server(&svid(&ca, "products"), &roots);
    let client = h2_client(&svid(&ca, "gateway"), &roots, "products");
    let (server, client) = talk(server, client).await;
    assert_eq!(server.unwrap(), Some(id("gateway")));
    assert_eq!(client.unwrap(), id("products"));
}

#[tokio::test]
async fn routers_that_know_the_mesh_protocol_and_those_that_do_not_understand_each_other() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let (own, caller) = (svid(&ca, "products"), svid(&ca, "gateway"));
    for (serves, offers) in [(ALPN_MESH, ALPN_H2), (ALPN_H2, ALPN_MESH), (ALPN_MESH, ALPN_MESH)] {
        let server = server_config(&own, &roots, serves).unwrap();
        let client = client_config(&caller, &roots, &id("products"), offers).unwrap();
        let (server, client) = talk(server, client).await;
        assert!(server.is_ok() && client.is_ok(), "{serves:?} {offers:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_someone_else_is_refused() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let server = h2_server(&svid(&ca, "users"), &roots);
    let client = h2_client(&svid(&ca, "gateway"), &roots, "products");
    let (server, client) = talk(server, client).await;
    assert!(server.is_err());
    let error = client.unwrap_err().to_string();
    assert!(error.contains("is spiffe://weir.local/ns/default/sa/users, expected"), "{error}");
}

#[tokio::test]
async fn a_client_without_certificate_gets_in_only_where_it_may() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let own = svid(&ca, "products");
    let stranger = bootstrap_client_config(&roots, &id("products")).unwrap();
    let (server, client) = talk(h2_server(&own, &roots), stranger.clone()).await;
    assert!(server.is_err() && client.is_err());

    let optional = server_config_optional_client(&own, &roots, ALPN_H2).unwrap();
    let (server, client) = talk(optional, stranger).await;
    assert_eq!(server.unwrap(), None);
    assert_eq!(client.unwrap(), id("products"));
}

#[tokio::test]
async fn where_a_certificate_is_optional_a_bad_one_is_still_refused() {
    let (ca, foreign) = (ca(), ca());
    let roots = bundle(&[&ca]);
    let optional = server_config_optional_client(&svid(&ca, "products"), &roots, ALPN_H2).unwrap();
    let client = h2_client(&svid(&foreign, "gateway"), &roots, "products");
    let (server, client) = talk(optional, client).await;
    assert!(server.is_err() && client.is_err());
}

#[tokio::test]
async fn a_foreign_root_is_refused_by_either_side() {
    let (ca, foreign) = (ca(), ca());
    let (roots, theirs) = (bundle(&[&ca]), bundle(&[&foreign]));
    let server = h2_server(&svid(&ca, "products"), &roots);
    let client = h2_client(&svid(&foreign, "gateway"), &roots, "products");
    assert!(talk(server.clone(), client).await.0.is_err());

    let client = h2_client(&svid(&ca, "gateway"), &theirs, "products");
    assert!(talk(server, client).await.1.is_err());
}

#[tokio::test]
async fn two_roots_are_trusted_at_once() {
    let (old, new) = (ca(), ca());
    let both = bundle(&[&old, &new]);
    for (server, client) in [(&old, &new), (&new, &old), (&new, &new)] {
        let server = h2_server(&svid(server, "products"), &both);
        let client = h2_client(&svid(client, "gateway"), &both, "products");
        let (server, client) = talk(server, client).await;
        assert_eq!(server.unwrap(), Some(id("gateway")));
        assert_eq!(client.unwrap(), id("products"));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let expired = |service: &str| {
        let (chain, key) = issue(&ca, &[id(service).as_str()], |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 2);
        });
        Svid::new(chain, key).unwrap()
    };
    let good = h2_server(&svid(&ca, "products"), &roots);
    let client = h2_client(&expired("gateway"), &roots, "products");
    let error = talk(good, client).await.0.unwrap_err().to_string();
    assert!(error.contains("xpired"), "{error}");

    let client = h2_client(&svid(&ca, "gateway"), &roots, "products");
    let error = talk(h2_server(&expired("products"), &roots), client).await.1.unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused_though_its_chain_is_good() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let (chain, key) = issue(&ca, &["spiffe://other.mesh/ns/default/sa/gateway"], |_| {});
    let other = Svid::new(chain, key).unwrap();
    let server = h2_server(&svid(&ca, "products"), &roots);
    let (server, _) = talk(server, h2_client(&other, &roots, "products")).await;
    let error = server.unwrap_err().to_string();
    assert!(error.contains("not of trust domain weir.local"), "{error}");
}

/// Puts certificates on the wire that [`Svid`] would not hold.
async fn refused_client(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, ca: &Ca) {
    let roots = bundle(&[ca]);
    let mut client = (*bootstrap_client_config(&roots, &id("products")).unwrap()).clone();
    let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).unwrap();
    client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let server = h2_server(&svid(ca, "products"), &roots);
    assert!(talk(server, Arc::new(client)).await.0.is_err());
}

#[tokio::test]
async fn a_certificate_with_no_id_or_several_or_that_may_sign_is_refused() {
    let ca = ca();
    let one = id("gateway");
    let uri = one.as_str();
    let sign = |params: &mut CertificateParams| {
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    };
    let cases = [
        (issue(&ca, &[], |_| {}), "0 URI names"),
        (issue(&ca, &[uri, id("users").as_str()], |_| {}), "2 URI names"),
        (issue(&ca, &["https://weir.local/"], |_| {}), "spiffe://"),
        (issue(&ca, &[uri], sign), "authority"),
    ];
    for ((chain, key), reason) in cases {
        let error = Svid::new(chain.clone(), key.clone_key()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        refused_client(chain, key, &ca).await;
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    // A ClientHello (RFC 5246 section 7.4.1.2) without `supported_versions`.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, 20, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 23, 0, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);

    let ca = ca();
    let server = h2_server(&svid(&ca, "products"), &bundle(&[&ca]));
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(&record).await.unwrap();
    assert!(TlsAcceptor::from(server).accept(far).await.is_err());
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
}

#[tokio::test]
async fn no_session_is_resumed_even_if_the_client_would() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let server = h2_server(&svid(&ca, "products"), &roots);
    let mut client = (*h2_client(&svid(&ca, "gateway"), &roots, "products")).clone();
    client.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(server.clone());
        let connector = TlsConnector::from(client.clone());
        let serve = async {
            let mut stream = acceptor.accept(far).await.unwrap();
            stream.write_u8(7).await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let call = async {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut stream = connector.connect(name, near).await.unwrap();
            // A ticket would come before the first byte.
            stream.read_u8().await.unwrap();
            stream
        };
        let (accepted, connected) = tokio::join!(serve, call);
        let connected = connected.get_ref().1;
        assert_eq!(connected.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(connected.tls13_tickets_received(), 0);
        assert_eq!(accepted.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let suite = accepted.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(suite.suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}

#[test]
fn svids_and_bundles_survive_the_disk() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (ca(), ca());
    let roots = bundle(&[&old, &new]);
    roots.save(dir.path().join("bundle.pem")).unwrap();
    assert_eq!(TrustBundle::load(dir.path().join("bundle.pem")).unwrap(), roots);
    assert_eq!(TrustBundle::from_der(roots.to_der()).unwrap(), roots);

    let path = dir.path().join("svid.pem");
    let own = svid(&old, "products");
    own.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = Svid::load(&path).unwrap();
    assert_eq!((read.id(), read.chain()), (own.id(), own.chain()));
    assert_eq!((read.not_before(), read.not_after()), (own.not_before(), own.not_after()));
    assert!(read.not_before() < read.not_after());
}

#[test]
fn what_cannot_be_loaded_is_named_without_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("svid.pem");
    let error = Svid::load(&path).unwrap_err().to_string();
    assert!(error.contains("svid.pem"), "{error}");

    let ca = ca();
    let own = svid(&ca, "products");
    own.save(&path).unwrap();
    let pem = std::fs::read_to_string(&path).unwrap();
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
    let secret = key.lines().nth(1).unwrap();
    let shown = format!("{own:?}");
    assert!(shown.contains("sa/products") && !shown.contains(secret), "{shown}");

    svid(&ca, "users").save(&path).unwrap();
    let others = std::fs::read_to_string(&path).unwrap();
    let others_key = &others[others.find("-----BEGIN PRIVATE").unwrap()..];
    for (text, reason) in [
        (certificate.to_owned(), "missing"),
        (key.to_owned(), "no certificate"),
        (format!("{certificate}{others_key}"), "not the certificate's"),
        (format!("{certificate}{}", key.replacen(secret, &secret[..60], 1)), "private key"),
        ("nothing at all".to_owned(), "missing"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Svid::load(&path).unwrap_err().to_string();
        assert!(error.contains("svid.pem: ") && error.contains(reason), "{reason}: {error}");
        assert!(!error.contains(&secret[..16]), "{error}");
    }
    assert!(matches!(TrustBundle::from_pem(""), Err(IdentityError::NoRoot)));
    assert!(TrustBundle::from_der([b"rubbish"]).is_err());
}

mod renewal {
    use super::super::renewal_at;
    use proptest::prelude::*;

    #[test]
    fn is_at_two_thirds() {
        assert_eq!(renewal_at(1000, 1000 + 3600, 0.5), 1000 + 2400);
        assert_eq!(renewal_at(1000, 1000 + 3600, 0.0), 1000 + 2220);
        assert_eq!(renewal_at(1000, 1000 + 3600, 1.0), 1000 + 2580);
    }

    proptest! {
        #[test]
        fn is_within_the_lifetime_and_grows_with_jitter(
            start in -1_000_000_000_i64..4_000_000_000, life in 60_i64..100_000_000,
            a in 0.0..=1.0_f64, b in 0.0..=1.0_f64,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let (early, late) = (renewal_at(start, start + life, low), renewal_at(start, start + life, high));
            prop_assert!(early <= late);
            prop_assert!(start + life / 2 < early && late < start + life);
        }
    }
}

#[tokio::test]
async fn tonic_reaches_only_the_peer_it_expects() {
    let ca = ca();
    let roots = bundle(&[&ca]);
    let acceptor = TlsAcceptor::from(h2_server(&svid(&ca, "control"), &roots));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                // A server's connection preface: an empty SETTINGS frame.
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                stream.flush().await.unwrap();
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://control");
    let own = svid(&ca, "gateway");
    let right = h2_client(&own, &roots, "control");
    endpoint.connect_with_connector(connect_tls(address, right)).await.unwrap();
    let wrong = h2_client(&own, &roots, "users");
    assert!(endpoint.connect_with_connector(connect_tls(address, wrong)).await.is_err());
}
