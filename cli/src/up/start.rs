//! Starts a mesh, in the order in which its parts need each other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weir_proto::weir::control::v1::{ListInstancesRequest, ListServicesRequest};

use super::UpArgs;
use super::data::Data;
use super::desired;
use super::plan::{CONTROL_PLANE, Control, GATEWAY, Instance, Planner, instances};
use super::ports::{self, Reservation, Wanted, choose};
use super::ready::Urls;
use super::spawn::{last_lines, own_program};
use super::supervise::{Event, Supervisor};
use crate::Error;
use crate::client::{Client, connect_lazy};
use crate::http_client::HttpClient;
use crate::mesh_file::{GatewayListener, MeshFile};
use crate::runtime_file::{self, RuntimeFile};

/// Until every instance is healthy and the gateway serves.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

/// A mesh that runs. Dropping it without [`Supervisor::stop`] kills its
/// processes when this program ends.
pub struct Running {
    /// Its processes.
    pub supervisor: Supervisor,
    /// What happens to them.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Its control API.
    pub client: Client,
    /// How it is reached.
    pub urls: Urls,
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    /// Its directory.
    pub data: Data,
    /// What the user should know about its ports.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
    _announced: Option<runtime_file::Guard>,
}

/// Where the mesh will listen for the outside.
struct Listens {
    gateway: Reservation,
    listeners: Vec<Reservation>,
    control: Reservation,
    notes: Vec<String>,
}

impl Listens {
    fn choose(args: &UpArgs, mesh: &MeshFile) -> Result<Self, Error> {
        let gateway = match (args.gateway_port, mesh.gateway_port) {
            (Some(port), _) => Wanted::Flag("--gateway-port", port),
            (None, Some(port)) => Wanted::Field("gateway.port", port),
            (None, None) => Wanted::Default(8080),
        };
        let control = match args.control_port {
            Some(port) => Wanted::Flag("--control-port", port),
            None => Wanted::Default(9000),
        };
        let (gateway, note) = choose("the gateway", gateway)?;
        let (control, other) = choose("the control API", control)?;
        let fixed = |l: &GatewayListener| ports::fixed(&format!("{}.port", l.at), l.port);
        let listeners = mesh.listeners.iter().map(fixed).collect::<Result<_, _>>()?;
        Ok(Self { gateway, listeners, control, notes: note.into_iter().chain(other).collect() })
    }
}

/// Starts a mesh into `supervisor`, so that whoever gives up waiting can still
/// end what was started.
///
/// # Errors
/// Whatever keeps a part from running.
pub async fn start(
    args: &UpArgs,
    mesh: &MeshFile,
    data: &Data,
    supervisor: &mut Supervisor,
) -> Result<Started, Error> {
    let listens = Listens::choose(args, mesh)?;
    let mut instances = instances(mesh)?;
    data.write_join_tokens(mesh)?;
    let program = own_program()
        .map_err(|error| Error::new(format!("cannot find this program itself: {error}")))?;
    let access_log = !args.no_access_log;
    let planner = Planner { data, mesh, program, access_log };

    let gateway = listens.gateway.address();
    supervisor.start(planner.control_plane(listens.control, &args.consul)).ready().await?;
    let control = control_addresses(supervisor)?;
    let urls = Urls {
        gateway: format!("http://{gateway}"),
        control: format!("http://{}", control.api),
        token: data.token()?,
    };
    let mut client = connect_lazy(&urls.control, &urls.token)?;
    apply(mesh, &mut client, &data.join("applied.json")).await?;

    let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
    let doors = (listens.gateway, listens.listeners);
    start_routers(&planner, &control, doors, &mut instances, supervisor).await?;
    start_apps(&planner, &control, instances, supervisor).await?;
    wait_healthy(&ids, &mut client, supervisor, data).await?;
    Ok(Started { client, urls, gateway, notes: listens.notes })
}

/// What [`start`] leads to.
pub struct Started {
    client: Client,
    urls: Urls,
    gateway: SocketAddr,
    notes: Vec<String>,
}

