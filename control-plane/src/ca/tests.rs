use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use weir_mesh::identity::SpiffeId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::csr::CsrError;
use super::{Authority, CaError, JoinTokens, public_key};

const HOUR: Duration = Duration::from_secs(3600);
const ID: &str = "spiffe://weir.local/ns/default/sa/products";

fn id() -> SpiffeId {
    ID.parse().unwrap()
}

fn authority(dir: &tempfile::TempDir) -> Authority {
    Authority::open(&dir.path().join("ca"), "weir.local", HOUR).unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName("evil.example".try_into().unwrap())];
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_certificate_is_an_svid() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    let key = KeyPair::generate().unwrap();
    let issued = authority.issue(&id(), &public_key(&request(&key)).unwrap()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI(ID)], "only the id, not what it asked");
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.any);
    assert_eq!(issued.not_after - issued.not_before, 3660, "an hour, and a minute back");
    assert!(leaf.raw_serial().len() == 16 && leaf.raw_serial()[0] < 0x80);

    let bundle = authority.bundle();
    let (_, root) = X509Certificate::from_der(&bundle[0]).unwrap();
    assert!(root.is_ca());
    let names = root.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://weir.local")]);
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let key = KeyPair::generate().unwrap();
    assert_eq!(public_key(b"hello").unwrap_err(), CsrError::Unreadable);
    let mut forged = request(&key);
    *forged.last_mut().unwrap() ^= 1;
    assert!(public_key(&forged).is_err());
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(public_key(&request(&other)).unwrap_err(), CsrError::Key);
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    assert_eq!(public_key(&request(&other)).unwrap_err(), CsrError::Key);
    let mut longer = request(&key);
    longer.push(0);
    assert_eq!(public_key(&longer).unwrap_err(), CsrError::Unreadable);
}

#[test]
fn the_authority_survives_a_restart_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = authority(&dir).bundle();
    assert_eq!(authority(&dir).bundle(), bundle);
    let file = dir.path().join("ca/authority.json");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = std::fs::read_to_string(dir.path().join("ca/bundle.pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && !pem.contains("PRIVATE"));
    let error = Authority::open(&dir.path().join("ca"), "other.example", HOUR).err().unwrap();
    assert!(matches!(error, CaError::Roots { .. }));
    assert!(error.to_string().contains("weir.local"), "{error}");
}

#[test]
fn a_new_root_is_trusted_before_it_signs_and_the_old_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    let old = authority.bundle()[0].clone();
    let key = KeyPair::generate().unwrap();
    let signed_by = |root: &[u8]| {
        let issued = authority.issue(&id(), &key).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let (_, root) = X509Certificate::from_der(root).unwrap();
        leaf.verify_signature(Some(root.public_key())).is_ok()
    };

    authority.prepare_root().unwrap();
    authority.prepare_root().unwrap();
    assert_eq!(authority.bundle().len(), 2, "one that is pending is kept");
    let new = authority.bundle()[1].clone();
    assert!(signed_by(&old) && !signed_by(&new));

    authority.activate_root().unwrap();
    assert_eq!(authority.bundle().len(), 2);
    assert!(signed_by(&new) && !signed_by(&old));

    authority.expire_roots().unwrap();
    assert_eq!(authority.bundle().len(), 2, "certificates of the old one are still valid");
    authority.lock().expire(crate::text::unix_seconds() + 3662);
    assert_eq!(*authority.lock().bundle(), [new]);
}

#[test]
fn join_tokens_are_read_again_for_an_unknown_service() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("join.json");
    std::fs::write(&path, r#"{"products": "p-token"}"#).unwrap();
    let tokens = JoinTokens::open(Some(&path)).unwrap();
    assert!(tokens.allow("products", "p-token").unwrap());
    assert!(!tokens.allow("products", "").unwrap());
    assert!(!tokens.allow("products", "other").unwrap());
    assert!(!tokens.allow("users", "u-token").unwrap());
    std::fs::write(&path, r#"{"products": "p-token", "users": "u-token"}"#).unwrap();
    assert!(tokens.allow("users", "u-token").unwrap());
    std::fs::write(&path, r#"{"products": p-token}"#).unwrap();
    let error = tokens.allow("users", "x").unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("p-token"), "{error}");
    assert!(tokens.allow("users", "u-token").unwrap(), "what was known stays");
    assert!(!JoinTokens::open(None).unwrap().allow("users", "u-token").unwrap());
}
