//! The control plane.
#![allow(dead_code)]
mod api;
mod ca;
mod control;
mod converge;
mod edges;
mod files;
mod publish;
mod registry;
mod snapshot;
mod store;
mod text;
mod traces;
