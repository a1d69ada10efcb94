//! Choosing an instance of a service that has a policy.

use std::rc::Rc;

use weir_mesh::policy::traffic::{Method, ZoneAwareness};

use super::{Pick, Upstream};
use crate::table::{Endpoint, Traffic, VersionEntry};

/// What is known when an instance is chosen.
pub struct Asked<'a> {
    /// An index into the service's versions, and the version.
    pub version: (usize, &'a VersionEntry),
    /// The policy.
    pub traffic: &'a Traffic,
    /// Instances that were asked already, by index.
    pub tried: &'a [u32],
    /// Only those that no connection has to be opened to.
    pub only_connected: bool,
    /// What the request hashes to, if it has what is hashed.
    pub key: Option<u64>,
    /// Where this router runs; may be empty.
    pub zone: &'a str,
    /// [`crate::clock::millis`].
    pub now: u64,
}

/// An instance, by its endpoint.
type One<'a> = (&'a Endpoint, Rc<Upstream>);

impl<'a> Asked<'a> {
    /// An instance that was not asked yet.
    pub fn pick(
        &self,
        upstream: impl Fn(&Endpoint) -> Rc<Upstream>,
        turn: impl Fn() -> usize,
    ) -> Pick {
        let all = &self.version.1.endpoints;
        let usable = all.iter().filter(|e| self.is_usable(e)).map(|e| (e, upstream(e)));
        let usable = usable.filter(|(_, u)| !self.only_connected || u.pool.has_room());
        let mut good: Vec<One<'a>> = usable.filter(|(_, u)| !u.load.is_out()).collect();
        let healthy = good.len();
        let threshold = self.traffic.policy.panic_threshold as usize;
        let panic = healthy == 0 || healthy * 100 < all.len() * threshold;
        if panic {
            good = all.iter().map(|e| (e, upstream(e))).collect();
        }
        let is_untried = |(endpoint, _): &One<'_>| !self.tried.contains(&endpoint.index);
        good.retain(is_untried);
        let found = match good.len() {
            0 => None,
            1 => good.pop(),
            _ => self.of_many(good, panic, turn),
        };
        match found {
            None => Pick::None,
            Some((_, upstream)) if panic => Pick::Panic(upstream),
            Some((_, upstream)) => Pick::Good(upstream),
        }
    }

    fn is_usable(&self, endpoint: &Endpoint) -> bool {
        endpoint.healthy && endpoint.host.as_ref().is_none_or(|host| host.is_usable(self.now))
    }

