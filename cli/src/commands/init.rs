//! `weir init`: a mesh file to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use crate::Error;
use crate::mesh_file::STARTER;
use crate::output::print;

/// Arguments of `weir init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Where to write it; `-` is standard output
    #[arg(default_value = "mesh.yaml", value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

impl Init {
    /// Runs it.
    ///
    /// # Errors
    /// The file is there and `--force` is not, or it cannot be written.
    pub fn run(self) -> Result<(), Error> {
        if self.file.as_os_str() == "-" {
            return print(STARTER);
        }
        let name = self.file.display();
        let mut options = OpenOptions::new();
        options.write(true);
        if self.force {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        options.open(&self.file).and_then(|mut file| file.write_all(STARTER.as_bytes())).map_err(
            |error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    Error::new(format!("{name} is there already; --force replaces it"))
                }
                _ => Error::new(format!("cannot write {name}: {error}")),
            },
        )?;
        print(&format!("wrote {name}; start it with: weir up --file {name}\n"))
    }
}
