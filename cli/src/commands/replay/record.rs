//! One line of an access log as a request that can be asked about.

use http::{Method, Request, Uri, header};
use serde::Deserialize;
use weir_mesh::identity::SpiffeId;
use weir_router::explain::Caller;

/// What a router wrote of a request, as far as routing needs it.
#[derive(Deserialize)]
struct Line {
    side: String,
    method: String,
    path: String,
    authority: Option<String>,
    #[serde(default)]
    service: String,
    #[serde(default)]
    peer: String,
    grpc_status: Option<u8>,
}

/// A request that was recorded.
#[derive(Debug)]
pub struct Recorded {
    /// Where it came from.
    pub caller: Caller,
    /// Without query and headers, which are not recorded.
    pub request: Request<()>,
    /// Its host was not recorded, so another one stands in.
    pub without_host: bool,
    /// It came from another router, which decided where it goes.
    pub is_inbound: bool,
}

impl Recorded {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let caller = match line.side.as_str() {
            "gateway" => Caller::Gateway,
            "outbound" | "inbound" => {
                let id = line.peer.parse::<SpiffeId>().ok();
                Caller::Service(id.and_then(|id| id.service().parse().ok()))
            }
            other => return Err(format!("side {other:?} is not known")),
        };
        let host = match (&line.authority, &caller) {
            (Some(authority), _) => authority.clone(),
            (None, Caller::Service(_)) => line.service.clone(),
            (None, Caller::Gateway) => "localhost".to_owned(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let uri = format!("http://{host}{}", line.path);
        let uri: Uri = uri.parse().map_err(|_| "its host and path are no URL".to_owned())?;
        let method: Method =
            line.method.parse().map_err(|_| format!("{:?} is no method", line.method))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.method_mut() = method;
        if line.grpc_status.is_some() {
            let grpc = header::HeaderValue::from_static("application/grpc");
            request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        }
        Ok(Self {
            without_host: line.authority.is_none(),
            is_inbound: line.side == "inbound",
            caller,
            request,
        })
    }
}
