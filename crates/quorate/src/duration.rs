//! Durations as people write them, in URLs and on the command line.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Reads a duration: a number with `ms`, `s`, `m` or `h`, such as `500ms`, `1.5s` or `2m`. A number
/// alone is seconds.
///
/// # Errors
///
/// The text is something else, or longer than any lease can live (about 285 years). The message says
/// what to write.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let refusal = || {
        let message = "write a duration as a number with ms, s, m or h, such as 500ms or 3s";
        Error::new(ErrorKind::InvalidArgument, message)
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let nanos_per_unit: u128 = match unit {
        "ms" => 1_000_000,
        "s" | "" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(refusal()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
        return Err(refusal());
    }
    let whole: u128 = whole.parse().map_err(|_| refusal())?;
    let part: u128 = fraction.parse().map_err(|_| refusal())?;
    let parts = 10_u128.pow(fraction.len() as u32);
    let nanos = whole * nanos_per_unit + part * nanos_per_unit / parts;
    let seconds = u64::try_from(nanos / NANOS).map_err(|_| refusal())?;
    let duration = Duration::new(seconds, (nanos % NANOS) as u32);
    if duration > LONGEST {
        let message = "the duration is longer than any lease can live";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(duration)
}

/// The longest time to live that etcd takes (`maxLeaseTTL` in lessor.go).
pub(crate) const LONGEST: Duration = Duration::from_secs(9_000_000_000);

const NANOS: u128 = 1_000_000_000;

/// Digits beyond this many say nothing, and could overflow.
const MAX_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_seconds_and_a_unit_says_otherwise() {
        for (text, millis) in [
            ("3", 3000),
            ("3s", 3000),
            ("0.25", 250),
            ("1.5s", 1500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("007s", 7000),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text).unwrap(), duration, "{text}");
        }
        assert_eq!(parse_duration("0.5ms").unwrap(), Duration::from_micros(500));
        assert_eq!(parse_duration("9000000000").unwrap(), LONGEST);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "ms",
            ".",
            "1.",
            ".5s",
            "-1s",
            "+1s",
            "1 s",
            "1d",
            "1S",
            "1.2.3s",
            "1s1",
            "1m30s",
            "1e3",
            "9000000001",
            "99999999999999999999s",
            "999999999999h",
            "١s",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", number in "[0-9.]{0,40}", unit in "(ms|s|m|h|)") {
            let _ = parse_duration(&text);
            let _ = parse_duration(&(number + &unit));
        }
    }
}
