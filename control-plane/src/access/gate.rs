//! The one way to the API's methods: only for callers whose role is high enough.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use weir_mesh::transcode::Deframer;

use super::{Caller, check_role, methods};
use crate::control::Control;
use crate::serve;

/// Bytes of a refused request that are looked at, to say what it was about.
const MAX_REFUSED: usize = 64 * 1024;
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls the API for the [`Caller`] in the request's extensions, if that one may; who
/// is not there may look. A refusal is an answer of gRPC too.
pub async fn call(
    control: &Arc<Control>,
    routes: &Routes,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path();
    let least = methods::least(path);
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    if caller.role >= least {
        return serve::call(routes.clone(), request).await;
    }
    let (method, path) = (methods::name(path), path.to_owned());
    let object = match message(request.into_body()).await {
        Some(message) => methods::object(&path, &message),
        None => None,
    };
    let what = object.map_or(method.clone(), |object| format!("{method} of {object}"));
    let refused = check_role(control, &caller, least, &what).await;
    refused.err().unwrap_or_else(|| Status::permission_denied(what)).into_http()
}

/// The beginning of a gRPC request: as much as says what it is about.
async fn message(body: Body) -> Option<Bytes> {
    let body = Limited::new(body, MAX_REFUSED).collect();
    let body = tokio::time::timeout(PATIENCE, body).await.ok()?.ok()?;
    let mut frames = Deframer::new(MAX_REFUSED);
    frames.push(body.to_bytes());
    frames.next_message().ok().flatten()
}
