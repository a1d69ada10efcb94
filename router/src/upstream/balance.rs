//! Power of two choices (Mitzenmacher, 2001) between instances.

use std::rc::Rc;

use super::Upstream;
use crate::table::{Endpoint, VersionEntry};

/// How a pick came about.
pub enum Pick {
    /// A healthy instance.
    Good(Rc<Upstream>),
    /// None is known to be healthy: any is better than none.
    Panic(Rc<Upstream>),
    /// Nothing that was not tried.
    None,
}

/// An instance of `version` that is not among `tried` (by index).
pub fn pick(
    version: &VersionEntry,
    tried: &[u32],
    upstream: impl Fn(&Endpoint) -> Rc<Upstream>,
) -> Pick {
    let endpoints = &version.endpoints;
    let usable = |endpoint: &Endpoint| {
        if !endpoint.healthy || tried.contains(&endpoint.index) {
            return None;
        }
        Some(upstream(endpoint)).filter(|u| !u.load.is_out())
    };
    let count = endpoints.len();
    // Two are usually both usable, or the only one is; only otherwise all are read.
    if count == 1
        && let Some(only) = usable(&endpoints[0])
    {
        return Pick::Good(only);
    }
    if count > 1 {
        let first = fastrand::usize(..count);
        let second = (first + fastrand::usize(1..count)) % count;
        if let (Some(a), Some(b)) = (usable(&endpoints[first]), usable(&endpoints[second])) {
            return Pick::Good(quicker(a, b));
        }
    }
    let mut good: Vec<_> = endpoints.iter().filter_map(usable).collect();
    match good.len() {
        0 => {
            let left: Vec<_> = endpoints.iter().filter(|e| !tried.contains(&e.index)).collect();
            match left.len() {
                0 => Pick::None,
                n => Pick::Panic(upstream(left[fastrand::usize(..n)])),
            }
        }
        1 => Pick::Good(good.swap_remove(0)),
        n => {
            let first = good.swap_remove(fastrand::usize(..n));
            let second = good.swap_remove(fastrand::usize(..n - 1));
            Pick::Good(quicker(first, second))
        }
    }
}

fn quicker(a: Rc<Upstream>, b: Rc<Upstream>) -> Rc<Upstream> {
    if a.load.cost() <= b.load.cost() { a } else { b }
}
