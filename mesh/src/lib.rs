//! What every part of Weir shares: plain types, their wire form, identity,
//! telemetry, and what a server needs around it.

pub mod analysis;
pub mod canonical;
pub mod duration;
pub mod file;
#[cfg(feature = "gateway-api")]
pub mod gateway_api;
pub mod identity;
#[cfg(feature = "service")]
pub mod jwt;
#[cfg(feature = "gateway-api")]
pub mod mesh_document;
pub mod model;
pub mod policy;
pub mod ready;
#[cfg(feature = "gateway-api")]
pub mod rollout;
#[cfg(feature = "service")]
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod token;
#[cfg(feature = "gateway-api")]
pub mod traffic_split;
#[cfg(feature = "transcode")]
pub mod transcode;
pub mod wire;
