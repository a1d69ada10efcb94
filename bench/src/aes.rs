//! How fast this core encrypts: the most that TLS can pass.

use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Serialize;

/// The largest record of TLS, in bytes.
const RECORD: usize = 16 * 1024;
/// Records between looks at the clock.
const BATCH: u64 = 64;

/// What `weir-bench aes` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// For each direction
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = crate::load::seconds)]
    seconds: f64,
}

/// Bytes of payload a second.
#[derive(Serialize)]
pub struct Report {
    seal_bytes_per_second: f64,
    open_bytes_per_second: f64,
}

/// Seals and opens records, one after the other.
///
/// # Errors
/// When a record does not open to what was sealed.
pub fn run(options: &Options) -> Result<Report, String> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|e| e.to_string())?;
    let key = LessSafeKey::new(key);
    let seconds = Duration::from_secs_f64(options.seconds);
    let mut record = vec![0; RECORD];
    // The nonce counts on, as TLS has it.
    let seal_bytes_per_second = speed(seconds, |number| {
        key.seal_in_place_separate_tag(nonce(number), Aad::empty(), &mut record)
            .map(|_| ())
            .map_err(|e| e.to_string())
    })?;
    record.fill(b'w');
    let tag = key.seal_in_place_separate_tag(nonce(0), Aad::empty(), &mut record);
    let tag = tag.map_err(|e| e.to_string())?;
    let mut plain = vec![0; RECORD];
    let open_bytes_per_second = speed(seconds, |_| {
        key.open_separate_gather(nonce(0), Aad::empty(), &record, tag.as_ref(), &mut plain)
            .map_err(|e| e.to_string())
    })?;
    if plain.iter().any(|byte| *byte != b'w') {
        return Err("a record opened to something else".into());
    }
    Ok(Report { seal_bytes_per_second, open_bytes_per_second })
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Bytes a second of `work`, which does one record.
fn speed(
    atleast: Duration,
    mut work: impl FnMut(u64) -> Result<(), String>,
) -> Result<f64, String> {
    let start = Instant::now();
    let mut records = 0;
    loop {
        for number in records..records + BATCH {
            work(number)?;
        }
        records += BATCH;
        let took = start.elapsed();
        if took >= atleast {
            return Ok(records as f64 * RECORD as f64 / took.as_secs_f64());
        }
    }
}
