//! The service as its clients see it: over real connections, on SQLite.

// Helpers are part of the tests; clippy's exception covers only `#[test]` itself.
#![allow(clippy::unwrap_used)]

mod fixture;
mod receiver;
mod suite;
#[path = "../../products/tests/support/mod.rs"]
mod support;

use support::data::Data;

fn data() -> Data {
    Data::sqlite()
}
