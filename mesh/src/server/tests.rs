//! The door as a client sees it, with a service behind it that misbehaves.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use weir_proto::weir::users::v1 as pb;
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;
use weir_proto::weir::users::v1::users_service_server::{UsersService, UsersServiceServer};

use super::*;
use crate::telemetry::trace::{SpanContext, SpanSink};

/// Each method misbehaves in its own way.
#[derive(Clone)]
struct Misbehaving {
    next: UsersServiceClient<OutboundChannel>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl UsersService for Misbehaving {
    /// Panics with a secret.
    async fn create_user(&self, _: Request<pb::CreateUserRequest>) -> Answer<pb::Profile> {
        panic!("the secret is swordfish");
    }
    /// Never answers.
    async fn get_me(&self, _: Request<pb::GetMeRequest>) -> Answer<pb::Profile> {
        std::future::pending().await
    }
    /// Tells how long it has, and in which trace, in the fields of a profile.
    async fn update_me(&self, request: Request<pb::UpdateMeRequest>) -> Answer<pb::Profile> {
        let call = Call::current().ok_or_else(|| Status::internal("no call"))?;
        let trace = SpanContext::extract(request.metadata().as_ref())
            .ok_or_else(|| Status::internal("no trace"))?;
        Ok(Response::new(pb::Profile {
            user_id: call.context().trace_id().to_string(),
            email: trace.span_id().to_string(),
            display_name: call.context().parent_id().map(|id| id.to_string()).unwrap_or_default(),
            locale: call.remaining().unwrap_or_default().as_millis().to_string(),
            ..Default::default()
        }))
    }
    /// Asks the next service, which is itself.
    async fn get_user(&self, _: Request<pb::GetUserRequest>) -> Answer<pb::Profile> {
        self.next.clone().update_me(pb::UpdateMeRequest::default()).await
    }
    /// Does nothing.
    async fn check_active(
        &self,
        _: Request<pb::CheckActiveRequest>,
    ) -> Answer<pb::CheckActiveResponse> {
        Err(Status::unimplemented("nothing"))
    }
    type WatchMeStream = Pin<Box<dyn Stream<Item = Result<pb::WatchMeResponse, Status>> + Send>>;
    /// Begins well, then never goes on.
    async fn watch_me(&self, _: Request<pb::WatchMeRequest>) -> Answer<Self::WatchMeStream> {
        let first = stream::iter([Ok(pb::WatchMeResponse::default())]);
        Ok(Response::new(Box::pin(first.chain(stream::pending()))))
    }
}

async fn serve(ready_file: Option<&Path>) -> (Running, Channel) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let common = Common {
        listen: address,
        ready_file: ready_file.map(Path::to_owned),
        ..Common::for_tests("unused", "v1", &format!("http://{address}"))
    };
    let running = start(&common, "users", weir_proto::descriptors::USERS, async |setup: Setup| {
        let next = UsersServiceClient::new(setup.outbound.channel("users")?);
        Ok(Routes::new(UsersServiceServer::new(Misbehaving { next })))
    });
    let running = running.await.unwrap();
    let url = format!("http://{}", running.address());
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    (running, channel)
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text_and_the_service_goes_on() {
    let (_running, channel) = serve(None).await;
    let mut client = UsersServiceClient::new(channel);
    for _ in 0..2 {
        let status = client.create_user(pb::CreateUserRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("swordfish"));
    }
}

/// Routers let 64 KiB through, and refuse more with a status of gRPC, which
/// the HTTP/2 of a service does not.
#[tokio::test]
async fn headers_beyond_a_router_s_limit_are_taken() {
    let (_running, channel) = serve(None).await;
    let mut request = Request::new(HealthCheckRequest::default());
    for _ in 0..12 {
        request.metadata_mut().append("x-long", "a".repeat(8 * 1024).parse().unwrap());
    }
    HealthClient::new(channel).check(request).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_a_stream() {
    let (_running, channel) = serve(None).await;
    // Without the channel's own timer, so that it is the server that ends it.
    let mut client = UsersServiceClient::new(channel);
    let limit = |seconds: Duration| format!("{}m", seconds.as_millis()).parse().unwrap();
    let begun = Instant::now();

    let mut request = Request::new(pb::WatchMeRequest {});
    request.metadata_mut().insert("grpc-timeout", limit(Duration::from_millis(200)));
    let mut stream = client.watch_me(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);

    let (sink, mut spans) = SpanSink::channel(8);
    let outbound =
        Outbound::new(&format!("http://{}", _running.address())).unwrap().with_spans(sink);
    let mut client = UsersServiceClient::new(outbound.channel("users").unwrap());
    let mut request = Request::new(pb::GetMeRequest {});
    request.set_timeout(Duration::from_millis(200));
    let status = client.get_me(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let span = spans.recv().await.unwrap();
    assert!(span.attributes.contains(&("rpc.grpc.status_code", 4.into())), "{span:?}");
}

#[tokio::test]
async fn a_call_made_while_serving_has_its_trace_and_what_is_left_of_its_time() {
    let (_running, channel) = serve(None).await;
    let mut client = UsersServiceClient::new(channel);
    let caller = SpanContext::root(true);
    let mut request = Request::new(pb::GetUserRequest::default());
    caller.inject(request.metadata_mut().as_mut());
    request.set_timeout(Duration::from_secs(3));

    let seen = client.get_user(request).await.unwrap().into_inner();
    assert_eq!(seen.user_id, caller.trace_id().to_string());
    assert_eq!(seen.email, seen.display_name, "the client span is the parent of the server span");
    assert_ne!(seen.email, caller.span_id().to_string(), "the first server span is between");
    let left: u64 = seen.locale.parse().unwrap();
    assert!((1..3000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn health_tells_of_each_service_and_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready.json");
    let (running, channel) = serve(Some(&ready)).await;
    let said: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&ready).unwrap()).unwrap();
    assert_eq!(said, serde_json::json!({ "listen": running.address().to_string() }));

    let mut client = HealthClient::new(channel);
    for service in ["", "weir.users.v1.UsersService"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(client.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let (stopped, ended) = tokio::join!(running.stop(), watch.message());
    stopped.unwrap();
    assert_eq!(ended.unwrap().unwrap().status, 2, "NOT_SERVING before it is gone");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (running, _channel) = serve(None).await;
    let common = Common {
        listen: running.address(),
        ..Common::for_tests("unused", "v1", "http://127.0.0.1:1")
    };
    let second =
        start(&common, "users", weir_proto::descriptors::USERS, async |_| Ok(Routes::default()));
    let error = second.await.err().unwrap().to_string();
    assert!(error.contains(&running.address().to_string()), "{error}");
    assert!(error.contains("--listen"), "{error}");
}

#[test]
fn an_outbound_that_is_no_url_is_named() {
    for wrong in ["", "localhost", "https://127.0.0.1:1", "127.0.0.1:15001"] {
        let error = Outbound::new(wrong).err().unwrap().to_string();
        assert!(error.contains(&format!("`{wrong}`")), "{error}");
    }
    let common = |version| Common::for_tests("unused", version, "http://127.0.0.1:1").is_v2();
    assert!(common("v2") && common("v10") && common("v2-canary"));
    assert!(!common("v1") && !common("stable") && !common("v") && !common("blue2"));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use crate::server::database::OpenError;
    use crate::server::sqlite::open;

    const FIRST: &[&str] = &["CREATE TABLE t (n INTEGER)"];
    const BOTH: &[&str] = &["CREATE TABLE t (n INTEGER)", "INSERT INTO t VALUES (7)"];

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn all_who_open_at_once_find_the_schema_made_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), "a.db", FIRST).await.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let path = dir.path().to_owned();
            tasks.spawn(async move { open(&path, "a.db", BOTH).await.unwrap() });
        }
        let opened = tasks.join_all().await;
        let rows: Vec<i64> =
            sqlx::query_scalar("SELECT n FROM t").fetch_all(&opened[0].read).await.unwrap();
        assert_eq!(rows, [7], "the second step was made once");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_files_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let _open = open(dir.path(), "a.db", BOTH).await.unwrap();
        let refused = open(dir.path(), "a.db", FIRST).await.unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
    }
}

/// Where connections are redirected, nobody has to be told which service is meant:
/// it is asked at its own address, which the kernel sees.
#[tokio::test]
async fn a_service_is_asked_at_its_own_address_when_the_url_has_a_place_for_its_name() {
    let (running, _) = serve(None).await;
    let url = format!("http://{{service}}:{}", running.address().port());
    let outbound = Outbound::new(&url).unwrap();
    let mut here = UsersServiceClient::new(outbound.channel("localhost").unwrap());
    here.get_user(pb::GetUserRequest::default()).await.unwrap();
    let mut nowhere = UsersServiceClient::new(outbound.channel("no-such-host.invalid").unwrap());
    nowhere.get_user(pb::GetUserRequest::default()).await.unwrap_err();
    assert!(Outbound::new("tcp://{service}:80").is_err());
}
