//! Times as Go's drivers write and read them.
//!
//! # Source
//! mattn/go-sqlite3 (the formats of a timestamp) and go-sql-driver/mysql (`loc`); Go's `time.Date`
//! for hours that come twice or not at all.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

use crate::store::dialect::unescape;
use crate::store::{DatabaseKind, Settings};

/// Go's time that is none, the beginning of the year 1. What cannot be read is this.
pub(super) const ZERO: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// From here on a whole number counts milliseconds.
const MILLISECONDS: i64 = 1_000_000_000_000;

/// Where the clocks are by which times without an offset were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone {
    zone: TimeZone,
    /// Whether it is that of the machine that SPIRE ran on, taken from this machine here.
    pub(super) is_local: bool,
}

impl Zone {
    /// The `loc` of MySQL's connection string, as it is in SPIRE's own file; UTC where none is
    /// written, and for other kinds of database.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of(settings: &Settings) -> Result<Self, String> {
        let is_mysql = settings.kind == DatabaseKind::MySql;
        let text = if is_mysql { settings.connection_string.as_str() } else { "" };
        let database = text.rsplit_once('/').map_or("", |(_, database)| database);
        let parameters = database.split_once('?').map_or("", |(_, parameters)| parameters);
        let loc = parameters.split('&').filter_map(|pair| pair.strip_prefix("loc=")).next_back();
        let name = loc.map(unescape).transpose()?.unwrap_or_default();
        let zone = match name.as_str() {
            "" | "UTC" => Ok(TimeZone::UTC),
            "Local" => TimeZone::try_system(),
            name => TimeZone::get(name),
        };
        let zone = zone.map_err(|error| {
            format!(
                "loc={name} in its connection string is no time zone that is known here ({error}); \
                 install the package tzdata, or write the name of an IANA time zone"
            )
        })?;
        Ok(Self { zone, is_local: name == "Local" })
    }

    /// When its clocks showed `time`. Of two such moments, and for a time that the clocks left out,
    /// it is the one that Go takes.
    fn moment(&self, time: DateTime) -> Option<Timestamp> {
        let as_utc = Offset::UTC.to_timestamp(time).ok()?;
        let guess = self.zone.to_offset(as_utc).to_timestamp(time).ok()?;
        self.zone.to_offset(guess).to_timestamp(time).ok()
    }
}

/// Reads a cell: `2026-11-21 22:46:25.255134965+01:00` with anything after the date left out, or a
/// number of seconds or milliseconds since 1970.
pub(super) fn read(text: &str, zone: &Zone) -> Timestamp {
    let read = match text.parse::<i64>() {
        Ok(number) if number.abs() > MILLISECONDS => Timestamp::from_millisecond(number).ok(),
        Ok(number) => Timestamp::from_second(number).ok(),
        Err(_) => read_date(text.strip_suffix('Z').unwrap_or(text), zone),
    };
    read.unwrap_or(ZERO)
}

fn read_date(text: &str, zone: &Zone) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let date = Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()?;
    if rest.is_empty() {
        return zone.moment(DateTime::from_parts(date, Time::midnight()));
    }
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (clock, offset) = match rest.find(['+', '-']) {
        Some(at) => (&rest[..at], Some(read_offset(&rest[at..])?)),
        None => (rest, None),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = match clock.len() {
        5 => numbers(clock, ':', [2, 2]).map(|[hour, minute]| [hour, minute, 0])?,
        _ => numbers(clock, ':', [2, 2, 2])?,
    };
    let nanosecond = read_fraction(fraction)?;
    let narrow = |number: i16| i8::try_from(number).ok();
    let time = Time::new(narrow(hour)?, narrow(minute)?, narrow(second)?, nanosecond).ok()?;
    let time = DateTime::from_parts(date, time);
    match offset {
        Some(offset) => offset.to_timestamp(time).ok(),
        None => zone.moment(time),
    }
}

/// Numbers of fixed widths with a separator between them.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i16; N]> {
    let mut numbers = [0; N];
    let mut pieces = text.split(separator);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let piece = pieces.next().filter(|piece| piece.len() == width)?;
        let is_decimal = piece.bytes().all(|byte| byte.is_ascii_digit());
        *number = if is_decimal { piece.parse().ok()? } else { return None };
    }
    pieces.next().is_none().then_some(numbers)
}

