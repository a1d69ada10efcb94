//! Requests, and who answered them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use http::uri::Uri;
use tokio::time::Instant;

use crate::Error;
use crate::commands::block_on;
use crate::http_client::{Answer, HttpClient};
use crate::output::print;

/// Between two rounds that were not as expected.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `weir try send`.
#[derive(Debug, clap::Args)]
pub struct Send {
    /// What is asked for: http://HOST[:PORT][/PATH]
    #[arg(value_name = "URL")]
    url: Target,
    /// How many requests, one after the other
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// How many of them a version must answer; every other answer is a failure. May be
    /// given many times
    #[arg(long, value_name = "VERSION=N")]
    expect: Vec<Expected>,
    /// Begin again until it is as expected, for so many seconds
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3_600))]
    within: u64,
    /// A header of the requests. May be given many times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct Target {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not http://HOST[:PORT][/PATH]");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), path })
    }
}

impl Target {
    async fn address(&self) -> Result<SocketAddr, String> {
        let named = |error| format!("cannot look up {}: {error}", self.host);
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut found = tokio::net::lookup_host((bare, self.port)).await.map_err(named)?;
        found.next().ok_or_else(|| format!("{} has no address", self.host))
    }

    fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

#[derive(Debug, Clone)]
struct Expected {
    version: String,
    count: u32,
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('=').and_then(|(v, n)| Some((v, n.parse().ok()?)));
        match parsed {
            Some((version, count)) => Ok(Self { version: version.to_owned(), count }),
            None => Err(format!("{text:?} is not VERSION=N, such as v2=10")),
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or(format!("{text:?} is not NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// What came of one round.
#[derive(Debug, Default)]
struct Round {
    versions: BTreeMap<String, u32>,
    /// What went wrong, and how often.
    failures: BTreeMap<String, u32>,
}

impl Send {
    pub(super) fn run(self) -> Result<(), Error> {
        block_on(async move {
            let until = Instant::now() + Duration::from_secs(self.within);
            loop {
                let round = self.round().await;
                match self.check(&round) {
                    Ok(()) => return print(&tell(&round)),
                    Err(error) if Instant::now() >= until => return Err(error.with(lines(&round))),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        })
    }

    async fn round(&self) -> Round {
        let mut round = Round::default();
        let address = match self.url.address().await {
            Ok(address) => address,
            Err(error) => {
                round.failures.insert(error, self.count);
                return round;
            }
        };
        let mut client = HttpClient::named(address, self.url.authority());
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for _ in 0..self.count {
            let answer = client.send(Method::GET, &self.url.path, &headers, None).await;
            match answer {
                Ok(answer) if answer.status.is_success() => {
                    *round.versions.entry(version(&answer)).or_default() += 1;
                }
                Ok(answer) => *round.failures.entry(refusal(&answer)).or_default() += 1,
                Err(error) => *round.failures.entry(error.to_string()).or_default() += 1,
            }
        }
        round
    }

    fn check(&self, round: &Round) -> Result<(), Error> {
        let failed: u32 = round.failures.values().sum();
        if failed > 0 {
            return Err(Error::new(format!("{failed} of {} requests failed", self.count)));
        }
        let expected: BTreeMap<_, _> = self
            .expect
            .iter()
            .filter(|expected| expected.count > 0)
            .map(|expected| (expected.version.clone(), expected.count))
            .collect();
        if self.expect.is_empty() || expected == round.versions {
            return Ok(());
        }
        let wanted: Vec<_> =
            self.expect.iter().map(|e| format!("{}={}", e.version, e.count)).collect();
        Err(Error::new(format!("other versions answered than {}", wanted.join(" "))))
    }
}

/// Who answered: as `weir try serve` says, or as the gateway does.
fn version(answer: &Answer) -> String {
    match answer.json()["version"].as_str() {
        Some(version) => version.to_owned(),
        None => match answer.header("x-weir-version") {
            "" => "unknown".to_owned(),
            version => version.to_owned(),
        },
    }
}

fn refusal(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
    format!("{} {line}", answer.status.as_u16()).trim_end().to_owned()
}

fn lines(round: &Round) -> Vec<String> {
    let all = round.versions.iter().chain(&round.failures);
    all.map(|(what, count)| format!("{count} x {what}")).collect()
}

fn tell(round: &Round) -> String {
    round.versions.iter().map(|(version, count)| format!("{version} {count}\n")).collect()
}
