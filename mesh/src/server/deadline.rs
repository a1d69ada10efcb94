//! The `grpc-timeout` header (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads the header. A malformed one counts as absent, as in gRPC's own servers.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Writes the header in the finest unit that fits into its eight digits,
/// rounded down: a callee must not think it has longer than its caller.
pub(super) fn write(headers: &mut HeaderMap, timeout: Duration) {
    const MOST: u128 = 99_999_999;
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
        (u128::from(timeout.as_secs() / 60), 'M'),
    ];
    let (value, unit) = units
        .into_iter()
        .find(|(value, _)| *value <= MOST)
        .unwrap_or((u128::from(timeout.as_secs() / 3600).min(MOST), 'H'));
    if let Ok(value) = HeaderValue::try_from(format!("{value}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_str(text).unwrap())])
    }

    #[test]
    fn reads_every_unit_and_ignores_nonsense() {
        for (text, nanos) in
            [("1H", 3_600_000_000_000), ("2M", 120_000_000_000), ("3S", 3_000_000_000)]
        {
            assert_eq!(read(&header(text)).unwrap().as_nanos(), nanos);
        }
        for (text, nanos) in [("4m", 4_000_000), ("5u", 5_000), ("6n", 6)] {
            assert_eq!(read(&header(text)).unwrap().as_nanos(), nanos);
        }
        for text in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(&header(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_timeout_never_grows_and_loses_little(nanos in 0u64..u64::MAX) {
            let timeout = Duration::from_nanos(nanos);
            let mut headers = HeaderMap::new();
            write(&mut headers, timeout);
            let back = read(&headers).unwrap();
            prop_assert!(back <= timeout);
            prop_assert!(timeout - back <= timeout / 1_000_000 + Duration::from_nanos(1));
        }
    }
}
