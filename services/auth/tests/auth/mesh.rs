//! An auth service, and a router's outbound listener with users and
//! notifications behind it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use weir_auth::password::Cost;
use weir_mesh::server::database::{Database, Query, Schema};
use weir_mesh::server::{Running, details};
use weir_proto::google::rpc;
use weir_proto::weir::auth::v1 as pb;
use weir_proto::weir::auth::v1::auth_service_client::AuthServiceClient;
use weir_proto::weir::notifications::v1 as notifications;
use weir_proto::weir::users::v1 as users;

use crate::data::Data;

pub const EMAIL: &str = "ada@example.com";
pub const PASSWORD: &str = "correct horse";

/// What the other services have seen, and whether they answer.
#[derive(Clone, Default)]
pub struct Others(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub users_down: bool,
    /// It does what it is asked, but its answer is lost.
    pub users_mute: bool,
    pub notifications_down: bool,
    pub users: HashMap<String, users::CreateUserRequest>,
    pub welcomes: Vec<notifications::EnqueueRequest>,
    /// `traceparent` of each call that came.
    pub traces: Vec<String>,
}

impl Others {
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Serves both, as a router's outbound listener does.
    pub async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let users = users::users_service_server::UsersServiceServer::new(self.clone());
        let notifications =
            notifications::notifications_service_server::NotificationsServiceServer::new(
                self.clone(),
            );
        let server = Server::builder().add_service(users).add_service(notifications);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }

    fn note_trace<T>(&self, request: &Request<T>) {
        let header = request.metadata().get("traceparent").map(|h| h.to_str().unwrap().to_owned());
        self.with(|state| state.traces.extend(header));
    }
}

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

fn unimplemented<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl users::users_service_server::UsersService for Others {
    async fn create_user(
        &self,
        request: Request<users::CreateUserRequest>,
    ) -> Answer<users::Profile> {
        self.note_trace(&request);
        let request = request.into_inner();
        self.with(|state| {
            if state.users_down {
                return Err(Status::unavailable("down"));
            }
            let user_id = request.user_id.clone();
            state.users.entry(user_id.clone()).or_insert(request);
            if state.users_mute {
                return Err(Status::unavailable("the answer is lost"));
            }
            Ok(Response::new(users::Profile { user_id, ..Default::default() }))
        })
    }
    async fn get_me(&self, _: Request<users::GetMeRequest>) -> Answer<users::Profile> {
        unimplemented()
    }
    async fn update_me(&self, _: Request<users::UpdateMeRequest>) -> Answer<users::Profile> {
        unimplemented()
    }
    async fn check_active(
        &self,
        _: Request<users::CheckActiveRequest>,
    ) -> Answer<users::CheckActiveResponse> {
        unimplemented()
    }
    async fn get_user(&self, _: Request<users::GetUserRequest>) -> Answer<users::Profile> {
        unimplemented()
    }
    type WatchMeStream = Stream<users::WatchMeResponse>;
    async fn watch_me(&self, _: Request<users::WatchMeRequest>) -> Answer<Self::WatchMeStream> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl notifications::notifications_service_server::NotificationsService for Others {
    async fn enqueue(
        &self,
        request: Request<notifications::EnqueueRequest>,
    ) -> Answer<notifications::EnqueueResponse> {
        self.note_trace(&request);
        self.with(|state| {
            if state.notifications_down {
                return Err(Status::unavailable("down"));
            }
            state.welcomes.push(request.into_inner());
            Ok(Response::new(notifications::EnqueueResponse::default()))
        })
    }
    async fn list_notifications(
        &self,
        _: Request<notifications::ListNotificationsRequest>,
    ) -> Answer<notifications::ListNotificationsResponse> {
        unimplemented()
    }
    async fn mark_read(
        &self,
        _: Request<notifications::MarkReadRequest>,
    ) -> Answer<notifications::Notification> {
        unimplemented()
    }
    async fn mark_all_read(
        &self,
        _: Request<notifications::MarkAllReadRequest>,
    ) -> Answer<notifications::MarkAllReadResponse> {
        unimplemented()
    }
    async fn get_unread_count(
        &self,
        _: Request<notifications::GetUnreadCountRequest>,
    ) -> Answer<notifications::GetUnreadCountResponse> {
        unimplemented()
    }
    async fn list_dead_letters(
        &self,
        _: Request<notifications::ListDeadLettersRequest>,
    ) -> Answer<notifications::ListDeadLettersResponse> {
        unimplemented()
    }
    type WatchNotificationsStream = Stream<notifications::Notification>;
    async fn watch_notifications(
        &self,
        _: Request<notifications::WatchNotificationsRequest>,
    ) -> Answer<Self::WatchNotificationsStream> {
        unimplemented()
    }
}

pub type Client = AuthServiceClient<Channel>;

pub async fn start(data: &Data, version: &str, outbound: &str) -> (Running, Client) {
    let common = data.common(version, outbound);
    let running = weir_auth::start(weir_auth::Args { common, cost: Cost::TEST }).await.unwrap();
    let url = format!("http://{}", running.address());
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    (running, AuthServiceClient::new(channel))
}

pub fn registration() -> pb::RegisterRequest {
    pb::RegisterRequest {
        email: EMAIL.into(),
        password: PASSWORD.into(),
        display_name: "Ada".into(),
    }
}

pub async fn register(client: &mut Client) -> pb::TokenResponse {
    client.register(registration()).await.unwrap().into_inner()
}

pub async fn login(client: &mut Client, password: &str) -> Result<pb::TokenResponse, Status> {
    let request = pb::LoginRequest { email: EMAIL.into(), password: password.into() };
    client.login(request).await.map(Response::into_inner)
}

pub async fn refresh(client: &mut Client, token: &str) -> Result<pb::TokenResponse, Status> {
    let request = pb::RefreshRequest { refresh_token: token.into() };
    client.refresh(request).await.map(Response::into_inner)
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

/// Waits until something holds, for 40 seconds at most.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number that a query of the service's own database gives.
pub async fn number(data: &Data, query: &'static str) -> i64 {
    read(&database(data).await, query).await
}

/// Waits until it is `wanted`, for 40 seconds at most.
pub async fn until(data: &Data, query: &'static str, wanted: i64) {
    let database = database(data).await;
    let deadline = Instant::now() + Duration::from_secs(40);
    while read(&database, query).await != wanted {
        assert!(Instant::now() < deadline, "not in time: {query}: {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The service's own database.
pub async fn database(data: &Data) -> Database {
    // One migration, which is there.
    let schema = Schema { name: "auth", sqlite: &[""], postgres: &[""] };
    Database::open(&data.common("v1", "http://127.0.0.1:1"), &schema).await.unwrap()
}

async fn read(database: &Database, query: &'static str) -> i64 {
    database.one(Query::new(query)).await.unwrap().unwrap().at(0).unwrap()
}
