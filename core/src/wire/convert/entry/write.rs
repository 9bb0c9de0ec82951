//! Entries → wire entries.

use jiff::Timestamp;

use super::super::seconds;
use super::ALL_FIELDS;
use crate::entry::{AdditionalAttributes, Entry};
use crate::wire::types::{self, EntryMask};

/// Writes the fields of an entry that `mask` names, or all without a mask; the id always.
pub fn sent(entry: &Entry, mask: Option<&EntryMask>) -> types::Entry {
    let mask = mask.unwrap_or(&ALL_FIELDS);
    let mut wire = types::Entry { id: entry.id.as_str().to_owned(), ..types::Entry::default() };
    if mask.spiffe_id {
        wire.spiffe_id = Some((&entry.spiffe_id).into());
    }
    if mask.parent_id {
        wire.parent_id = Some((&entry.parent_id).into());
    }
    if mask.selectors {
        wire.selectors = entry.selectors.iter().map(Into::into).collect();
    }
    if mask.x509_svid_ttl {
        wire.x509_svid_ttl = seconds_on_wire(entry.x509_svid_ttl);
    }
    if mask.jwt_svid_ttl {
        wire.jwt_svid_ttl = seconds_on_wire(entry.jwt_svid_ttl);
    }
    if mask.federates_with {
        wire.federates_with =
            entry.federates_with.iter().map(|domain| domain.as_str().to_owned()).collect();
    }
    if mask.dns_names {
        wire.dns_names = entry.dns_names.iter().map(|name| name.as_str().to_owned()).collect();
    }
    if mask.expires_at {
        wire.expires_at = seconds(entry.expires_at);
    }
    if mask.revision_number {
        wire.revision_number = entry.revision_number;
    }
    if mask.hint {
        wire.hint = entry.hint.as_str().to_owned();
    }
    if mask.created_at {
        wire.created_at = rounded_seconds(entry.created_at);
    }
    if mask.additional_attributes {
        wire.additional_attributes = entry.attributes.map(Into::into);
    }
    wire.admin = mask.admin && entry.admin;
    wire.downstream = mask.downstream && entry.downstream;
    wire.store_svid = mask.store_svid && entry.store_svid;
    wire
}

/// A lifetime as the wire carries it; longer ones than it can carry do not come from it.
pub(in super::super) fn seconds_on_wire(ttl: u32) -> i32 {
    i32::try_from(ttl).unwrap_or(i32::MAX)
}

/// The time of creation in whole seconds, rounded as SPIRE rounds it: half up.
pub(in super::super) fn rounded_seconds(time: Timestamp) -> i64 {
    let seconds = (time.as_nanosecond() + 500_000_000).div_euclid(1_000_000_000);
    i64::try_from(seconds).unwrap_or_else(|_| time.as_second())
}

impl From<AdditionalAttributes> for types::entry::AdditionalAttributes {
    fn from(attributes: AdditionalAttributes) -> Self {
        Self {
            disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
            jwt_svid_include_jti: attributes.jwt_svid_include_jti,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_creation_is_rounded_half_up() {
        let at = |nanosecond| rounded_seconds(Timestamp::from_nanosecond(nanosecond).unwrap());
        assert_eq!((at(1_499_999_999), at(1_500_000_000)), (1, 2));
    }
}
