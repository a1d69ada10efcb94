//! `weir try`: a program to shift, and requests that tell who answered them. The
//! image of the chart has nothing else to ask with.

mod send;
mod serve;

use crate::Error;

/// Arguments of `weir try`.
#[derive(Debug, clap::Args)]
pub struct Trial {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Answer every HTTP/1.1 request with who this is, until SIGTERM
    Serve(serve::Serve),
    /// Send requests, and count who answered
    Send(send::Send),
}

impl Trial {
    /// Runs it.
    ///
    /// # Errors
    /// It cannot listen; or the answers are not what was expected.
    pub fn run(self) -> Result<(), Error> {
        match self.verb {
            Verb::Serve(args) => args.run(),
            Verb::Send(args) => args.run(),
        }
    }
}
