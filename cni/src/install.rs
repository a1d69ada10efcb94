//! Puts the plugin onto a node: into the directory of CNI's programs, and at the end
//! of the list of plugins that the runtime asks for every pod.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::plugin::ANNOTATIONS;

/// The program's name, which is the plugin's type.
const NAME: &str = "weir-cni";

/// Field of our entry that says which installation made it.
const OWNER: &str = "installation";

/// End of the name of a file that a list of plugins took the place of.
const SET_ASIDE: &str = "before-weir";

/// How often it is looked whether the plugin is still there.
const INTERVAL: Duration = Duration::from_secs(5);

/// Where to put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Directory of CNI's programs.
    pub bin_dir: PathBuf,
    /// Directory of CNI's configuration.
    pub conf_dir: PathBuf,
    /// Ends when it is there, and leaves it there.
    pub once: bool,
}

impl Installation {
    /// Reads arguments: `--name=value` or `--name value`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut installation = Self {
            bin_dir: "/host/opt/cni/bin".into(),
            conf_dir: "/host/etc/cni/net.d".into(),
            once: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--once" {
                installation.once = true;
                continue;
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, arguments.next()),
            };
            let value = PathBuf::from(value.ok_or_else(|| format!("{name}: has no value"))?);
            match name.as_str() {
                "--bin-dir" => installation.bin_dir = value,
                "--conf-dir" => installation.conf_dir = value,
                _ => return Err(format!("{name}: is no option; `weir-cni --help` lists them")),
            }
        }
        Ok(installation)
    }
}

/// Installs the plugin and keeps it installed until SIGTERM or SIGINT; then it is
/// removed, unless a newer installation has taken it over. Blocks.
///
/// # Errors
/// A directory cannot be written to.
pub fn install(installation: &Installation) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
    }
    let owner = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| e.to_string())?;
    let owner = owner.trim();
    let program = installation.bin_dir.join(NAME);
    copy_program(&program).map_err(at(&program))?;
    let mut waits = false;
    let mut ours = false;
    while !stop.load(Ordering::Relaxed) {
        // Only the first time is an entry of somebody else taken over.
        let there = add(&installation.conf_dir, owner, ours)?;
        if there && !ours {
            println!("installed in {} and {}", program.display(), installation.conf_dir.display());
        } else if !there && !waits {
            println!("no network is configured in {} yet", installation.conf_dir.display());
        }
        (ours, waits) = (ours || there, !there);
        if installation.once && there {
            return Ok(());
        }
        // A signal ends the wait early enough: Kubernetes gives many seconds.
        for _ in 0..INTERVAL.as_secs() * 5 {
            if !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(200));
            }
        }
    }
    if ours && remove(&installation.conf_dir, owner)? {
        fs::remove_file(&program).map_err(at(&program))?;
        println!("removed");
    }
    Ok(())
}

/// Adds our entry to the network's list of plugins. False when there is no network.
fn add(directory: &Path, owner: &str, keep_others: bool) -> Result<bool, String> {
    let Some(path) = network(directory)? else { return Ok(false) };
    let read = read(&path)?;
    let entry = json!({"type": NAME, "capabilities": {ANNOTATIONS: true}, OWNER: owner});
    let mut list = match read["plugins"].as_array() {
        Some(_) => read.clone(),
        // One plugin alone: a list of it and ours.
        None => json!({"cniVersion": read["cniVersion"], "name": read["name"], "plugins": [read]}),
    };
    let Some(plugins) = list["plugins"].as_array_mut() else { return Ok(false) };
    let last_is_ours = plugins
        .last()
        .is_some_and(|plugin| plugin["type"] == NAME && (keep_others || plugin[OWNER] == owner));
    if last_is_ours {
        return Ok(true);
    }
    plugins.retain(|plugin| plugin["type"] != NAME);
    plugins.push(entry);
    if read["plugins"].is_array() {
        write(&path, &list)?;
    } else {
        write(&path.with_extension("conflist"), &list)?;
        let aside = aside(&path);
        fs::rename(&path, &aside).map_err(at(&aside))?;
    }
    Ok(true)
}

