//! Where documents come from.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::mesh_file::{Origin, is_public};

/// Of all files together: what the control API takes in one message.
const MAX_BYTES: u64 = 64 << 20;

/// Names of files that a directory is searched for.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Files of documents.
#[derive(Debug, Clone, clap::Args)]
pub struct Files {
    /// Documents in YAML or JSON: a file, a directory (its .yaml, .yml and .json
    /// files), or - for standard input. May be given several times
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    file: Vec<PathBuf>,
}

/// One file.
pub struct Source {
    /// As the user named it.
    pub name: String,
    /// What is in it.
    pub text: String,
    directory: PathBuf,
    public: bool,
}

impl Source {
    /// As a mesh file sees it.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin { name: &self.name, directory: &self.directory, public: self.public }
    }
}

impl Files {
    /// These files, whatever the command line says.
    #[must_use]
    pub fn of(file: Vec<PathBuf>) -> Self {
        Self { file }
    }

    /// How answers call them all.
    #[must_use]
    pub fn title(&self) -> String {
        let names: Vec<_> = self.file.iter().take(3).map(|path| name(path)).collect();
        match self.file.len() {
            0..=3 => names.join(", "),
            more => format!("{} and {} more", names.join(", "), more - 3),
        }
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// One cannot be read, a directory has none, or they are too large.
    pub fn sources(&self) -> Result<Vec<Source>, Error> {
        let mut paths = Vec::new();
        for path in &self.file {
            if path.is_dir() {
                paths.extend(files_of(path)?);
            } else {
                paths.push(path.clone());
            }
        }
        if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(Error::new("standard input can be read once; name - once"));
        }
        let mut left = MAX_BYTES;
        paths.iter().map(|path| source(path, &mut left)).collect()
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let wrong =
        |error: io::Error| Error::new(format!("cannot read {}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let known = path.extension().is_some_and(|end| EXTENSIONS.iter().any(|e| end == *e));
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let why = format!("{} holds no .yaml, .yml or .json file", directory.display());
        return Err(Error::new(why));
    }
    Ok(files)
}

fn source(path: &Path, left: &mut u64) -> Result<Source, Error> {
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.take(*left + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = if is_stdin(path) {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let name = name(path);
    let bytes = bytes.map_err(|error| Error::new(format!("cannot read {name}: {error}")))?;
    *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
        Error::new(format!("{name}: all documents together are above {} MiB", MAX_BYTES >> 20))
    })?;
    let text =
        String::from_utf8(bytes).map_err(|_| Error::new(format!("{name} is no text in UTF-8")))?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let public = !is_stdin(path) && is_public(path);
    Ok(Source { name, text, directory, public })
}
