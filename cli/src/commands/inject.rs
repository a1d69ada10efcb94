//! `weir inject -f FILE`: what the admission webhook does, to YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_control_plane::inject::{
    InjectConfig, Injection, NamespaceFacts, Objects, Outcome, inject_object,
};

use crate::Error;
use crate::documents::{Files, stream};
use crate::mesh_file::tree::Place;
use crate::output::{print, table, yaml};

/// Arguments of `weir inject`.
#[derive(Debug, clap::Args)]
pub struct Inject {
    /// Kubernetes objects in YAML or JSON: a file, a directory (its .yaml, .yml and
    /// .json files), or - for standard input, which is the default. May be given
    /// several times
    #[arg(short, long = "file", value_name = "FILE|DIR|-", default_value = "-")]
    file: Vec<PathBuf>,
    /// The injector's defaults, as ConfigMap weir-injector has them in config.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Namespace of objects that do not say theirs
    #[arg(short, long, value_name = "NAME", default_value = "")]
    namespace: String,
}

/// A document of the files.
struct Document {
    file: String,
    text: String,
    value: Value,
}

impl Inject {
    /// Runs it. What was done is told on standard error.
    ///
    /// # Errors
    /// A file cannot be read, or a pod cannot be injected as it asks; then nothing is
    /// printed.
    pub fn run(self) -> Result<(), Error> {
        let config = self.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let documents = read(&Files::of(self.file))?;
        let namespaces = namespaces(&documents);
        let facts = |name: &str| {
            let name = if name.is_empty() { &self.namespace } else { name };
            let labels = namespaces.get(name).cloned().unwrap_or_default();
            NamespaceFacts { name: name.to_owned(), labels }
        };
        let all: Vec<Objects> =
            documents.iter().map(|d| inject_object(&config, &facts, &d.value)).collect();
        refuse(&documents, &all)?;
        let mut out = String::new();
        for (document, objects) in documents.iter().zip(&all) {
            if !out.is_empty() {
                out.push_str("---\n");
            }
            // What stays as it is keeps its comments.
            if objects.object == document.value {
                let lines = document.text.trim_end().lines();
                let lines = lines.skip_while(|line| line.trim().is_empty());
                lines.for_each(|line| out.extend([line, "\n"]));
            } else {
                out.push_str(&yaml(&objects.object)?);
            }
        }
        print(&out)?;
        tell(all.iter().flat_map(|objects| &objects.injections));
        Ok(())
    }
}