/// Removes our entry; false when it belongs to another installation.
fn remove(directory: &Path, owner: &str) -> Result<bool, String> {
    let Some(path) = network(directory)? else { return Ok(true) };
    let mut list = read(&path)?;
    let Some(plugins) = list["plugins"].as_array_mut() else { return Ok(true) };
    if plugins.iter().any(|plugin| plugin["type"] == NAME && plugin[OWNER] != owner) {
        return Ok(false);
    }
    plugins.retain(|plugin| plugin["type"] != NAME);
    for extension in ["conf", "json"] {
        let before = path.with_extension(extension);
        let aside = aside(&before);
        if aside.exists() {
            fs::rename(&aside, &before).map_err(at(&before))?;
            fs::remove_file(&path).map_err(at(&path))?;
            return Ok(true);
        }
    }
    write(&path, &list)?;
    Ok(true)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SET_ASIDE);
    name.into()
}

/// The file that runtimes take: the first by name.
fn network(directory: &Path) -> Result<Option<PathBuf>, String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        let known = ["conf", "conflist", "json"];
        if path.extension().is_some_and(|end| known.iter().any(|known| end == *known)) {
            files.push(path);
        }
    }
    Ok(files.into_iter().min())
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// At once: a runtime never reads half of it.
fn write(path: &Path, value: &Value) -> Result<(), String> {
    // Runtimes pass over files with such an end.
    let new = path.with_extension("weir-new");
    let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
    let write = || -> io::Result<()> {
        fs::write(&new, format!("{value:#}\n"))?;
        fs::set_permissions(&new, Permissions::from_mode(mode & 0o777))?;
        fs::rename(&new, path)
    };
    write().map_err(at(path))
}

/// By another name first: the one of before may be running.
fn copy_program(to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    fs::copy("/proc/self/exe", &new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    fs::rename(&new, to)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(path: &Path) -> Vec<String> {
        let list = read(path).unwrap();
        let plugins = list["plugins"].as_array().unwrap().iter();
        plugins.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn it_is_last_of_the_first_network() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(add(path, "a", false), Ok(false), "no network yet");
        let first = path.join("10-net.conflist");
        let text = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}"#;
        fs::write(&first, text).unwrap();
        fs::write(path.join("20-other.conflist"), text).unwrap();
        fs::write(path.join("00-readme.txt"), "").unwrap();
        for _ in 0..2 {
            assert_eq!(add(path, "a", false), Ok(true));
            assert_eq!(types(&first), ["bridge", NAME]);
        }
        let ours = &read(&first).unwrap()["plugins"][1];
        assert_eq!(ours["capabilities"][ANNOTATIONS], true);
        assert_eq!(types(&path.join("20-other.conflist")), ["bridge"]);

        // A newer installation takes over, and the older one leaves it alone.
        assert_eq!(add(path, "b", false), Ok(true));
        assert_eq!(add(path, "a", true), Ok(true));
        assert_eq!(remove(path, "a"), Ok(false));
        assert_eq!(types(&first), ["bridge", NAME]);
        assert_eq!(remove(path, "b"), Ok(true));
        assert_eq!(types(&first), ["bridge"]);
        assert_eq!(fs::read_dir(path).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn a_plugin_alone_becomes_a_list_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let conf = path.join("10-net.conf");
        fs::write(&conf, r#"{"cniVersion": "0.4.0", "name": "net", "type": "bridge"}"#).unwrap();
        assert_eq!(add(path, "a", false), Ok(true));
        let list = path.join("10-net.conflist");
        assert_eq!(types(&list), ["bridge", NAME]);
        assert_eq!(read(&list).unwrap()["cniVersion"], "0.4.0");
        assert!(!conf.exists());
        assert_eq!(remove(path, "a"), Ok(true));
        assert!(conf.exists() && !list.exists());
    }
}
