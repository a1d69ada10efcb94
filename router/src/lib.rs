//! The router: beside one instance of a service (sidecar), or where requests
//! from outside enter (gateway).
//!
//! [`app`] wires everything; [`request`] lists a request's way.

mod access_log;
mod admin;
mod app;
mod auth;
mod clock;
mod config;
mod connection;
mod control;
mod error;
pub mod explain;
mod gateway;
mod health;
mod identity;
mod limit;
mod listener;
mod memory;
mod metrics;
mod request;
mod shed;
mod socket;
mod table;
mod tcp;
mod upstream;
mod worker;

pub use app::{RunError, run};
pub use config::{
    Args, ConfigError, NamedListen, PlatformArg, Ports, Probes, ProtocolArg, Remote, RoleArg,
};
