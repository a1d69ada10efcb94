//! What Weir is told of Consul at its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use weir_mesh::identity::provider;

use crate::text;

/// Options of `weir control-plane` and `weir up` about Consul.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Consul")]
pub struct ConsulArgs {
    /// Find services in Consul too: the URL of its HTTP API, best of the agent on
    /// this machine (http://127.0.0.1:8500)
    #[arg(long, value_name = "URL")]
    pub consul: Option<String>,
    /// File with an ACL token; read anew for each request
    #[arg(long, value_name = "FILE", requires = "consul")]
    pub consul_token_file: Option<PathBuf>,
    /// Which datacenter; default: the agent's
    #[arg(long, value_name = "NAME", requires = "consul")]
    pub consul_datacenter: Option<String>,
    /// Instances with this tag, or one that begins with it and a dot, are taken in;
    /// `*`: all of them
    #[arg(long, value_name = "TAG", default_value = "weir")]
    pub consul_tag_prefix: String,
    /// For https: PEM roots that Consul's certificate must lead to
    #[arg(long, value_name = "FILE", requires = "consul")]
    pub consul_ca_file: Option<PathBuf>,
    /// Register the instances of this mesh in Consul
    #[arg(long, requires = "consul")]
    pub consul_register: bool,
    /// How long an instance is kept that Consul does not list any more
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = grace)]
    pub consul_leave_grace: Duration,
    /// How long all instances of a service are kept when Consul lists none of them
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = grace)]
    pub consul_empty_grace: Duration,
}

fn grace(text: &str) -> Result<Duration, String> {
    let duration = text::parse_duration(text).map_err(|e| e.to_string())?;
    if duration <= Duration::from_secs(24 * 3600) {
        Ok(duration)
    } else {
        Err("a grace lasts at most 24h".to_owned())
    }
}

impl ConsulArgs {
    /// The same as words of a command line.
    #[must_use]
    pub fn words(&self) -> Vec<std::ffi::OsString> {
        let Some(url) = &self.consul else { return Vec::new() };
        let mut words = vec!["--consul".into(), url.into()];
        let mut flag = |name: &str, value: std::ffi::OsString| words.extend([name.into(), value]);
        flag("--consul-tag-prefix", self.consul_tag_prefix.clone().into());
        flag("--consul-leave-grace", format!("{}s", self.consul_leave_grace.as_secs()).into());
        flag("--consul-empty-grace", format!("{}s", self.consul_empty_grace.as_secs()).into());
        for (name, path) in [
            ("--consul-token-file", &self.consul_token_file),
            ("--consul-ca-file", &self.consul_ca_file),
        ] {
            if let Some(path) = path {
                // The control plane may run in another directory.
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                flag(name, path.into());
            }
        }
        if let Some(datacenter) = &self.consul_datacenter {
            flag("--consul-datacenter", datacenter.into());
        }
        if self.consul_register {
            words.push("--consul-register".into());
        }
        words
    }
}

/// Why Consul cannot be used as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConsulConfigError {
    /// `--consul`.
    #[error("--consul: {0:?} is not a URL such as http://127.0.0.1:8500")]
    Url(String),
    /// `--consul` with https.
    #[error("--consul: https needs --consul-ca-file, the roots that its certificate leads to")]
    NoRoots,
    /// `--consul-ca-file`.
    #[error("--consul-ca-file: {0}: {1}")]
    Roots(PathBuf, String),
    /// `--consul-tag-prefix`.
    #[error("--consul-tag-prefix: is empty; name a tag, or * for all instances")]
    Tag,
    /// `--consul-datacenter`.
    #[error("--consul-datacenter: {0:?} has characters other than letters, digits, '-' and '_'")]
    Datacenter(String),
}

/// How to reach Consul.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// As it was given, without a path.
    pub url: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// For https.
    pub tls: Option<Arc<ClientConfig>>,
    /// Where the ACL token is.
    pub token_file: Option<PathBuf>,
    /// Another datacenter than the agent's.
    pub datacenter: Option<String>,
}

/// [`ConsulArgs`], checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Which instances are taken in; none: all.
    pub tag: Option<String>,
    /// Whether this mesh's instances are registered there.
    pub register: bool,
    /// For an instance that is not listed any more.
    pub leave_grace: Duration,
    /// For a service of which nothing is listed any more.
    pub empty_grace: Duration,
}

impl Settings {
    /// Reads and checks the options; none without `--consul`.
    ///
    /// # Errors
    /// [`ConsulConfigError`], naming the option.
    pub fn read(args: &ConsulArgs) -> Result<Option<Self>, ConsulConfigError> {
        let Some(url) = &args.consul else { return Ok(None) };
        let wrong = || ConsulConfigError::Url(url.chars().take(200).collect());
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        // A token does not belong into a URL, which is shown; nor is there anything
        // but the API below it.
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if let Some(name) = &args.consul_datacenter
            && !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(ConsulConfigError::Datacenter(name.chars().take(80).collect()));
        }
        let tag = match args.consul_tag_prefix.trim() {
            "" => return Err(ConsulConfigError::Tag),
            "*" => None,
            tag => Some(tag.trim_end_matches('.').to_owned()),
        };
        Ok(Some(Self {
            endpoint: Endpoint {
                url: format!("{}://{authority}", if https { "https" } else { "http" }),
                host,
                port: authority.port_u16().unwrap_or(if https { 8501 } else { 8500 }),
                tls: if https { Some(tls(args)?) } else { None },
                token_file: args.consul_token_file.clone(),
                datacenter: args.consul_datacenter.clone(),
            },
            tag,
            register: args.consul_register,
            leave_grace: args.consul_leave_grace,
            empty_grace: args.consul_empty_grace,
        }))
    }
}

fn tls(args: &ConsulArgs) -> Result<Arc<ClientConfig>, ConsulConfigError> {
    let path = args.consul_ca_file.as_ref().ok_or(ConsulConfigError::NoRoots)?;
    let wrong = |why: String| ConsulConfigError::Roots(path.clone(), why);
    let mut roots = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        let der = der.map_err(|e| wrong(e.to_string()))?;
        roots.add(der).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Option<Settings>, ConsulConfigError> {
        let tag = "weir".to_owned();
        let consul = Some(url.to_owned());
        Settings::read(&ConsulArgs { consul, consul_tag_prefix: tag, ..ConsulArgs::default() })
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        let endpoint = |url| read(url).unwrap().unwrap().endpoint;
        let reached = |url| (endpoint(url).host, endpoint(url).port);
        assert_eq!(reached("http://127.0.0.1:18500"), ("127.0.0.1".to_owned(), 18500));
        assert_eq!(reached("http://consul.internal/"), ("consul.internal".to_owned(), 8500));
        assert_eq!(reached("http://[::1]:1"), ("::1".to_owned(), 1));
        for bad in ["127.0.0.1:8500", "consul", "ftp://a", "http://a/v1", "http://t@a", ""] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with("--consul: ") && error.contains("http://127"), "{error}");
        }
    }

    #[test]
    fn https_needs_roots() {
        assert!(matches!(read("https://a"), Err(ConsulConfigError::NoRoots)));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        let args = ConsulArgs {
            consul: Some("https://a".to_owned()),
            consul_tag_prefix: "*".to_owned(),
            consul_ca_file: Some(file),
            ..ConsulArgs::default()
        };
        let error = Settings::read(&args).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("no certificate"), "{error}");
    }
}
