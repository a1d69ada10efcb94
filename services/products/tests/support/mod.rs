//! Stands in for the auth service: publishes a key and signs tokens with it.

pub mod data;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use weir_mesh::jwt::{AUDIENCE, Claims, ISSUER};
use weir_proto::weir::auth::v1 as pb;
use weir_proto::weir::auth::v1::auth_service_server::{AuthService, AuthServiceServer};

const KID: &str = "test";

/// A connection to `address`.
pub async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Fails unless only their owner may read `database` and SQLite's files beside it.
pub fn assert_private(directory: &Path, database: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let modes: BTreeMap<_, _> = files
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap()))
        .filter(|(name, _)| name.starts_with(database))
        .map(|(name, metadata)| (name, metadata.permissions().mode() & 0o777))
        .collect();
    assert!(modes.contains_key(database) && modes.contains_key(&format!("{database}-wal")));
    assert!(modes.values().all(|mode| *mode == 0o600), "{modes:?}");
}

/// A listening auth service and its key.
pub struct Auth {
    key: EncodingKey,
    pub address: SocketAddr,
}

struct Keys(pb::Jwk);

#[tonic::async_trait]
impl AuthService for Keys {
    async fn get_jwks(&self, _: Request<pb::GetJwksRequest>) -> Result<Response<pb::Jwks>, Status> {
        Ok(Response::new(pb::Jwks { keys: vec![self.0.clone()] }))
    }

    async fn register(
        &self,
        _: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn login(
        &self,
        _: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn refresh(
        &self,
        _: Request<pb::RefreshRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn logout(
        &self,
        _: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Auth {
    pub async fn start() -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        // An uncompressed point: 4, then both coordinates.
        let point = pair.public_key().as_ref();
        let jwk = pb::Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: URL_SAFE_NO_PAD.encode(&point[33..]),
            kid: KID.into(),
            alg: "ES256".into(),
            r#use: "sig".into(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(AuthServiceServer::new(Keys(jwk)))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
        tokio::spawn(server);
        Self { key: EncodingKey::from_ec_der(document.as_ref()), address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request as that user makes it.
    pub fn request<T>(&self, user: &str, message: T) -> Request<T> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user.into(),
            aud: AUDIENCE.into(),
            exp: now + 300,
            nbf: now,
            iat: now,
            jti: "1".into(),
            roles: Vec::new(),
        };
        let header = Header { kid: Some(KID.into()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.key).unwrap();
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }
}
