//! The `grpc-timeout` header (gRPC over HTTP/2).

use std::time::Duration;

/// Reads a `grpc-timeout`: at most 8 digits and a unit.
#[must_use]
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// As `grpc-timeout` has it.
#[must_use]
pub fn format(left: Duration) -> String {
    const DIGITS: u128 = 100_000_000;
    let micros = left.as_micros();
    if micros < DIGITS {
        format!("{micros}u")
    } else if left.as_millis() < DIGITS {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", left.as_secs().min(99_999_999))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        assert_eq!(parse(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse(b"1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "m", "1", "123456789m", "-1m", "1x"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        for time in
            [Duration::from_micros(5), Duration::from_secs(90), Duration::from_secs(10_000_000)]
        {
            assert_eq!(parse(format(time).as_bytes()), Some(time));
        }
    }
}
