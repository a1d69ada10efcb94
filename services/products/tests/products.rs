//! The service as its clients see it: over a real connection, on SQLite.

// Helpers are part of the tests; clippy's exception covers only `#[test]` itself.
#![allow(clippy::unwrap_used)]

mod suite;
mod support;

use support::data::Data;

fn data() -> Data {
    Data::sqlite()
}
