//! `weir whoami` and `weir access`.

use weir_mesh::identity::Secret;
use weir_mesh::model::ServiceName;
use weir_proto::weir::control::v1::{Identity, WhoAmIRequest};

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::output::{Format, print, print_message, print_value};

/// Arguments of `weir whoami`.
#[derive(Debug, clap::Args)]
pub struct WhoAmI {
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl WhoAmI {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let who: Identity = block_on(async {
            Ok(self.connect.client().await?.who_am_i(WhoAmIRequest {}).await?.into_inner())
        })?;
        if self.connect.output != Format::Table {
            return print_message(self.connect.output, "weir.control.v1.Identity", &who);
        }
        let services = match who.services.is_empty() {
            true => String::new(),
            false => format!(" of {}", who.services.join(", ")),
        };
        print(&format!("{}, by {}: {}{services}\n", who.name, who.method, who.role))
    }
}

/// Arguments of `weir access`.
#[derive(Debug, clap::Args)]
pub struct Access {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token for somebody, and the entry for the control plane's --access file
    #[command(after_help = "Example:\n  weir access token ci --role shifter --services products")]
    Token(Token),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Looks
    Viewer,
    /// Changes weights of services, and drives their rollouts
    Shifter,
    /// Changes everything that is desired
    Operator,
    /// Changes who the mesh trusts as well
    Admin,
}

#[derive(Debug, clap::Args)]
struct Token {
    /// What the history is to call its holder
    name: String,
    /// What its holder may do
    #[arg(long, value_enum)]
    role: Role,
    /// Of a shifter: which services; without this option, all of them
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    services: Vec<ServiceName>,
    /// Until when it is good: a day or a moment in UTC, such as 2027-01-31
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

impl Access {
    /// Runs it. No mesh is asked: the file is the control plane's.
    ///
    /// # Errors
    /// There is no randomness, or standard output is gone.
    pub fn run(self) -> Result<(), Error> {
        let Action::Token(token) = self.action;
        if token.role != Role::Shifter && !token.services.is_empty() {
            return Err(Error::new("--services: only a shifter has them; leave it out"));
        }
        let secret = Secret::random().map_err(|error| Error::new(error.to_string()))?;
        let sha256 = sha256(secret.expose());
        let role = match token.role {
            Role::Viewer => "viewer",
            Role::Shifter => "shifter",
            Role::Operator => "operator",
            Role::Admin => "admin",
        };
        let mut entry = serde_json::json!({ "name": token.name, "sha256": sha256, "role": role });
        if !token.services.is_empty() {
            let names = token.services.iter().map(ServiceName::as_str);
            entry["services"] = names.collect::<Vec<_>>().into();
        }
        if let Some(expires) = &token.expires {
            entry["expires"] = expires.as_str().into();
        }
        if token.output != Format::Table {
            let both = serde_json::json!({ "token": secret.expose(), "entry": entry });
            return print_value(token.output, &both);
        }
        let list = serde_json::Value::Array(vec![entry]);
        print(&format!(
            "{}\n\nThis is shown once. Under `tokens:` of the file for --access:\n\n{}",
            secret.expose(),
            crate::output::yaml(&list)?
        ))
    }
}

fn sha256(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
