//! The CNI plugin (CNI specification 0.3.1 to 1.1.0): last of the plugins that a
//! runtime asks for a pod, it redirects the pod's connections where its annotations
//! say so, and hands on what the others made.
//!
//! A runtime passes annotations to a plugin that declares the capability
//! `io.kubernetes.cri.pod-annotations`; containerd and CRI-O know it.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::redirection::Redirection;
use crate::rules;

/// What a plugin must declare to be told of annotations.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Versions of the specification that mean the same to this plugin.
const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.0.1", "1.1.0"];

/// Codes of errors that the specification gives a meaning, and one of our own.
const INCOMPATIBLE: u32 = 1;
const BAD_VARIABLE: u32 = 4;
const BAD_JSON: u32 = 6;
const BAD_CONFIG: u32 = 7;
const NOT_REDIRECTED: u32 = 100;

/// Does one command of a runtime: `command` is CNI_COMMAND, `namespace` CNI_NETNS,
/// `input` the network's configuration. Moves this thread into the pod's network.
/// Gives what goes to standard output.
///
/// # Errors
/// What goes to standard output when it fails.
pub fn plugin(command: &str, namespace: Option<&str>, input: &str) -> Result<String, String> {
    let config: Value = if input.trim().is_empty() && command == "VERSION" {
        json!({})
    } else {
        serde_json::from_str(input).map_err(|error| {
            failure("1.0.0", BAD_JSON, "the configuration is no JSON", &error.to_string())
        })?
    };
    let version = config["cniVersion"].as_str().unwrap_or("1.0.0");
    let failed = |code, message, details: String| failure(version, code, message, &details);
    if command == "VERSION" {
        return Ok(json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string());
    }
    if !VERSIONS.contains(&version) {
        let details = format!("cniVersion is {version:?}; there are {}", VERSIONS.join(", "));
        return Err(failed(INCOMPATIBLE, "this version of CNI is not supported", details));
    }
    match command {
        "ADD" => {
            let Some(result) = config.get("prevResult") else {
                let details =
                    "prevResult is missing: another plugin must make the pod's network".to_owned();
                return Err(failed(BAD_CONFIG, "weir-cni must be chained", details));
            };
            if let Some(redirection) =
                asked(&config).map_err(|e| failed(BAD_CONFIG, "weir.dev/redirect-arguments", e))?
            {
                enter(namespace).map_err(|e| failed(BAD_VARIABLE, "CNI_NETNS", e))?;
                rules::apply(&redirection).map_err(|e| {
                    failed(NOT_REDIRECTED, "the pod's connections cannot be redirected", e)
                })?;
            }
            Ok(result.to_string())
        }
        "CHECK" => {
            if asked(&config).is_ok_and(|asked| asked.is_some()) {
                enter(namespace).map_err(|e| failed(BAD_VARIABLE, "CNI_NETNS", e))?;
                let there =
                    rules::is_applied().map_err(|e| failed(NOT_REDIRECTED, "nftables", e))?;
                if !there {
                    let details = "table inet weir is gone".to_owned();
                    return Err(failed(
                        NOT_REDIRECTED,
                        "the pod's connections are not redirected",
                        details,
                    ));
                }
            }
            Ok(String::new())
        }
        // The rules go with the network namespace; nothing is kept outside of it.
        "DEL" | "GC" | "STATUS" => Ok(String::new()),
        other => Err(failed(BAD_VARIABLE, "CNI_COMMAND", format!("{other:?} is not known"))),
    }
}

/// What the pod's annotations ask for; none when they ask for nothing.
fn asked(config: &Value) -> Result<Option<Redirection>, String> {
    let annotations = &config["runtimeConfig"][ANNOTATIONS];
    if annotations["weir.dev/redirect"] != "cni" || annotations["weir.dev/injected"] != "true" {
        return Ok(None);
    }
    let arguments = annotations["weir.dev/redirect-arguments"].as_str().unwrap_or_default();
    Redirection::parse(arguments.split_whitespace().map(str::to_owned)).map(Some)
}

fn enter(namespace: Option<&str>) -> Result<(), String> {
    let path = namespace.filter(|path| !path.is_empty()).ok_or("is not set")?;
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("{path}: {error}"))
}

fn failure(version: &str, code: u32, message: &str, details: &str) -> String {
    let message = format!("weir-cni: {message}");
    json!({"cniVersion": version, "code": code, "msg": message, "details": details}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, config: Value) -> Result<Value, Value> {
        let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::Null);
        plugin(command, None, &config.to_string()).map(read).map_err(read)
    }

    #[test]
    fn what_others_made_is_handed_on() {
        let made = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "dns": {}});
        let config = |annotations: Value| {
            json!({
                "cniVersion": "1.0.0", "name": "net", "type": "weir-cni", "prevResult": made,
                "runtimeConfig": {ANNOTATIONS: annotations},
            })
        };
        assert_eq!(run("ADD", config(json!({}))).unwrap(), made);
        assert_eq!(run("ADD", config(Value::Null)).unwrap(), made);
        let by_init = json!({"weir.dev/redirect": "init", "weir.dev/injected": "true"});
        assert_eq!(run("ADD", config(by_init)).unwrap(), made);
        // A wish without a router would cut the pod off.
        assert_eq!(run("ADD", config(json!({"weir.dev/redirect": "cni"}))).unwrap(), made);
        for command in ["DEL", "CHECK", "STATUS", "GC"] {
            assert_eq!(run(command, config(json!({}))).unwrap(), Value::Null, "{command}");
        }
    }

    #[test]
    fn errors_have_the_codes_of_the_specification() {
        let code = |result: Result<Value, Value>| result.unwrap_err()["code"].as_u64().unwrap();
        assert_eq!(code(run("ADD", json!({"cniVersion": "9.0.0"}))), 1);
        assert_eq!(code(run("ADD", json!({"cniVersion": "1.0.0"}))), 7);
        assert_eq!(code(run("MOVE", json!({"cniVersion": "1.0.0"}))), 4);
        assert!(plugin("ADD", None, "{").unwrap_err().contains("\"code\":6"));
        let wants = json!({
            "cniVersion": "0.4.0", "prevResult": {},
            "runtimeConfig": {ANNOTATIONS: {
                "weir.dev/redirect": "cni", "weir.dev/injected": "true",
                "weir.dev/redirect-arguments": "--skip-outbound-ports=http",
            }},
        });
        let error = run("ADD", wants.clone()).unwrap_err();
        assert!(error["details"].as_str().unwrap().contains("\"http\" is no port"), "{error}");
        let mut right = wants;
        right["runtimeConfig"][ANNOTATIONS]["weir.dev/redirect-arguments"] = "".into();
        let error = run("ADD", right).unwrap_err();
        assert_eq!((error["code"].as_u64(), &error["cniVersion"]), (Some(4), &json!("0.4.0")));
    }

    #[test]
    fn versions_are_told() {
        let told = run("VERSION", json!({"cniVersion": "1.0.0"})).unwrap();
        assert!(told["supportedVersions"].as_array().unwrap().contains(&json!("0.4.0")));
        assert!(plugin("VERSION", None, "").is_ok());
    }
}
