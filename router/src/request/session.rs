//! Sessions (GEP-1619): a client stays on the backend that it got first.
//!
//! What a client holds names a version by a hash, with the times of its first
//! and last request. It is opaque, not secret, and not signed: it can only
//! choose among backends of its rule that get requests anyway.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use weir_mesh::model::SessionKind;

use super::choose::cookie;
use crate::table::{ServiceEntry, Session, point};

/// A clock may be so far ahead of ours.
const SKEW: u64 = 60_000;

/// What a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Of [`id`].
    pub id: u64,
    /// Unix time in milliseconds.
    issued: u64,
    /// Unix time in milliseconds.
    seen: u64,
}

/// Names a version, the same on every router.
#[must_use]
pub fn id(service: &ServiceEntry, version: usize) -> u64 {
    let name = &service.versions[version].name;
    point(format!("{}/{name}", service.name).as_bytes())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What the client holds, if it is still good.
#[must_use]
pub fn find(session: &Session, headers: &HeaderMap) -> Option<Held> {
    let text = match (&session.header, session.kind) {
        (Some(name), _) => headers.get(name)?.to_str().ok()?,
        (None, SessionKind::Header) => return None,
        (None, _) => cookie(headers, &session.name)?,
    };
    Held::parse(text).filter(|held| held.is_good(session, now()))
}

impl Held {
    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let bytes: [u8; 24] = bytes.try_into().ok()?;
        let part = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        Some(Self { id: part(0), issued: part(8), seen: part(16) })
    }

    fn print(&self) -> String {
        let bytes = [self.id, self.issued, self.seen].map(u64::to_be_bytes).concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn is_good(&self, session: &Session, now: u64) -> bool {
        let within = |from: u64, limit: Option<Duration>| {
            limit.is_none_or(|limit| now < from.saturating_add(millis(limit)))
        };
        self.issued <= now + SKEW
            && self.seen <= now + SKEW
            && within(self.issued, session.absolute_timeout)
            && within(self.seen, session.idle_timeout)
    }
}

/// What the client shall hold from now on; nothing when what it holds will do.
/// `held` is what chose the version, if it did.
#[must_use]
pub fn renew(session: &Session, held: Option<Held>, id: u64) -> Option<(HeaderName, HeaderValue)> {
    let now = now();
    let held = match held {
        None => Held { id, issued: now, seen: now },
        Some(held) => {
            // Its last request need not be known to the second.
            let idle = millis(session.idle_timeout?);
            if now.saturating_sub(held.seen) < idle / 8 {
                return None;
            }
            Held { seen: now, ..held }
        }
    };
    let value = held.print();
    if let Some(name) = &session.header {
        return Some((name.clone(), value.parse().ok()?));
    }
    let mut text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", session.name);
    if session.kind == SessionKind::PermanentCookie
        && let Some(limit) = session.absolute_timeout
    {
        let left = (held.issued.saturating_add(millis(limit))).saturating_sub(now);
        write!(text, "; Max-Age={}", left / 1000).ok()?;
    }
    Some((header::SET_COOKIE, text.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(absolute: Option<u64>, idle: Option<u64>) -> Session {
        Session {
            name: "s".into(),
            header: None,
            kind: SessionKind::Cookie,
            absolute_timeout: absolute.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
        }
    }

    #[test]
    fn what_is_printed_is_read_and_nothing_else() {
        let held = Held { id: 7, issued: 1, seen: 2 };
        assert_eq!(Held::parse(&held.print()), Some(held));
        for bad in ["", "a", "!!", &URL_SAFE_NO_PAD.encode([0; 23]), &"A".repeat(1000)] {
            assert_eq!(Held::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sessions_end() {
        let held = Held { id: 7, issued: 100_000, seen: 200_000 };
        assert!(held.is_good(&session(None, None), u64::MAX - SKEW));
        assert!(held.is_good(&session(Some(200), None), 299_999));
        assert!(!held.is_good(&session(Some(200), None), 300_000));
        assert!(held.is_good(&session(None, Some(50)), 249_999));
        assert!(!held.is_good(&session(None, Some(50)), 250_000));
        assert!(!held.is_good(&session(None, None), 1_000), "it is of the future");
    }

    #[test]
    fn a_cookie_is_set_when_it_must_be() {
        let (name, value) = renew(&session(None, None), None, 7).unwrap();
        let value = value.to_str().unwrap();
        assert_eq!(name, header::SET_COOKIE);
        assert!(value.starts_with("s=") && !value.contains("Max-Age"), "{value}");
        let held = Held { id: 7, issued: now(), seen: now() };
        assert_eq!(renew(&session(None, None), Some(held), 7), None);
        assert_eq!(renew(&session(None, Some(80)), Some(held), 7), None);
        let held = Held { seen: now() - 11_000, ..held };
        assert!(renew(&session(None, Some(80)), Some(held), 7).is_some());
        let permanent = Session { kind: SessionKind::PermanentCookie, ..session(Some(60), None) };
        let (_, value) = renew(&permanent, None, 7).unwrap();
        assert!(value.to_str().unwrap().ends_with("Max-Age=60"), "{value:?}");
    }
}
