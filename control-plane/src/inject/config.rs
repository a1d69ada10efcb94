//! What the injector does by default.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use weir_cni::{Cidr, PortRange};
use weir_mesh::model::Violations;

use super::quantity::Quantity;
use super::settings::Settings;

/// Defaults of all injected pods: key `config.yaml` of ConfigMap `weir-injector`, and
/// `--config` of `weir inject`. What is not named keeps its default.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectConfig {
    /// Image of the sidecar.
    #[schemars(length(min = 1))]
    pub router_image: String,
    /// Image of the init container that sets up redirection.
    #[schemars(length(min = 1))]
    pub cni_image: String,
    /// When the kubelet pulls both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// `host:port` of the control plane's mesh listener.
    #[schemars(length(min = 1))]
    pub control: String,
    /// Namespace of the control plane, which is never injected.
    #[schemars(length(min = 1, max = 63))]
    pub control_namespace: String,
    /// SPIFFE trust domain.
    #[schemars(length(min = 1))]
    pub trust_domain: String,
    /// Life of the projected service-account token, in seconds. Kubernetes takes no
    /// less than ten minutes.
    #[schemars(range(min = 600, max = 86_400))]
    pub token_expiration_seconds: u32,
    /// Whether pods are injected where neither they nor their namespace say.
    pub inject: Switch,
    /// How connections of the pod come to the router.
    pub redirect: Redirect,
    /// Of the sidecar and of the init container.
    pub resources: Resources,
    /// What the sidecar logs.
    pub log_level: LogLevel,
    /// Where the sidecar's access log goes.
    pub access_log: AccessLog,
    /// Where spans go, by OTLP over gRPC. None: the sidecar's own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub trace_endpoint: Option<String>,
    /// Connections out of the pod to these ports go past the router.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Connections into the pod at these ports go past the router.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Connections out of the pod to these addresses go past the router.
    pub skip_outbound_cidrs: Vec<Cidr>,
    /// IPv6 goes past the router, as on nodes where it does not listen on IPv6.
    #[serde(rename = "skipIPv6")]
    pub skip_ipv6: bool,
    /// Ports of the application that are carried as bytes, whatever they speak.
    pub opaque_ports: Vec<PortRange>,
    /// Further environment variables of the sidecar.
    pub environment: BTreeMap<String, String>,
}

impl Default for InjectConfig {
    fn default() -> Self {
        let image = |name: &str| format!("docker.io/weir/{name}:{}", env!("CARGO_PKG_VERSION"));
        Self {
            router_image: image("weir-router"),
            cni_image: image("weir-cni"),
            image_pull_policy: None,
            control: "weir-control-plane.weir-system.svc.cluster.local:15010".into(),
            control_namespace: "weir-system".into(),
            trust_domain: "cluster.local".into(),
            token_expiration_seconds: 3_600,
            inject: Switch::Disabled,
            redirect: Redirect::Init,
            resources: Resources::default(),
            log_level: LogLevel::Info,
            access_log: AccessLog::Off,
            trace_endpoint: None,
            skip_outbound_ports: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
            skip_ipv6: false,
            opaque_ports: Vec::new(),
            environment: BTreeMap::new(),
        }
    }
}

impl InjectConfig {
    /// Reads the configuration's text, YAML or JSON.
    ///
    /// # Errors
    /// What is wrong, with its field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let blank = text.lines().all(|line| matches!(line.trim().chars().next(), None | Some('#')));
        let config: Self = if blank {
            Self::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?
        };
        let mut bad = Violations::new();
        Settings::check(&config, &mut bad);
        bad.finish(Some(config)).map_err(|invalid| invalid.to_string())
    }
}

/// Amounts of resources, as a container has them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// What the node sets aside.
    pub requests: Amounts,
    /// What cannot be passed.
    pub limits: Amounts,
}

impl Default for Resources {
    fn default() -> Self {
        let amount = |text: &str| text.parse().ok();
        Self {
            requests: Amounts { cpu: amount("10m"), memory: amount("32Mi") },
            limits: Amounts { cpu: None, memory: amount("128Mi") },
        }
    }
}

/// How much of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// A choice of words, the same in YAML and in annotations.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[schemars(inline)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// As it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} is none of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}

words!(
    /// Whether a pod is injected.
    Switch {
        /// It is.
        Enabled = "enabled",
        /// It is not.
        Disabled = "disabled",
    }
);

words!(
    /// How connections of a pod come to its router.
    Redirect {
        /// The kernel's rules, set by an init container with NET_ADMIN.
        Init = "init",
        /// The kernel's rules, set by our CNI plugin; for the restricted Pod Security
        /// Standard.
        Cni = "cni",
        /// The application asks the router at 127.0.0.1:15001 by itself.
        None = "none",
    }
);

words!(
    /// What is logged.
    LogLevel {
        /// What failed.
        Error = "error",
        /// What may fail.
        Warn = "warn",
        /// What happened.
        Info = "info",
        /// Why.
        Debug = "debug",
        /// All.
        Trace = "trace",
    }
);

words!(
    /// Where the access log goes.
    AccessLog {
        /// Nowhere.
        Off = "off",
        /// Standard output, a line of JSON for each request.
        Stdout = "-",
    }
);

words!(
    /// `imagePullPolicy` of containers.
    ImagePullPolicy {
        /// At every start.
        Always = "Always",
        /// Where the node has none.
        IfNotPresent = "IfNotPresent",
        /// It is there.
        Never = "Never",
    }
);
