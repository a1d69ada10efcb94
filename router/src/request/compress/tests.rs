use std::io::Read as _;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use proptest::prelude::*;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

fn wanted() -> Compression {
    Compression { min_bytes: 10, content_types: vec!["text/*".into()] }
}

fn answer(headers: &[(&str, &str)], body: &str) -> Response<DownBody> {
    let mut response = Response::builder().header("content-type", "text/plain");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(DownBody::full(body.to_owned())).unwrap()
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

#[test]
fn what_the_client_prefers() {
    for (sent, wanted) in [
        ("gzip", true),
        ("br, GZIP;q=0.1", true),
        ("*", true),
        ("*;q=0.5, gzip;q=0", false),
        ("gzip;q=0.000", false),
        ("gzip;q=0.5, identity", false),
        ("gzip;q=0.5, identity;q=0.5", true),
        ("gzip;q=2", false),
        ("br", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, sent.parse().unwrap());
        assert_eq!(accepted(&headers).is_some(), wanted, "{sent}");
    }
    assert_eq!(accepted(&HeaderMap::new()), None);
}

#[test]
fn what_is_compressed_says_so() {
    let sent =
        answer(&[("etag", "\"a\""), ("content-length", "20"), ("vary", "origin")], &"a".repeat(20));
    let compressed = response(&wanted(), Some(Coding::Gzip), &Method::GET, sent);
    let headers = compressed.headers();
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(headers["etag"], "W/\"a\"");
    assert!(!headers.contains_key("content-length"));
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["origin", "accept-encoding"]);
    let body = compressed.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    assert_eq!(unzip(&body), "a".repeat(20).as_bytes());
}

#[test]
fn what_must_stay_stays() {
    let long = "a".repeat(20);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Method);
    let cases: [Case<'_>; 6] = [
        (&[("content-encoding", "br")], &long, Method::GET),
        (&[("content-range", "bytes 0-1/2")], &long, Method::GET),
        (&[("cache-control", "private, No-Transform")], &long, Method::GET),
        (&[], "short", Method::GET),
        (&[], &long, Method::HEAD),
        (&[("content-encoding", "gzip")], &long, Method::GET),
    ];
    for (headers, body, method) in cases {
        let same = response(&wanted(), Some(Coding::Gzip), &method, answer(headers, body));
        assert!(!same.headers().contains_key("vary"), "{headers:?}");
    }
    let refused = response(&wanted(), None, &Method::GET, answer(&[], &long));
    assert!(!refused.headers().contains_key("content-encoding"));
    assert_eq!(refused.headers()["vary"], "accept-encoding");
    let mut image = answer(&[], &long);
    image.headers_mut().insert("content-type", "image/png".parse().unwrap());
    let image = response(&wanted(), Some(Coding::Gzip), &Method::GET, image);
    assert!(!image.headers().contains_key("content-encoding"));
}

/// Pieces with pauses between them: what came before a pause can be read then.
#[test]
fn nothing_is_held_back_while_nothing_comes() {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let frames =
        UnboundedReceiverStream::new(receive).map(|data| Ok::<_, BodyError>(Frame::data(data)));
    let body = DownBody::mapped(StreamBody::new(frames));
    let mut stream = BodyStream::new(body.through(Gzip::new));
    let (mut seen, mut sent) = (Vec::new(), Vec::new());
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        send.send(event.into()).unwrap();
        sent.extend_from_slice(event.as_bytes());
        while let Some(frame) = stream.next().now_or_never() {
            seen.extend_from_slice(frame.unwrap().unwrap().data_ref().unwrap());
        }
        let mut plain = vec![0; sent.len()];
        flate2::read::GzDecoder::new(&seen[..]).read_exact(&mut plain).unwrap();
        assert_eq!(plain, sent);
    }
}

proptest! {
    #[test]
    fn it_is_the_same_again(pieces in prop::collection::vec(
        prop::collection::vec(0u8..4, 0..20_000), 0..12,
    )) {
        let whole = pieces.concat();
        let frames = pieces.into_iter().map(|piece| Ok::<_, BodyError>(Frame::data(piece.into())));
        let body = DownBody::mapped(StreamBody::new(stream::iter(frames)));
        let mut gzip = BodyStream::new(body.through(Gzip::new));
        let mut out = Vec::new();
        // A turn that ends early is one more look.
        for _ in 0..1000 {
            match gzip.next().now_or_never() {
                None => {}
                Some(None) => break,
                Some(Some(frame)) => out.extend_from_slice(frame.unwrap().data_ref().unwrap()),
            }
        }
        prop_assert_eq!(unzip(&out), whole);
    }
}
