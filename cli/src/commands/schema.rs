//! `weir schema`: JSON Schemas of documents.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Error;
use crate::documents::schema;
use crate::output::print;

/// Name of the schema of all kinds.
const ANY: &str = "weir";

/// Arguments of `weir schema`.
#[derive(Debug, clap::Args)]
pub struct Schema {
    /// `Mesh`, `HTTPRoute`, `GRPCRoute`, `TCPRoute`, `TLSRoute` or a kind of policy;
    /// case does not matter.
    /// Without it: one schema that knows all of them
    kind: Option<String>,
    /// Write KIND.json into this directory instead: for every kind when none is named,
    /// and weir.json, which knows all of them
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Schema {
    /// Runs it.
    ///
    /// # Errors
    /// There is no such kind, or the directory cannot be written to.
    pub fn run(self) -> Result<(), Error> {
        let wanted: Vec<(String, Value)> = match &self.kind {
            Some(kind) => vec![one(kind)?],
            None if self.output.is_none() => vec![(ANY.to_owned(), schema::any())],
            None => {
                let kinds = schema::kinds().into_iter().map(one);
                let any = Ok((ANY.to_owned(), schema::any()));
                kinds.chain([any]).collect::<Result<_, Error>>()?
            }
        };
        for (name, schema) in &wanted {
            let text = format!("{schema:#}\n");
            match &self.output {
                None => print(&text)?,
                Some(directory) => write(directory, name, &text)?,
            }
        }
        Ok(())
    }
}

fn one(kind: &str) -> Result<(String, Value), Error> {
    match schema::of(kind) {
        Some(schema) => Ok((schema["title"].as_str().unwrap_or(kind).to_owned(), schema)),
        None => Err(Error::new(format!(
            "{kind:?} is no kind with a schema; there are: {}",
            schema::kinds().join(", ")
        ))),
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = directory.join(format!("{name}.json"));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))?;
    print(&format!("{}\n", path.display()))
}
