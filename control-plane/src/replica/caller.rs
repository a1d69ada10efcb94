//! Who calls, as one control plane tells another. Only a control plane's own
//! certificate makes it believed.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Method, Role};

/// The metadata that it travels in.
pub(super) const CALLER: &str = "x-weir-caller";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Told {
    name: String,
    method: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<String>,
}

/// For the metadata; none for a name that no header can hold.
pub(super) fn write(caller: &Caller) -> Option<HeaderValue> {
    let told = Told {
        name: caller.name.clone(),
        method: caller.method.as_str().to_owned(),
        role: caller.role.as_str().to_owned(),
        services: caller.services.clone(),
        on_behalf_of: caller.on_behalf_of.clone(),
    };
    let json = serde_json::to_vec(&told).ok()?;
    let mut value = HeaderValue::from_bytes(&json).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// From the metadata; none: it is not understood, and nobody is to be believed.
pub(super) fn read(value: &HeaderValue) -> Option<Caller> {
    let told: Told = serde_json::from_slice(value.as_bytes()).ok()?;
    let method = Method::ALL.into_iter().find(|method| method.as_str() == told.method)?;
    let role = Role::ALL.into_iter().find(|role| role.as_str() == told.role)?;
    let Told { name, services, on_behalf_of, .. } = told;
    Some(Caller { name, method, role, services, on_behalf_of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_arrives_as_it_was() {
        let caller = Caller {
            name: "ünï \"x\"\n".into(),
            method: Method::Oidc,
            role: Role::Shifter,
            services: Some(vec!["products".into()]),
            on_behalf_of: Some("eve".into()),
        };
        assert_eq!(read(&write(&caller).unwrap()), Some(caller));
        assert_eq!(read(&HeaderValue::from_static("admin")), None);
        let wrong = r#"{"name":"a","method":"token","role":"root"}"#;
        assert_eq!(read(&HeaderValue::from_static(wrong)), None);
    }
}
