//! `weir rollout`: plans of shifts.

mod show;
mod start;
mod watch;

use std::process::ExitCode;

use weir_proto::weir::control::v1::{
    ChangeRolloutRequest, GetRolloutRequest, ListRolloutsRequest, PromoteRolloutRequest, Rollout,
};

use super::{block_on, retry};
use crate::Error;
use crate::client::{Client, Connect};
use crate::output::{Format, print, print_message};

pub use start::Start;

/// Arguments of `weir rollout`.
#[derive(Debug, clap::Args)]
pub struct RolloutArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start one: from a document, or from a service and the version to go to
    #[command(after_help = "Examples:\n  weir rollout start products --to v2 --watch\n  weir \
        rollout start products --to v2 --steps 5,25,50 --pause 30s\n  weir rollout start \
        rollout.yaml")]
    Start(Start),
    /// Where is it, what does it wait for, and what is known of the canary?
    Status(Named),
    /// List all
    List(List),
    /// Stop it where it is; weights stay
    Pause(Change),
    /// Go on
    Resume(Change),
    /// Pass the step that it is at
    Promote(Promote),
    /// End it: weights are as before it began
    Abort(Change),
    /// Forget one that is at its end
    Delete(Change),
    /// Follow it to its end. Exits with 1 unless the canary has everything then, with 2
    /// when that cannot be known
    Watch(Named),
}

/// A rollout by its name.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Its name
    name: String,
    /// Which mesh, and how to print.
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `weir rollout list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this service
    #[arg(default_value = "", hide_default_value = true)]
    service: String,
    /// Which mesh, and how to print.
    #[command(flatten)]
    connect: Connect,
}

/// What somebody asks of a rollout.
#[derive(Debug, clap::Args)]
pub struct Change {
    /// Its name
    name: String,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Refuse unless the rollout's last revision is this one
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    expected_revision: u32,
    /// Which mesh, and how to print.
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `weir rollout promote`.
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// To the end, without the steps between
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    change: Change,
}

impl RolloutArgs {
    /// How it reaches a mesh.
    pub fn connect(&mut self) -> &mut Connect {
        match &mut self.verb {
            Verb::Start(verb) => &mut verb.connect,
            Verb::Status(verb) | Verb::Watch(verb) => &mut verb.connect,
            Verb::List(verb) => &mut verb.connect,
            Verb::Promote(verb) => &mut verb.change.connect,
            Verb::Pause(verb) | Verb::Resume(verb) | Verb::Abort(verb) | Verb::Delete(verb) => {
                &mut verb.connect
            }
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The API's; of `watch`, also that the canary did not get everything.
    pub fn run(self) -> Result<ExitCode, Error> {
        block_on(async {
            match self.verb {
                Verb::Start(verb) => return verb.run().await,
                Verb::Status(verb) => {
                    let request = GetRolloutRequest { name: verb.name };
                    let client = &mut verb.connect.client().await?;
                    let rollout = client.get_rollout(request).await?.into_inner();
                    print_rollout(verb.connect.output, &rollout)
                }
                Verb::Watch(verb) => {
                    return watch::follow(&verb.connect, &verb.name, verb.connect.output).await;
                }
                Verb::List(verb) => {
                    list(verb.connect.client().await?, verb.service, verb.connect.output).await
                }
                Verb::Promote(Promote { full, change }) => {
                    let Change { name, reason, expected_revision, connect } = change;
                    let idempotency_key = retry::key(None);
                    let request = PromoteRolloutRequest {
                        name,
                        reason,
                        idempotency_key,
                        full,
                        expected_revision,
                    };
                    let rollout = retry::call(&connect, |mut client| {
                        let request = request.clone();
                        async move { client.promote_rollout(request).await }
                    });
                    print_rollout(connect.output, &rollout.await?)
                }
                Verb::Pause(change) => change.make(Asked::Pause).await,
                Verb::Resume(change) => change.make(Asked::Resume).await,
                Verb::Abort(change) => change.make(Asked::Abort).await,
                Verb::Delete(change) => change.delete().await,
            }?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// What is asked of one that runs.
#[derive(Clone, Copy)]
enum Asked {
    Pause,
    Resume,
    Abort,
}

impl Change {
    async fn make(self, asked: Asked) -> Result<(), Error> {
        let request = self.request();
        let rollout = retry::call(&self.connect, |mut client| {
            let request = request.clone();
            async move {
                match asked {
                    Asked::Pause => client.pause_rollout(request).await,
                    Asked::Resume => client.resume_rollout(request).await,
                    Asked::Abort => client.abort_rollout(request).await,
                }
            }
        });
        print_rollout(self.connect.output, &rollout.await?)
    }

    fn request(&self) -> ChangeRolloutRequest {
        ChangeRolloutRequest {
            name: self.name.clone(),
            reason: self.reason.clone(),
            idempotency_key: retry::key(None),
            expected_revision: self.expected_revision,
        }
    }

    async fn delete(self) -> Result<(), Error> {
        let request = self.request();
        let change = retry::call(&self.connect, |mut client| {
            let request = request.clone();
            async move { client.delete_rollout(request).await }
        });
        let change = change.await?;
        let what = format!("rollout {} deleted", self.name);
        super::print_change(self.connect.output, &what, &change)
    }
}

fn print_rollout(format: Format, rollout: &Rollout) -> Result<(), Error> {
    match format {
        Format::Table => print(&show::whole(rollout)),
        _ => print_message(format, "weir.control.v1.Rollout", rollout),
    }
}

/// Prints all, or those of a service.
///
/// # Errors
/// The API's.
pub async fn list(mut client: Client, service: String, format: Format) -> Result<(), Error> {
    let answer = client.list_rollouts(ListRolloutsRequest { service }).await?.into_inner();
    match format {
        Format::Table => show::print_list(&answer.rollouts),
        _ => print_message(format, "weir.control.v1.ListRolloutsResponse", &answer),
    }
}
