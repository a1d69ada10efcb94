//! Services that are found in Consul: a real one, but for what it cannot be made to
//! answer (`fake`).

mod acl;
mod agent;
mod app;
mod discovery;
mod fake;
mod outage;
mod register;
mod world;
