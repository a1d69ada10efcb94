//! The same service on PostgreSQL.

#![cfg(feature = "postgres")]
// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../products/tests/support/data.rs"]
mod data;
#[path = "users/mesh.rs"]
mod mesh;
#[path = "users/profile.rs"]
mod profile;
#[path = "users/watch.rs"]
mod watch;

fn data() -> data::Data {
    data::Data::postgres()
}
