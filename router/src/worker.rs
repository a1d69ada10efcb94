//! One thread that carries requests: its own runtime, pools and counters. What
//! it shares with others is read without a lock.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use weir_mesh::model::Protocol;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::error::RouterError;
use crate::identity::Identity;
use crate::memory::{Activity, Pages};
use crate::metrics::{Bound, Metrics};
use crate::shed::Shed;
use crate::table::{Endpoint, Map, SplitState, Splitter, Table};
use crate::tcp;
use crate::upstream::{Dial, Pool, Reach, Upstream};
use weir_mesh::telemetry::trace::SpanSink;

/// Ports of an application that a worker keeps connections to.
const APPS: usize = 256;

/// How an application of this protocol is connected to.
fn plain(protocol: Protocol) -> Dial {
    match protocol {
        Protocol::Http1 => Dial::Http1,
        Protocol::Http2 | Protocol::Grpc => Dial::Http2,
        Protocol::Tcp => Dial::Tcp,
    }
}

/// What all threads of a router share.
pub struct Shared {
    /// What it was told at its start.
    pub config: Config,
    /// The compiled snapshot in use; none before the first.
    pub table: ArcSwapOption<Table>,
    /// Whether requests are refused for want of memory.
    pub shed: Shed,
    /// Told of each new table.
    pub changed: tokio::sync::Notify,
    /// Counts new tables, for those of several workers that wait for one.
    pub installed: tokio::sync::watch::Sender<u64>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it counts.
    pub metrics: Metrics,
    /// Where spans go.
    pub spans: SpanSink,
    /// Where lines about requests go.
    pub access_log: AccessLog,
    /// What an idle worker may give back.
    pub pages: Pages,
}

impl Shared {
    /// Puts a table in the place of the one in use.
    pub fn install(&self, table: Arc<Table>) {
        self.table.store(Some(table));
        self.changed.notify_one();
        self.installed.send_modify(|count| *count += 1);
    }
}

/// One worker.
pub struct Worker {
    /// What all share.
    pub shared: Arc<Shared>,
    /// The application beside us.
    app: Rc<Pool>,
    /// In a pod: the application's ports.
    apps: RefCell<Map<(SocketAddr, Reach), Rc<Pool>>>,
    /// What it does, for those who wait for it to be idle.
    pub activity: Activity,
    /// How many opaque connections there are.
    pub tcp_open: tcp::Open,
    /// Hosts outside the mesh.
    pub outside: tcp::egress::Outside,
    /// Requests that have not ended.
    pub requests: Cell<u32>,
    /// How many of them there may be: this worker's part of the router's.
    most: u32,
    /// Counters that are bound already.
    pub bound: RefCell<Bound>,
    upstreams: RefCell<Vec<Option<Rc<Upstream>>>>,
    splits: RefCell<Vec<SplitState>>,
    turns: RefCell<Vec<usize>>,
}

impl Worker {
    /// A worker without connections.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let args = &shared.config.args;
        let most = args.max_requests.div_ceil(args.workers.into());
        let app = Pool::new(shared.config.app(), plain(shared.config.app_protocol));
        Self {
            shared,
            app: Rc::new(app),
            apps: RefCell::default(),
            activity: Activity::default(),
            tcp_open: tcp::Open::default(),
            outside: tcp::egress::Outside::default(),
            requests: Cell::new(0),
            most,
            bound: RefCell::default(),
            upstreams: RefCell::default(),
            splits: RefCell::default(),
            turns: RefCell::default(),
        }
    }

    /// Whether there is room for the request that has just begun.
    ///
    /// # Errors
    /// [`RouterError::Overloaded`].
    pub fn admit(&self) -> Result<(), RouterError> {
        if self.shared.shed.is_on() {
            return Err(RouterError::Overloaded("its memory runs out"));
        }
        if self.requests.get() > self.most {
            return Err(RouterError::Overloaded(
                "it has as many requests as --max-requests allows",
            ));
        }
        Ok(())
    }

    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Option<Arc<Table>> {
        self.shared.table.load_full()
    }

    /// The next part of a split, exactly by weight.
    #[must_use]
    pub fn next_of(&self, splitter: &Splitter) -> usize {
        let index = splitter.index as usize;
        let mut splits = self.splits.borrow_mut();
        if splits.len() <= index {
            splits.resize_with(index + 1, SplitState::default);
        }
        splitter.exact(&mut splits[index])
    }

    /// Counts the choices at a version, by its number.
    #[must_use]
    pub fn turn(&self, version: u32) -> usize {
        let index = version as usize;
        let mut turns = self.turns.borrow_mut();
        if turns.len() <= index {
            turns.resize(index + 1, 0);
        }
        turns[index] = turns[index].wrapping_add(1);
        turns[index]
    }

    /// Closes HTTP/1.1 connections that wait for requests, but for one to each
    /// address.
    pub fn close_spare(&self) {
        self.app.close_spare();
        self.apps.borrow().values().for_each(|pool| pool.close_spare());
        self.outside.close_spare();
        for upstream in self.upstreams.borrow().iter().flatten() {
            upstream.pool.close_spare();
        }
    }

    /// The application, and what it speaks: in a pod, where a connection was meant to
    /// go.
    #[must_use]
    pub fn app(&self, table: &Table, original: Option<SocketAddr>) -> (Rc<Pool>, Protocol) {
        let Some(to) = original else {
            return (self.app.clone(), self.shared.config.app_protocol);
        };
        let port = table.places.as_ref().and_then(|places| places.port(to.port()));
        let protocol = port.map_or(Protocol::Http1, |port| port.protocol);
        let dial = plain(protocol);
        let mut apps = self.apps.borrow_mut();
        if apps.len() >= APPS && !apps.contains_key(&(to, dial.reach())) {
            // Those in use live on with their requests.
            apps.clear();
        }
        let pool = apps.entry((to, dial.reach())).or_insert_with(|| Rc::new(Pool::new(to, dial)));
        (pool.clone(), protocol)
    }

    /// What this worker knows of an instance.
    #[must_use]
    pub fn upstream(&self, endpoint: &Endpoint) -> Rc<Upstream> {
        let index = endpoint.index as usize;
        let mut upstreams = self.upstreams.borrow_mut();
        if upstreams.len() <= index {
            upstreams.resize_with(index + 1, || None);
        }
        if let Some(known) = &upstreams[index]
            && known.address == endpoint.address
            && known.id == endpoint.id
            && known.reach == endpoint.reach
            && known.peer.as_ref().is_none_or(|peer| *peer == endpoint.identity)
        {
            return known.clone();
        }
        let dial = self.dial(endpoint);
        let upstream = Rc::new(Upstream::new(endpoint.id.clone(), endpoint.address, dial));
        upstreams[index] = Some(upstream.clone());
        upstream
    }

    /// How an instance is connected to.
    #[must_use]
    pub fn dial(&self, endpoint: &Endpoint) -> Dial {
        match endpoint.reach {
            Reach::Mesh => Dial::Mesh(self.shared.identity.clone(), endpoint.identity.clone()),
            Reach::Http1 => Dial::Http1,
            Reach::Http2 => Dial::Http2,
            Reach::Tcp => Dial::Tcp,
        }
    }
}
