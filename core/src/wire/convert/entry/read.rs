//! Wire entries → entries: what a request asks for, and what a server has sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;

use super::super::{
    WireIdError, WireSelectorError, member_id, selectors, spiffe_id, time, workload_id,
};
use super::ALL_FIELDS;
use crate::entry::{
    AdditionalAttributes, BadEntryId, DnsName, DnsNameError, Entry, EntryId, EntryUpdate, Hint,
    HintError, SeveralKinds,
};
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::limits::{MAX_ENTRY_ITEM_BYTES, MAX_ENTRY_ITEMS};
use crate::selector::{NoSelectors, RequiredSelectors};
use crate::wire::types::{self, EntryMask};

/// Why an entry in a request is refused. The messages are those of SPIRE where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireEntryError {
    /// `id`
    #[error(transparent)]
    Id(#[from] BadEntryId),
    /// `parent_id`
    #[error("invalid parent ID: {0}")]
    ParentId(WireIdError),
    /// `spiffe_id`
    #[error("invalid spiffe ID: {0}")]
    SpiffeId(WireIdError),
    /// `selectors`, empty
    #[error(transparent)]
    NoSelectors(#[from] NoSelectors),
    /// `selectors`, one of them
    #[error(transparent)]
    Selector(#[from] WireSelectorError),
    /// `x509_svid_ttl` or `jwt_svid_ttl`
    #[error("{0} must not be negative, but is {1}")]
    NegativeTtl(&'static str, i32),
    /// `federates_with`
    #[error("invalid federated trust domain: {0}")]
    FederatesWith(IdError),
    /// `expires_at` lies before the present, or is no time at all.
    #[error("expires_at must be 0 (never) or a time to come in seconds since 1970, but is {0}")]
    ExpiresAt(i64),
    /// `dns_names`
    #[error("invalid DNS name: {0}")]
    DnsName(DnsNameError),
    /// `dns_names`, two of which say the same
    #[error("invalid DNS name: \"{0}\" overlaps with \"{1}\"")]
    DnsOverlap(DnsName, DnsName),
    /// `hint`
    #[error(transparent)]
    Hint(#[from] HintError),
    /// `store_svid` without a single type of selectors
    #[error(transparent)]
    StoreSvid(#[from] SeveralKinds),
    /// More selectors, trust domains or DNS names than any entry may have.
    #[error("{0} has {1} items, but an entry may have at most {MAX_ENTRY_ITEMS}")]
    TooMany(&'static str, usize),
    /// Bytes that are no entry at all.
    #[error("malformed entry: {0}")]
    Encoding(String),
    /// A selector that is longer than any may be.
    #[error("a selector has {0} bytes, but may have at most {MAX_ENTRY_ITEM_BYTES}")]
    LongSelector(usize),
}

/// Reads the fields of `wire` that `mask` names, or all without a mask, as an update of the entry
/// with its id. What the server alone decides (revision and creation) is passed over.
///
/// # Errors
/// [`WireEntryError`] names the first field that is wrong.
pub fn update(
    trust_domain: &TrustDomain,
    wire: &types::Entry,
    mask: Option<&EntryMask>,
    now: Timestamp,
) -> Result<EntryUpdate, WireEntryError> {
    fields(trust_domain, wire, wire.id.parse()?, mask.unwrap_or(&ALL_FIELDS), now)
}

fn fields(
    trust_domain: &TrustDomain,
    wire: &types::Entry,
    id: EntryId,
    mask: &EntryMask,
    now: Timestamp,
) -> Result<EntryUpdate, WireEntryError> {
    let mut fields = EntryUpdate::new(id);
    if mask.parent_id {
        let id = member_id(trust_domain, wire.parent_id.as_ref());
        fields.parent_id = Some(id.map_err(WireEntryError::ParentId)?);
    }
    if mask.spiffe_id {
        let id = workload_id(trust_domain, wire.spiffe_id.as_ref());
        fields.spiffe_id = Some(id.map_err(WireEntryError::SpiffeId)?);
    }
    if mask.selectors {
        fields.selectors = Some(required_selectors(&wire.selectors)?);
    }
    if mask.x509_svid_ttl {
        fields.x509_svid_ttl = Some(ttl("x509_svid_ttl", wire.x509_svid_ttl)?);
    }
    if mask.jwt_svid_ttl {
        fields.jwt_svid_ttl = Some(ttl("jwt_svid_ttl", wire.jwt_svid_ttl)?);
    }
    if mask.federates_with {
        fields.federates_with = Some(trust_domains(&wire.federates_with)?);
    }
    if mask.dns_names {
        fields.dns_names = Some(dns_names(&wire.dns_names)?);
    }
    if mask.expires_at {
        let expires_at = time(wire.expires_at).ok().filter(|at| at.is_none_or(|at| at > now));
        fields.expires_at = Some(expires_at.ok_or(WireEntryError::ExpiresAt(wire.expires_at))?);
    }
    if mask.hint {
        fields.hint = Some(wire.hint.parse()?);
    }
    fields.admin = mask.admin.then_some(wire.admin);
    fields.downstream = mask.downstream.then_some(wire.downstream);
    fields.store_svid = mask.store_svid.then_some(wire.store_svid);
    fields.attributes =
        mask.additional_attributes.then(|| wire.additional_attributes.as_ref().map(Into::into));
    Ok(fields)
}

/// Reads an entry that shall be created `now`; without an id it gets a random one.
///
/// # Errors
/// [`WireEntryError`] names the first field that is wrong.
pub fn created(
    trust_domain: &TrustDomain,
    wire: &types::Entry,
    now: Timestamp,
) -> Result<Entry, WireEntryError> {
    let id = if wire.id.is_empty() { EntryId::random() } else { wire.id.parse()? };
    let fields = fields(trust_domain, wire, id, &ALL_FIELDS, now)?;
    // Read by the full mask, these three are there.
    let (Some(spiffe_id), Some(parent_id), Some(selectors)) =
        (&fields.spiffe_id, &fields.parent_id, &fields.selectors)
    else {
        return Err(WireEntryError::SpiffeId(WireIdError::Missing));
    };
    let (spiffe_id, parent_id) = (spiffe_id.clone(), parent_id.clone());
    let mut entry = blank(fields.id.clone(), spiffe_id, parent_id, selectors.clone(), now);
    fields.apply(&mut entry);
    entry.check_store_svid()?;
    Ok(entry)
}

/// Reads an entry that a server has sent, and so has checked. What a mask has left out has its
/// default, except the id, both SPIFFE IDs and the selectors, which must be there.
///
/// # Errors
/// [`WireEntryError`] names the first field that is missing or wrong.
pub fn received(wire: &types::Entry) -> Result<Entry, WireEntryError> {
    let mut entry = blank(
        wire.id.parse()?,
        spiffe_id(wire.spiffe_id.as_ref()).map_err(WireEntryError::SpiffeId)?,
        spiffe_id(wire.parent_id.as_ref()).map_err(WireEntryError::ParentId)?,
        RequiredSelectors::new(selectors(&wire.selectors)?)?,
        Timestamp::from_second(wire.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
    );
    entry.x509_svid_ttl = ttl("x509_svid_ttl", wire.x509_svid_ttl)?;
    entry.jwt_svid_ttl = ttl("jwt_svid_ttl", wire.jwt_svid_ttl)?;
    entry.federates_with = trust_domains(&wire.federates_with)?;
    entry.dns_names = dns_names(&wire.dns_names)?;
    entry.admin = wire.admin;
    entry.downstream = wire.downstream;
    entry.store_svid = wire.store_svid;
    entry.expires_at =
        time(wire.expires_at).map_err(|_| WireEntryError::ExpiresAt(wire.expires_at))?;
    entry.hint = wire.hint.parse()?;
    entry.revision_number = wire.revision_number;
    entry.attributes = wire.additional_attributes.as_ref().map(Into::into);
    Ok(entry)
}

/// As [`received`], of an entry that is still encoded.
///
/// # Errors
/// As [`received`]; [`WireEntryError::Encoding`] where the bytes are no entry.
pub fn received_encoded(encoded: Bytes) -> Result<Entry, WireEntryError> {
    let wire = types::Entry::decode(encoded);
    received(&wire.map_err(|error| WireEntryError::Encoding(error.to_string()))?)
}

fn blank(
    id: EntryId,
    spiffe_id: SpiffeId,
    parent_id: SpiffeId,
    selectors: RequiredSelectors,
    created_at: Timestamp,
) -> Entry {
    Entry {
        id,
        spiffe_id,
        parent_id,
        selectors,
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
        created_at,
        attributes: None,
    }
}

fn required_selectors(wire: &[types::Selector]) -> Result<RequiredSelectors, WireEntryError> {
    bounded("selectors", wire.len())?;
    let selectors = selectors(wire)?;
    if let Some(long) = selectors.iter().find(|one| one.as_str().len() > MAX_ENTRY_ITEM_BYTES) {
        return Err(WireEntryError::LongSelector(long.as_str().len()));
    }
    Ok(RequiredSelectors::new(selectors)?)
}

fn trust_domains(wire: &[String]) -> Result<BTreeSet<TrustDomain>, WireEntryError> {
    bounded("federates_with", wire.len())?;
    let domains = wire.iter().map(|name| TrustDomain::parse(name));
    domains.collect::<Result<_, _>>().map_err(WireEntryError::FederatesWith)
}

fn dns_names(wire: &[String]) -> Result<Vec<DnsName>, WireEntryError> {
    bounded("dns_names", wire.len())?;
    let mut names: Vec<DnsName> = Vec::with_capacity(wire.len());
    for name in wire {
        let name: DnsName = name.parse().map_err(WireEntryError::DnsName)?;
        if let Some(other) = names.iter().find(|other| other.overlaps(&name)) {
            return Err(WireEntryError::DnsOverlap(name, other.clone()));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn ttl(field: &'static str, seconds: i32) -> Result<u32, WireEntryError> {
    u32::try_from(seconds).map_err(|_| WireEntryError::NegativeTtl(field, seconds))
}

fn bounded(field: &'static str, items: usize) -> Result<(), WireEntryError> {
    if items > MAX_ENTRY_ITEMS { Err(WireEntryError::TooMany(field, items)) } else { Ok(()) }
}

impl From<&types::entry::AdditionalAttributes> for AdditionalAttributes {
    fn from(wire: &types::entry::AdditionalAttributes) -> Self {
        Self {
            disable_x509_svid_prefetch: wire.disable_x509_svid_prefetch,
            jwt_svid_include_jti: wire.jwt_svid_include_jti,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> types::Entry {
        let id = |path: &str| types::Spiffeid { trust_domain: "td".into(), path: path.into() };
        types::Entry {
            spiffe_id: Some(id("/w")),
            parent_id: Some(id("/spire/agent/x509pop/a")),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
            ..types::Entry::default()
        }
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("td").unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut types::Entry)) -> String {
        let mut wire = wire();
        change(&mut wire);
        created(&domain(), &wire, now()).unwrap_err().to_string()
    }

    #[test]
    fn an_entry_without_id_gets_a_random_one() {
        let ids = [(); 2].map(|()| created(&domain(), &wire(), now()).unwrap().id);
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn what_is_given_twice_is_kept_once() {
        let mut wire = wire();
        wire.selectors.push(wire.selectors[0].clone());
        wire.dns_names = vec!["a".into(), "a".into()];
        let entry = created(&domain(), &wire, now()).unwrap();
        assert_eq!((entry.selectors.iter().len(), entry.dns_names.len()), (1, 1));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let foreign = types::Spiffeid { trust_domain: "other".into(), path: "/w".into() };
        assert_eq!(
            refusal(|wire| wire.spiffe_id = Some(foreign)),
            r#"invalid spiffe ID: "spiffe://other/w" is not a member of trust domain "td""#
        );
        assert_eq!(
            refusal(|wire| wire.parent_id = None),
            "invalid parent ID: request must specify SPIFFE ID"
        );
        assert_eq!(refusal(|wire| wire.selectors.clear()), "selector list is empty");
        assert_eq!(refusal(|wire| wire.selectors[0].value.clear()), "missing selector value");
        assert_eq!(
            refusal(|wire| wire.x509_svid_ttl = -1),
            "x509_svid_ttl must not be negative, but is -1"
        );
        assert_eq!(
            refusal(|wire| wire.jwt_svid_ttl = i32::MIN),
            "jwt_svid_ttl must not be negative, but is -2147483648"
        );
        assert_eq!(
            refusal(|wire| wire.federates_with = vec!["No".into()]),
            "invalid federated trust domain: trust domain characters are limited to lowercase \
             letters, numbers, dots, dashes, and underscores"
        );
        for past in [-1, 1, 1_000_000, i64::MAX, i64::MIN] {
            assert_eq!(
                refusal(|wire| wire.expires_at = past),
                format!(
                    "expires_at must be 0 (never) or a time to come in seconds since 1970, but is \
                     {past}"
                )
            );
        }
        assert_eq!(
            refusal(|wire| wire.dns_names = vec![String::new()]),
            "invalid DNS name: empty or only whitespace"
        );
        assert_eq!(
            refusal(|wire| wire.dns_names = vec!["*.td".into(), "a.td".into()]),
            r#"invalid DNS name: "a.td" overlaps with "*.td""#
        );
        assert_eq!(
            refusal(|wire| wire.hint = "x".repeat(1025)),
            "hint is too long, max length is 1024 characters"
        );
        assert_eq!(refusal(|wire| wire.hint = "a\0b".into()), "hint has a NUL character");
        assert!(refusal(|wire| wire.id = "a b".into()).starts_with("entry ID \"a b\" is not"));
    }

    #[test]
    fn a_stored_svid_needs_selectors_of_one_type() {
        let text = refusal(|wire| {
            wire.store_svid = true;
            let other = types::Selector { r#type: "k8s".into(), value: "ns:a".into() };
            wire.selectors.push(other);
        });
        assert_eq!(text, "selector types must be the same when store SVID is enabled");
    }

    #[test]
    fn sizes_are_bounded() {
        let many = refusal(|wire| {
            wire.dns_names = (0..=MAX_ENTRY_ITEMS).map(|number| format!("n{number}")).collect();
        });
        assert_eq!(many, "dns_names has 1001 items, but an entry may have at most 1000");
        let long = refusal(|wire| wire.selectors[0].value = "x".repeat(MAX_ENTRY_ITEM_BYTES));
        assert!(long.contains("may have at most 8192"), "{long}");
    }

    #[test]
    fn an_update_reads_only_what_the_mask_names() {
        let mut wire = types::Entry { id: "one".into(), hint: "new".into(), ..wire() };
        wire.spiffe_id = None;
        let mask = EntryMask { hint: true, ..EntryMask::default() };
        let update = update(&domain(), &wire, Some(&mask), now()).unwrap();
        let expected = EntryUpdate {
            hint: Some("new".parse().unwrap()),
            ..EntryUpdate::new("one".parse().unwrap())
        };
        assert_eq!(update, expected);
    }
}
