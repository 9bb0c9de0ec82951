//! What `debug getinfo` of both programs shows alike.

use std::fmt::{Display, Write};

use jiff::{SignedDuration, Timestamp};

use crate::config::duration;
use crate::wire::types;

/// A line of a report: its label, then the value in a column of its own.
pub fn info_line(label: &str, value: impl Display) -> String {
    format!("  {:<33}{value}\n", format!("{label}:"))
}

/// How long a process has been running, from seconds.
pub fn uptime(seconds: i32) -> String {
    duration::format(SignedDuration::from_secs(seconds.into()))
}

/// A time in seconds since 1970, as RFC 3339 writes it.
pub fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// The certificates of a chain: ID, subject and end of life of each.
pub fn svid_chain<'c>(
    chain: impl IntoIterator<Item = (Option<&'c types::Spiffeid>, &'c str, i64)>,
) -> String {
    let mut text = "  SVID Chain:\n".to_owned();
    for (number, (id, subject, expires_at)) in chain.into_iter().enumerate() {
        let id = id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path));
        let id = id.as_deref().unwrap_or("(none)");
        let expires_at = rfc3339(expires_at);
        let _ = write!(
            text,
            "    [{number}] SPIFFE ID:  {id}\n        Subject:    {subject}\n        \
             Expires At: {expires_at}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_known_form() {
        assert_eq!(
            info_line("Uptime", uptime(3723)),
            "  Uptime:                          1h2m3s\n"
        );
        assert_eq!(
            info_line("Cached SVID Store X.509 SVIDs", 0),
            "  Cached SVID Store X.509 SVIDs:   0\n"
        );
        let id = types::Spiffeid { trust_domain: "td".into(), path: "/a".into() };
        let chain = [(Some(&id), "O=SPIRE,C=US", 1_767_229_200), (None, "CN=ca", 1)];
        let text = "  SVID Chain:\n    [0] SPIFFE ID:  spiffe://td/a\n        Subject:    \
                    O=SPIRE,C=US\n        Expires At: 2026-01-01T01:00:00Z\n    [1] SPIFFE ID:  \
                    (none)\n        Subject:    CN=ca\n        Expires At: 1970-01-01T00:00:01Z\n";
        assert_eq!(svid_chain(chain), text);
    }
}
