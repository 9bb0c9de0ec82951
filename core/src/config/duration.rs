//! Durations as Go writes them: `300ms`, `1h30m`, `24h`.

use jiff::SignedDuration;

/// Why a text is no duration, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text has another shape, or is longer than Go's durations can be (292 years).
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number stands without unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// The unit is none of `ns`, `us`, `µs`, `ms`, `s`, `m` and `h`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

const NANOSECOND: u64 = 1;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Reads a duration: a sign, then numbers with units; `0` alone needs no unit.
///
/// # Errors
/// [`DurationError`], whose texts are those of Go's `time.ParseDuration`.
pub fn parse(text: &str) -> Result<SignedDuration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (whole, after) = split(rest, |byte| byte.is_ascii_digit());
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after, |byte| byte.is_ascii_digit()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = split(after, |byte| byte != b'.' && !byte.is_ascii_digit());
        let scale = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => NANOSECOND,
            "us" | "µs" | "μs" => MICROSECOND,
            "ms" => MILLISECOND,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            unit => {
                let (unit, text) = (unit.to_owned(), text.to_owned());
                return Err(DurationError::UnknownUnit { unit, text });
            }
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part = whole.checked_mul(scale).ok_or_else(invalid)?;
        let part = part.checked_add(fraction_of(fraction, scale)).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = after;
    }
    let limit = if negative { 1 << 63 } else { (1 << 63) - 1 };
    if total > limit {
        return Err(invalid());
    }
    let signed = if negative { 0_i64.wrapping_sub_unsigned(total) } else { total.cast_signed() };
    Ok(SignedDuration::from_nanos(signed))
}

fn split(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.<digits>` of `scale`, rounded down; digits beyond the fifteenth are below a nanosecond.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let digits = &digits[..digits.len().min(15)];
    let Ok(number) = digits.parse::<u64>() else { return 0 };
    let divisor = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    u64::try_from(u128::from(number) * u128::from(scale) / divisor).unwrap_or(0)
}

/// Writes a duration as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `300ms`, `0s`.
pub fn format(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let nanos = u64::try_from(duration.as_nanos().unsigned_abs()).unwrap_or(u64::MAX);
    let below_a_second = |scale: u64, unit: &str| {
        format!("{sign}{}{unit}", decimal(nanos / scale, nanos % scale, scale))
    };
    match nanos {
        0 => "0s".to_owned(),
        _ if nanos < MICROSECOND => below_a_second(NANOSECOND, "ns"),
        _ if nanos < MILLISECOND => below_a_second(MICROSECOND, "µs"),
        _ if nanos < SECOND => below_a_second(MILLISECOND, "ms"),
        _ => {
            let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
            let seconds = decimal(nanos % MINUTE / SECOND, nanos % SECOND, SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Writes a duration without the units that are zero: `4h`, `288h`, `1m30s`.
pub fn format_short(duration: SignedDuration) -> String {
    let long = format(duration);
    let long = long.strip_suffix("m0s").map_or(long.clone(), |start| format!("{start}m"));
    long.strip_suffix("h0m").map_or(long.clone(), |start| format!("{start}h"))
}

/// `whole` and `part/scale` as a decimal number without trailing zeros.
fn decimal(whole: u64, part: u64, scale: u64) -> String {
    if part == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{part:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_go_are_read_and_written() {
        let cases = [
            ("24h", 86_400_000_000_000, "24h0m0s", "24h"),
            ("1h30m", 5_400_000_000_000, "1h30m0s", "1h30m"),
            ("90s", 90_000_000_000, "1m30s", "1m30s"),
            ("300ms", 300_000_000, "300ms", "300ms"),
            ("1.5s", 1_500_000_000, "1.5s", "1.5s"),
            (".5h", 1_800_000_000_000, "30m0s", "30m"),
            ("-1h", -3_600_000_000_000, "-1h0m0s", "-1h"),
            ("1h0m5s", 3_605_000_000_000, "1h0m5s", "1h0m5s"),
            ("0", 0, "0s", "0s"),
            ("0s", 0, "0s", "0s"),
            ("1.5µs", 1_500, "1.5µs", "1.5µs"),
            ("7ns", 7, "7ns", "7ns"),
        ];
        for (text, nanos, long, short) in cases {
            let duration = parse(text).unwrap();
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!((&*format(duration), &*format_short(duration)), (long, short));
        }
    }

    #[test]
    fn refusals_are_worded_as_in_go() {
        let cases = [
            ("x", "time: invalid duration \"x\""),
            ("", "time: invalid duration \"\""),
            ("60", "time: missing unit in duration \"60\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1h 5m", "time: unknown unit \"h \" in duration \"1h 5m\""),
            ("2562048h", "time: invalid duration \"2562048h\""),
            ("99999999999999999999h", "time: invalid duration \"99999999999999999999h\""),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos: i64) {
            let duration = SignedDuration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
            prop_assert_eq!(parse(&format_short(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,40}", number in "[-+]?[0-9.]{0,30}(h|m|s|ms|µs)?") {
            let _ = parse(&text);
            let _ = parse(&number);
        }
    }
}
