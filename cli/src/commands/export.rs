//! `weir export`: what is desired, as documents, or back into the file it came from.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_mesh::policy::value;
use weir_proto::weir::control::v1::ExportRequest;

use super::{block_on, diff};
use crate::Error;
use crate::client::{Client, Connect};
use crate::documents::current::Current;
use crate::documents::diff::unified;
use crate::documents::{Files, Loaded, Request};
use crate::mesh_file::edit;
use crate::output::{Format, colours, print, yaml};

/// Arguments of `weir export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Only this service and what is attached to it
    #[arg(default_value = "", hide_default_value = true, conflicts_with = "file")]
    service: String,
    /// Write to this file; `-o json` makes it one List
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    to: Option<PathBuf>,
    /// Instead: set the weights that this file says to those of the mesh, with all else
    /// in it as it is. Without --write, the difference is printed
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write FILE
    #[arg(long, requires = "file")]
    write: bool,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Export {
    /// Runs it.
    ///
    /// # Errors
    /// The API's, or a file cannot be read or written.
    pub fn run(self) -> Result<(), Error> {
        match &self.file {
            Some(file) => block_on(self.back(file)),
            None => block_on(self.all()),
        }
    }

    async fn all(&self) -> Result<(), Error> {
        let mut client = self.connect.client().await?;
        let (revision, documents) = fetch(&mut client, &self.service).await?;
        let text = match self.connect.output {
            Format::Json => {
                let list =
                    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": documents});
                format!("{list:#}\n")
            }
            Format::Table | Format::Yaml => {
                let parts: Result<Vec<_>, _> = documents.iter().map(yaml).collect();
                format!("# Revision {revision}\n{}", parts?.join("---\n"))
            }
        };
        match &self.to {
            Some(path) => write(path, &text),
            None => print(&text),
        }
    }

    async fn back(&self, file: &Path) -> Result<(), Error> {
        let text = fs::read_to_string(file)
            .map_err(|error| Error::new(format!("cannot read {}: {error}", file.display())))?;
        let name = file.display().to_string();
        let mut client = self.connect.client().await?;
        let (_, documents) = fetch(&mut client, "").await?;
        let edited = edit::edit(&text, &documents, true)
            .map_err(|why| Error::new(format!("{name}:{why}")))?;
        let others = others(&mut client, file).await?;
        for left in edited.left.iter().chain(&others) {
            eprintln!("not edited: {left}");
        }
        if self.write {
            if edited.text != text {
                write(file, &edited.text)?;
            }
            return Ok(());
        }
        print(&unified(&text, &edited.text, (&name, &name), colours()))
    }
}

/// The desired state as documents, and its revision.
///
/// # Errors
/// The API's.
pub async fn fetch(client: &mut Client, service: &str) -> Result<(u32, Vec<Value>), Error> {
    let request = ExportRequest { service: service.to_owned() };
    let answer = client.export(request).await?.into_inner();
    Ok((answer.revision, answer.documents.iter().map(value::from_struct).collect()))
}

/// Objects beside services that the file says otherwise than the mesh. They are for
/// `weir diff` to show: only weights change by themselves.
async fn others(client: &mut Client, file: &Path) -> Result<Vec<String>, Error> {
    let loaded = Loaded::read(&Files::of(vec![file.to_path_buf()]))?;
    if !loaded.has_mesh() {
        return Ok(Vec::new());
    }
    let current = Current::fetch(client).await?;
    let names: Vec<_> = current.names().collect();
    let documents = loaded.resolve(names)?;
    let sides = diff::sides(&current, &documents, &Request::new(&documents).message)?;
    let others = sides.into_keys().filter(|name| !name.starts_with("service/"));
    Ok(others.map(|name| format!("{name} differs; `weir diff -f` shows how")).collect())
}

/// Replaces a file whole: who reads it sees the old text or the new one.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let written = || {
        // A link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        let mut file = tempfile::Builder::new()
            .prefix(".weir-")
            .tempfile_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&path).map_or(0o644, |there| there.permissions().mode());
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok::<(), std::io::Error>(())
    };
    written().map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))
}
