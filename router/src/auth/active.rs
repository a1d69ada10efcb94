//! Whether the user of a token still is one.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use weir_mesh::model::ServiceName;
use weir_proto::weir::users::v1::{CheckActiveRequest, CheckActiveResponse};

use super::denial::Unauthenticated;
use super::rpc;
use crate::error::RouterError;
use crate::worker::Worker;

/// What is asked.
pub(super) const PATH: &str = "/weir.users.v1.UsersService/CheckActive";

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of an answer.
const LIMIT: usize = 1024;
/// Users that are remembered; then all are forgotten, and asked for again.
const USERS: usize = 10_000;

/// What a service said of users.
pub struct Active {
    service: ServiceName,
    said: Mutex<HashMap<Box<str>, (Instant, bool)>>,
}

impl Active {
    pub(super) fn new(service: ServiceName) -> Self {
        Self { service, said: Mutex::default() }
    }

    /// Asks about the subject of a token, unless the last answer still holds.
    ///
    /// # Errors
    /// [`RouterError::Unauthenticated`] when it is no user, and when nobody can
    /// say so.
    pub(super) async fn check(
        &self,
        worker: &Rc<Worker>,
        claims: &Map<String, Value>,
        holds: Duration,
    ) -> Result<(), RouterError> {
        let refused = |reason, text: &str| {
            let text = text.to_owned();
            Err(Unauthenticated { reason, text, sent: true }.into())
        };
        let Some(user) = claims.get("sub").and_then(Value::as_str) else {
            return refused("malformed", "the token names no user (sub)");
        };
        let active = match self.known(user, holds) {
            Some(active) => active,
            None => {
                let question = CheckActiveRequest { user_id: user.to_owned() };
                let path = PATH;
                let limits = (PATIENCE, LIMIT);
                let answer: Result<CheckActiveResponse, _> =
                    rpc::unary(worker, &self.service, path, &question, limits).await;
                match answer {
                    Ok(answer) => self.learn(user, answer.active),
                    Err(error) => {
                        tracing::warn!(%error, "whether a user is active is not known");
                        return refused(
                            "user_unknown",
                            "whether the user is active cannot be asked right now",
                        );
                    }
                }
            }
        };
        if active { Ok(()) } else { refused("user_inactive", "the token's user is not active") }
    }

    fn known(&self, user: &str, holds: Duration) -> Option<bool> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(user).filter(|(at, _)| at.elapsed() < holds).map(|(_, active)| *active)
    }

    fn learn(&self, user: &str, active: bool) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= USERS {
            said.clear();
        }
        said.insert(user.into(), (Instant::now(), active));
        active
    }
}
