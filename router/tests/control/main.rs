//! What a router does by what its control plane says, and what it tells it: a real
//! router between clients, applications and a control plane that says what a test
//! wants.

// Helpers of tests are tests too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audiences;
mod deltas;
mod mirrors;
#[path = "../pod/plane.rs"]
mod plane;
mod reports;
mod world;
