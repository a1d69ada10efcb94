//! Opening PostgreSQL, and what its servers do to us.

#![cfg(feature = "postgres")]
// Helpers are part of the tests; clippy's exception covers only `#[test]` itself.
#![allow(clippy::unwrap_used)]

#[path = "../../services/products/tests/support/postgres.rs"]
mod postgres;

use std::path::Path;
use std::time::{Duration, Instant};

use postgres::{PASSWORD, Server};
use weir_mesh::server::Common;
use weir_mesh::server::database::{Changes, Database, OpenError, Query, Schema};

const SCHEMA: Schema = Schema {
    name: "tests",
    sqlite: &[],
    postgres: &["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (7)"],
};

fn common(url: &str) -> Common {
    let mut common = Common::for_tests("unused", "v1", "http://127.0.0.1:1");
    common.database_url = Some(url.parse().unwrap());
    common
}

/// A new database by TCP, with more parameters.
fn by_tcp(server: &Server, host: &str, more: &str) -> String {
    let (port, name) = (server.port, server.create());
    format!("postgres://weir:{PASSWORD}@{host}:{port}/{name}?{more}")
}

async fn numbers(database: &Database) -> Vec<i64> {
    let rows = database.all(Query::new("SELECT n FROM t ORDER BY n")).await.unwrap();
    rows.iter().map(|row| row.at(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_who_open_at_once_find_the_schema_made_once_and_services_do_not_meet() {
    let Some(url) = postgres::database() else { return };
    let common = common(url.reveal());
    let first = Schema { postgres: &SCHEMA.postgres[..1], ..SCHEMA };
    drop(Database::open(&common, &first).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let common = common.clone();
        tasks.spawn(async move { Database::open(&common, &SCHEMA).await.unwrap() });
    }
    let opened = tasks.join_all().await;
    assert_eq!(numbers(&opened[0]).await, [7], "the second step was made once");

    let other = Database::open(&common, &Schema { name: "others", ..first }).await.unwrap();
    assert!(numbers(&other).await.is_empty());

    let refused = Database::open(&common, &first).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("schema weir_tests"), "{refused}");
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_never_the_password() {
    let Some(server) = postgres::server() else { return };
    let good = by_tcp(server, "127.0.0.1", "");
    let database = Database::open(&common(&good), &SCHEMA).await.unwrap();
    assert_eq!(numbers(&database).await, [7]);
    assert!(!format!("{:?} {database:?}", common(&good)).contains(PASSWORD));

    let wrong = good.replace(PASSWORD, "hunter2");
    let closed = good.replace(&format!(":{}/", server.port), ":1/");
    for (url, expected) in [
        (wrong.as_str(), "check user and password"),
        (&good.replace("test_", "other_"), "make the database"),
        (&closed, "is the server running"),
        (&good.replace("postgres:", "mysql:"), "is no PostgreSQL URL"),
        (&format!("{good}sslpassword=hunter2"), "the parameter \"sslpassword\" is not known"),
        (&format!("{good}sslmode=hunter"), "--database-url (WEIR_DATABASE_URL)"),
        ("postgres://weir:hunter2@127.0.0.1:x/y", "--database-url (WEIR_DATABASE_URL)"),
        ("postgres://weir:hunter2@", "--database-url (WEIR_DATABASE_URL)"),
    ] {
        let error = Database::open(&common(url), &SCHEMA).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_ends_are_made_again() {
    let Some(url) = postgres::database() else { return };
    let common = common(url.reveal());
    let here = Database::open(&common, &SCHEMA).await.unwrap();
    let there = Database::open(&common, &SCHEMA).await.unwrap();
    let changes = Changes::start(&here, std::future::pending());
    let mut seen = changes.subscribe();
    let next = async |seen: &mut tokio::sync::watch::Receiver<u64>| {
        // Sooner than by looking again in case something was missed.
        tokio::time::timeout(Duration::from_secs(12), seen.changed()).await.unwrap().unwrap();
    };
    next(&mut seen).await;
    for _ in 0..2 {
        let mut transaction = there.begin().await.unwrap();
        transaction.run(Query::new("INSERT INTO t VALUES (8)")).await.unwrap();
        transaction.announce().await.unwrap();
        transaction.commit().await.unwrap();
        next(&mut seen).await;

        let end = Query::new(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        assert!(!there.all(end).await.unwrap().is_empty());
        next(&mut seen).await;
        assert!(numbers(&here).await.contains(&8), "the others' connections as well");
    }
}

#[tokio::test]
async fn tls_is_verified_when_it_is_asked_for() {
    let Some(server) = postgres::server() else { return };
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let directory = Path::new(&server.socket);
    give(&directory.join("server.key"), &key.serialize_pem());
    give(&directory.join("server.crt"), &certificate.pem());
    for setting in [
        format!("ssl_key_file = '{}/server.key'", server.socket),
        format!("ssl_cert_file = '{}/server.crt'", server.socket),
        "ssl = on".to_owned(),
    ] {
        assert!(server.run(&format!("ALTER SYSTEM SET {setting}")));
    }
    assert!(server.run("SELECT pg_reload_conf()"));

    let verified =
        format!("sslmode=verify-full&sslrootcert={}", directory.join("server.crt").display());
    let url = by_tcp(server, "127.0.0.1", &verified);
    // The server reads its settings when it gets to it.
    let deadline = Instant::now() + Duration::from_secs(20);
    let database = loop {
        match Database::open(&common(&url), &SCHEMA).await {
            Ok(database) => break database,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let query = Query::new("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert!(database.one(query).await.unwrap().unwrap().at::<bool>(0).unwrap());

    // Of another name, and of nobody that is known.
    let name = by_tcp(server, "localhost", &verified);
    let unknown = by_tcp(server, "127.0.0.1", "sslmode=verify-full");
    for url in [name, unknown] {
        let error = Database::open(&common(&url), &SCHEMA).await.unwrap_err();
        assert!(error.to_string().contains("see sslmode and sslrootcert"), "{error}");
    }
}

/// Writes a file that is the server's, as its key must be.
fn give(path: &Path, text: &str) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let owner = path.parent().unwrap().metadata().unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}