    fn of_many(
        &self,
        mut good: Vec<One<'a>>,
        panic: bool,
        turn: impl Fn() -> usize,
    ) -> Option<One<'a>> {
        if let Some(key) = self.key
            && let Some(hashed) = self.traffic.hashed(self.version.0)
        {
            let all = &self.version.1.endpoints;
            let of = |index: usize| {
                good.iter().position(|(e, _)| all.get(index).is_some_and(|x| x.index == e.index))
            };
            let at = hashed.find(key, |index| of(index).is_some()).and_then(of)?;
            return Some(good.swap_remove(at));
        }
        if !panic {
            if let Some(zones) = &self.traffic.policy.zone_awareness {
                self.keep_zone(zones, &mut good);
            }
            self.keep_shares(&mut good);
        }
        self.by_method(good, turn)
    }

    /// Leaves those of the router's own zone, unless others have to help: while
    /// the zone has less than it needs, the missing share goes elsewhere.
    fn keep_zone(&self, zones: &ZoneAwareness, good: &mut Vec<One<'a>>) {
        let is_near = |endpoint: &Endpoint| !self.zone.is_empty() && *endpoint.zone == *self.zone;
        let near = good.iter().filter(|(e, _)| is_near(e)).count();
        if near == 0 || near < zones.min_instances as usize || near == good.len() {
            return;
        }
        let there = self.version.1.endpoints.iter().filter(|e| is_near(e)).count();
        let stays = stays(near, there, zones.spill_over_below);
        let stay = stays >= 1.0 || fastrand::f64() < stays;
        good.retain(|(e, _)| is_near(e) == stay);
    }

    /// Leaves out those that are new or just back, as often as their share says.
    fn keep_shares(&self, good: &mut Vec<One<'a>>) {
        let policy = &self.traffic.policy;
        let start = policy.load_balancer.slow_start;
        let back = policy.outlier_detection.map(|o| o.return_slow).unwrap_or_default();
        if start.is_none() && back.is_zero() {
            return;
        }
        let share =
            |(e, _): &One<'_>| e.host.as_ref().map_or(1.0, |h| h.share(self.now, start, back));
        let most = good.iter().map(share).fold(0.0, f64::max);
        let keep = |one: &One<'_>| {
            let share = share(one);
            share >= most || fastrand::f64() * most < share
        };
        good.retain(keep);
    }

    fn by_method(&self, mut good: Vec<One<'a>>, turn: impl Fn() -> usize) -> Option<One<'a>> {
        let count = good.len();
        if count <= 1 {
            return good.pop();
        }
        let method = self.traffic.policy.load_balancer.method;
        let at = match method {
            Method::RoundRobin => turn() % count,
            Method::Random => fastrand::usize(..count),
            // One whose key a request does not have goes by load.
            Method::PeakEwma | Method::LeastRequest | Method::RingHash | Method::Maglev => {
                let first = fastrand::usize(..count);
                let second = (first + fastrand::usize(1..count)) % count;
                let (a, b) = (&good[first].1.load, &good[second].1.load);
                let better = match method {
                    Method::LeastRequest => a.pending() <= b.pending(),
                    _ => a.cost() <= b.cost(),
                };
                if better { first } else { second }
            }
        };
        Some(good.swap_remove(at))
    }
}

