//! Registration entries, whole or in the fields that a mask names.

mod read;
mod write;

pub use read::{WireEntryError, created, received, received_encoded, update};
pub use write::sent;
pub(super) use write::{rounded_seconds, seconds_on_wire};

use crate::wire::types::EntryMask;

/// The mask that leaves nothing out.
pub const ALL_FIELDS: EntryMask = EntryMask {
    spiffe_id: true,
    parent_id: true,
    selectors: true,
    x509_svid_ttl: true,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: true,
    dns_names: true,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: true,
    hint: true,
    created_at: true,
    additional_attributes: true,
};

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use prost::Message;

    use super::*;
    use crate::id::TrustDomain;
    use crate::wire::types;

    #[test]
    fn an_entry_survives_the_wire() {
        let id = |path: &str| types::Spiffeid { trust_domain: "td".into(), path: path.into() };
        let wire = types::Entry {
            id: "one".into(),
            spiffe_id: Some(id("/w")),
            parent_id: Some(id("/spire/agent/x509pop/a")),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
            x509_svid_ttl: 60,
            jwt_svid_ttl: 30,
            federates_with: vec!["other".into()],
            admin: true,
            downstream: true,
            store_svid: true,
            expires_at: 2_000_000,
            dns_names: vec!["b".into(), "a".into()],
            hint: "internal".into(),
            created_at: 1_000_000,
            additional_attributes: Some(types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: true,
                jwt_svid_include_jti: true,
            }),
            revision_number: 0,
        };
        let now = Timestamp::from_second(1_000_000).unwrap();
        let entry = created(&TrustDomain::parse("td").unwrap(), &wire, now).unwrap();
        assert_eq!(sent(&entry, None), wire);
        assert_eq!(received(&wire).unwrap(), entry);
        assert_eq!(received_encoded(wire.encode_to_vec().into()).unwrap(), entry);
    }
}
