//! Times as commands print them: `2026-01-01 10:00:00 +0100 CET`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time in seconds since 1970, in UTC.
pub fn utc_time(seconds: i64) -> String {
    time_in(seconds, TimeZone::UTC)
}

/// A time in seconds since 1970, in the zone of this machine.
pub fn local_time(seconds: i64) -> String {
    time_in(seconds, TimeZone::system())
}

fn time_in(seconds: i64, zone: TimeZone) -> String {
    // Beyond the year 9999 the number alone says more than an error would.
    Timestamp::from_second(seconds).map_or_else(
        |_| seconds.to_string(),
        |time| time.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_name_their_zone() {
        assert_eq!(utc_time(1_767_225_600), "2026-01-01 00:00:00 +0000 UTC");
        assert_eq!(utc_time(i64::MAX), i64::MAX.to_string());
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(time_in(1_767_225_600, berlin), "2026-01-01 01:00:00 +0100 CET");
    }
}
