//! The control plane on a real Kubernetes API server.

mod lead;
mod replica;
mod server;
mod truth;
mod webhook;
mod world;
