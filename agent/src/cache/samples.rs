//! Entries, selectors and SVIDs for the tests of this crate.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::entry::{Entry, Hint};
use spire_core::id::SpiffeId;
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::svid::x509::X509Svid;

use super::{HeldSvid, PrivateKey};

/// A set of selectors.
pub(crate) fn selectors(texts: &[&str]) -> BTreeSet<Selector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// An entry `spiffe://example.org/<id>` with these selectors.
pub(crate) fn entry(id: &str, required: &[&str]) -> Entry {
    Entry {
        id: id.parse().unwrap(),
        spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/{id}")).unwrap(),
        parent_id: SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap(),
        selectors: RequiredSelectors::new(selectors(required)).unwrap(),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: BTreeSet::new(),
        dns_names: Vec::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: Hint::default(),
        revision_number: 0,
        created_at: start(),
        attributes: None,
    }
}

/// When the tests begin.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Something in the place of an SVID of `entry`, issued at `issued_at` for an hour.
pub(crate) fn svid(entry: &Entry, issued_at: Timestamp) -> HeldSvid {
    let chain = vec![Bytes::copy_from_slice(format!("{} {issued_at}", entry.id).as_bytes())];
    HeldSvid {
        svid: X509Svid {
            id: entry.spiffe_id.clone(),
            chain,
            serial: "1".to_owned(),
            not_before: issued_at - SignedDuration::from_secs(10),
            expires_at: issued_at + SignedDuration::from_hours(1),
        },
        key: PrivateKey::new(entry.id.as_str().as_bytes()),
        revision: entry.revision_number,
    }
}
