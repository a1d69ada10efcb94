//! The same service on PostgreSQL.

#![cfg(feature = "postgres")]
// Helpers are part of the tests; clippy's exception covers only `#[test]` itself.
#![allow(clippy::unwrap_used)]

mod fixture;
mod receiver;
mod suite;
#[path = "../../products/tests/support/mod.rs"]
mod support;

use support::data::Data;

fn data() -> Data {
    Data::postgres()
}
