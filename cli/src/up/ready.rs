//! The file by which `weir up` itself says that all is ready.

use std::path::Path;

use serde_json::json;
use weir_mesh::file::write_secret;

use super::spawn::Role;
use super::supervise::State;
use crate::Error;

/// What a ready file holds beside the processes.
#[derive(Debug, Clone)]
pub struct Urls {
    /// Of the gateway.
    pub gateway: String,
    /// Of the control API.
    pub control: String,
    /// The control API's.
    pub token: String,
}

/// Writes the file anew, readable for its owner only: it holds the token.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, urls: &Urls, states: &[State]) -> Result<(), Error> {
    let value = to_json(urls, states);
    write_secret(path, format!("{value:#}\n"))
        .map_err(|error| Error::new(format!("cannot write the ready file {error}")))
}

fn to_json(urls: &Urls, states: &[State]) -> serde_json::Value {
    let processes: Vec<_> = states
        .iter()
        .map(|state| {
            let address = |key: &str| state.addresses.get(key);
            json!({
                "name": state.name,
                "service": state.service,
                "version": state.version,
                "role": state.role.name(),
                "pid": state.pid,
                "admin": address("admin"),
                "inbound": address(if state.role == Role::Gateway { "gateway" } else { "inbound" }),
                "outbound": address("outbound"),
            })
        })
        .collect();
    json!({
        "gateway": urls.gateway,
        "control": urls.control,
        "token": urls.token,
        "processes": processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_shape_that_was_promised() {
        let urls = Urls {
            gateway: "http://127.0.0.1:1".into(),
            control: "http://127.0.0.1:2".into(),
            token: "t".into(),
        };
        let state = State {
            name: "web-v1-1-router".into(),
            role: Role::Sidecar,
            service: "web".into(),
            version: "v1".into(),
            pid: Some(7),
            addresses: [("admin".to_owned(), "127.0.0.1:3".to_owned())].into(),
            deaths: 0,
        };
        let value = to_json(&urls, &[state]);
        let process = &value["processes"][0];
        let mut keys: Vec<_> = process.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["admin", "inbound", "name", "outbound", "pid", "role", "service", "version"]
        );
        assert_eq!((&process["role"], &process["pid"]), (&json!("sidecar"), &json!(7)));
        assert_eq!(value["token"], "t");
    }
}
