//! Where the desired state is kept, and which of several control planes this one is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A kind of store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// A file in the data directory, of this control plane alone.
    #[default]
    Embedded,
    /// Consul's keys, of several control planes.
    Consul,
}

/// Options of `weir control-plane` about its store.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Where desired state and history are kept: in a file of this control plane alone,
    /// or in Consul (--consul), where several control planes share them
    #[arg(long, value_name = "KIND", default_value = "embedded", value_enum)]
    pub store: StoreKind,
    /// Consul's keys begin with this and a slash; one for each mesh
    #[arg(long, value_name = "PREFIX", default_value = "weir", value_parser = prefix)]
    pub store_prefix: String,
    /// File with the key that seals the authority in Consul: the same for all control
    /// planes of the mesh; made when absent and nothing is in Consul yet. Default:
    /// `store.key` in the data directory
    #[arg(long, value_name = "FILE")]
    pub store_key_file: Option<PathBuf>,
    /// This control plane's name among others. Default: the machine's name and the port
    /// of its mesh listener
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub replica: Option<String>,
    /// Where other control planes reach the mesh listener; needed when it listens on
    /// all addresses
    #[arg(long, value_name = "IP:PORT")]
    pub mesh_advertise: Option<SocketAddr>,
}

fn plain(text: &str, more: &[u8]) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || more.contains(&b);
    !text.is_empty() && text.len() <= 100 && text.bytes().all(good)
}

fn prefix(text: &str) -> Result<String, String> {
    let parts = plain(text, b"/") && text.split('/').all(|part| !part.is_empty());
    let why = "has other characters than letters, digits, '-', '_', '.' and '/' between them";
    if parts { Ok(text.to_owned()) } else { Err(why.to_owned()) }
}

fn name(text: &str) -> Result<String, String> {
    let why = "has other characters than letters, digits, '-', '_' and '.'";
    if plain(text, b"") { Ok(text.to_owned()) } else { Err(why.to_owned()) }
}

impl StoreArgs {
    /// This control plane's name, if its mesh listener is at `mesh`.
    #[must_use]
    pub fn name(&self, mesh: SocketAddr) -> Arc<str> {
        let machine = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = name.trim();
            let name = if plain(name, b"") { name } else { "control-plane" };
            format!("{name}-{}", mesh.port())
        };
        self.replica.clone().unwrap_or_else(machine).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert!(prefix("weir").is_ok() && prefix("a/b-1").is_ok());
        for bad in ["", "/", "a//b", "a b", "a?b", "/a", "ü"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
        assert!(name("cp-1.local").is_ok() && name("a/b").is_err());
    }
}
