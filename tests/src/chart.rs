//! The Helm chart's generated half: CRDs and the schema of its values, each from
//! the types that read them. `cargo run -p weir-tests --example chart` writes the
//! files anew; `tests/tests/chart` fails when they differ.

pub mod crds;
pub mod schema;
pub mod services;
pub mod table;
pub mod values;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the repository begins.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The default values of the chart, with those of its subchart in their place, as
/// Helm has them.
///
/// # Errors
/// A file cannot be read, or is not YAML.
pub fn defaults() -> Result<Value, String> {
    let read = |path: &str| -> Result<Value, String> {
        let text =
            std::fs::read_to_string(root().join(path)).map_err(|e| format!("{path}: {e}"))?;
        serde_saphyr::from_str(&text).map_err(|e| format!("{path}: {e}"))
    };
    let mut values = read("helm/weir/values.yaml")?;
    if let Value::Object(services) = read("helm/weir/charts/services/values.yaml")? {
        for (name, value) in services {
            values["services"][name] = value;
        }
    }
    Ok(values)
}

/// Every generated file: its path from the repository's root, and what it holds.
///
/// # Errors
/// `values.yaml` cannot be read, or is not what the types expect.
pub fn files() -> Result<Vec<(PathBuf, String)>, String> {
    let chart = PathBuf::from("helm/weir");
    let schema = schema::values();
    let text = |schema: &Value| format!("{schema:#}\n");
    let mut files = vec![
        (chart.join("values.schema.json"), text(&schema)),
        (chart.join("charts/services/values.schema.json"), text(&schema::services())),
        (PathBuf::from("docs/src/helm-values.md"), table::page(&schema, &defaults()?)?),
    ];
    let crds = crds::all().into_iter();
    files.extend(crds.map(|(name, text)| (chart.join("files/crds").join(name), text)));
    Ok(files)
}
