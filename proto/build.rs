//! Generates Rust from `*.proto` with protox, so that no protoc is needed.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

/// Everything that a gateway may be given: one set for each service.
const SETS: &[(&str, &[&str])] = &[
    ("control", &["weir/control/v1"]),
    ("mesh", &["weir/mesh/v1"]),
    ("auth", &["services/auth/v1"]),
    ("users", &["services/users/v1"]),
    ("products", &["services/products/v1"]),
    ("notifications", &["services/notifications/v1"]),
    ("otlp", &["opentelemetry/proto/collector/trace/v1"]),
    ("rpc", &["google/rpc"]),
    ("ext_authz", &["envoy/service/auth/v3"]),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut all = Vec::new();
    for (name, dirs) in SETS {
        println!("cargo:rerun-if-changed={}", dirs[0]);
        let mut files = protos(dirs)?;
        all.extend(files.iter().cloned());
        // Error details reach JSON clients as `Any`: each set brings their types.
        files.push("google/rpc/error_details.proto".into());
        files.push("google/rpc/status.proto".into());
        fs::write(out.join(format!("{name}.fds")), compile(&files)?.encode_file_descriptor_set())?;
    }
    println!("cargo:rerun-if-changed=google");
    all.push("google/api/annotations.proto".into());

    let set = compile(&all)?.file_descriptor_set();
    // prost keeps only what it knows: the options matter just in the `.fds` files.
    let set = tonic_prost_build::FileDescriptorSet::decode(set.encode_to_vec().as_slice())?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Snapshots are compared by a digest of their bytes.
        .btree_map(".weir.mesh.v1")
        .bytes(".weir.mesh.v1.WatchResponse.snapshot")
        .bytes(".weir.mesh.v1.WatchResponse.delta")
        .bytes(".weir.mesh.v1.Service.descriptor_set")
        .compile_fds(set)?;
    Ok(())
}

fn compile(files: &[PathBuf]) -> Result<protox::Compiler, protox::Error> {
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    Ok(compiler)
}

fn protos(dirs: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in dirs {
        for entry in fs::read_dir(Path::new(dir))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
