//! What a port of a Service speaks.

use weir_mesh::model::Protocol;

/// What a Service says of its port: by `appProtocol`, else by the port's name or
/// its prefix, else by a number that is known for HTTP. None: it does not say.
pub(super) fn declared(app_protocol: &str, name: &str, number: u16) -> Option<Protocol> {
    let prefix = name.split_once('-').map_or(name, |(prefix, _)| prefix);
    word(app_protocol).or_else(|| word(name)).or_else(|| word(prefix)).or_else(|| {
        let http = name.is_empty() || !name.starts_with("tcp");
        (http && matches!(number, 80 | 8000 | 8080)).then_some(Protocol::Http1)
    })
}

/// What begins with TLS of the application's own is opaque to a router.
fn word(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" | "ws" | "kubernetes.io/ws" => Some(Protocol::Http1),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "https" | "tls" | "wss" | "kubernetes.io/wss" | "grpcs" | "tcp" | "redis" | "mysql"
        | "mongo" | "mongodb" | "postgres" | "postgresql" | "kafka" | "amqp" | "mqtt" | "ldap"
        | "smtp" | "imap" | "ssh" | "nats" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_counts() {
        for (app, name, number, wanted) in [
            ("grpc", "http", 80, Some(Protocol::Grpc)),
            ("kubernetes.io/h2c", "", 9, Some(Protocol::Http2)),
            ("kubernetes.io/ws", "", 9, Some(Protocol::Http1)),
            ("example.com/own", "grpc-api", 9, Some(Protocol::Grpc)),
            ("", "http-web", 9, Some(Protocol::Http1)),
            ("", "https", 443, Some(Protocol::Tcp)),
            ("", "tcp-web", 80, Some(Protocol::Tcp)),
            ("", "", 8080, Some(Protocol::Http1)),
            ("", "web", 8000, Some(Protocol::Http1)),
            ("", "web", 9000, None),
            ("", "", 443, None),
        ] {
            assert_eq!(declared(app, name, number), wanted, "{app} {name} {number}");
        }
    }
}
