//! Writes the descriptor set of each service, for clients that need one:
//! `cargo run -p weir-tests --example descriptors -- DIRECTORY`.

use std::path::PathBuf;
use std::{env, fs};

use weir_proto::descriptors;

fn main() -> std::io::Result<()> {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("usage: descriptors DIRECTORY"));
    };
    fs::create_dir_all(&directory)?;
    for name in ["auth", "users", "products", "notifications"] {
        let Some(set) = descriptors::of(name) else {
            return Err(std::io::Error::other(format!("no descriptors of {name}")));
        };
        fs::write(directory.join(format!("{name}.binpb")), set)?;
    }
    fs::write(directory.join("control.binpb"), descriptors::CONTROL)
}
