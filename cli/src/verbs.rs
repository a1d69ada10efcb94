//! Every verb of `weir`, in the groups in which `weir --help` lists them.

use std::error::Error as StdError;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::Error;
use crate::client::{Connect, Target};
use crate::commands::{
    access, apply, certificates, change, check, delete, diff, explain, export, get, gitops, init,
    inject, replay, revisions, rollout, schema, status, traces, trial,
};
use crate::exec_child::ExecChild;
use crate::up::UpArgs;

/// `clap` lists subcommands in one row; people look for them by what they do.
const HELP: &str = "\
Run a mesh:
  up            Start a whole mesh on this machine: the example one, or your own programs
  init          Write a commented mesh file to begin with

Move traffic:
  shift         Set the weights of a service's versions
  rollback      Bring a service back to an earlier revision
  rollout       Go to a new version in steps, judged by what routers see
  apply         Apply documents: routes, policies, a mesh file
  diff          What would applying them change? What lies between two revisions?
  export        Write what is desired as documents, or back into a file
  gitops        Commit what rollouts write back
  delete        Delete routes, policies and rollouts that have ended
  history       Who changed what, when and why
  verify-history  Is the history what was written?

Look:
  status        Has every router applied what was asked?
  get           List services, routes, policies, instances, routers or edges
  explain       What would happen to a request, and why?
  replay        Which recorded requests would documents send elsewhere?
  traces        List recent traces, or draw one as a tree

Secure:
  certificates  Rotate the mesh's certificates
  access        Make tokens for others
  whoami        Who am I to the mesh, and what may I do?

On Kubernetes:
  check         Is the cluster ready for Weir, and is Weir well in it?
  inject        Put routers into the pods of YAML files

Parts of a mesh (what `weir up` starts):
  control-plane, router, service

Other:
  try           Serve a small program, or ask one, to see which version answers
  schema        Write JSON Schemas of documents, for editors
  completions   Write completions for bash, zsh or fish
  help          Say more about a command

`weir COMMAND --help` says more. Commands find a mesh of `weir up` by themselves;
--control URL and --token TOKEN (or --cert and --key), before or after COMMAND, reach another.";

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}";

/// A service mesh: canary releases, mutual TLS and traces, in one program
#[derive(Debug, Parser)]
#[command(name = "weir", version, help_template = TEMPLATE, after_help = HELP)]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
// Parsed once; the largest variant's size does not matter.
#[allow(clippy::large_enum_variant)]
enum Verb {
    /// Start a whole mesh on this machine
    #[command(long_about = "Start a whole mesh on this machine.\n\nWithout --file it is the \
        example mesh: auth, users, products and notifications, each as v1 and v2, behind a \
        gateway. Every part is a process of its own on 127.0.0.1; one that dies is started \
        again. Ctrl-C stops all of them.")]
    Up(UpArgs),
    /// Write a commented mesh file to begin with
    Init(init::Init),
    /// Set the weights of a service's versions
    #[command(after_help = "Example:\n  weir shift products v1=90 v2=10 --sticky user --wait")]
    Shift(change::Shift),
    /// Bring a service back to an earlier revision
    Rollback(change::Rollback),
    /// Go to a new version in steps, judged by what routers see
    Rollout(rollout::RolloutArgs),
    /// Apply documents: routes, policies, a mesh file
    #[command(after_help = "Examples:\n  weir apply -f routes.yaml --dry-run\n  weir get routes \
        web -o yaml | weir apply -f -")]
    Apply(apply::Apply),
    /// What would applying documents change, or what lies between two revisions? Exits
    /// with 0: nothing, 1: something, 2: an error
    #[command(after_help = "Examples:\n  weir diff -f routes.yaml -f policies/\n  weir diff 3 7")]
    Diff(diff::Diff),
    /// Write what is desired as documents, or back into the file that it came from
    #[command(after_help = "Examples:\n  weir export --to mesh.yaml\n  weir export products \
        -o json\n  weir export -f mesh.yaml          # what differs\n  weir export -f mesh.yaml \
        --write")]
    Export(export::Export),
    /// Commit what rollouts write back
    Gitops(gitops::Gitops),
    /// Delete routes, policies and rollouts that have ended
    #[command(after_help = "Examples:\n  weir delete HTTPRoute web\n  weir delete -f routes.yaml")]
    Delete(delete::Delete),
    /// Who changed what, when and why
    History(change::History),
    /// Is the history what was written? Exits with 1 when not
    #[command(after_help = "Examples:\n  weir verify-history\n  weir verify-history --data \
        weir-data/control-plane")]
    VerifyHistory(revisions::VerifyHistory),
    /// Has every router applied what was asked?
    Status(status::Status),
    /// List services, routes, policies, instances, routers or edges
    Get(get::Get),
    /// What would happen to a request, and why? Nothing is sent
    #[command(after_help = "Examples:\n  weir explain --from users GET \
        http://products/v1/products -H 'x-user: 7'\n  weir explain --gateway /v1/products\n  \
        weir explain --from users grpc://products/weir.products.v1.ProductsService/GetProduct\n  \
        weir explain -f mesh.yaml /v1/products")]
    Explain(explain::Explain),
    /// Which recorded requests would documents send elsewhere? Nothing is sent
    #[command(after_help = "Example:\n  weir replay gateway.access.log -f routes.yaml --check")]
    Replay(replay::Replay),
    /// List recent traces, or draw one as a tree
    Traces(traces::Traces),
    /// Is the cluster ready for Weir, and is Weir well in it? Exits with 1 when not
    #[command(after_help = "Examples:\n  weir check --pre\n  weir check -n shop -o json")]
    Check(check::Check),
    /// Rotate the mesh's certificates
    Certificates(certificates::Certificates),
    /// Make tokens for others
    Access(access::Access),
    /// Who am I to the mesh, and what may I do?
    Whoami(access::WhoAmI),
    /// Put routers into the pods of YAML files
    #[command(after_help = "Example:\n  weir inject -f deployment.yaml | kubectl apply -f -")]
    Inject(inject::Inject),
    /// Run the control plane
    ControlPlane(weir_control_plane::Args),
    /// Run a router
    Router(weir_router::Args),
    /// Run one of the services that ship with weir
    Service(Service),
    /// Serve a small program, or ask one, to see which version answers
    #[command(
        after_help = "Examples:\n  weir try serve --listen 0.0.0.0:8080 --says v1\n  weir try \
        send http://echo.shop:8080 --count 100 --expect v1=90 --expect v2=10"
    )]
    Try(trial::Trial),
    /// Write JSON Schemas of documents, for editors
    #[command(after_help = "Examples:\n  weir schema HTTPRoute\n  weir schema -o schemas/")]
    Schema(schema::Schema),
    /// Write completions for bash, zsh or fish
    #[command(after_help = "Example:\n  source <(weir completions bash)")]
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Become another program that cannot outlive its parent
    #[command(hide = true)]
    ExecChild(ExecChild),
}

