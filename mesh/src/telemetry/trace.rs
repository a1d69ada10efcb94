//! Spans: made on the hot path without locks, sent as OTLP in the background.
//!
//! ```
//! use weir_mesh::telemetry::trace::{Exporter, Resource, Span, SpanContext};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (sink, exporter) = Exporter::spawn(None, Resource::new("products"))?;
//! let headers = http::HeaderMap::new();
//! let mut span = Span::server("GetProduct", SpanContext::accept(&headers, || true));
//! span.set("rpc.system", "grpc");
//!
//! let mut upstream = http::HeaderMap::new();
//! let call = Span::client("users/GetUser", span.context().child());
//! call.context().inject(&mut upstream);
//! call.finish(&sink);
//! span.finish(&sink);
//! exporter.shutdown(std::time::Duration::from_secs(2)).await;
//! # Ok(())
//! # }
//! ```

mod context;
mod current;
mod export;
mod id;
mod otlp;
mod propagate;
mod sink;
mod span;

#[cfg(test)]
mod tests;

pub use context::SpanContext;
pub use current::{current, scope};
pub use export::{Exporter, ExporterHandle, InvalidEndpoint};
pub use id::{SpanId, TraceId};
pub use otlp::Resource;
pub use sink::{QUEUE, SpanSink};
pub use span::{Event, Span, SpanData, SpanKind, Status, Value};
