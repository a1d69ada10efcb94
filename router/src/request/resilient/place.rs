//! Where the next try goes.

use std::rc::Rc;
use std::sync::Arc;

use super::{Call, Choice, Sending};
use crate::auth;
use crate::clock;
use crate::table::{Endpoint, ServiceEntry};
use crate::upstream::{Asked, Host, Pick, Upstream};
use crate::worker::Worker;

/// An instance.
pub(super) struct Place {
    /// An index into the service's versions.
    pub version: usize,
    /// The endpoint's.
    pub index: u32,
    pub host: Option<Arc<Host>>,
    pub upstream: Rc<Upstream>,
}

pub(super) enum Next {
    Here(Place),
    /// All instances of the service are unhealthy.
    Elsewhere(Arc<ServiceEntry>, Choice),
    Nowhere,
}

impl Sending<'_> {
    /// The chosen version first; another of the service's that gets traffic, if
    /// the route allows; another service; and at last whatever there is.
    pub(super) fn next(&self, call: &mut Call) -> Next {
        let chosen = self.choice.version;
        let fallback = match self.pick(self.service, chosen) {
            Pick::Good(upstream) => return self.here(chosen, upstream),
            Pick::Panic(upstream) => Some(upstream),
            // All that are well were asked: one of them again, before one that the
            // request was not for.
            Pick::None => match self.pick_but(self.service, chosen, &[]) {
                Pick::Good(upstream) => return self.here(chosen, upstream),
                Pick::Panic(_) | Pick::None => None,
            },
        };
        if self.choice.may_fall_over {
            for (version, entry) in self.service.versions.iter().enumerate() {
                if version != chosen
                    && entry.weight > 0
                    && let Pick::Good(upstream) = self.pick(self.service, version)
                {
                    call.flag("FO");
                    return self.here(version, upstream);
                }
            }
        }
        if self.may_fail_over
            && let Some((service, choice)) = self.stand_in()
        {
            return Next::Elsewhere(service, choice);
        }
        match fallback {
            Some(upstream) => {
                call.flag("PR");
                self.here(chosen, upstream)
            }
            None => Next::Nowhere,
        }
    }

    /// A well instance of the chosen version that was not asked yet.
    pub(super) fn another(&self) -> Option<Place> {
        match self.pick(self.service, self.choice.version) {
            Pick::Good(upstream) => match self.here(self.choice.version, upstream) {
                Next::Here(place) => Some(place),
                _ => None,
            },
            Pick::Panic(_) | Pick::None => None,
        }
    }

    fn pick(&self, service: &ServiceEntry, version: usize) -> Pick {
        self.pick_but(service, version, &self.tried)
    }

    fn pick_but(&self, service: &ServiceEntry, version: usize, tried: &[u32]) -> Pick {
        let entry = &service.versions[version];
        // In a pod the control plane knows where we are.
        let table = match service.traffic.policy.zone_awareness {
            Some(_) => self.worker.table(),
            None => None,
        };
        let places = table.as_ref().and_then(|table| table.places.as_ref());
        let known = places.and_then(|places| places.zone.as_deref());
        let asked = Asked {
            version: (version, entry),
            traffic: &service.traffic,
            tried,
            only_connected: self.only_connected,
            key: self.key,
            zone: known.unwrap_or(&self.worker.shared.config.args.zone),
            now: clock::now(),
        };
        asked.pick(|e| self.worker.upstream(e), || self.worker.turn(entry.id))
    }

    fn here(&self, version: usize, upstream: Rc<Upstream>) -> Next {
        let is_it = |e: &&Endpoint| e.id == upstream.id && e.address == upstream.address;
        let endpoint = self.service.versions[version].endpoints.iter().find(is_it);
        let host = endpoint.and_then(|e| e.host.clone());
        let index = endpoint.map_or(u32::MAX, |e| e.index);
        Next::Here(Place { version, index, host, upstream })
    }

    /// The first service of `failover` that has a healthy instance.
    fn stand_in(&self) -> Option<(Arc<ServiceEntry>, Choice)> {
        let failover = &self.service.traffic.policy.failover;
        if failover.is_empty() {
            return None;
        }
        let table = self.worker.table()?;
        failover.iter().find_map(|one| {
            let service = &table.services.get(&one.service)?.service;
            // Nobody would ask whether this request may go there: its own router
            // does that for others.
            if auth::in_place_of(&table, service).is_some() {
                return None;
            }
            let version = match &one.version {
                Some(name) => service.version(name)?,
                None => next_version(self.worker, service),
            };
            let versions = match one.version {
                Some(_) => version..version + 1,
                None => 0..service.versions.len(),
            };
            let is_good = |version| matches!(self.pick(service, version), Pick::Good(_));
            let choice = Choice::of(version, one.version.is_none());
            versions.into_iter().any(is_good).then(|| (service.clone(), choice))
        })
    }

    /// Whether every instance that could be asked was.
    pub(super) fn all_tried(&self) -> bool {
        let versions = self.service.versions.iter().enumerate();
        let mine = versions.filter(|(i, v)| {
            *i == self.choice.version || (self.choice.may_fall_over && v.weight > 0)
        });
        mine.flat_map(|(_, v)| &v.endpoints).all(|e| self.tried.contains(&e.index))
    }
}

fn next_version(worker: &Worker, service: &ServiceEntry) -> usize {
    match service.versions.len() {
        1 => 0,
        _ => worker.next_of(&service.splitter),
    }
}
