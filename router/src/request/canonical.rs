//! The one form of a request's path: what routes and policies are matched with,
//! and what the upstream gets.

use http::Uri;
use http::uri::PathAndQuery;
use weir_mesh::canonical::{self, PathError, Slashes};

use super::call::Call;
use crate::error::RouterError;

/// Brings the path of a request to its canonical form. `whole_server`: it is
/// OPTIONS, whose path may be `*`.
///
/// # Errors
/// [`RouterError::BadRequest`] for a path that servers read in two ways.
pub fn apply(
    uri: &mut Uri,
    whole_server: bool,
    slashes: Slashes,
    call: &mut Call,
) -> Result<(), RouterError> {
    match canonical::path(uri.path(), slashes) {
        Ok(None) => Ok(()),
        Ok(Some(path)) => {
            *uri = with_path(uri, &path).ok_or(PathError::Escape).map_err(bad)?;
            call.path(&path);
            Ok(())
        }
        // The server as a whole (RFC 9110 §7.1).
        Err(PathError::Relative) if whole_server && uri.path() == "*" => Ok(()),
        Err(error) => Err(bad(error)),
    }
}

fn bad(error: PathError) -> RouterError {
    RouterError::BadRequest(error.to_string())
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_path_stays() {
        let uri = "http://me@web:81/a/%2e%2E/b?x=%2f/../y".parse().unwrap();
        assert_eq!(with_path(&uri, "/b").unwrap(), "http://me@web:81/b?x=%2f/../y");
        assert_eq!(with_path(&"/a//b".parse().unwrap(), "/a/b").unwrap(), "/a/b");
    }
}
