//! Who may do what.
//!
//! `door` finds out who calls (a token, a certificate, an OIDC token), `gate` lets
//! those through whose role is high enough for the method (`methods`), and `refusals` writes into the history who was refused.

mod document;
mod door;
mod fetch;
mod gate;
mod grants;
mod methods;
mod oidc;
mod refusals;
mod tls;

use std::fmt;
use std::sync::Arc;

use tonic::Status;
use weir_mesh::model::ServiceName;
use weir_proto::weir::control::v1 as pb;

#[cfg(feature = "kubernetes")]
pub use door::Reviews;
pub use door::{Access, AccessArgs, Denial};
pub use gate::call;
pub use refusals::Refusals;

use crate::control::Control;

/// What a caller may do; each role may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes weights of some services, and drives their rollouts.
    Shifter,
    /// Changes everything that is desired.
    Operator,
    /// Changes who the mesh trusts as well.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Shifter, Self::Operator, Self::Admin];

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Shifter => "shifter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Role {
    fn article(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer",
            Self::Shifter => "a shifter",
            Self::Operator => "an operator",
            Self::Admin => "an admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a caller showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A bearer token of this mesh.
    Token,
    /// A client certificate.
    Certificate,
    /// A bearer token of an OpenID Connect issuer.
    Oidc,
}

impl Method {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Token, Self::Certificate, Self::Oidc];

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Oidc => "oidc",
        }
    }
}

/// Who calls, as the front door found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Goes into the history.
    pub name: String,
    /// How that is known.
    pub method: Method,
    /// What it may do.
    pub role: Role,
    /// Of a shifter: which services. None: all.
    pub services: Option<Vec<String>>,
    /// For whom it says that it acts; it goes into the history, and gives no right.
    pub on_behalf_of: Option<String>,
}

impl Default for Caller {
    /// Somebody of whom nothing is known, who may only look.
    fn default() -> Self {
        Self {
            name: "unknown".to_owned(),
            method: Method::Token,
            role: Role::Viewer,
            services: None,
            on_behalf_of: None,
        }
    }
}

impl Caller {
    /// Who holds the mesh's own token.
    #[must_use]
    pub fn admin(name: &str) -> Self {
        Self { name: name.to_owned(), role: Role::Admin, ..Self::default() }
    }

    /// Whether it may set the weights of a service and drive its rollouts.
    #[must_use]
    pub fn may_shift(&self, service: &ServiceName) -> bool {
        // A port of a Service is no other service.
        let fits = |known: &String| known == service.as_str() || known == service.base();
        self.role >= Role::Shifter
            && self.services.as_ref().is_none_or(|services| services.iter().any(fits))
    }

    /// As the history writes it.
    #[must_use]
    pub fn actor(&self) -> String {
        match &self.on_behalf_of {
            Some(other) => format!("{} on behalf of {other}", self.name),
            None => self.name.clone(),
        }
    }
}

impl From<Caller> for pb::Identity {
    fn from(caller: Caller) -> Self {
        Self {
            name: caller.name,
            method: caller.method.as_str().to_owned(),
            role: caller.role.as_str().to_owned(),
            services: caller.services.unwrap_or_default(),
        }
    }
}

/// Refuses a caller whose role is too low for a call, such as `Shift of
/// service/products`, and writes that into the history.
///
/// # Errors
/// PERMISSION_DENIED.
pub async fn check_role(
    control: &Arc<Control>,
    caller: &Caller,
    least: Role,
    call: &str,
) -> Result<(), Status> {
    if caller.role >= least {
        return Ok(());
    }
    let why =
        format!("it needs the role {least}, and {} is {}", caller.name, caller.role.article());
    Err(control.refuse(caller, call, &why).await)
}

/// Refuses a caller who may not set the weights of a service, and writes that into the
/// history. `method` is the API's name for the call, such as `Shift`. A text that can
/// be no service's name is left to whoever reads the request.
///
/// # Errors
/// PERMISSION_DENIED.
pub async fn check_service(
    control: &Arc<Control>,
    caller: &Caller,
    method: &str,
    service: &str,
) -> Result<(), Status> {
    let Ok(service) = service.parse::<ServiceName>() else { return Ok(()) };
    let call = format!("{method} of service/{service}");
    check_role(control, caller, Role::Shifter, &call).await?;
    if caller.may_shift(&service) {
        return Ok(());
    }
    let own = caller.services.as_deref().unwrap_or_default().join(", ");
    let why = format!("{} may shift {own}, and not {service}", caller.name);
    Err(control.refuse(caller, &call, &why).await)
}
