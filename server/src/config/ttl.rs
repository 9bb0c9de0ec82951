//! Warnings about lifetimes that the rotation of the CA will cut short.

use std::time::Duration;

use jiff::SignedDuration;
use spire_core::config::{Reader, duration};

/// The longest time before its end at which a CA is replaced; what it signs lives no longer.
const LONGEST_OVERLAP: Duration = Duration::from_hours(7 * 24);

/// A CA is replaced when this part of its life is left.
const OVERLAP_PART: u32 = 6;

/// Warns where an SVID with lifetime `ttl`, set by `key`, can outlive the CA that signs it.
pub(super) fn warn_of_inverted(
    reader: &mut Reader<'_>,
    ca_ttl: Duration,
    key: &str,
    ttl: Duration,
) {
    let guaranteed = (ca_ttl / OVERLAP_PART).min(LONGEST_OVERLAP);
    if ttl <= guaranteed {
        return;
    }
    let enough = ttl.saturating_mul(OVERLAP_PART);
    let guarantee = format!("to guarantee the full {key} lifetime when CA rotations are scheduled");
    let shorter = "SVIDs with shorter lifetimes may be issued";
    reader.warn(if ttl <= LONGEST_OVERLAP {
        format!(
            "{key} is too high for the configured ca_ttl value. {shorter}. Please set {key} to {} \
             or less, or the ca_ttl to {} or more, {guarantee}.",
            written(guaranteed),
            written(enough)
        )
    } else if guaranteed < LONGEST_OVERLAP {
        format!(
            "{key} is too high and the ca_ttl is too low. {shorter}. Please set {key} to {} or \
             less, and the ca_ttl to {} or more, {guarantee}.",
            written(LONGEST_OVERLAP),
            written(LONGEST_OVERLAP * OVERLAP_PART)
        )
    } else {
        format!(
            "{key} is too high. {shorter}. Please set {key} to {} or less {guarantee}.",
            written(LONGEST_OVERLAP)
        )
    });
}

fn written(duration: Duration) -> String {
    duration::format_short(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}
