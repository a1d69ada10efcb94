//! The users service over real connections, on SQLite. Only the auth service is stood in
//! for: it is nothing here but a key.

// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../products/tests/support/data.rs"]
mod data;
mod mesh;
mod profile;
mod watch;

fn data() -> data::Data {
    data::Data::sqlite()
}
