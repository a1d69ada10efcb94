//! `weir-cni`: sets up redirection in a pod, proves it, and is a CNI plugin.

use std::env;
use std::io::{self, Read as _};
use std::process::ExitCode;

use weir_cni::{Installation, Redirection, apply, install, plugin, verify};

const HELP: &str = "\
Redirects the TCP connections of a pod to its router.

weir-cni redirect [OPTION]...  Set the kernel's rules of this network namespace (NET_ADMIN)
weir-cni verify [OPTION]...    Fail unless connections are redirected; needs no right
  --outbound-port PORT         The router's, for connections out of the pod (15001)
  --inbound-port PORT          The router's, for connections into the pod (15006)
  --admin-port PORT            The router's, which is not redirected (15020)
  --router-uid UID             User whose connections go as they are (15000)
  --skip-outbound-ports PORTS  Such as 3306,9000-9010: these go as they are
  --skip-inbound-ports PORTS
  --skip-outbound-cidrs CIDRS  Such as 10.0.0.0/8,2001:db8::/32
  --skip-ipv6                  IPv6 goes as it is

weir-cni install [OPTION]...   Put this program onto a node as CNI plugin, until SIGTERM
  --bin-dir DIR                CNI's programs (/host/opt/cni/bin)
  --conf-dir DIR               CNI's configuration (/host/etc/cni/net.d)
  --once                       End when it is there, and leave it there

With CNI_COMMAND in the environment it is the plugin.
";

fn main() -> ExitCode {
    if let Ok(command) = env::var("CNI_COMMAND") {
        return run_plugin(&command);
    }
    match run(env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.lines().for_each(|line| eprintln!("error: {line}"));
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Vec<String>) -> Result<(), String> {
    let verb = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    match verb.as_str() {
        "redirect" => {
            let redirection = Redirection::parse(arguments)?;
            apply(&redirection)?;
            println!("redirected: {}", redirection.arguments().join(" "));
            Ok(())
        }
        "verify" => verify(&Redirection::parse(arguments)?),
        "install" => install(&Installation::parse(arguments)?),
        "--help" | "-h" | "help" => {
            print!("{HELP}");
            Ok(())
        }
        "--version" => {
            println!("weir-cni {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => Err(format!("{verb:?} is no command; there are redirect, verify and install")),
    }
}

fn run_plugin(command: &str) -> ExitCode {
    let mut input = String::new();
    let read = io::stdin().take(1 << 20).read_to_string(&mut input);
    if let Err(error) = read {
        eprintln!("error: standard input: {error}");
        return ExitCode::FAILURE;
    }
    let namespace = env::var("CNI_NETNS").ok();
    match plugin(command, namespace.as_deref(), &input) {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err(output) => {
            print!("{output}");
            ExitCode::FAILURE
        }
    }
}
