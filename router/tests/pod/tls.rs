//! An application's own TLS, on a port that is declared HTTP.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use serde_json::json;
use weir_mesh::identity::provider;

use crate::{World, policy};

pub async fn test(world: &World) {
    let (client, plain, server) = (&world.client, &world.plain, &world.server);
    let root = application(server.listen(8443));
    for stream in [client.connect("10.96.0.9:443"), client.connect(&server.at(8443))] {
        assert_eq!(greeting(stream, &root).unwrap(), "hello by TLS", "in the mesh");
    }
    let stream = plain.connect(&server.at(8443));
    assert_eq!(greeting(stream, &root).unwrap(), "hello by TLS", "from outside of it");

    // What is asked of requests cannot be asked of them.
    let spec = json!({"rules": [{"name": "few", "limit": {"requests": 9, "per": "1h"}}]});
    let policies = vec![policy("RateLimitPolicy", "few", "tls.shop", spec)];
    world.publish(|snapshot| snapshot.policies = policies).await;
    for stream in [client.connect("10.96.0.9:443"), plain.connect(&server.at(8443))] {
        assert!(greeting(stream, &root).is_err());
    }
    world.publish(|_| {}).await;
}

fn application(listener: TcpListener) -> CertificateDer<'static> {
    let own = rcgen::generate_simple_self_signed(["app".to_owned()]).unwrap();
    let root = own.cert.der().clone();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key)
        .unwrap();
    let config = Arc::new(config);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            thread::spawn(move || {
                let mut stream = StreamOwned::new(connection, stream);
                if stream.write_all(b"hello by TLS").is_ok() {
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
        }
    });
    root
}

fn greeting(stream: TcpStream, root: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("app").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let (mut stream, mut said) = (StreamOwned::new(connection, stream), String::new());
    stream.read_to_string(&mut said)?;
    Ok(said)
}
