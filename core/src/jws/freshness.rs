//! How long an answer may be kept, by its headers.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderName};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// How long the answer with these headers stays fresh from `now` on; zero where it says that it
/// must not be kept, `None` where it says nothing that can be understood.
///
/// # Source
/// RFC 9111, 4.2.1: `max-age`, else `Expires` less `Date`.
pub(super) fn lifetime(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let date =
        |name| text(name).and_then(|text| rfc2822::parse(text).ok()).map(|at| at.timestamp());
    let age = text(AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    let age = Duration::from_secs(age);
    if let Some(control) = text(CACHE_CONTROL) {
        let directives = || control.split(',').map(|one| one.trim().to_ascii_lowercase());
        if directives().any(|one| matches!(one.as_str(), "no-store" | "no-cache")) {
            return Some(Duration::ZERO);
        }
        let max_age = directives().find_map(|one| one.strip_prefix("max-age=")?.parse().ok());
        if let Some(seconds) = max_age {
            return Some(Duration::from_secs(seconds).saturating_sub(age));
        }
    }
    let expires = date(EXPIRES)?;
    let lifetime = expires.duration_since(date(DATE).unwrap_or(now));
    Some(Duration::try_from(lifetime).unwrap_or_default().saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOON: &str = "Fri, 15 Jan 2027 12:00:00 GMT";
    const ONE: &str = "Fri, 15 Jan 2027 13:00:00 GMT";

    #[test]
    fn headers_say_how_long_an_answer_is_fresh() {
        let hour = Some(3600);
        for (pairs, seconds) in [
            (vec![], None),
            (vec![("cache-control", "public, max-age=3600, must-revalidate")], hour),
            (vec![("cache-control", "Max-Age=3600"), ("age", "600")], Some(3000)),
            (vec![("cache-control", "max-age=60"), ("expires", ONE), ("date", NOON)], Some(60)),
            (vec![("cache-control", "max-age=x"), ("expires", ONE), ("date", NOON)], hour),
            (vec![("cache-control", "no-cache, max-age=60")], Some(0)),
            (vec![("cache-control", "max-age=99999999999999999999")], None),
            (vec![("expires", ONE), ("date", NOON)], hour),
            (vec![("expires", NOON), ("date", ONE)], Some(0)),
            (vec![("expires", ONE)], Some(1800)),
            (vec![("expires", "0")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            let now: Timestamp = "2027-01-15T12:30:00Z".parse().unwrap();
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(lifetime(&headers, now), expected, "{pairs:?}");
        }
    }
}