fn read_config(path: &Path) -> Result<InjectConfig, Error> {
    let wrong = |why: String| Error::new(format!("--config {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    InjectConfig::parse(&text).map_err(wrong)
}

fn read(files: &Files) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    let mut wrong = Vec::new();
    for source in files.sources()? {
        for (text, read) in stream::with_text(&source.text) {
            // The tree knows places; the value has numbers as Kubernetes reads them.
            match read.and_then(|_| value(&text)) {
                Ok(value) => documents.push(Document { file: source.name.clone(), text, value }),
                Err((place, why)) => {
                    let place = place.map(|place| format!(":{place}")).unwrap_or_default();
                    wrong.push(format!("{}{place}: {why}", source.name));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(documents) } else { Err(Error::of_lines(wrong)) }
}

/// As the tools of Kubernetes read it: `defaultMode: 0644` is octal.
fn value(text: &str) -> Result<Value, (Option<Place>, String)> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| (None, error.without_snippet().to_string()))
}

/// Labels of the namespaces that are among the documents.
fn namespaces(documents: &[Document]) -> BTreeMap<String, BTreeMap<String, String>> {
    let values = documents.iter().map(|document| &document.value);
    let named = values.filter(|value| value["kind"] == "Namespace").filter_map(|value| {
        let metadata = &value["metadata"];
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Some((metadata["name"].as_str()?.to_owned(), labels.collect()))
    });
    named.collect()
}

/// An error that has all that is wrong.
fn refuse(documents: &[Document], all: &[Objects]) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (document, objects) in documents.iter().zip(all) {
        for injection in &objects.injections {
            for violation in injection.outcome.as_ref().err().map_or(&[][..], |invalid| &invalid.0)
            {
                let (file, kind, name) = (&document.file, &injection.kind, &injection.name);
                wrong.push(format!("{file}: {kind} {name}: {violation}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::of_lines(wrong)) }
}

/// Standard output is for the next program.
fn tell<'a>(injections: impl Iterator<Item = &'a Injection>) {
    let mut rows = table(["KIND", "NAMESPACE", "NAME", "ROUTER"]);
    let mut warnings = Vec::new();
    for injection in injections {
        let Injection { kind, namespace, name, outcome } = injection;
        let done = match outcome {
            Ok(Outcome::Injected(injected)) => {
                let told = injected.warnings.iter();
                warnings.extend(told.map(|text| format!("warning: {kind} {name}: {text}")));
                "yes".to_owned()
            }
            Ok(Outcome::Unchanged(reason)) => format!("no: {reason}"),
            // Refused before.
            Err(invalid) => invalid.to_string(),
        };
        let namespace = if namespace.is_empty() { "-" } else { namespace };
        rows.add_row([kind.as_str(), namespace, name, &done]);
    }
    if rows.row_count() == 0 {
        eprintln!("no pod and no workload is among the documents: nothing is injected");
    } else {
        rows.lines().for_each(|line| eprintln!("{}", line.trim_end()));
    }
    warnings.iter().for_each(|line| eprintln!("{line}"));
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::{Args as _, FromArgMatches as _};
    use serde_json::json;
    use weir_mesh::model::ServiceName;

    use super::*;

    /// The environment as the kubelet makes it, of a pod `shop/web-1` at 10.0.0.7.
    fn environment(container: &Value) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for variable in container["env"].as_array().unwrap() {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let mut value = match field {
                Some("metadata.name") => "web-1".to_owned(),
                Some("metadata.namespace") => "shop".to_owned(),
                Some("status.podIP") => "10.0.0.7".to_owned(),
                _ => variable["value"].as_str().unwrap().to_owned(),
            };
            for (name, known) in &all {
                value = value.replace(&format!("$({name})"), known);
            }
            all.insert(variable["name"].as_str().unwrap().to_owned(), value);
        }
        all
    }

    /// What the injector writes is what the router reads: no name that means nothing,
    /// no value that it refuses.
    #[test]
    fn the_router_understands_what_is_injected() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "web-1", "annotations": {
                "weir.dev/opaque-ports": "25,6379-6380",
                "weir.dev/access-log": "-",
                "weir.dev/trace-endpoint": "http://jaeger:4317",
                "weir.dev/config.max-requests": "100",
            }},
            "spec": {"containers": [{
                "name": "web",
                "readinessProbe": {"httpGet": {"port": 8080, "path": "/a,b"}},
                "livenessProbe": {"httpGet": {"port": 8081}},
            }]},
        });
        let facts = |name: &str| NamespaceFacts { name: name.into(), ..Default::default() };
        let done = inject_object(&InjectConfig::default(), &facts, &pod);
        let router = &done.object["spec"]["initContainers"][1];
        let command = weir_router::Args::augment_args(clap::Command::new("weir-router"));
        let mut line = vec!["weir-router".to_owned()];
        for (name, value) in environment(router) {
            let mut arguments = command.get_arguments();
            let Some(argument) = arguments.find(|a| a.get_env() == Some(OsStr::new(&name))) else {
                assert_eq!(name, "WEIR_POD_NAME", "the router has no such variable");
                continue;
            };
            let long = argument.get_long().unwrap();
            match value.as_str() {
                "true" => line.push(format!("--{long}")),
                _ => line.push(format!("--{long}={value}")),
            }
        }
        let own = router["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
        line.extend(own.map(str::to_owned));
        let matches = command.try_get_matches_from(line).unwrap_or_else(|e| panic!("{e}"));
        let args = weir_router::Args::from_arg_matches(&matches).unwrap();
        assert_eq!(args.service.parse::<ServiceName>().unwrap().to_string(), "web-1.shop");
        assert_eq!(args.instance_id.as_deref(), Some("shop/web-1"));
        assert_eq!(args.platform, weir_router::PlatformArg::Kubernetes);
        assert!(args.transparent);
        assert_eq!((args.max_requests, args.access_log.as_str()), (100, "-"));
    }
}
