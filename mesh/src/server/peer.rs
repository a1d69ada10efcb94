//! Who calls, as this service's router vouches for it.

use tonic::metadata::MetadataMap;

use crate::identity::SpiffeId;

/// Set by the inbound router from the peer's certificate; it strips any other.
const XFCC: &str = "x-forwarded-client-cert";

/// The peer's identity: the `URI` of `x-forwarded-client-cert` (Envoy's form,
/// `By=ID;URI=ID`).
///
/// `None` unless there is exactly one such header with exactly one element and
/// exactly one URI: anything else was not written by the router.
#[must_use]
pub fn peer(metadata: &MetadataMap) -> Option<SpiffeId> {
    let mut headers = metadata.get_all(XFCC).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return None };
    uri(header.to_str().ok()?)?.parse().ok()
}

/// A SPIFFE id holds neither of `,` `;` `"` and `=`, so a quoted value that
/// does cannot be one, and splitting at them never misreads one.
fn uri(header: &str) -> Option<&str> {
    if header.contains(',') {
        return None;
    }
    let mut uris = header.split(';').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case("uri").then(|| value.trim())
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return None };
    let unquoted = uri.strip_prefix('"').and_then(|uri| uri.strip_suffix('"'));
    Some(unquoted.unwrap_or(uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(values: &[&str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append(XFCC, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn reads_the_one_uri_of_the_one_element() {
        let id = "spiffe://weir.local/ns/default/sa/auth";
        let by = "By=spiffe://weir.local/ns/default/sa/users";
        for header in
            [format!("{by};URI={id}"), format!("URI=\"{id}\""), format!("uri={id};Hash=ab")]
        {
            let peer = peer(&metadata(&[&header])).unwrap();
            assert_eq!(peer.service(), "auth", "{header}");
        }
    }

    #[test]
    fn anything_ambiguous_is_nobody() {
        let id = "URI=spiffe://weir.local/ns/default/sa/auth";
        let other = "URI=spiffe://weir.local/ns/default/sa/users";
        assert!(peer(&metadata(&[])).is_none());
        assert!(peer(&metadata(&[""])).is_none());
        assert!(peer(&metadata(&["By=spiffe://weir.local/ns/default/sa/auth"])).is_none());
        assert!(peer(&metadata(&[id, other])).is_none());
        assert!(peer(&metadata(&[&format!("{id},{other}")])).is_none());
        assert!(peer(&metadata(&[&format!("{id};{other}")])).is_none());
        assert!(peer(&metadata(&["URI=https://weir.local/ns/default/sa/auth"])).is_none());
        assert!(
            peer(&metadata(&["Subject=\"a;URI=spiffe://weir.local/ns/default/sa/auth\""]))
                .is_none()
        );
    }
}
