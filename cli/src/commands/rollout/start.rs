//! `weir rollout start`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use weir_mesh::policy::value;
use weir_mesh::rollout::read_rollout;
use weir_proto::weir::control::v1::{Rollout, StartRolloutRequest};

use super::{print_rollout, watch};
use crate::Error;
use crate::client::Connect;
use crate::commands::retry;
use crate::documents::{Files, Loaded, Object, current};
use crate::output::{Format, print};

/// Arguments of `weir rollout start`.
#[derive(Debug, clap::Args)]
pub struct Start {
    /// With --to: the service. Without: a file with a Rollout, or - for standard input
    #[arg(value_name = "SERVICE|FILE")]
    what: String,
    /// The version that is to serve
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Weights of it, in percent; 100 comes last in any case. Default: 5,10,25,50
    #[arg(long, value_delimiter = ',', value_name = "PERCENT,...", requires = "to")]
    steps: Vec<u32>,
    /// Wait so long after each weight; `manual`: until somebody resumes it
    #[arg(long, value_name = "DURATION|manual", requires = "to")]
    pause: Option<String>,
    /// All at once, after somebody has resumed it
    #[arg(long, requires = "to", conflicts_with_all = ["steps", "pause"])]
    blue_green: bool,
    /// A version with a fresh instance of what serves now, to compare with
    #[arg(long, value_name = "VERSION", requires = "to")]
    baseline: Option<String>,
    /// Do not judge it by what routers report
    #[arg(long, requires = "to")]
    no_analysis: bool,
    /// That it may run. Default: 1h
    #[arg(long, value_name = "DURATION", requires = "to")]
    deadline: Option<String>,
    /// When it is not good enough, stop instead of rolling back
    #[arg(long, requires = "to")]
    pause_on_failure: bool,
    /// How it is called. Default: SERVICE-VERSION
    #[arg(long, requires = "to")]
    name: Option<String>,
    /// Have the control plane check it; nothing starts
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Follow it to its end. Exits with 1 unless the canary has everything then,
    /// with 2 when that cannot be known
    #[arg(long)]
    watch: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Start {
    pub(super) async fn run(self) -> Result<ExitCode, Error> {
        let (name, spec) = match &self.to {
            Some(to) => (self.name(to), self.spec(to)),
            None => of_file(&self.what)?,
        };
        // Mistakes are told as the command line's before anyone is asked.
        read_rollout(&name, &spec, "")
            .map_err(|invalid| Error::of_lines(invalid.0.iter().map(ToString::to_string)))?;
        let rollout = Rollout {
            name: name.clone(),
            spec: Some(value::to_struct(&spec)),
            ..Rollout::default()
        };
        let request = StartRolloutRequest {
            rollout: Some(rollout),
            reason: self.reason,
            dry_run: self.dry_run,
            idempotency_key: retry::key(None),
        };
        let started = retry::call(&self.connect, |mut client| {
            let request = request.clone();
            async move { client.start_rollout(request).await }
        });
        let started = started.await?;
        let format = self.connect.output;
        if self.watch {
            return watch::follow(&self.connect, &name, format).await;
        }
        match (self.dry_run, format) {
            (true, Format::Table) => print(&format!("{name}: could start; nothing did\n")),
            _ => print_rollout(format, &started),
        }?;
        Ok(ExitCode::SUCCESS)
    }

    /// `products-v2`; on Kubernetes `products-v2.shop` of `products.shop`.
    fn name(&self, to: &str) -> String {
        match (&self.name, self.what.split_once('.')) {
            (Some(name), _) => name.clone(),
            (None, Some((service, namespace))) => format!("{service}-{to}.{namespace}"),
            (None, None) => format!("{}-{to}", self.what),
        }
    }

    fn spec(&self, to: &str) -> Value {
        let mut spec = json!({ "service": self.what, "canary": to });
        if self.blue_green {
            spec["strategy"] = "BlueGreen".into();
        } else {
            spec["steps"] = self.weights().into();
            spec["analysis"] = match self.no_analysis {
                true => json!({ "during": "Off" }),
                false => json!({}),
            };
        }
        if let Some(baseline) = &self.baseline {
            spec["baseline"] = baseline.as_str().into();
        }
        if let Some(deadline) = &self.deadline {
            spec["deadline"] = deadline.as_str().into();
        }
        if self.pause_on_failure {
            spec["onFailure"] = "Pause".into();
        }
        spec
    }

    fn weights(&self) -> Vec<Value> {
        let pause = self.pause.as_deref().map(|pause| match pause {
            "manual" => json!({ "pause": {} }),
            time => json!({ "pause": { "duration": time } }),
        });
        let given = if self.steps.is_empty() { &[5, 10, 25, 50][..] } else { &self.steps };
        let mut steps = Vec::with_capacity(2 * given.len());
        for weight in given {
            steps.push(json!({ "setWeight": weight }));
            // At the end there is nothing to wait for.
            steps.extend(pause.clone().filter(|_| *weight != 100));
        }
        steps
    }
}

/// The one rollout of a file.
fn of_file(file: &str) -> Result<(String, Value), Error> {
    let loaded = Loaded::read(&Files::of(vec![PathBuf::from(file)])).map_err(|error| {
        error.with([format!("to go to another version of service {file}, say which by --to")])
    })?;
    let documents = loaded.resolve(current::names(&[]))?;
    match documents.objects.as_slice() {
        [(_, Object::Rollout { name, spec })] if documents.mesh.is_none() => {
            Ok((name.to_string(), spec.document().clone()))
        }
        _ => Err(Error::new(format!(
            "{file} is not one document of kind Rollout; `weir apply -f` takes others as well"
        ))),
    }
}
