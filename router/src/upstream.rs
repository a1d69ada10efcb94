//! Where requests go: instances of other services through their routers, and
//! the application beside this one. Each worker has its own.

mod balance;
mod budget;
pub mod checks;
mod choose;
mod dial;
mod gradient;
mod hash;
mod host;
mod limiter;
mod load;
mod outlier;
mod pool;
mod watched;

pub use balance::{Pick, pick};
pub use budget::RetryBudget;
pub use choose::Asked;
pub use dial::{CONNECTION_WINDOW, Dial, FRAME, LocalExecutor, Reach, STREAM_WINDOW};
pub use gradient::Gradient;
pub use hash::Hashed;
pub use host::Host;
pub use limiter::{Full, Limiter, Permit, until};
pub use load::{Load, Pending};
pub use outlier::{Deciding, Outliers};
pub use pool::{Failure, Lease, Pool, Sent};
pub use watched::Watched;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use weir_mesh::identity::SpiffeId;

/// One instance, as one worker sees it. It outlives tables.
pub struct Upstream {
    /// The instance's id.
    pub id: Arc<str>,
    /// Where it is reached.
    pub address: SocketAddr,
    /// What is spoken there.
    pub reach: Reach,
    /// Who is spoken to there, if they must prove it.
    pub peer: Option<Arc<SpiffeId>>,
    /// How busy and how quick it is.
    pub load: Load,
    /// Connections to it.
    pub pool: Rc<Pool>,
}

impl Upstream {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(id: Arc<str>, address: SocketAddr, dial: Dial) -> Self {
        let reach = dial.reach();
        let peer = dial.peer().cloned();
        let pool = Rc::new(Pool::new(address, dial));
        Self { id, address, reach, peer, load: Load::new(), pool }
    }
}
