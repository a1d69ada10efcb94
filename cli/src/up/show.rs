//! What `weir up` shows while it runs: a table of what runs where, one command
//! to try, then the mesh's edges.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::Table;
use weir_proto::weir::control::v1::{EdgeStatus, ListEdgesRequest};

use super::spawn::Role;
use super::supervise::{Event, State};
use crate::client::Client;
use crate::commands::get::success;
use crate::output::{seconds, table};

/// Between two looks at the edges.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The processes, an application and its router in one line.
#[must_use]
pub fn processes(states: &[State]) -> Table {
    let mut table =
        table(["SERVICE", "VERSION", "APP PID", "ROUTER PID", "INBOUND", "OUTBOUND", "ADMIN"]);
    let pid = |state: &State| state.pid.map_or("-".to_owned(), |pid| pid.to_string());
    for state in states {
        let address = |key: &str| state.addresses.get(key).cloned().unwrap_or_default();
        match state.role {
            Role::ControlPlane => table.add_row([
                state.name.clone(),
                String::new(),
                pid(state),
                String::new(),
                address("mesh"),
                String::new(),
                address("api"),
            ]),
            Role::Gateway => table.add_row([
                state.name.clone(),
                String::new(),
                String::new(),
                pid(state),
                address("gateway"),
                String::new(),
                address("admin"),
            ]),
            Role::Sidecar => {
                let app = state.name.strip_suffix("-router").unwrap_or_default();
                let app = states.iter().find(|other| other.name == app);
                table.add_row([
                    state.service.clone(),
                    state.version.clone(),
                    app.map_or("-".to_owned(), pid),
                    pid(state),
                    address("inbound"),
                    address("outbound"),
                    address("admin"),
                ])
            }
            Role::App => continue,
        };
    }
    table
}

/// A table's text without blanks at the ends of its lines.
#[must_use]
pub fn text(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// One line for an event.
#[must_use]
pub fn event(event: &Event) -> String {
    match event {
        Event::Died { name, how } => format!("{name} died ({how}); starting it again"),
        Event::Restarted { name, pid } => format!("{name} runs again as process {pid}"),
    }
}

/// Draws the edges: in place on a terminal, otherwise one line for each that
/// changes.
#[derive(Debug)]
pub struct Edges {
    terminal: bool,
    drawn: usize,
    told: BTreeMap<String, String>,
}

impl Edges {
    /// One that writes to standard output.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, told: BTreeMap::new() }
    }

    /// Writes lines that stay, above what is drawn.
    pub fn say(&mut self, line: &str) {
        self.erase();
        write(&format!("{line}\n"));
    }

    /// Asks for the edges and shows them.
    pub async fn refresh(&mut self, client: &mut Client) {
        // The control plane may be gone for a moment: what is shown stays.
        let Ok(answer) = client.list_edges(ListEdgesRequest {}).await else { return };
        let edges = answer.into_inner().edges;
        if self.terminal { self.draw(&edges) } else { self.tell(&edges) }
    }

    fn draw(&mut self, edges: &[EdgeStatus]) {
        let mut table = table(["FROM", "TO", "VERSION", "RATE", "SUCCESS", "P99"]);
        for edge in edges {
            table.add_row([
                edge.source.clone(),
                edge.destination.clone(),
                edge.version.clone(),
                format!("{:.1}/s", edge.rate),
                success(edge),
                if edge.rate > 0.0 { seconds(edge.p99_seconds) } else { "-".to_owned() },
            ]);
        }
        let (width, height) = size();
        // A line that wraps would make the next drawing begin in the wrong place.
        let lines: Vec<String> = text(&table)
            .lines()
            .take(height.saturating_sub(2))
            .map(|line| line.chars().take(width).collect())
            .collect();
        self.erase();
        if !edges.is_empty() {
            write(&format!("\n{}\n", lines.join("\n")));
            self.drawn = lines.len() + 1;
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            // ECMA-48: cursor up (CUU), erase below (ED).
            write(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn tell(&mut self, edges: &[EdgeStatus]) {
        for edge in edges {
            let name = format!("{} -> {} {}", edge.source, edge.destination, edge.version);
            // Rate and p99 always move; what is news is that traffic comes,
            // fails or ends.
            let state = if edge.rate > 0.0 { success(edge) } else { "quiet".to_owned() };
            let known = self.told.get(&name).map_or("quiet", String::as_str);
            if known == state {
                continue;
            }
            if edge.rate > 0.0 {
                write(&format!(
                    "{name}: {:.1}/s, {state} succeed, p99 {}\n",
                    edge.rate,
                    seconds(edge.p99_seconds)
                ));
            } else {
                write(&format!("{name}: quiet after {} requests\n", edge.requests));
            }
            self.told.insert(name, state);
        }
    }
}

impl Default for Edges {
    fn default() -> Self {
        Self::new()
    }
}

fn size() -> (usize, usize) {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)
        .map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Nobody may be reading any more; the mesh runs on.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
