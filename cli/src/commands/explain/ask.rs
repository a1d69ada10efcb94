//! The request that is asked about, from the command line.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use serde_json::{Map, Value};
use weir_mesh::identity::SpiffeId;

use crate::Error;

/// The host of a request that names none: the gateway takes it if a route without
/// host names does.
const NO_HOST: &str = "localhost";

/// Reads `[METHOD] URL` and headers. The request's URI is absolute.
///
/// # Errors
/// What is wrong with the first that is.
pub fn request(words: &[String], headers: &[String]) -> Result<Request<()>, Error> {
    let (method, url) = match words {
        [url] => (None, url),
        [method, url] => (Some(self::method(method)?), url),
        _ => return Err(Error::new("name a URL, with a method before it if it is not GET")),
    };
    let (uri, is_grpc) = uri(url)?;
    let default = if is_grpc { Method::POST } else { Method::GET };
    let mut request = Request::new(());
    *request.method_mut() = method.unwrap_or(default);
    *request.uri_mut() = uri;
    if is_grpc {
        let grpc = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for text in headers {
        let (name, value) = name_and_value(text)?;
        if name == header::HOST {
            // It is what the client asks for, as with curl.
            set_host(&mut request, &value)?;
        } else {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

fn method(text: &str) -> Result<Method, Error> {
    let upper = text.to_ascii_uppercase();
    upper.parse().map_err(|_| Error::new(format!("{text:?} is no method, such as GET")))
}

fn uri(text: &str) -> Result<(Uri, bool), Error> {
    let wrong = || {
        Error::new(format!(
            "{text:?} is no URL to explain; use http://HOST/PATH, \
             grpc://HOST/PACKAGE.SERVICE/METHOD, or /PATH at the gateway"
        ))
    };
    let (is_grpc, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("grpc", rest)) => (true, rest),
        Some(_) => return Err(wrong()),
        None if text.starts_with('/') => {
            return Ok((build(NO_HOST, text).ok_or_else(wrong)?, false));
        }
        None => (false, text),
    };
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if is_grpc && path.trim_matches('/').split('/').count() != 2 {
        return Err(wrong());
    }
    let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
    Ok((build(host, &path).ok_or_else(wrong)?, is_grpc))
}

fn build(host: &str, path: &str) -> Option<Uri> {
    // A fragment stays with the client (RFC 9110 §7.1).
    let path = path.split('#').next().unwrap_or_default();
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(host.parse::<Authority>().ok().filter(|host| !host.host().is_empty())?)
        .path_and_query(path.parse::<PathAndQuery>().ok()?)
        .build()
        .ok()
}

fn name_and_value(text: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let wrong = || Error::new(format!("{text:?} is no header; use -H 'NAME: VALUE'"));
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, value.trim().parse().map_err(|_| wrong())?))
}

fn set_host(request: &mut Request<()>, host: &HeaderValue) -> Result<(), Error> {
    let wrong = || Error::new("the header Host is no host");
    let mut parts = request.uri().clone().into_parts();
    let host = host.to_str().map_err(|_| wrong())?;
    parts.authority = Some(host.parse().map_err(|_| wrong())?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| wrong())?;
    Ok(())
}

/// Reads `--peer`.
///
/// # Errors
/// It is no SPIFFE id.
pub fn peer(text: &str) -> Result<SpiffeId, Error> {
    text.parse().map_err(|error| Error::new(format!("--peer {text:?}: {error}")))
}

/// Reads `--claims`.
///
/// # Errors
/// It is no JSON object.
pub fn claims(text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(format!(
            "--claims is no JSON object: {error}; use one like '{{\"sub\": \"ada\"}}'"
        ))
    })
}

/// That there is no such service, and which were most likely meant.
pub fn no_service<'a>(what: &str, name: &str, services: impl Iterator<Item = &'a str>) -> Error {
    let mut names: Vec<&str> = services.collect();
    names.sort_by_key(|other| strsim::damerau_levenshtein(other, name));
    let shown: Vec<_> = names.iter().take(5).copied().collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::new(match shown.as_slice() {
        [] => format!("{what} {name:?} is no service of the mesh; there are none"),
        _ => format!(
            "{what} {name:?} is no service of the mesh; nearest: {}{more}",
            shown.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], headers: &[&str]) -> Result<Request<()>, String> {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        request(&owned(words), &owned(headers)).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_are_read() {
        let get = read(&["http://products:80/v1?a=b#c"], &["x-user: 7"]).unwrap();
        assert_eq!(
            (get.method(), get.uri()),
            (&Method::GET, &"http://products:80/v1?a=b".parse::<Uri>().unwrap())
        );
        assert_eq!(get.headers()["x-user"], "7");
        let post = read(&["post", "/v1"], &["Host: shop.test:1"]).unwrap();
        assert_eq!(
            (post.method(), post.uri().to_string()),
            (&Method::POST, "http://shop.test:1/v1".into())
        );
        assert!(post.headers().is_empty());
        let grpc = read(&["grpc://products/a.B/C"], &[]).unwrap();
        assert_eq!((grpc.method(), grpc.uri().path()), (&Method::POST, "/a.B/C"));
        assert_eq!(grpc.headers()["content-type"], "application/grpc");
        assert_eq!(read(&["products"], &[]).unwrap().uri().to_string(), "http://products/");
        for (words, wanted) in [
            (["GET", "https://x/"], "is no URL to explain"),
            (["GET", "http:///x"], "is no URL to explain"),
            (["GET", "grpc://x/y"], "is no URL to explain"),
            (["G T", "http://x/"], "is no method"),
        ] {
            let error = read(&words, &[]).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(read(&["/"], &["x"]).unwrap_err().contains("is no header"));
    }

    #[test]
    fn the_nearest_names_come_first() {
        let error = no_service("--from", "prodcts", ["auth", "users", "products"].into_iter());
        assert_eq!(
            error.to_string(),
            "--from \"prodcts\" is no service of the mesh; nearest: products, auth, users"
        );
    }
}
