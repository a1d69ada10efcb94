//! Who may do what.

use std::fmt;

use weir_proto::weir::control::v1 as pb;

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
