//! The users service over real connections. Only the auth service is stood in
//! for: it is nothing here but a key.

// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;
mod profile;
mod watch;
