//! Gives routers their identity.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{ServiceName, Violations};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::identity_service_server::IdentityService;

use super::error;
use crate::ca;
use crate::control::Control;

/// Signs certificate requests.
pub struct Identity(pub Arc<Control>);

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn sign(
        &self,
        request: Request<pb::SignRequest>,
    ) -> Result<Response<pb::SignResponse>, Status> {
        let control = self.0.clone();
        let _turn = self.0.pace.signatures.clone().enter().await;
        if let Some(attest) = &self.0.attest {
            let request = request.into_inner();
            let id = attest.attest(&request.join_token).await?;
            let work = move || issue(&control, &id, &request.csr_der);
            let signed = tokio::task::spawn_blocking(work).await;
            return signed.map_err(|lost| Status::internal(lost.to_string()))?.map(Response::new);
        }
        // The token file may be read, and a signature takes a moment.
        let signed = tokio::task::spawn_blocking(move || sign(&control, request.get_ref())).await;
        signed.map_err(|lost| Status::internal(lost.to_string()))?.map(Response::new)
    }
}

fn sign(control: &Control, request: &pb::SignRequest) -> Result<pb::SignResponse, Status> {
    let mut bad = Violations::new();
    let service = bad.take("service", request.service.parse::<ServiceName>());
    // Before the request's bytes are looked at: who may not join learns nothing.
    if let Some(service) = &service {
        let allowed = control.join_tokens.allow(service.as_str(), &request.join_token);
        let allowed = allowed.unwrap_or_else(|error| {
            tracing::error!(%error, "the join tokens cannot be read again");
            false
        });
        if !allowed {
            tracing::warn!(%service, "a router brought a wrong join token");
            return Err(Status::unauthenticated(format!(
                "the join token is not that of service {service}; the mesh file names it"
            )));
        }
    }
    // What is wrong with the request itself is told together.
    let key = bad.take("csrDer", ca::public_key(&request.csr_der));
    let (service, _) = bad.finish(service.zip(key)).map_err(|e| error::invalid(&e))?;
    let id = SpiffeId::of_service(&control.trust_domain, service.as_str())
        .map_err(|error| failed(&service, &error))?;
    issue(control, &id, &request.csr_der)
}

fn failed(whose: &dyn std::fmt::Display, error: &dyn std::fmt::Display) -> Status {
    tracing::error!(%error, %whose, "no certificate was made");
    Status::internal("no certificate was made; the control plane's log says why")
}

/// Makes a certificate for an id that was proved.
fn issue(control: &Control, id: &SpiffeId, csr: &[u8]) -> Result<pb::SignResponse, Status> {
    let mut bad = Violations::new();
    let key = bad.take("csrDer", ca::public_key(csr));
    let key = bad.finish(key).map_err(|e| error::invalid(&e))?;
    let issued = control.authority.issue(id, &key).map_err(|error| failed(id, &error))?;
    tracing::info!(%id, not_after = issued.not_after, "signed a certificate");
    Ok(pb::SignResponse {
        certificate_chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
        trust_bundle: control.authority.bundle().iter().map(|der| der.to_vec()).collect(),
        spiffe_id: id.to_string(),
        not_before: issued.not_before,
        not_after: issued.not_after,
    })
}
