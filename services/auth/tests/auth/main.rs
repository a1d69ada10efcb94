//! The auth service over real connections, on SQLite. The users and notifications
//! services are stood in for, so that they can fail when a test wants it.

// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../products/tests/support/data.rs"]
mod data;
mod mesh;
mod register;
mod session;

fn data() -> data::Data {
    data::Data::sqlite()
}
