//! A service, its versions and instances.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;

use super::{Addresses, Audience, ServiceName, VersionMirror, VersionName};
use crate::identity::SpiffeId;

/// What an application speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112) in plaintext.
    Http1,
    /// HTTP/2 (RFC 9113) in plaintext, by prior knowledge.
    Http2,
    /// gRPC over [`Protocol::Http2`].
    Grpc,
    /// Opaque TCP.
    Tcp,
}

/// Why a number is no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// Negative.
    #[error("{0} is below 0")]
    Below(i64),
    /// The Gateway API's own limit.
    #[error("{0} is above 1000000")]
    Above(i64),
}

/// A part of a sum: 0 to 1,000,000, as the Gateway API has it. Not percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Weight(u32);

impl Weight {
    /// Largest weight.
    pub const MAX: u32 = 1_000_000;

    /// What a backend has that does not say.
    pub const ONE: Self = Self(1);

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Weight {
    type Error = WeightError;

    fn try_from(value: i64) -> Result<Self, WeightError> {
        match u32::try_from(value) {
            Ok(weight) if weight <= Self::MAX => Ok(Self(weight)),
            Ok(_) => Err(WeightError::Above(value)),
            Err(_) if value < 0 => Err(WeightError::Below(value)),
            Err(_) => Err(WeightError::Above(value)),
        }
    }
}

impl TryFrom<i32> for Weight {
    type Error = WeightError;

    fn try_from(value: i32) -> Result<Self, WeightError> {
        i64::from(value).try_into()
    }
}

/// What tells that two requests come from the same user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a cookie (RFC 6265); the first answer sets one.
    Cookie(Arc<str>),
    /// The `sub` claim of the bearer token (RFC 7519 §4.1.2). It is not
    /// verified here: it only picks a version, never grants anything.
    User,
}

/// Why versions and weights make no split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// No version.
    #[error("names no version")]
    Empty,
    /// Twice the same.
    #[error("names version {0} twice")]
    Twice(VersionName),
    /// Nothing could be sent anywhere.
    #[error("all weights are 0; at least one must be above 0")]
    Zero,
}

/// How a service's requests are divided between its versions.
///
/// At least one version, no version twice, a sum above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    versions: Vec<(VersionName, Weight)>,
    /// None: exact, request by request.
    pub sticky: Option<Sticky>,
}

impl Split {
    /// A split in this order of versions, which stays the order of the cuts of
    /// the sticky line.
    ///
    /// # Errors
    /// [`SplitError`] when the versions are none, repeat, or sum to 0.
    pub fn new(
        versions: Vec<(VersionName, Weight)>,
        sticky: Option<Sticky>,
    ) -> Result<Self, SplitError> {
        if versions.is_empty() {
            return Err(SplitError::Empty);
        }
        for (i, (name, _)) in versions.iter().enumerate() {
            if versions[..i].iter().any(|(other, _)| other == name) {
                return Err(SplitError::Twice(name.clone()));
            }
        }
        if versions.iter().all(|(_, weight)| weight.get() == 0) {
            return Err(SplitError::Zero);
        }
        Ok(Self { versions, sticky })
    }

    /// The versions and their weights, in order.
    #[must_use]
    pub fn versions(&self) -> &[(VersionName, Weight)] {
        &self.versions
    }

    /// The weight of a version, if it is one.
    #[must_use]
    pub fn weight(&self, version: &str) -> Option<Weight> {
        self.versions.iter().find(|(name, _)| name.as_str() == version).map(|(_, weight)| *weight)
    }
}

/// One service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What its instances speak.
    pub protocol: Protocol,
    /// How its requests are divided.
    pub split: Split,
    /// Where versions of `split` run without routers. Beside the split, so that
    /// a change of weights leaves them as they are.
    pub addresses: Addresses,
    /// What stands for the service and is no instance's: a Kubernetes Service's
    /// cluster addresses.
    pub virtual_addresses: Vec<SocketAddr>,
    /// Who gets a version whatever `split` says: the first that matches.
    pub audiences: Vec<Audience>,
    /// Which version gets copies of requests.
    pub mirror: Option<VersionMirror>,
    /// Who changes its weights, when only they may; none: anyone.
    pub managed_by: Option<Arc<str>>,
    /// A serialized `google.protobuf.FileDescriptorSet`; may be empty.
    pub descriptor_set: Bytes,
}

/// How an instance is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Through its router, by mutual TLS.
    Mesh,
    /// It has no router: in plaintext, by its service's [`Protocol`].
    Plain,
}

/// One running process of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique in the mesh.
    pub id: Arc<str>,
    /// The service that it serves.
    pub service: ServiceName,
    /// The version that it runs.
    pub version: VersionName,
    /// Its router's inbound listener; its own when it has no router.
    pub address: SocketAddr,
    /// How that address is spoken to.
    pub transport: Transport,
    /// Where it runs; may be empty.
    pub zone: Arc<str>,
    /// What its router's health checks say; true when it has no router.
    pub healthy: bool,
    /// Who its router must prove to be; none: its service.
    pub identity: Option<Arc<SpiffeId>>,
}
