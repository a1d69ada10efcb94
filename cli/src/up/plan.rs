//! From a mesh file to the processes that make it run.

use std::ffi::OsString;
use std::path::PathBuf;

use weir_control_plane::ConsulArgs;
use weir_mesh::model::{Protocol, TcpRouteKind};

use super::data::Data;
use super::ports::{self, Reservation};
use super::spawn::{Listen, Role, Spec};
use crate::Error;
use crate::mesh_file::{Builtin, MeshFile, Program, ServiceSpec, UpstreamSpec, VersionSpec};

/// The gateway's name as a process and as a router.
pub const GATEWAY: &str = "gateway";
/// The control plane's name as a process.
pub const CONTROL_PLANE: &str = "control-plane";
/// Everything `weir up` starts is in one place.
const ZONE: &str = "local";
/// Seconds that requests in flight get to finish in.
const DRAIN_SECONDS: &str = "5";

/// Where the control plane listens, as its ready file tells.
#[derive(Debug, Clone)]
pub struct Control {
    /// The API.
    pub api: String,
    /// For routers.
    pub mesh: String,
    /// For spans.
    pub otlp: String,
}

/// One application process and its router.
#[derive(Debug)]
pub struct Instance {
    /// `products-v1-1`: the application's process and the mesh's instance id.
    pub id: String,
    service: String,
    version: String,
    protocol: Protocol,
    spec: VersionSpec,
    port: Reservation,
    upstreams: Vec<Upstream>,
}

/// A service that an instance connects to, and where its router listens for it.
#[derive(Debug)]
struct Upstream {
    service: String,
    port: u16,
    /// Until the router has it.
    reservation: Option<Reservation>,
}

impl Instance {
    /// Its router's process.
    #[must_use]
    pub fn router(&self) -> String {
        format!("{}-router", self.id)
    }

    /// Where the application listens.
    #[must_use]
    pub fn app(&self) -> String {
        self.port.address().to_string()
    }
}

/// All instances of a mesh, with ports.
///
/// # Errors
/// No port is free, or one that the file fixes is taken.
pub fn instances(mesh: &MeshFile) -> Result<Vec<Instance>, Error> {
    let mut instances = Vec::new();
    for ServiceSpec { service, versions, upstreams, .. } in &mesh.services {
        // What has addresses runs already, without us.
        for version in versions.iter().filter(|v| v.program != Program::Elsewhere) {
            for number in 1..=version.replicas {
                let port = match version.port {
                    Some(port) => ports::fixed(&format!("{}.port", version.at), port)?,
                    None => ports::reserve()?,
                };
                instances.push(Instance {
                    id: format!("{}-{}-{number}", service.name, version.name),
                    service: service.name.to_string(),
                    version: version.name.to_string(),
                    protocol: service.protocol,
                    spec: version.clone(),
                    port,
                    upstreams: reserve_upstreams(upstreams)?,
                });
            }
        }
    }
    Ok(instances)
}

fn reserve_upstreams(specs: &[UpstreamSpec]) -> Result<Vec<Upstream>, Error> {
    let one = |spec: &UpstreamSpec| {
        let reservation = match spec.port {
            Some(port) => ports::fixed(&format!("{}.port", spec.at), port)?,
            None => ports::reserve()?,
        };
        Ok(Upstream {
            service: spec.service.to_string(),
            port: reservation.port(),
            reservation: Some(reservation),
        })
    };
    specs.iter().map(one).collect()
}

/// Threads of the gateway: one for each core, at most four.
#[must_use]
pub fn gateway_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(4))
}

/// What all processes of a mesh share.
#[derive(Debug)]
pub struct Planner<'a> {
    /// Its directory.
    pub data: &'a Data,
    /// Its file.
    pub mesh: &'a MeshFile,
    /// The program itself: Weir's own processes are verbs of it.
    pub program: PathBuf,
    /// Whether routers write access logs.
    pub access_log: bool,
}

