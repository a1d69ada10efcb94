//! Times, durations and bytes as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; 0 on a machine whose clock is before it.
#[must_use]
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn unix_seconds() -> i64 {
    i64::try_from(unix_nanos() / 1_000_000_000).unwrap_or(i64::MAX)
}

/// Writes nanoseconds since the Unix epoch by RFC 3339, in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the proleptic Gregorian calendar for a count of days
/// since 1970-01-01. Counts from March, so that a leap day ends its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March end with their leap day.
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// Reads a moment by RFC 3339 in UTC (`2026-12-31T23:59:59Z`), or a day, which begins
/// at midnight UTC. Gives seconds since the Unix epoch.
///
/// # Errors
/// What to write instead.
pub fn parse_rfc3339(text: &str) -> Result<i64, &'static str> {
    const WRONG: &str = "is no moment in UTC such as 2026-12-31T23:59:59Z, nor a day";
    let (date, time) = match text.strip_suffix('Z').map(|text| text.split_once('T')) {
        Some(Some((date, time))) => (date, time),
        Some(None) => return Err(WRONG),
        None => (text, "00:00:00"),
    };
    let numbers = |text: &str, separator: char, widths: [usize; 3]| -> Option<[i64; 3]> {
        let mut parts = text.split(separator);
        let mut read = [0; 3];
        for (number, width) in read.iter_mut().zip(widths) {
            let part = parts.next()?;
            let good = part.len() == width && part.bytes().all(|b| b.is_ascii_digit());
            *number = part.parse().ok().filter(|_| good)?;
        }
        parts.next().is_none().then_some(read)
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or(WRONG)?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or(WRONG)?;
    let number = days(year, month, day);
    let unsigned = u64::try_from(number).map_err(|_| WRONG)?;
    let there = (1..=12).contains(&month) && civil(unsigned).2 == day.unsigned_abs();
    if !there || hour > 23 || minute > 59 || second > 60 {
        return Err(WRONG);
    }
    Ok(number * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write a number and a unit (s, m, h, d), such as 90s, 1h or 7d")]
pub struct DurationError(String);

/// Reads `90s`, `15m`, `1h`, `7d`, or several in a row: `1h30m`.
///
/// # Errors
/// [`DurationError`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.chars().take(40).collect());
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        let mut tail = rest[digits..].chars();
        let seconds = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(error()),
        };
        total = number
            .checked_mul(seconds)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(error)?;
        rest = tail.as_str();
    }
    if text.is_empty() {
        return Err(error());
    }
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_599_999_999_999), "2025-12-31T23:59:59.999Z");
    }

    #[test]
    fn moments_are_read() {
        assert_eq!(parse_rfc3339("1970-01-01"), Ok(0));
        assert_eq!(parse_rfc3339("2000-02-29T00:00:00Z"), Ok(951_782_400));
        assert_eq!(parse_rfc3339("2025-12-31T23:59:59Z"), Ok(1_767_225_599));
        for bad in [
            "",
            "Z",
            "2025",
            "2025-1-1",
            "2025-02-29",
            "2025-13-01",
            "2025-00-10",
            "2025-01-00",
            "1969-12-31",
            "2025-12-31T24:00:00Z",
            "2025-12-31T23:59:59",
            "2025-12-31T23:59Z",
            "2025-12-31T23:59:59+01:00",
            "+025-12-31",
        ] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "1", "h", "-1s", "1.5h", "1w", "99999999999999999999s", "9999999999999999d"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
