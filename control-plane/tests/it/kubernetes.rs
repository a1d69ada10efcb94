//! The control plane on a real Kubernetes API server.

mod access;
mod conflict;
mod lead;
mod replica;
mod replicas;
mod rollouts;
mod server;
mod truth;
mod webhook;
mod world;