/// Digits after the point as nanoseconds; more than nine are cut off.
fn read_fraction(digits: &str) -> Option<i32> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}")[..9].parse().ok()
}

fn read_offset(text: &str) -> Option<Offset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(&text[1..], ':', [2, 2])?;
    Offset::from_seconds(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(parameter: &str) -> Zone {
        let text = format!("me:p/?w@tcp(a)/spire?parseTime=true{parameter}");
        Zone::of(&Settings::new("mysql", &text).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[-0-9:. TZ+é]{0,40}") {
            read(&text, &zone("&loc=Europe%2FBerlin"));
        }
    }

    #[test]
    fn texts_are_read_as_gos_driver_reads_them() {
        for (text, expected) in [
            ("2026-11-21 22:46:25.255134965+01:00", "2026-11-21T21:46:25.255134965Z"),
            ("2026-09-21 16:13:20+02:00", "2026-09-21T14:13:20Z"),
            ("2026-09-21 16:13:20-03:00", "2026-09-21T19:13:20Z"),
            ("2026-09-21T16:13:20.5+05:30", "2026-09-21T10:43:20.5Z"),
            ("2026-09-21 16:13:20.25", "2026-09-21T16:13:20.25Z"),
            ("2026-09-21 16:13:20Z", "2026-09-21T16:13:20Z"),
            ("2026-09-21T16:13", "2026-09-21T16:13:00Z"),
            ("2026-09-21", "2026-09-21T00:00:00Z"),
            ("1790000000", "2026-09-21T14:13:20Z"),
            ("1790000000123", "2026-09-21T14:13:20.123Z"),
            ("-5", "1969-12-31T23:59:55Z"),
        ] {
            assert_eq!(read(text, &zone("")).to_string(), expected, "{text}");
        }
        for none in [
            "",
            "soon",
            "0000-00-00 00:00:00.000000",
            "2026-13-01",
            "2026-09-21 16",
            "2026-09-21 16:13:20+1",
            "2026-09-21 16:13:20.x",
            "2026-09-21x16:13:20",
            "1790000000.5",
            "äöü€äöü€",
        ] {
            assert_eq!(read(none, &zone("")), ZERO, "{none}");
        }
    }

    #[test]
    fn a_zone_is_read_from_the_connection_string() {
        assert_eq!(zone(""), zone("&loc=UTC"));
        assert_eq!(zone("").zone, TimeZone::UTC);
        assert!(zone("&loc=Local&tls=true").is_local);
        assert_eq!(zone("&loc=Europe%2FBerlin").zone, TimeZone::get("Europe/Berlin").unwrap());
        let unknown = Settings::new("mysql", "me@tcp(a)/spire?loc=Mars%2FNorth").unwrap();
        assert!(Zone::of(&unknown).unwrap_err().contains("loc=Mars/North"));
    }

    /// What Go's `time.Date` says about hours that the clocks show twice or never.
    #[test]
    fn hours_that_come_twice_or_never_are_those_of_go() {
        for (loc, text, expected) in [
            ("Europe%2FBerlin", "2026-10-25 01:59:59", "2026-10-24T23:59:59Z"),
            ("Europe%2FBerlin", "2026-10-25 02:30:00", "2026-10-25T01:30:00Z"),
            ("Europe%2FBerlin", "2026-10-25 03:00:00", "2026-10-25T02:00:00Z"),
            ("Europe%2FBerlin", "2026-03-29 02:30:00", "2026-03-29T01:30:00Z"),
            ("Europe%2FLondon", "2026-10-25 01:30:00", "2026-10-25T01:30:00Z"),
            ("Europe%2FLondon", "2026-03-29 01:30:00", "2026-03-29T01:30:00Z"),
            ("America%2FNew_York", "2026-11-01 01:30:00", "2026-11-01T05:30:00Z"),
            ("America%2FNew_York", "2026-03-08 02:30:00", "2026-03-08T06:30:00Z"),
        ] {
            let read = read(text, &zone(&format!("&loc={loc}")));
            assert_eq!(read.to_string(), expected, "{loc} {text}");
        }
    }
}
