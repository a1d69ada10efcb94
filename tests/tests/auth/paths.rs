//! Every spelling of a path means the same to routes, policies and upstreams.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_mesh::canonical::{self, Slashes};
use weir_tests::Http;

use crate::mesh;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The application gets this path.
    Passes(String),
    /// 403.
    Denied,
    /// 400.
    Refused,
    /// Something else.
    Other(u16, String),
}

fn outcome(status: u16, body: &str) -> Outcome {
    match status {
        200 => {
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            Outcome::Passes(json["path"].as_str().unwrap().to_owned())
        }
        403 => Outcome::Denied,
        400 => Outcome::Refused,
        status => Outcome::Other(status, body.to_owned()),
    }
}

/// The canonical decision.
fn expected(path: &str, denied: &[&str], routed: &[&str]) -> Outcome {
    let below = |form: &str, prefixes: &[&str]| {
        let below =
            |p: &&str| form.strip_prefix(*p).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        prefixes.iter().any(below)
    };
    match canonical::path(path, Slashes::Reject) {
        Err(_) => Outcome::Refused,
        Ok(form) => {
            let form = form.unwrap_or_else(|| path.to_owned());
            match () {
                () if below(&form, denied) => Outcome::Denied,
                () if below(&form, routed) => Outcome::Passes(form),
                () => Outcome::Other(404, String::new()),
            }
        }
    }
}

/// As it is written: HTTP/1.1 by hand.
async fn http1(address: SocketAddr, host: &str, path: &str) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (from, to) = (body.find('{'), body.rfind('}'));
    outcome(status, from.zip(to).map_or("", |(from, to)| &body[from..=to]))
}

const PARTS: [&str; 22] = [
    "/",
    "//",
    "/./",
    "/../",
    "/%2e/",
    "/%2E%2e/",
    "/..;/",
    "/.;x/",
    "%2F",
    "%2f",
    "%5C",
    "\\",
    "web",
    "w%65b",
    "admin",
    "%61dmin",
    "adm%69n",
    "administrator",
    "public",
    "%00",
    ";a=b",
    "%zz",
];

fn corpus() -> Vec<String> {
    let fixed = [
        "/web/admin",
        "/web/admin/",
        "/web//admin",
        "//web/admin",
        "/web/./admin",
        "/web/x/../admin",
        "/web/%61dmin",
        "/web/%61%64%6D%69%6E",
        "/web/admin%2F",
        "/web%2Fadmin",
        "/web%2fadmin",
        "/web%5Cadmin",
        "/web\\admin",
        "/web/..;/web/admin",
        "/web/;/admin",
        "/web/admin;x",
        "/web/admin/..;/x",
        "/web/public/%2e%2e/admin",
        "/web/%2E%2E/web/admin",
        "/web/admin%00",
        "/web/admin%20",
        "/web/admin.",
        "/web/ADMIN",
        "/web/admin?x=/../",
        "/web/public#/admin",
        "/web/administrator",
        "/web/public",
        "/web/a%c3%a9",
        "/web/a%7Eb",
        "/web/%25%32%65",
        "/web/%252e%252e/admin",
        "/public/../web/admin",
        "/web/admin/../public",
        "/../../web/admin",
        "/%77eb/admin",
        "/web/.",
        "/web/..",
        "/web/%",
        "/web/%4",
        "/web/{admin}",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let mut spelled = || {
        let parts: String =
            (0..random.usize(1..5)).map(|_| *random.choice(PARTS.iter()).unwrap()).collect();
        format!("/web{parts}")
    };
    let generated: Vec<_> = (0..150).map(|_| spelled()).collect();
    fixed.into_iter().map(str::to_owned).chain(generated).collect()
}

#[tokio::test]
async fn no_spelling_of_a_path_passes_a_policy() {
    let outbound = mesh().process("caller-v1-1-router").outbound.unwrap();
    let gateway: SocketAddr = mesh().gateway.strip_prefix("http://").unwrap().parse().unwrap();
    let (h2, h2_mesh) = (Http::http2(&mesh().gateway), Http::http2_via("http://web", outbound));
    let (mut asked, mut different) = (0, Vec::new());
    for path in corpus() {
        let (bare, query) =
            path.split_once('?').map_or((&*path, ""), |(path, query)| (path, query));
        // A client that sends a fragment has it cut off by the parser.
        let bare = bare.split_once('#').map_or(bare, |(path, _)| path);
        let with_query = |outcome| match outcome {
            Outcome::Passes(form) if !query.is_empty() => {
                Outcome::Passes(format!("{form}?{query}"))
            }
            other => other,
        };
        let outside = with_query(expected(bare, &["/web/admin"], &["/web", "/gw"]));
        // Inside, a service is named by its host alone.
        let inside = with_query(expected(bare, &["/web/admin"], &[""]));
        let mut check = |door: &str, got: Outcome, wanted: &Outcome| {
            asked += 1;
            let same = match (&got, wanted) {
                (Outcome::Other(a, _), Outcome::Other(b, _)) => a == b,
                (got, wanted) => got == wanted,
            };
            if !same {
                different.push(format!("{door}: {path}: {got:?}, wanted {wanted:?}"));
            }
        };
        check("gateway, HTTP/1.1", http1(gateway, "x", &path).await, &outside);
        check("sidecar, HTTP/1.1", http1(outbound, "web", &path).await, &inside);
        if path.parse::<http::uri::PathAndQuery>().is_ok() {
            let reply = h2.get(&path).send().await;
            check("gateway, HTTP/2", outcome(reply.status.as_u16(), &reply.text()), &outside);
            let reply = h2_mesh.get(&path).send().await;
            check("sidecar, HTTP/2", outcome(reply.status.as_u16(), &reply.text()), &inside);
        }
    }
    assert!(asked > 600, "{asked}");
    assert_eq!(different, Vec::<String>::new());
}

#[tokio::test]
async fn the_gateway_itself_denies_by_the_canonical_path() {
    let http = mesh().http();
    for path in ["/gw/admin", "/gw//%61dmin/x", "/web/../gw/admin", "/gw/x/%2E%2e/admin"] {
        let reply = http.get(path).send().await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text());
        let wanted = "access denied: AuthorizationPolicy no-admin-outside, rule 0";
        assert_eq!(reply.json()["message"], wanted);
        assert_eq!(reply.json()["code"], 7);
    }
    assert_eq!(http.get("/gw/administrator").send().await.status, 200);
    let reply = http.get("/gw/a%2Fb").send().await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("path.escapedSlashes"), "{}", reply.text());
}
