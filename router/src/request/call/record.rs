//! What a request becomes when it has ended.

use std::time::{Duration, SystemTime};

use super::{Call, Speaks, is_server_fault};
use crate::access_log::Line;
use crate::connection::Side;
use crate::error::grpc;
use crate::metrics::{Key, Outcome};

impl Call {
    pub(super) fn record(&mut self, whole: bool) {
        self.recorded = true;
        if !whole && self.flags.is_empty() {
            self.flag("DC");
            if self.speaks != Speaks::Http && self.grpc.is_none() {
                self.grpc = Some(grpc::CANCELLED);
            }
        }
        let took = self.began.elapsed();
        let failed = is_server_fault(self.status, self.grpc);
        let worker = self.worker.clone();
        // One that its client gave up, or gave no time, says nothing of the instance.
        let late = self.grpc == Some(grpc::DEADLINE_EXCEEDED) && self.is_hurried();
        if (whole || failed)
            && !late
            && let Some((_, Some(pending))) = &mut self.held
        {
            pending.ended(!failed, &worker.shared.metrics);
        }
        let (lost, waited) = self.count_lost();
        let service: &str = match (&self.service, self.side) {
            (Some(service), _) => service.name.as_str(),
            (None, Side::Inbound) => worker.shared.config.service.as_str(),
            (None, _) => "",
        };
        let version = match (&self.version, self.side) {
            (Some((version, _)), _) => version.as_str(),
            (None, Side::Inbound) => worker.shared.config.version.as_str(),
            (None, _) => "",
        };
        let key = Key {
            side: self.side,
            service,
            version,
            peer: &self.connected.peer,
            route: self.route().unwrap_or_default(),
            status: self.status.as_u16(),
            grpc: self.grpc,
        };
        let (revision, retries, flags) = (self.revision, self.retries, &*self.flags);
        let outcome = Outcome { revision, took, waited, failed: failed || lost, retries, flags };
        worker.bound.borrow_mut().record(&worker.shared.metrics, &key, &outcome);
        if worker.shared.access_log.is_on() {
            self.log(service, version, took);
        }
        self.finish_spans(failed);
    }

    fn route(&self) -> Option<&str> {
        self.action.as_ref().map(|action| &*action.label)
    }

    fn log(&self, service: &str, version: &str, took: Duration) {
        let trace = self.server.as_ref().or(self.client.as_ref());
        self.worker.shared.access_log.write(&Line {
            time: SystemTime::now() - took,
            trace_id: trace.map(|span| span.context().trace_id()),
            side: self.side,
            method: self.method.as_str(),
            authority: self.authority.as_deref(),
            path: &self.path,
            route: self.route(),
            service,
            version,
            instance: self.instance.as_deref(),
            peer: &self.connected.peer,
            status: self.status.as_u16(),
            grpc: self.grpc,
            took,
            bytes: self.bytes,
            retries: self.retries,
            flags: &self.flags,
            error: self.error.as_deref(),
            audit: self.audit.as_deref(),
        });
    }

    fn finish_spans(&mut self, failed: bool) {
        if !self.is_recording() {
            return;
        }
        let (status, grpc, error) = (self.status.as_u16(), self.grpc, self.error.take());
        let flags = self.flags.join(",");
        let sink = self.worker.shared.spans.clone();
        for mut span in [self.client.take(), self.server.take()].into_iter().flatten() {
            span.set("http.response.status_code", i64::from(status));
            if let Some(code) = grpc {
                span.set("rpc.grpc.status_code", i64::from(code));
            }
            if !flags.is_empty() {
                span.set("weir.flags", flags.clone());
            }
            if failed || error.is_some() {
                span.error(error.clone().unwrap_or_default());
            }
            span.finish(&sink);
        }
    }
}
