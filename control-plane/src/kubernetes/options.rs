//! Options of `weir control-plane --kubernetes`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::translate::Settings;

/// What a control plane on Kubernetes needs to know besides.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
#[group(id = "kubernetes-options")]
pub struct Args {
    /// Take desired state, discovery and identity from the Kubernetes API.
    #[arg(long)]
    pub kubernetes: bool,
    /// Namespace of the control plane.
    #[arg(long, env = "POD_NAMESPACE", default_value = "weir-system", value_name = "NAME")]
    pub namespace: String,
    /// This replica's pod; needed with --kubernetes.
    #[arg(
        long,
        env = "POD_NAME",
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    pub pod: String,
    /// Address that the API server sends new pods to, by TLS.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub webhook_listen: SocketAddr,
    /// Directory with tls.crt, tls.key and ca.crt for that address, such as
    /// cert-manager makes; without it, the control plane makes its own.
    #[arg(long, value_name = "DIR")]
    pub webhook_certificate_dir: Option<PathBuf>,
    /// The injector's defaults, as YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub inject_config: Option<PathBuf>,
    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    pub cluster_domain: String,
    /// Whether pods may reach what is no service: allow or deny.
    #[arg(long, default_value = "allow", value_parser = ["allow", "deny"], value_name = "WHAT")]
    pub egress: String,
    /// Share of new traces that are recorded: 0.0 to 1.0.
    #[arg(long, default_value_t = 1.0, value_parser = share, value_name = "SHARE")]
    pub trace_sampling: f64,
    /// Service in front of the gateways: its addresses go into the status of Gateways.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pair)]
    pub gateway_service: Option<(String, String)>,
    /// Service accounts whose routers may be gateways, which get private keys; without
    /// it, `weir-gateway` in the control plane's namespace.
    #[arg(long, value_name = "NAMESPACE/NAME,...", value_delimiter = ',', value_parser = pair)]
    pub gateway_accounts: Vec<(String, String)>,
    /// Namespaces whose Secrets of type kubernetes.io/tls are read, for Gateways; without
    /// it, all.
    #[arg(long, value_name = "NAMESPACE,...", value_delimiter = ',')]
    pub secret_namespaces: Vec<String>,
    /// Changes that are kept in the history: 10 to 5000.
    #[arg(long, default_value_t = 500, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(10..=5000))]
    pub history: u32,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0.0 to 1.0".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

impl Args {
    /// Who may be a gateway.
    pub(super) fn gateways(&self) -> BTreeSet<(String, String)> {
        if self.gateway_accounts.is_empty() {
            [(self.namespace.clone(), "weir-gateway".to_owned())].into()
        } else {
            self.gateway_accounts.iter().cloned().collect()
        }
    }

    pub(super) fn settings(&self, trust_domain: &str) -> Settings {
        Settings {
            trust_domain: trust_domain.to_owned(),
            namespace: self.namespace.clone(),
            gateway_service: self.gateway_service.clone(),
            egress_allowed: self.egress == "allow",
            trace_sampling: self.trace_sampling,
        }
    }
}
