//! The control API as commands use it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use weir_proto::weir::control::v1::control_service_client::ControlServiceClient;

use crate::Error;
use crate::output::Format;
use crate::runtime_file;
use crate::tls::{Connector, TlsFiles};

/// The generated client, with the token on every call.
pub type Client = ControlServiceClient<InterceptedService<Channel, Bearer>>;

/// Answers of the API may hold descriptor sets of every service.
const MAX_MESSAGE: usize = 64 << 20;
const HTTPS: &str = "https://";

/// Which mesh is meant. Said before a command or after it; after it wins.
// clap's `global` would give these to `weir router` too, whose --control is another,
// and its `env` would win over what stands before the command.
#[derive(Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Target {
    /// The mesh's control API [env: WEIR_CONTROL]; default: the mesh that `weir up`
    /// runs on this machine
    #[arg(long, value_name = "URL")]
    control: Option<String>,
    /// Bearer token of the control API [env: WEIR_TOKEN]; default: that of the mesh
    /// on this machine
    #[arg(allow_hyphen_values = true, long, value_name = "TOKEN")]
    token: Option<String>,
    /// For https: PEM roots that the control API's certificate leads to [env: WEIR_CA];
    /// default: those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For https: certificate (PEM) that says who you are [env: WEIR_CERT]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key (PEM) [env: WEIR_KEY]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Target {
    /// True when nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What this leaves open, `other` says.
    #[must_use]
    fn or(self, other: Self) -> Self {
        let pair = self.cert.is_some() || self.key.is_some();
        let (cert, key) = if pair { (self.cert, self.key) } else { (other.cert, other.key) };
        Self {
            control: self.control.or(other.control),
            token: self.token.or(other.token),
            ca: self.ca.or(other.ca),
            cert,
            key,
        }
    }

    fn of_environment() -> Self {
        let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = |name| value(name).map(PathBuf::from);
        Self {
            control: value("WEIR_CONTROL"),
            token: value("WEIR_TOKEN"),
            ca: file("WEIR_CA"),
            cert: file("WEIR_CERT"),
            key: file("WEIR_KEY"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("control", &self.control).finish_non_exhaustive()
    }
}

/// How a command reaches the mesh and how it prints.
#[derive(Debug, Clone, clap::Args)]
pub struct Connect {
    #[command(flatten)]
    target: Target,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub output: Format,
}

impl Connect {
    /// Takes what was said before the command.
    pub fn inherit(&mut self, before: Target) {
        self.target = std::mem::take(&mut self.target).or(before);
    }

    /// A client of the mesh that is meant.
    ///
    /// # Errors
    /// There is none, or it does not answer.
    pub async fn client(&self) -> Result<Client, Error> {
        let local = runtime_file::newest();
        let mut environment = Target::of_environment();
        let named = self.target.control.clone().or(environment.control.take());
        let control = match (named, &local) {
            (Some(url), _) => url,
            (None, Some(mesh)) => mesh.control.clone(),
            (None, None) => {
                return Err(Error::new(
                    "no mesh runs on this machine; start one with `weir up`, or name another \
                     with --control URL --token TOKEN",
                ));
            }
        };
        // It says who somebody is to the control planes of others.
        if !control.starts_with(HTTPS) {
            (environment.cert, environment.key) = (None, None);
        }
        let target = self.target.clone().or(environment);
        let token = match (&target.token, local) {
            (Some(token), _) => Some(token.clone()),
            (None, _) if target.cert.is_some() => None,
            (None, Some(mesh)) if same(&mesh.control, &control) => {
                let read = std::fs::read_to_string(&mesh.token_file);
                Some(read.map_err(|error| {
                    Error::new(format!(
                        "cannot read the token in {}: {error}; give it by --token",
                        mesh.token_file.display()
                    ))
                })?)
            }
            (None, _) => {
                return Err(Error::new(format!(
                    "{control} needs a token; give it by --token or WEIR_TOKEN (or a client \
                     certificate by --cert and --key)"
                )));
            }
        };
        let files = TlsFiles { ca: target.ca, cert: target.cert, key: target.key };
        connect(&control, token.as_deref(), &files).await
    }
}

fn same(one: &str, other: &str) -> bool {
    let bare = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    bare(one) == bare(other)
}

/// Puts the token on each call; none: a certificate says who calls.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connects to a control API.
///
/// # Errors
/// The URL, the token or a file cannot be used, or nothing answers.
pub async fn connect(
    control: &str,
    token: Option<&str>,
    files: &TlsFiles,
) -> Result<Client, Error> {
    let (endpoint, tls) = endpoint(control)?;
    let channel = match tls {
        true => endpoint.connect_with_connector(Connector::new(files)?).await,
        false if files.cert.is_some() => {
            return Err(Error::new("--cert: a certificate is shown by https alone"));
        }
        false => endpoint.connect().await,
    };
    let channel = channel.map_err(|error| {
        Error::new(format!(
            "cannot reach the control API at {control} ({}); start a mesh with `weir up`, or \
             name another with --control URL",
            root_cause(&error)
        ))
    })?;
    client(channel, token)
}

/// A client that connects when it is first used, and again when it must.
///
/// # Errors
/// The URL or the token cannot be used.
pub fn connect_lazy(control: &str, token: &str) -> Result<Client, Error> {
    client(endpoint(control)?.0.connect_lazy(), Some(token))
}

/// Where to connect to, and whether by TLS.
fn endpoint(control: &str) -> Result<(Endpoint, bool), Error> {
    let url =
        if control.contains("://") { control.to_owned() } else { format!("http://{control}") };
    let wrong = |why: String| {
        Error::new(format!("--control {control:?} is no URL ({why}); use http://HOST:PORT"))
    };
    let (url, tls) = match url.strip_prefix(HTTPS) {
        Some(rest) => (format!("http://{}", with_port(rest)), true),
        None if url.starts_with("http://") => (url, false),
        None => return Err(wrong("only http and https are spoken".into())),
    };
    let endpoint = Endpoint::from_shared(url).map_err(|error| wrong(error.to_string()))?;
    Ok((endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true), tls))
}

/// What follows `https://`, with its port: tonic is shown an `http://` URL.
fn with_port(rest: &str) -> String {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host_end = authority.rfind(']').unwrap_or(0);
    match authority[host_end..].contains(':') {
        true => rest.to_owned(),
        false => format!("{authority}:443/{path}"),
    }
}

fn client(channel: Channel, token: Option<&str>) -> Result<Client, Error> {
    let wrong = |_| Error::new("the token holds characters that no HTTP header can");
    let value = |token: &str| format!("Bearer {}", token.trim()).parse().map_err(wrong);
    let mut value: Option<MetadataValue<Ascii>> = token.map(value).transpose()?;
    if let Some(value) = &mut value {
        value.set_sensitive(true);
    }
    Ok(ControlServiceClient::with_interceptor(channel, Bearer(value))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// The innermost error: what the operating system said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
