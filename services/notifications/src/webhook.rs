//! Where webhooks may go, and how they are signed.

mod address;
mod secret;

use std::fmt;
use std::net::IpAddr;

use http::Uri;

pub use address::is_public;
pub use secret::{Secret, SecretError};

/// Most characters of a webhook's URL.
pub const MAX_URL: usize = 2000;

/// Why a text cannot be a webhook's URL. It goes on after the field's name, and
/// does not repeat the URL, whose path or query may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// More characters than fit.
    #[error("has more than {MAX_URL} characters")]
    Long,
    /// No absolute URL.
    #[error("is not an absolute URL such as http://hooks.example.com/weir")]
    Malformed,
    /// `https`.
    #[error("https is not supported yet; give an http URL, or leave it empty for the inbox only")]
    Https,
    /// Any other scheme.
    #[error("must begin with http://")]
    Scheme,
    /// `user:password@`.
    #[error("must not hold a user name or password")]
    User,
    /// Port 0.
    #[error("port 0 cannot be connected to")]
    Port,
    /// A loopback, private, link-local or otherwise special address.
    #[error("is an address that is not public; such webhooks need --allow-private-webhooks")]
    Private,
}

/// An `http` URL (RFC 9110, section 4.2.1) of a webhook's receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    host: String,
    port: u16,
}

impl WebhookUrl {
    /// The host's name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as the URL has them, for the `host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Path and query, for the request line.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The whole URL. It may hold a secret: not for logs.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.uri.to_string()
    }

    /// The URL without its query, for its owner to see.
    #[must_use]
    pub fn without_query(&self) -> String {
        format!("http://{}{}", self.authority(), self.uri.path())
    }

    /// Refuses what is plainly not public. Names are judged by what they
    /// resolve to when the webhook is sent.
    ///
    /// # Errors
    /// [`UrlError::Private`].
    pub fn check_public(&self) -> Result<(), UrlError> {
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        let local = name == "localhost" || name.ends_with(".localhost");
        let private = self.host.parse::<IpAddr>().is_ok_and(|address| !is_public(address));
        if local || private { Err(UrlError::Private) } else { Ok(()) }
    }
}

impl TryFrom<&str> for WebhookUrl {
    type Error = UrlError;

    fn try_from(text: &str) -> Result<Self, UrlError> {
        if text.chars().count() > MAX_URL {
            return Err(UrlError::Long);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => (),
            Some("https") => return Err(UrlError::Https),
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let port = match authority.as_str().rsplit_once(':') {
            // A colon inside of brackets belongs to the address.
            Some((_, port)) if !port.ends_with(']') => {
                port.parse().map_err(|_| UrlError::Malformed)?
            }
            _ => 80,
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(UrlError::Malformed);
        }
        Ok(Self { uri, host, port })
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl(http://{}/...)", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_http_urls_with_a_host() {
        let url = WebhookUrl::try_from("http://hooks.example.com/a?token=1").unwrap();
        assert_eq!((url.host(), url.port()), ("hooks.example.com", 80));
        assert_eq!(url.path_and_query(), "/a?token=1");
        assert_eq!(url.without_query(), "http://hooks.example.com/a");
        assert!(!format!("{url:?}").contains("token"));
        let six = WebhookUrl::try_from("http://[2001:4860::1]:81").unwrap();
        assert_eq!((six.host(), six.port()), ("2001:4860::1", 81));
        for (bad, error) in [
            ("", UrlError::Malformed),
            ("/path", UrlError::Malformed),
            ("http://", UrlError::Malformed),
            ("http://a:99999/", UrlError::Malformed),
            ("https://a/", UrlError::Https),
            ("ftp://a/", UrlError::Scheme),
            ("http://u:p@a/", UrlError::User),
            ("http://a:0/", UrlError::Port),
        ] {
            assert_eq!(WebhookUrl::try_from(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn plainly_private_hosts_are_told() {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "10.1.2.3", "[::1]"] {
            let url = WebhookUrl::try_from(format!("http://{host}/").as_str()).unwrap();
            assert_eq!(url.check_public(), Err(UrlError::Private), "{host}");
        }
        let url = WebhookUrl::try_from("http://example.com/").unwrap();
        assert_eq!(url.check_public(), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_stored_reads_back(text in "http://[a-z\\[\\]:@.0-9]{1,20}(:[0-9]{1,5})?(/[a-z?=%#]{0,9})?") {
            if let Ok(url) = WebhookUrl::try_from(text.as_str()) {
                let stored = url.reveal();
                prop_assert_eq!(WebhookUrl::try_from(stored.as_str()), Ok(url));
            }
        }
    }
}
