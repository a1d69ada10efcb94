//! What a port of a Service speaks.

use weir_mesh::model::Protocol;

/// What a Service says of its port: by `appProtocol`, else by the port's name or
/// its prefix. None: it does not say.
pub(super) fn declared(app_protocol: &str, name: &str) -> Option<Protocol> {
    let prefix = name.split_once('-').map_or(name, |(prefix, _)| prefix);
    word(app_protocol).or_else(|| word(name)).or_else(|| word(prefix))
}

/// What a port speaks of which nobody says anything.
pub(super) fn by_number(number: u16) -> Protocol {
    match number {
        80 | 8000 | 8080 => Protocol::Http1,
        _ => Protocol::Tcp,
    }
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
        for (app, name, wanted) in [
            ("grpc", "http", Some(Protocol::Grpc)),
            ("kubernetes.io/h2c", "", Some(Protocol::Http2)),
            ("kubernetes.io/ws", "", Some(Protocol::Http1)),
            ("example.com/own", "grpc-api", Some(Protocol::Grpc)),
            ("", "http-web", Some(Protocol::Http1)),
            ("", "https", Some(Protocol::Tcp)),
            ("", "tcp-web", Some(Protocol::Tcp)),
            ("", "web", None),
            ("", "", None),
        ] {
            assert_eq!(declared(app, name), wanted, "{app} {name}");
        }
        let numbers = [80, 8000, 8080, 443].map(by_number);
        assert_eq!(numbers, [Protocol::Http1, Protocol::Http1, Protocol::Http1, Protocol::Tcp]);
    }
}
