//! The Gateway API's durations (GEP-2257): up to four numbers of up to five
//! digits, each with `h`, `m`, `s` or `ms`.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Longest duration, as routers count milliseconds in 32 bits: 49.7 days.
const MAX_MS: u64 = u32::MAX as u64;

/// Reads a duration; at most 49.7 days.
///
/// # Errors
/// What is wrong.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a duration (GEP-2257), such as 10s, 500ms or 1m30s")
    };
    let mut left = text;
    let mut total = 0u64;
    let mut parts = 0;
    while !left.is_empty() {
        let digits = left.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = left.split_at(digits);
        if !(1..=5).contains(&digits) || parts == 4 {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = UNITS.iter().find_map(|(unit, ms)| Some((after.strip_prefix(unit)?, *ms)));
        let (after, ms) = unit.ok_or_else(wrong)?;
        total += number * ms;
        left = after;
        parts += 1;
    }
    if parts == 0 {
        return Err(wrong());
    }
    if total > MAX_MS {
        return Err(format!("{text} is too long; at most {} is possible", print_ms(MAX_MS)));
    }
    Ok(Duration::from_millis(total))
}

/// Prints a duration, cut to milliseconds and to what [`parse`] reads.
#[must_use]
pub fn print(duration: Duration) -> String {
    print_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(MAX_MS))
}

fn print_ms(mut ms: u64) -> String {
    let mut out = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if ms >= size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gep_2257() {
        for (text, ms) in
            [("1h", 3_600_000), ("1m30s", 90_000), ("500ms", 500), ("0s", 0), ("1s1ms", 1_001)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "-1s", "100000s", "1d", "1s 1s", "1s1s1s1s1s", "９s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("99999h").unwrap_err(),
            "99999h is too long; at most 1193h2m47s295ms is possible"
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(ms in any::<u32>()) {
            let duration = Duration::from_millis(ms.into());
            prop_assert_eq!(parse(&print(duration)), Ok(duration));
        }
    }
}
