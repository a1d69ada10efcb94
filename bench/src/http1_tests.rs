use proptest::prelude::*;

use super::*;

/// Feeds `input` as the network may: in pieces that end at `cuts`. Gives the
/// status, the body and the bytes that are left over.
fn read(input: &[u8], cuts: &[usize]) -> Result<(u16, Vec<u8>, usize), Malformed> {
    let mut cuts = cuts.iter().copied().chain([input.len()]);
    let mut end = cuts.next().unwrap_or(0);
    let (status, framing, mut used) = loop {
        match response(&input[..end])? {
            Some(head) => break (head.status, head.framing, head.length),
            None => end = cuts.next().ok_or(Malformed("cut off"))?,
        }
    };
    let (mut body, mut data) = (Body::new(framing), Vec::new());
    loop {
        let (piece, count) = body.next(&input[used..end])?;
        used += count;
        match piece {
            Piece::Data(piece) => data.extend_from_slice(piece),
            Piece::End => return Ok((status, data, input.len() - used)),
            Piece::More => match cuts.next() {
                Some(next) => end = next,
                None if body.may_end_here() => return Ok((status, data, 0)),
                None => return Err(Malformed("cut off")),
            },
        }
    }
}

fn cuts_of(input: &[u8], cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

fn with_length(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nA: b\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunked(status: u16, chunks: &[Vec<u8>], trailer: bool) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        all.extend(format!("{:X};ext=1\r\n", chunk.len()).into_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(if trailer { b"0\r\nt: 1\r\n\r\n" } else { b"0\r\n\r\n" });
    all
}

proptest! {
    #[test]
    fn a_length_is_kept_however_it_is_cut(
        status in 200_u16..204,
        body in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        after in 0_usize..5,
    ) {
        let mut input = with_length(status, &body);
        input.extend(vec![b'H'; after]);
        let cuts = cuts_of(&input, &cuts);
        prop_assert_eq!(read(&input, &cuts), Ok((status, body, after)));
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut(
        status in 200_u16..204,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6),
        trailer: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        after in 0_usize..5,
    ) {
        let mut input = chunked(status, &chunks, trailer);
        input.extend(vec![b'H'; after]);
        let cuts = cuts_of(&input, &cuts);
        prop_assert_eq!(read(&input, &cuts), Ok((status, chunks.concat(), after)));
    }

    #[test]
    fn nothing_makes_it_panic(
        input in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let cuts = cuts_of(&input, &cuts);
        let _ = read(&input, &cuts);
        let _ = request(&input);
        // Past the head too.
        let mut whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        whole.extend(input);
        let _ = read(&whole, &cuts_of(&whole, &[]));
    }

    #[test]
    fn a_cut_off_answer_is_no_answer(
        body in prop::collection::vec(any::<u8>(), 1..100),
        by: prop::sample::Index,
    ) {
        for input in [with_length(200, &body), chunked(200, std::slice::from_ref(&body), false)] {
            let input = &input[..by.index(input.len())];
            prop_assert_eq!(read(input, &[]), Err(Malformed("cut off")));
        }
    }
}

#[test]
fn connections_stay_or_end_as_they_say() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", true),
        // Only its end ends the body.
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
    ];
    for (head, expected) in cases {
        let head = response(head.as_bytes()).unwrap().unwrap();
        assert_eq!(head.keep_alive, expected, "{head:?}");
    }
}

#[test]
fn what_is_no_answer_is_refused() {
    for head in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        assert!(response(head.as_bytes()).is_err(), "{head}");
    }
    let endless = vec![b'a'; MAX_HEAD + 1];
    assert_eq!(response(&endless), Err(Malformed("head too long")));
    let mut body = Body::new(Framing::Chunked);
    assert!(body.next(b"1\r\nab\r\n").is_ok());
    assert_eq!(body.next(b"b\r\n"), Err(Malformed("chunk longer than its size")));
}

#[test]
fn a_request_is_read() {
    let input = b"POST /sink/5 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
                  Content-Length: 5\r\nX-Upstream: v9\r\n\r\nabcde";
    let head = request(input).unwrap().unwrap();
    assert_eq!((head.method, head.path), (&b"POST"[..], &b"/sink/5"[..]));
    assert_eq!(head.framing, Framing::Length(5));
    assert!(head.keep_alive && head.expects_continue);
    assert_eq!(&input[head.length..], b"abcde");
    assert_eq!(request(b"GET /\r\n\r\n"), Err(Malformed("bad request line")));
}