#[derive(Debug, clap::Args)]
struct Service {
    #[command(subcommand)]
    service: ServiceVerb,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)]
enum ServiceVerb {
    /// Accounts and tokens
    Auth(weir_auth::Args),
    /// Profiles and preferences
    Users(weir_users::Args),
    /// The catalogue
    Products(weir_products::Args),
    /// Messages to users
    Notifications(weir_notifications::Args),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// The verb's.
    pub fn run(mut self) -> Result<ExitCode, Error> {
        match self.verb.connect() {
            Some(connect) => connect.inherit(self.target),
            None if self.target.is_empty() => {}
            None => {
                return Err(Error::new(
                    "this command asks no mesh; leave out --control and --token, or put options \
                     of its own after its name",
                ));
            }
        }
        match self.verb {
            Verb::Up(args) => return args.run(),
            Verb::ExecChild(args) => return Ok(args.run()),
            Verb::Init(args) => args.run()?,
            Verb::Shift(args) => args.run()?,
            Verb::Rollback(args) => args.run()?,
            Verb::Rollout(args) => return args.run(),
            Verb::Apply(args) => args.run()?,
            Verb::Diff(args) => return Ok(args.run()),
            Verb::Export(args) => args.run()?,
            Verb::Gitops(args) => args.run()?,
            Verb::Delete(args) => args.run()?,
            Verb::History(args) => args.run()?,
            Verb::VerifyHistory(args) => return args.run(),
            Verb::Status(args) => args.run()?,
            Verb::Get(args) => args.run()?,
            Verb::Explain(args) => args.run()?,
            Verb::Replay(args) => return args.run(),
            Verb::Check(args) => return args.run(),
            Verb::Traces(args) => args.run()?,
            Verb::Certificates(args) => args.run()?,
            Verb::Access(args) => args.run()?,
            Verb::Whoami(args) => args.run()?,
            Verb::Inject(args) => args.run()?,
            Verb::ControlPlane(args) => weir_control_plane::run(args).map_err(told)?,
            Verb::Router(args) => weir_router::run(args).map_err(told)?,
            Verb::Service(args) => args.run()?,
            Verb::Try(args) => args.run()?,
            Verb::Schema(args) => args.run()?,
            Verb::Completions { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Self::command(),
                    "weir",
                    &mut std::io::stdout(),
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb {
    /// How it reaches a mesh, if it does.
    fn connect(&mut self) -> Option<&mut Connect> {
        match self {
            Self::Shift(verb) => Some(&mut verb.connect),
            Self::Rollback(verb) => Some(&mut verb.connect),
            Self::Rollout(verb) => Some(verb.connect()),
            Self::Apply(verb) => Some(&mut verb.connect),
            Self::Diff(verb) => Some(&mut verb.connect),
            Self::Export(verb) => Some(&mut verb.connect),
            Self::Delete(verb) => Some(&mut verb.connect),
            Self::History(verb) => Some(&mut verb.connect),
            Self::VerifyHistory(verb) => Some(&mut verb.connect),
            Self::Status(verb) => Some(&mut verb.connect),
            Self::Get(verb) => Some(&mut verb.connect),
            Self::Explain(verb) => Some(&mut verb.connect),
            Self::Replay(verb) => Some(&mut verb.connect),
            Self::Traces(verb) => Some(&mut verb.connect),
            Self::Certificates(verb) => Some(verb.connect()),
            Self::Whoami(verb) => Some(&mut verb.connect),
            Self::Up(_)
            | Self::Init(_)
            | Self::Gitops(_)
            | Self::Check(_)
            | Self::Access(_)
            | Self::Inject(_)
            | Self::ControlPlane(_)
            | Self::Router(_)
            | Self::Service(_)
            | Self::Schema(_)
            | Self::Try(_)
            | Self::Completions { .. }
            | Self::ExecChild(_) => None,
        }
    }
}

impl Service {
    fn run(self) -> Result<(), Error> {
        match self.service {
            ServiceVerb::Auth(args) => weir_auth::run(args).map_err(told),
            ServiceVerb::Users(args) => weir_users::run(args).map_err(told),
            ServiceVerb::Products(args) => weir_products::run(args).map_err(told),
            ServiceVerb::Notifications(args) => weir_notifications::run(args).map_err(told),
        }
    }
}

/// An error with its causes, unless its own text has them.
fn told(error: impl StdError) -> Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    Error::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_every_verb() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            assert!(HELP.split([' ', ',', '\n']).any(|word| word == name), "{name}");
        }
    }
}