impl Started {
    /// Announces the mesh to other commands, if it is to be `listed`, and gives
    /// all of it together.
    #[must_use]
    pub fn running(
        mut self,
        supervisor: Supervisor,
        events: mpsc::UnboundedReceiver<Event>,
        data: Data,
        took: Duration,
        listed: bool,
    ) -> Running {
        let file = RuntimeFile::new(
            self.urls.control.clone(),
            data.join("token"),
            data.temporary().map(Path::to_path_buf),
            listed,
        );
        let announced = match file.publish() {
            Ok(guard) => Some(guard),
            Err(error) => {
                self.notes.push(format!(
                    "other commands will not find this mesh by themselves ({error}); give them \
                     --control {} and --token",
                    self.urls.control
                ));
                None
            }
        };
        Running {
            supervisor,
            events,
            client: self.client,
            urls: self.urls,
            gateway: self.gateway,
            data,
            notes: self.notes,
            took,
            _announced: announced,
        }
    }
}

fn control_addresses(supervisor: &Supervisor) -> Result<Control, Error> {
    let addresses = supervisor.state(CONTROL_PLANE).map(|state| state.addresses);
    let addresses = addresses.unwrap_or_default();
    let one = |key: &str| {
        addresses.get(key).cloned().ok_or_else(|| {
            Error::new(format!("the control plane's ready file has no address {key:?}"))
        })
    };
    Ok(Control { api: one("api")?, mesh: one("mesh")?, otlp: one("otlp")? })
}

async fn apply(mesh: &MeshFile, client: &mut Client, applied: &Path) -> Result<(), Error> {
    let now = client.list_services(ListServicesRequest {}).await?.into_inner();
    client.apply(desired::apply_request(mesh, &now, applied)).await?;
    desired::remember(mesh, applied)
}

async fn start_routers(
    planner: &Planner<'_>,
    control: &Control,
    (gateway, listeners): (Reservation, Vec<Reservation>),
    instances: &mut [Instance],
    supervisor: &mut Supervisor,
) -> Result<(), Error> {
    planner.data.make(format!("routers/{GATEWAY}"))?;
    let mut starting = vec![supervisor.start(planner.gateway(control, gateway, listeners))];
    for instance in instances {
        planner.data.make(format!("routers/{}", instance.id))?;
        starting.push(supervisor.start(planner.sidecar(control, instance)));
    }
    for router in starting {
        router.ready().await?;
    }
    Ok(())
}

async fn start_apps(
    planner: &Planner<'_>,
    control: &Control,
    instances: Vec<Instance>,
    supervisor: &mut Supervisor,
) -> Result<(), Error> {
    let mut starting = Vec::new();
    for instance in instances {
        let outbound = supervisor
            .state(&instance.router())
            .and_then(|state| state.addresses.get("outbound").cloned())
            .ok_or_else(|| Error::new(format!("{} has no outbound listener", instance.router())))?;
        starting.push(supervisor.start(planner.app(control, instance, &outbound)?));
    }
    for app in starting {
        app.ready().await?;
    }
    Ok(())
}

async fn wait_healthy(
    ids: &[String],
    client: &mut Client,
    supervisor: &Supervisor,
    data: &Data,
) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let request = ListInstancesRequest::default();
        let known = client.list_instances(request).await?.into_inner().instances;
        let healthy =
            |id: &&String| known.iter().any(|instance| instance.id == **id && instance.healthy);
        let missing: Vec<_> = ids.iter().filter(|id| !healthy(id)).collect();
        if missing.is_empty() && gateway_ready(supervisor).await {
            return Ok(());
        }
        if let Some(dead) = supervisor.states().iter().find(|state| state.deaths > 0) {
            return Err(Error::new(format!(
                "{} died while the mesh started; its log ends with:",
                dead.name
            ))
            .with(last_lines(&data.log(&dead.name), 10)));
        }
        if began.elapsed() > HEALTHY_DEADLINE {
            return Err(not_healthy(&missing, data));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn not_healthy(missing: &[&String], data: &Data) -> Error {
    let seconds = HEALTHY_DEADLINE.as_secs();
    let Some(first) = missing.first() else {
        return Error::new(format!("the gateway was not ready in {seconds} s"));
    };
    Error::new(format!(
        "not healthy in {seconds} s: {}. Does the program listen on 127.0.0.1:$PORT? \
         The log of {first} ends with:",
        missing.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", "),
    ))
    .with(last_lines(&data.log(first), 10))
}

/// Whether the gateway's `/ready` says so.
pub async fn gateway_ready(supervisor: &Supervisor) -> bool {
    let admin = supervisor
        .state(GATEWAY)
        .and_then(|state| state.addresses.get("admin").and_then(|admin| admin.parse().ok()));
    match admin {
        Some(admin) => HttpClient::new(admin)
            .get("/ready")
            .await
            .is_ok_and(|answer| answer.status.is_success()),
        None => false,
    }
}
