//! A users service, and an auth service that only publishes a key.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use weir_mesh::jwt::Claims;
use weir_mesh::server::{Running, details};
use weir_proto::google::rpc;
use weir_proto::weir::auth::v1 as auth;
use weir_proto::weir::users::v1 as pb;
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;

use crate::data::Data;

pub const ADA: &str = "01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1b";
pub const BOB: &str = "01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1c";

/// The auth service as the others see it: a key.
pub struct Key {
    pkcs8: Vec<u8>,
    pub outbound: String,
}

struct Jwks(auth::Jwk);

#[tonic::async_trait]
impl auth::auth_service_server::AuthService for Jwks {
    async fn register(
        &self,
        _: Request<auth::RegisterRequest>,
    ) -> Result<Response<auth::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn login(
        &self,
        _: Request<auth::LoginRequest>,
    ) -> Result<Response<auth::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn refresh(
        &self,
        _: Request<auth::RefreshRequest>,
    ) -> Result<Response<auth::TokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn logout(
        &self,
        _: Request<auth::LogoutRequest>,
    ) -> Result<Response<auth::LogoutResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_jwks(
        &self,
        _: Request<auth::GetJwksRequest>,
    ) -> Result<Response<auth::Jwks>, Status> {
        Ok(Response::new(auth::Jwks { keys: vec![self.0.clone()] }))
    }
}

impl Key {
    pub async fn publish() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let jwk = auth::Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: URL_SAFE_NO_PAD.encode(&point[33..]),
            kid: "k1".into(),
            alg: "ES256".into(),
            r#use: "sig".into(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outbound = format!("http://{}", listener.local_addr().unwrap());
        let service = auth::auth_service_server::AuthServiceServer::new(Jwks(jwk));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { pkcs8: pkcs8.as_ref().to_vec(), outbound }
    }

    /// An access token that ends in so many seconds.
    pub fn token(&self, user: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = Claims {
            iss: "weir-auth".into(),
            sub: user.into(),
            aud: "weir".into(),
            exp: now.checked_add_signed(seconds).unwrap(),
            nbf: now - 60,
            iat: now - 60,
            jti: "j".into(),
            roles: Vec::new(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".into());
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.pkcs8)).unwrap()
    }
}

pub async fn start(data: &Data, version: &str, outbound: &str) -> Running {
    let common = data.common(version, outbound);
    weir_users::start(weir_users::Args { common, insecure_allow_any_peer: false }).await.unwrap()
}

pub async fn client(running: &Running) -> UsersServiceClient<Channel> {
    let url = format!("http://{}", running.address());
    UsersServiceClient::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap())
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A request as the inbound router hands it on.
pub fn from_peer<T>(message: T, service: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!(
        "By=spiffe://weir.local/ns/default/sa/users;URI=spiffe://weir.local/ns/default/sa/{service}"
    );
    request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
    request
}

pub fn new_user(id: &str, email: &str) -> pb::CreateUserRequest {
    pb::CreateUserRequest { user_id: id.into(), email: email.into(), display_name: "Ada".into() }
}

pub async fn create(
    client: &mut UsersServiceClient<Channel>,
    id: &str,
    email: &str,
) -> pb::Profile {
    client.create_user(from_peer(new_user(id, email), "auth")).await.unwrap().into_inner()
}

/// The fields that a refusal names.
pub fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    details::<rpc::BadRequest>(status, "google.rpc.BadRequest")
        .into_iter()
        .flat_map(|bad| bad.field_violations)
        .map(|violation| violation.field)
        .collect()
}
