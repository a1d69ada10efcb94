//! What a version runs, or where it runs already.

use std::path::Path;

use weir_mesh::model::{AddressError, Addresses, VersionName, Violations};

use super::read::{self, Fields};
use super::tree::Value;

/// What a version runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A service that ships with Weir.
    Builtin(Builtin),
    /// Anything else: program and arguments; never empty.
    Command(Vec<String>),
    /// Nothing: it runs elsewhere, at the addresses that its service has.
    Elsewhere,
}

/// The services that ship with Weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Accounts and tokens.
    Auth,
    /// Profiles.
    Users,
    /// The catalogue.
    Products,
    /// Messages to users.
    Notifications,
}

impl Builtin {
    const ALL: [Self; 4] = [Self::Auth, Self::Users, Self::Products, Self::Notifications];

    /// As `weir service` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Users => "users",
            Self::Products => "products",
            Self::Notifications => "notifications",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == text).ok_or_else(|| {
            format!("{text:?} does not ship with weir; use auth, users, products or notifications")
        })
    }
}

/// Reads `builtin`, `command`, `addresses` and `discovered`, of which a version has
/// one. `name` is the version's, when it is good.
pub(super) fn read(
    fields: &mut Fields<'_>,
    name: Option<&VersionName>,
    directory: &Path,
    addresses: &mut Addresses,
    violations: &mut Violations,
) -> Option<Program> {
    let builtin = fields.text("builtin", violations);
    let items = fields.list("command", violations);
    if fields.boolean("discovered", violations) == Some(true) {
        let others = [
            ("builtin", builtin.is_some()),
            ("command", !items.is_empty()),
            ("addresses", fields.get("addresses").is_some()),
        ];
        for (other, _) in others.iter().filter(|(_, there)| *there) {
            let why = "where it runs is known from Consul";
            violations
                .add(fields.at("discovered"), format!("and {other} exclude each other: {why}"));
        }
        refuse_running(fields, "discovered", violations);
        return Some(Program::Elsewhere);
    }
    if fields.get("addresses").is_some() {
        if builtin.is_some() || !items.is_empty() {
            let other = if builtin.is_some() { "builtin" } else { "command" };
            let why = "weir starts nothing that has addresses";
            violations
                .add(fields.at("addresses"), format!("and {other} exclude each other: {why}"));
        }
        read_addresses(fields, name, addresses, violations);
        return Some(Program::Elsewhere);
    }
    let at = fields.at("command");
    match (builtin, items.as_slice()) {
        (Some(name), []) => {
            let field = fields.at("builtin");
            violations.take(&field, Builtin::parse(name)).map(Program::Builtin)
        }
        (Some(_), _) => {
            violations.add(at, "and builtin exclude each other");
            None
        }
        (None, []) => {
            violations.add(
                at,
                "is missing; say what runs: `command: [PROGRAM, ARGUMENT, ...]`, or where it \
                 runs already: `addresses: [\"IP:PORT\"]`, or that Consul knows where: \
                 `discovered: true`",
            );
            None
        }
        (None, items) => {
            let mut command = Vec::new();
            for (at, item) in items {
                command.push(read::text(item, at, violations)?.to_owned());
            }
            if let Err(text) = find_program(&command[0], directory) {
                violations.add(format!("{at}[0]"), text);
            }
            Some(Program::Command(command))
        }
    }
}

fn read_addresses(
    fields: &mut Fields<'_>,
    name: Option<&VersionName>,
    addresses: &mut Addresses,
    violations: &mut Violations,
) {
    let at = fields.at("addresses");
    let items = fields.list("addresses", violations);
    if fields.get("addresses").is_some_and(|node| node.value == Value::List(Vec::new())) {
        violations.add(&at, "is empty; name at least one `ip:port`");
    }
    refuse_running(fields, "addresses", violations);
    let Some(name) = name else { return };
    if items.len() > Addresses::MAX {
        violations.add(at, AddressError::Many(name.clone()));
        return;
    }
    for (at, item) in items {
        if let Some(text) = read::text(item, &at, violations) {
            violations.take(&at, addresses.add(name, text));
        }
    }
}

/// Refuses what says how a program is run, beside what says that it runs elsewhere.
fn refuse_running(fields: &mut Fields<'_>, beside: &str, violations: &mut Violations) {
    for field in ["env", "port", "replicas", "workingDirectory"] {
        if fields.get(field).is_some() {
            let why = format!("means nothing beside {beside}: weir starts nothing");
            violations.add(fields.at(field), why);
        }
    }
}

/// Looks a program up as `exec` will: by path, or in `$PATH`.
fn find_program(program: &str, directory: &Path) -> Result<(), String> {
    if program.contains('/') {
        let path = directory.join(program);
        if executable(&path) {
            return Ok(());
        }
        return Err(format!("{} is not an executable file", path.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| executable(&dir.join(program))) {
        return Ok(());
    }
    Err(format!("{program:?} is not in $PATH; install it, or give its path"))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
