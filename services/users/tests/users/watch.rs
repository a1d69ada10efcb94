use std::time::Duration;

use tonic::{Code, Streaming};
use weir_proto::weir::users::v1 as pb;

use crate::mesh::{self, ADA, Key};

async fn next(stream: &mut Streaming<pb::WatchMeResponse>) -> Result<pb::Profile, tonic::Status> {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    Ok(message.expect("nothing came")?.expect("the stream ended").profile.unwrap())
}

fn rename(name: &str) -> pb::UpdateMeRequest {
    pb::UpdateMeRequest { display_name: Some(name.into()), ..Default::default() }
}

#[tokio::test]
async fn a_watcher_sees_changes_of_every_process_and_hears_of_the_end() {
    let data = crate::data();
    let key = Key::publish().await;
    let (one, two) = (
        mesh::start(&data, "v1", &key.outbound).await,
        mesh::start(&data, "v1", &key.outbound).await,
    );
    let (mut here, mut there) = (mesh::client(&one).await, mesh::client(&two).await);
    let made = mesh::create(&mut here, ADA, "ada@example.com").await;
    let token = key.token(ADA, 60);

    let watch = mesh::with_token(pb::WatchMeRequest {}, &token);
    let mut stream = here.watch_me(watch).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.unwrap(), made, "what is there comes first");
    here.update_me(mesh::with_token(rename("One"), &token)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().display_name, "One");
    there.update_me(mesh::with_token(rename("Two"), &token)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().display_name, "Two");

    let (stopped, last) = tokio::join!(one.stop(), next(&mut stream));
    stopped.unwrap();
    assert_eq!(last.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_ends_with_its_token() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;
    mesh::create(&mut client, ADA, "ada@example.com").await;
    let watch = mesh::with_token(pb::WatchMeRequest {}, &key.token(ADA, 1));
    let mut stream = client.watch_me(watch).await.unwrap().into_inner();
    next(&mut stream).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::Unauthenticated);
}
