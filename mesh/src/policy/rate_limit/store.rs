//! Where global counts are kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A Redis server, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// Where it is.
    pub url: StoreUrl,
    /// The environment variable of a router that holds the password.
    pub password_env: Option<Arc<str>>,
    /// For one answer: 1 ms to 1 s.
    pub timeout: Duration,
}

/// `redis://[USER@]HOST[:PORT][/DATABASE]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    /// A name or an IP address (IPv6 without brackets).
    pub host: Arc<str>,
    /// 6379 when it is not given.
    pub port: u16,
    /// Of Redis's access control lists; none: the default user.
    pub user: Option<Arc<str>>,
    /// 0 to 15.
    pub database: u8,
}

/// Why a text is no URL of a store. The text itself is not repeated: someone may
/// have put a password into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Not `redis://`.
    #[error("must begin with redis:// (TLS, rediss://, is not supported yet)")]
    Scheme,
    /// `user:password@`.
    #[error(
        "holds a password; take it out and name the environment variable that holds it in passwordEnv"
    )]
    Password,
    /// A user that is empty or too long.
    #[error("has a user that is empty or longer than 255 characters")]
    User,
    /// No host, or one that cannot be.
    #[error("has no usable host; write redis://HOST:PORT")]
    Host,
    /// No port from 1 to 65535.
    #[error("has a port that is not from 1 to 65535")]
    Port,
    /// No number from 0 to 15.
    #[error("has a database that is not a number from 0 to 15")]
    Database,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let rest = text.strip_prefix("redis://").ok_or(StoreUrlError::Scheme)?;
        let (authority, database) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), 0),
            Some((authority, database)) => {
                let number = database.parse().ok().filter(|n| *n < 16);
                (authority, number.ok_or(StoreUrlError::Database)?)
            }
        };
        let (user, place) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, _)) if user.contains(':') => return Err(StoreUrlError::Password),
            Some((user, _)) if user.is_empty() || user.len() > 255 => {
                return Err(StoreUrlError::User);
            }
            Some((user, place)) => (Some(user.into()), place),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(StoreUrlError::Host)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| StoreUrlError::Host)?;
                (host, after.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(usable) {
            return Err(StoreUrlError::Host);
        }
        let port = match port {
            None => 6379,
            Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or(StoreUrlError::Port)?,
        };
        Ok(Self { host: host.into(), port, user, database })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}
