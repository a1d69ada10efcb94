//! The mesh listener's front door: routers as they are, and what other control planes
//! send.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use weir_mesh::identity::SpiffeId;

use super::caller::{self, CALLER};
use super::methods::{API, is_of_leader, writes};
use crate::access;
use crate::api::Peer;
use crate::control::Control;
use crate::serve::{Handler, call};

/// In the metadata of a refusal: nothing has happened, and another one leads.
pub(super) const NOT_LEADING: &str = "x-weir-not-leading";

/// Refuses a write because this control plane does not lead: nothing has happened,
/// so it may be repeated elsewhere.
#[must_use]
pub fn not_leading() -> Status {
    let why = "this control plane does not lead now; nothing was changed, try again";
    let mut status = Status::new(Code::Unavailable, why);
    let yes = tonic::metadata::MetadataValue::from_static("true");
    status.metadata_mut().insert(NOT_LEADING, yes);
    status
}

/// Whether a certificate is a control plane's of this mesh.
pub(super) fn is_control_plane(control: &Control, peer: Option<&Peer>) -> bool {
    let own = SpiffeId::control_plane(&control.trust_domain);
    peer.is_some_and(|peer| own.is_ok_and(|own| peer.0 == own))
}

/// Answers requests to the mesh listener.
#[derive(Clone)]
pub struct MeshDoor {
    /// What it answers for.
    pub control: Arc<Control>,
    /// What routers ask.
    pub mesh: Routes,
    /// The control-plane API, for other control planes alone.
    pub api: Routes,
}

impl Handler for MeshDoor {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        let request = request.map(Body::new);
        if request.uri().path().starts_with(API) {
            return self.forwarded(request).await;
        }
        call(self.mesh, request).await
    }
}

impl MeshDoor {
    /// A write that another control plane was asked for.
    async fn forwarded(self, mut request: Request<Body>) -> Response<Body> {
        if !is_control_plane(&self.control, request.extensions().get::<Peer>()) {
            let why = "only control planes send this here; ask the API listener";
            return Status::permission_denied(why).into_http();
        }
        if !writes(request.uri().path()) && !is_of_leader(request.uri().path()) {
            let why = "only what is the leader's to answer is forwarded";
            return Status::unimplemented(why).into_http();
        }
        let Some(caller) = request.headers_mut().remove(CALLER).as_ref().and_then(caller::read)
        else {
            let why = format!("the metadata {CALLER} is missing or not understood");
            return Status::unauthenticated(why).into_http();
        };
        if !self.control.replica.leads() {
            return not_leading().into_http();
        }
        request.extensions_mut().insert(caller);
        access::call(&self.control, &self.api, request).await
    }
}
