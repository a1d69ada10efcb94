//! Metric sources outside of the mesh: Prometheus, and webhooks that judge.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_mesh::rollout::{Bounds, MetricHook, PrometheusQuery, Rollout, Spec};

use super::{gate, http};

/// Answers that wait to be looked at.
const WAITING: usize = 64;

/// What one source has said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Which: its place among all of the analysis'.
    pub source: usize,
    /// When it was asked.
    pub asked: Instant,
    /// The number, or none; what is wrong instead.
    pub value: Result<Heard, String>,
}

/// An answer that was understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heard {
    /// Within its bounds.
    Good(Option<f64>),
    /// Out of them.
    Bad(Option<f64>),
}

/// The tasks that ask. They end when this is dropped.
pub struct Running {
    /// What is asked for: the question names the step.
    of: Option<(Arc<Spec>, usize)>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Said>,
    answers: mpsc::Receiver<Said>,
}

impl Running {
    /// Nobody is asked yet.
    pub fn new() -> Self {
        let (sender, answers) = mpsc::channel(WAITING);
        Self { of: None, tasks: JoinSet::new(), sender, answers }
    }

    /// Asks for this rollout; none: asks nobody.
    pub fn keep(&mut self, rollout: Option<&Rollout>) {
        let wanted = rollout.map(|rollout| (rollout.spec.clone(), rollout.state.step));
        if wanted == self.of {
            return;
        }
        *self = Self::new();
        self.of = wanted;
        let Some(rollout) = rollout else { return };
        let Some(analysis) = &rollout.spec.analysis else { return };
        let question = gate::question(rollout);
        let count = analysis.prometheus.len();
        for (source, query) in analysis.prometheus.iter().cloned().enumerate() {
            let sender = self.sender.clone();
            self.tasks.spawn(async move {
                loop {
                    let asked = Instant::now();
                    let value = ask_prometheus(&query).await;
                    if sender.send(Said { source, asked, value }).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(query.bounds.interval).await;
                }
            });
        }
        for (i, hook) in analysis.webhooks.iter().cloned().enumerate() {
            let (sender, question) = (self.sender.clone(), question.clone());
            self.tasks.spawn(async move {
                loop {
                    let asked = Instant::now();
                    let value = ask_hook(&hook, &question).await;
                    let said = Said { source: count + i, asked, value };
                    if sender.send(said).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(hook.bounds.interval).await;
                }
            });
        }
    }

    /// The next answer. None is never given: this holds a sender itself.
    pub async fn next(&mut self) -> Option<Said> {
        self.answers.recv().await
    }
}

fn judged(bounds: &Bounds, value: f64) -> Heard {
    let good =
        bounds.min.is_none_or(|min| value >= min) && bounds.max.is_none_or(|max| value <= max);
    if good { Heard::Good(Some(value)) } else { Heard::Bad(Some(value)) }
}

async fn ask_prometheus(query: &PrometheusQuery) -> Result<Heard, String> {
    let encoded = encode(&query.query);
    let base = query.address.uri().to_string();
    let base = base.split('?').next().unwrap_or_default().trim_end_matches('/');
    let uri = format!("{base}/api/v1/query?query={encoded}");
    let uri = uri.parse().map_err(|_| "its address and query make no URL".to_owned())?;
    let answer = http::get(&uri, &query.headers, query.timeout).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("answered {}", answer.status));
    }
    let value = sample(&answer.body)?;
    Ok(judged(&query.bounds, value))
}

/// The one number of an answer of Prometheus' HTTP API: a scalar, or a vector of one
/// sample. NaN, nothing and more than one are no number.
fn sample(body: &[u8]) -> Result<f64, String> {
    let strange = || "answered what is not understood".to_owned();
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| strange())?;
    if json["status"] != "success" {
        let told = json["error"].as_str().unwrap_or("no success");
        return Err(told.chars().take(200).collect());
    }
    let result = &json["data"]["result"];
    let value = match json["data"]["resultType"].as_str() {
        Some("scalar") => &result[1],
        Some("vector") => match result.as_array().map_or(0, Vec::len) {
            0 => return Err("has no data".to_owned()),
            1 => &result[0]["value"][1],
            n => return Err(format!("answered {n} series; write a query that gives one")),
        },
        _ => return Err("answered no instant vector and no scalar".to_owned()),
    };
    let value: f64 = value.as_str().and_then(|text| text.parse().ok()).ok_or_else(strange)?;
    if value.is_nan() {
        return Err("has no data (NaN)".to_owned());
    }
    Ok(value)
}

/// Percent-encodes a query's value (RFC 3986).
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

async fn ask_hook(hook: &MetricHook, question: &str) -> Result<Heard, String> {
    let answer = http::post(&hook.webhook, question).await.map_err(|error| error.to_string())?;
    let bounds = &hook.bounds;
    if bounds.min.is_none() && bounds.max.is_none() {
        return match answer.status {
            status if status.is_success() => Ok(Heard::Good(None)),
            status if status.is_client_error() => Ok(Heard::Bad(None)),
            status => Err(format!("answered {status}")),
        };
    }
    if !answer.status.is_success() {
        return Err(format!("answered {}", answer.status));
    }
    let json: Result<serde_json::Value, _> = serde_json::from_slice(&answer.body);
    let value = json.ok().and_then(|json| json["value"].as_f64());
    let value = value.ok_or_else(|| "answered no {\"value\": number}".to_owned())?;
    Ok(judged(bounds, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_no_data() {
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}"#;
        assert_eq!(sample(scalar), Ok(2.5));
        let vector = |samples: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            )
        };
        let one = r#"{"metric":{},"value":[1,"0.99"]}"#;
        assert_eq!(sample(vector(one).as_bytes()), Ok(0.99));
        let nan = r#"{"metric":{},"value":[1,"NaN"]}"#;
        for (body, why) in [
            (vector(""), "no data"),
            (vector(nan), "no data"),
            (vector(&format!("{one},{one}")), "2 series"),
            (r#"{"status":"error","error":"parse error"}"#.to_owned(), "parse error"),
            ("<html>".to_owned(), "not understood"),
        ] {
            let error = sample(body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("sum(rate(a[1m])) > 0"), "sum%28rate%28a%5B1m%5D%29%29%20%3E%200");
    }
}
