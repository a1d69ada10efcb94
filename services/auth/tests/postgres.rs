//! The same service on PostgreSQL.

#![cfg(feature = "postgres")]
// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../products/tests/support/data.rs"]
mod data;
#[path = "auth/mesh.rs"]
mod mesh;
#[path = "auth/register.rs"]
mod register;
#[path = "auth/session.rs"]
mod session;

fn data() -> data::Data {
    data::Data::postgres()
}
