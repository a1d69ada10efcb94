//! The auth service over real connections. The users and notifications
//! services are stood in for, so that they can fail when a test wants it.

// Clippy knows `#[test]` functions as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;
mod register;
mod session;