impl Planner<'_> {
    /// The control plane.
    #[must_use]
    pub fn control_plane(&self, api: Reservation, consul: &ConsulArgs) -> Spec {
        let mut command = self.verb(&["control-plane"]);
        let mut flag = |name: &str, value: OsString| command.extend([name.into(), value]);
        flag("--data", self.data.join("control-plane").into());
        flag("--token-file", self.data.join("token").into());
        flag("--join-tokens", self.data.join("join-tokens.json").into());
        if let Some(domain) = &self.mesh.trust_domain {
            flag("--trust-domain", domain.into());
        }
        if let Some(lifetime) = &self.mesh.certificate_lifetime {
            flag("--certificate-lifetime", lifetime.into());
        }
        command.extend(consul.words());
        let listens = vec![
            Listen { flag: "--api-listen", key: "api", first: api.address().to_string() },
            any("--mesh-listen", "mesh"),
            any("--otlp-listen", "otlp"),
        ];
        let spec = self.spec(CONTROL_PLANE, Role::ControlPlane, command, listens);
        Spec { reservations: vec![api], ..spec }
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(
        &self,
        control: &Control,
        listen: Reservation,
        listeners: Vec<Reservation>,
    ) -> Spec {
        let workers = gateway_workers();
        let mut command = self.router(GATEWAY, "gateway", GATEWAY, "v1", control, workers);
        for listener in &self.mesh.listeners {
            let flag = match listener.kind {
                TcpRouteKind::Tcp => "--tcp-listen",
                TcpRouteKind::Tls => "--tls-listen",
            };
            let value = format!("{}=127.0.0.1:{}", listener.name, listener.port);
            command.extend([flag.into(), value.into()]);
        }
        let listens = vec![
            Listen { flag: "--listen", key: "gateway", first: listen.address().to_string() },
            any("--admin-listen", "admin"),
        ];
        let spec = self.spec(GATEWAY, Role::Gateway, command, listens);
        let reservations = std::iter::once(listen).chain(listeners).collect();
        Spec { service: GATEWAY.into(), reservations, ..spec }
    }

    /// An instance's router.
    #[must_use]
    pub fn sidecar(&self, control: &Control, instance: &mut Instance) -> Spec {
        let name = instance.router();
        let (service, version) = (instance.service.as_str(), instance.version.as_str());
        // Many of these share one machine: a worker each is plenty.
        let mut command = self.router(&instance.id, "sidecar", service, version, control, 1);
        let protocol = match instance.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        };
        command.extend(["--app".into(), instance.app().into()]);
        command.extend(["--app-protocol", protocol].map(OsString::from));
        for Upstream { service, port, .. } in &instance.upstreams {
            let value = format!("{service}=127.0.0.1:{port}");
            command.extend(["--tcp-listen".into(), value.into()]);
        }
        let reservations = instance.upstreams.iter_mut().filter_map(|u| u.reservation.take());
        let reservations = reservations.collect();
        let listens = vec![
            any("--inbound-listen", "inbound"),
            any("--outbound-listen", "outbound"),
            any("--admin-listen", "admin"),
        ];
        Spec {
            service: instance.service.clone(),
            version: instance.version.clone(),
            reservations,
            ..self.spec(&name, Role::Sidecar, command, listens)
        }
    }

    /// An instance's application, which reaches others by its router's outbound
    /// listener.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn app(
        &self,
        control: &Control,
        instance: Instance,
        outbound: &str,
    ) -> Result<Spec, Error> {
        let otlp = self.otlp(control);
        let outbound = format!("http://{outbound}");
        let port = instance.port.port().to_string();
        let mut env = vec![
            ("PORT".to_owned(), port.clone()),
            ("WEIR_OUTBOUND".to_owned(), outbound),
            ("WEIR_SERVICE".to_owned(), instance.service.clone()),
            ("WEIR_VERSION".to_owned(), instance.version.clone()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), otlp),
            ("OTEL_SERVICE_NAME".to_owned(), instance.service.clone()),
        ];
        env.extend(instance.upstreams.iter().map(|upstream| {
            let name = upstream.service.to_ascii_uppercase().replace('-', "_");
            (format!("WEIR_TCP_{name}"), format!("127.0.0.1:{}", upstream.port))
        }));
        env.extend(
            instance.spec.env.iter().map(|(name, value)| (name.clone(), with_port(value, &port))),
        );
        let (command, own) = match &instance.spec.program {
            Program::Builtin(builtin) => (self.builtin(*builtin, &instance)?, true),
            Program::Command(command) => {
                (command.iter().map(|part| with_port(part, &port).into()).collect(), false)
            }
            Program::Elsewhere => (Vec::new(), false),
        };
        let spec = self.spec(&instance.id, Role::App, command, Vec::new());
        Ok(Spec {
            service: instance.service,
            version: instance.version,
            env,
            directory: (!own).then_some(instance.spec.working_directory),
            ready_file: spec.ready_file.filter(|_| own),
            reservations: vec![instance.port],
            ..spec
        })
    }

    fn builtin(&self, builtin: Builtin, instance: &Instance) -> Result<Vec<OsString>, Error> {
        // All versions of a service share its data.
        let data = self.data.make(format!("services/{}", instance.service))?;
        let mut command = self.verb(&["service", builtin.name()]);
        command.extend(["--listen".into(), instance.app().into()]);
        command.extend(["--data".into(), data.into()]);
        command.extend(["--version-name".into(), instance.version.clone().into()]);
        command.extend(["--drain-timeout", DRAIN_SECONDS].map(OsString::from));
        if let Some(domain) = &self.mesh.trust_domain {
            command.extend(["--trust-domain".into(), domain.into()]);
        }
        if builtin == Builtin::Products {
            command.push("--seed".into());
        }
        Ok(command)
    }

    fn router(
        &self,
        id: &str,
        role: &str,
        service: &str,
        version: &str,
        control: &Control,
        workers: usize,
    ) -> Vec<OsString> {
        let mut command = self.verb(&["router", "--role", role]);
        let mut flag = |name: &str, value: OsString| command.extend([name.into(), value]);
        flag("--service", service.into());
        flag("--version-name", version.into());
        flag("--instance-id", id.into());
        flag("--zone", ZONE.into());
        flag("--control", control.mesh.clone().into());
        if let Some(domain) = &self.mesh.trust_domain {
            flag("--trust-domain", domain.into());
        }
        flag("--trust-bundle", self.data.join("control-plane/ca/bundle.pem").into());
        flag("--join-token-file", self.data.join_token(service).into());
        flag("--state-dir", self.data.join(format!("routers/{id}")).into());
        flag("--otlp-endpoint", self.otlp(control).into());
        flag("--workers", workers.to_string().into());
        flag("--drain-timeout", DRAIN_SECONDS.into());
        let access = self.data.join(format!("logs/{id}.access.log")).into();
        flag("--access-log", if self.access_log { access } else { "off".into() });
        command
    }

    fn otlp(&self, control: &Control) -> String {
        match &self.mesh.otlp_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("http://{}", control.otlp),
        }
    }

    fn verb(&self, words: &[&str]) -> Vec<OsString> {
        let mut command = vec![self.program.clone().into_os_string()];
        command.extend(words.iter().map(OsString::from));
        command
    }

    fn spec(&self, name: &str, role: Role, command: Vec<OsString>, listens: Vec<Listen>) -> Spec {
        Spec {
            name: name.to_owned(),
            role,
            service: String::new(),
            version: String::new(),
            command,
            listens,
            env: Vec::new(),
            directory: None,
            ready_file: Some(self.data.ready(name)),
            log: self.data.log(name),
            reservations: Vec::new(),
        }
    }
}

