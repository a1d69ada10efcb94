//! Who may: one form of each path, identities, tokens, and those who are asked.
//! One mesh serves all tests but those of its default.

mod default;
mod external;
mod paths;
mod peers;
mod server;
mod token;
mod tokens;
mod users;

use std::fs;
use std::sync::OnceLock;

use server::{Guard, Jwks};
use token::Signer;
use weir_tests::{Http, Mesh, weir};

const FILE: &str = include_str!("mesh.yaml");

/// The mesh, and the processes around it.
struct World {
    mesh: Mesh,
    jwks: Jwks,
    signer: Signer,
    _guard: Guard,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let signer = Signer::new("first");
        let (jwks, guard) = (Jwks::start(&[&signer]), Guard::start());
        let text = FILE
            .replace("{app}", std::env::current_exe().unwrap().to_str().unwrap())
            .replace("{jwks}", &jwks.address.to_string())
            .replace("{guard}", &guard.address.to_string());
        World { mesh: start(&text), jwks, signer, _guard: guard }
    })
}

fn start(text: &str) -> Mesh {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, text).unwrap();
    Mesh::start(weir!(), &["--file", file.to_str().unwrap()])
}

fn mesh() -> &'static Mesh {
    &world().mesh
}

/// What an application of the mesh asks a service by.
fn from(application: &str, service: &str) -> Http {
    let outbound = mesh().process(&format!("{application}-v1-1-router")).outbound.unwrap();
    Http::new(&format!("http://{outbound}")).with_header("host", service)
}

/// The application behind each router: this program, started by `weir up`.
#[test]
#[ignore = "runs until it is stopped"]
fn app() {
    server::run_app();
}
