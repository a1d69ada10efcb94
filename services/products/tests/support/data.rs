//! Where a test's service keeps its data.

// Not every test that has it asks for all of it.
#![allow(dead_code)]

use std::path::Path;

use tempfile::TempDir;
use weir_mesh::server::{Common, DatabaseUrl};

#[cfg(feature = "postgres")]
#[path = "postgres.rs"]
mod postgres;

/// A new place, of one test.
pub struct Data {
    directory: TempDir,
    url: Option<DatabaseUrl>,
}

impl Data {
    /// On SQLite.
    pub fn sqlite() -> Self {
        Self { directory: TempDir::new().unwrap(), url: None }
    }

    /// On PostgreSQL; where it is not installed, on SQLite again.
    #[cfg(feature = "postgres")]
    pub fn postgres() -> Self {
        Self { directory: TempDir::new().unwrap(), url: postgres::database() }
    }

    /// A service's options.
    pub fn common(&self, version: &str, outbound: &str) -> Common {
        let mut common = Common::for_tests(self.directory.path(), version, outbound);
        if self.url.is_some() {
            common.data = None;
            common.database_url.clone_from(&self.url);
        }
        common
    }

    /// A directory of the test's own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The database, unless it is SQLite in the directory.
    pub fn url(&self) -> Option<&DatabaseUrl> {
        self.url.as_ref()
    }
}
