//! The example mesh, as its users see it: JSON, gRPC, gRPC-Web, errors,
//! identity and what can be observed. One mesh serves all tests of this file;
//! none changes how it routes.

mod deadlines;
mod errors;
mod grpc;
mod grpc_web;
mod identity;
mod json;
mod observe;

use std::sync::OnceLock;

use tokio::sync::OnceCell;
use weir_tests::{Account, Mesh, weir};

/// The mesh of this file.
fn mesh() -> &'static Mesh {
    static MESH: OnceLock<Mesh> = OnceLock::new();
    MESH.get_or_init(|| Mesh::start(weir!(), &[]))
}

/// A user for tests that need just any: hashing passwords takes its time.
async fn account() -> &'static Account {
    static ACCOUNT: OnceCell<Account> = OnceCell::const_new();
    ACCOUNT.get_or_init(|| async { Account::register(&mesh().http()).await }).await
}

/// Text that no other test uses.
fn unique(prefix: &str) -> String {
    format!("{prefix}{:016x}", fastrand::u64(..))
}