fn any(flag: &'static str, key: &'static str) -> Listen {
    Listen { flag, key, first: "127.0.0.1:0".to_owned() }
}

/// Replaces `$PORT` and `${PORT}`.
fn with_port(text: &str, port: &str) -> String {
    text.replace("${PORT}", port).replace("$PORT", port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_mesh_becomes_processes() {
        let mesh = MeshFile::example().unwrap();
        let data = Data::open(None).unwrap();
        let planner =
            Planner { data: &data, mesh: &mesh, program: "weir".into(), access_log: false };
        let control =
            Control { api: "a:1".into(), mesh: "a:2".into(), otlp: "127.0.0.1:4317".into() };
        let mut instances = instances(&mesh).unwrap();
        let ids: Vec<_> = instances.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(ids.len(), 10);
        assert!(ids.contains(&"products-v2-2"), "{ids:?}");
        let ports: std::collections::HashSet<_> = instances.iter().map(|i| i.port.port()).collect();
        assert_eq!(ports.len(), 10);

        let router = planner.sidecar(&control, &mut instances[0]);
        let words: Vec<_> = router.command.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        assert!(line.starts_with("weir router --role sidecar --service auth"), "{line}");
        assert!(line.contains(&format!("--app {}", instances[0].app())), "{line}");
        let first = instances.into_iter().next().unwrap();
        let app = planner.app(&control, first, "127.0.0.1:15001").unwrap();
        assert!(app.env.contains(&("WEIR_OUTBOUND".into(), "http://127.0.0.1:15001".into())));
    }

    #[test]
    fn port_is_replaced() {
        assert_eq!(with_port("--listen=:${PORT} $PORT", "80"), "--listen=:80 80");
    }
}