/// The share of requests that stays in a zone where `near` of `there` instances
/// can take requests, and `below` percent would be enough.
fn stays(near: usize, there: usize, below: u32) -> f64 {
    let usable = near as f64 / there.max(1) as f64;
    (usable * 100.0 / f64::from(below.max(1))).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use serde_json::{Value, json};
    use weir_mesh::identity::SpiffeId;
    use weir_mesh::policy::{Attached, Policy};

    use super::*;
    use crate::table::TrafficBuilder;
    use crate::upstream::{Dial, Reach};

    struct World {
        version: VersionEntry,
        traffic: Arc<Traffic>,
        upstreams: Vec<Rc<Upstream>>,
    }

    /// One instance for each zone that is named.
    fn world(zones: &[&str], mut spec: Value) -> World {
        spec["targetRefs"] = json!([{"kind": "Service", "name": "web"}]);
        let policy = Policy::read("BackendTrafficPolicy", "web", &spec, "").unwrap();
        let identity = Arc::new(SpiffeId::of_service("weir.local", "web").unwrap());
        let endpoint = |(index, zone): (usize, &&str)| Endpoint {
            identity: identity.clone(),
            index: u32::try_from(index).unwrap(),
            id: format!("web-{index}").into(),
            address: format!("127.0.0.1:{}", 1000 + index).parse().unwrap(),
            reach: Reach::Http1,
            healthy: true,
            zone: (*zone).into(),
            host: None,
        };
        let endpoints: Vec<_> = zones.iter().enumerate().map(endpoint).collect();
        let upstream = |e: &Endpoint| Rc::new(Upstream::new(e.id.clone(), e.address, Dial::Http1));
        let upstreams = endpoints.iter().map(upstream).collect();
        let version = VersionEntry { name: "v1".parse().unwrap(), weight: 1, id: 0, endpoints };
        let (policies, mut versions) = ([policy], [version]);
        let attached = Attached::new(&policies);
        let traffic =
            TrafficBuilder::default().service(&"web".parse().unwrap(), &mut versions, &attached);
        let [version] = versions;
        World { version, traffic, upstreams }
    }

    impl World {
        fn asked<'a>(&'a self, tried: &'a [u32], now: u64) -> Asked<'a> {
            let version = (0, &self.version);
            Asked {
                version,
                traffic: &self.traffic,
                tried,
                only_connected: false,
                key: None,
                zone: "a",
                now,
            }
        }

        /// How many of 1,000 requests each instance gets.
        fn shares(&self, now: u64) -> BTreeMap<String, usize> {
            let mut shares = BTreeMap::new();
            for turn in 0..1000 {
                let of = |e: &Endpoint| self.upstreams[e.index as usize].clone();
                match self.asked(&[], now).pick(of, || turn) {
                    Pick::Good(upstream) => {
                        *shares.entry(upstream.id.to_string()).or_default() += 1
                    }
                    Pick::Panic(_) => *shares.entry("panic".to_owned()).or_default() += 1,
                    Pick::None => {}
                }
            }
            shares
        }

        fn leave_out(&self, index: usize, until: u64) {
            self.version.endpoints[index].host.as_ref().unwrap().out_until.store(until, Relaxed);
        }
    }

    #[test]
    fn a_zone_that_is_well_keeps_all_and_a_sick_one_its_share() {
        assert_eq!(stays(10, 10, 70), 1.0);
        assert_eq!(stays(7, 10, 70), 1.0);
        assert!((stays(35, 100, 70) - 0.5).abs() < 1e-9);
        assert_eq!(stays(1, 1, 100), 1.0);
    }

    #[test]
    fn the_own_zone_comes_first_and_spills_over() {
        let spec = json!({
            "zoneAwareness": {"preferLocal": true, "spillOverBelowPercent": 100},
            "outlierDetection": {}, "loadBalancer": {"type": "Random"},
        });
        let world = world(&["a", "a", "b", "b"], spec);
        let near = |shares: &BTreeMap<String, usize>| {
            ["web-0", "web-1"].iter().filter_map(|id| shares.get(*id)).sum::<usize>()
        };
        assert_eq!(near(&world.shares(10)), 1000);
        world.leave_out(0, 100);
        let half = near(&world.shares(10));
        assert!((400..=600).contains(&half), "{half}");
        world.leave_out(1, 100);
        assert_eq!(near(&world.shares(10)), 0);
    }

    #[test]
    fn a_zone_with_too_few_is_not_preferred() {
        let mut spec = json!({"zoneAwareness": {"preferLocal": true, "minInstances": 2}});
        spec["loadBalancer"] = json!({"type": "Random"});
        let shares = world(&["a", "b", "c"], spec).shares(10);
        assert_eq!(shares.len(), 3, "{shares:?}");
    }

    #[test]
    fn one_that_comes_back_gets_its_share_little_by_little() {
        let spec = json!({
            "outlierDetection": {"returnSlow": "10s"}, "loadBalancer": {"type": "Random"},
        });
        let world = world(&["a", "a"], spec);
        world.leave_out(0, 20_000);
        let share = |now| world.shares(now).get("web-0").copied().unwrap_or_default();
        assert_eq!(share(19_999), 0);
        let (soon, half, all) = (share(20_100), share(25_000), share(40_000));
        assert!((10..=110).contains(&soon), "{soon}");
        assert!((180..=320).contains(&half), "{half}");
        assert!((400..=600).contains(&all), "{all}");
    }

    #[test]
    fn below_the_threshold_all_are_asked() {
        let spec = json!({"panicThresholdPercent": 50, "outlierDetection": {}});
        let world = world(&["a"; 4], spec);
        world.leave_out(0, 100);
        world.leave_out(1, 100);
        assert!(!world.shares(10).contains_key("panic"), "half are well");
        world.leave_out(2, 100);
        assert_eq!(world.shares(10)["panic"], 1000);
        let tried = [0, 1, 2, 3];
        let of = |e: &Endpoint| world.upstreams[e.index as usize].clone();
        assert!(matches!(world.asked(&tried, 10).pick(of, || 0), Pick::None));
    }
}
