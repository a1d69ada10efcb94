//! `weir traces [ID]`.

use weir_proto::weir::control::v1::{GetTraceRequest, ListTracesRequest};

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::output::{Format, print, print_message, print_table, seconds, table};
use crate::trace_tree;

/// Arguments of `weir traces`.
#[derive(Debug, clap::Args)]
pub struct Traces {
    /// Draw this trace: its id, or the first 8 digits or more
    #[arg(value_name = "TRACE_ID")]
    id: Option<String>,
    /// How many to list, newest first: 1 to 1000
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Traces {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        match self.id.clone() {
            Some(id) => self.one(id),
            None => self.list(),
        }
    }

    fn one(self, trace_id: String) -> Result<(), Error> {
        let trace = block_on(async {
            let mut client = self.connect.client().await?;
            Ok(client.get_trace(GetTraceRequest { trace_id }).await?.into_inner())
        })?;
        match self.connect.output {
            Format::Table => print(&trace_tree::draw(&trace)),
            format => print_message(format, "weir.control.v1.Trace", &trace),
        }
    }

    fn list(self) -> Result<(), Error> {
        let request = ListTracesRequest { limit: self.limit };
        let answer = block_on(async {
            Ok(self.connect.client().await?.list_traces(request).await?.into_inner())
        })?;
        let format = self.connect.output;
        if format != Format::Table {
            return print_message(format, "weir.control.v1.ListTracesResponse", &answer);
        }
        let mut table = table(["TRACE", "START", "DURATION", "SPANS", "RESULT", "ROOT"]);
        for trace in answer.traces {
            table.add_row([
                trace.trace_id,
                trace.start_time,
                seconds(trace.duration_ms / 1e3),
                trace.spans.to_string(),
                if trace.error { "error" } else { "ok" }.to_owned(),
                trace.root,
            ]);
        }
        print_table(&table)
    }
}
