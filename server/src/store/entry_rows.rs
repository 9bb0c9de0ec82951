//! Entries as rows: the columns, their links, and the way there and back.

use std::collections::HashSet;

use jiff::Timestamp;
use spire_core::clock::whole_second;
use spire_core::entry::{AdditionalAttributes, Entry, EntryUpdate};
use spire_core::id::TrustDomain;
use spire_core::selector::RequiredSelectors;

use super::StoreError;
use super::packing::{self, Fingerprint, of_selector};
use super::row::Row;
use super::selection::Links;
use super::sql::Value;
use super::transaction::Transaction;

/// What is selected from `entries r`, in the order in which [`Kept::read`] reads it.
pub(super) const COLUMNS: &str = "r.number, r.entry_id, r.spiffe_id, r.parent_id, r.selectors, \
    r.federates_with, r.dns_names, r.x509_svid_ttl, r.jwt_svid_ttl, r.admin, r.downstream, \
    r.store_svid, r.expires_at, r.hint, r.revision_number, r.created_at, r.attributes";

/// The columns of [`values`], in order.
pub(super) const WRITTEN: [&str; 19] = [
    "entry_id",
    "spiffe_id",
    "parent_id",
    "identity",
    "selectors",
    "selector_count",
    "federates_with",
    "federation_count",
    "dns_names",
    "x509_svid_ttl",
    "jwt_svid_ttl",
    "admin",
    "downstream",
    "store_svid",
    "expires_at",
    "hint",
    "revision_number",
    "created_at",
    "attributes",
];

/// Links entries to their selectors.
pub(super) const SELECTORS: Links =
    Links { table: "entry_selectors", member: "selector", count: "selector_count" };

/// Links entries to the trust domains that they federate with.
pub(super) const FEDERATIONS: Links =
    Links { table: "entry_federations", member: "trust_domain", count: "federation_count" };

const NO_PREFETCH: i64 = 1;
const WITH_JTI: i64 = 2;

/// An entry and its row's number.
pub(super) struct Kept {
    pub(super) number: i64,
    pub(super) entry: Entry,
}

impl Kept {
    /// Reads a row of [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let id = row.text(1)?;
        let corrupt = |column: &str| StoreError::Corrupt(format!("entry {id:?}: bad {column}"));
        let selectors = packing::unpack(row.blob(4)?)?;
        let domains = row.text(5)?.split_terminator(' ').map(str::parse);
        let names = row.text(6)?.split_terminator(' ').map(str::parse);
        let ttl = |index, column| u32::try_from(row.integer(index)?).map_err(|_| corrupt(column));
        let expires_at = match row.integer(12)? {
            0 => None,
            _ => Some(row.timestamp(12)?),
        };
        let attributes = row.optional_integer(16)?.map(|bits| AdditionalAttributes {
            disable_x509_svid_prefetch: bits & NO_PREFETCH != 0,
            jwt_svid_include_jti: bits & WITH_JTI != 0,
        });
        let entry = Entry {
            id: id.parse().map_err(|_| corrupt("entry_id"))?,
            spiffe_id: row.text(2)?.parse().map_err(|_| corrupt("spiffe_id"))?,
            parent_id: row.text(3)?.parse().map_err(|_| corrupt("parent_id"))?,
            selectors: RequiredSelectors::new(selectors).map_err(|_| corrupt("selectors"))?,
            x509_svid_ttl: ttl(7, "x509_svid_ttl")?,
            jwt_svid_ttl: ttl(8, "jwt_svid_ttl")?,
            federates_with: domains
                .collect::<Result<_, _>>()
                .map_err(|_| corrupt("federates_with"))?,
            dns_names: names.collect::<Result<_, _>>().map_err(|_| corrupt("dns_names"))?,
            admin: row.truth(9)?,
            downstream: row.truth(10)?,
            store_svid: row.truth(11)?,
            expires_at,
            hint: row.text(13)?.parse().map_err(|_| corrupt("hint"))?,
            revision_number: row.integer(14)?,
            created_at: row.timestamp(15)?,
            attributes,
        };
        Ok(Self { number: row.integer(0)?, entry })
    }
}

/// The statement that replaces a row's [`values`]; the last parameter is its number.
pub(super) fn update() -> String {
    format!("UPDATE entries SET {} = ? WHERE number = ?", WRITTEN.join(" = ?, "))
}

/// What goes into a row.
pub(super) fn values(entry: &Entry, identity: Fingerprint) -> Vec<Value> {
    vec![
        entry.id.as_str().into(),
        entry.spiffe_id.as_str().into(),
        entry.parent_id.as_str().into(),
        identity.into(),
        packing::pack(entry.selectors.iter()).into(),
        (entry.selectors.iter().len() as i64).into(),
        joined(entry.federates_with.iter().map(|domain| domain.as_str())).into(),
        (entry.federates_with.len() as i64).into(),
        joined(entry.dns_names.iter().map(|name| name.as_str())).into(),
        entry.x509_svid_ttl.into(),
        entry.jwt_svid_ttl.into(),
        entry.admin.into(),
        entry.downstream.into(),
        entry.store_svid.into(),
        entry.expires_at.map_or(0, Timestamp::as_second).into(),
        entry.hint.as_str().into(),
        entry.revision_number.into(),
        entry.created_at.as_second().into(),
        entry.attributes.map(bits).into(),
    ]
}

fn bits(attributes: AdditionalAttributes) -> i64 {
    let prefetch = if attributes.disable_x509_svid_prefetch { NO_PREFETCH } else { 0 };
    let jti = if attributes.jwt_svid_include_jti { WITH_JTI } else { 0 };
    prefetch | jti
}

/// Words that hold no space, each followed by one.
fn joined<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut text = String::new();
    for word in words {
        text.push_str(word);
        text.push(' ');
    }
    text
}

/// What entries have in common that would be the same entry.
pub(super) fn identity(entry: &Entry) -> Fingerprint {
    packing::of_identity(&entry.parent_id, &entry.spiffe_id, entry.selectors.iter())
}

/// An entry as it is stored first.
pub(super) fn as_created(entry: &Entry) -> Entry {
    let created_at = whole_second(entry.created_at);
    normal(Entry { revision_number: 0, created_at, ..entry.clone() })
}

/// An entry as it is after `update`.
pub(super) fn as_updated(entry: &Entry, update: &EntryUpdate) -> Entry {
    fn pick<T: Clone>(update: &Option<T>, present: &T) -> T {
        update.as_ref().unwrap_or(present).clone()
    }
    normal(Entry {
        id: entry.id.clone(),
        spiffe_id: pick(&update.spiffe_id, &entry.spiffe_id),
        parent_id: pick(&update.parent_id, &entry.parent_id),
        selectors: pick(&update.selectors, &entry.selectors),
        x509_svid_ttl: pick(&update.x509_svid_ttl, &entry.x509_svid_ttl),
        jwt_svid_ttl: pick(&update.jwt_svid_ttl, &entry.jwt_svid_ttl),
        federates_with: pick(&update.federates_with, &entry.federates_with),
        dns_names: pick(&update.dns_names, &entry.dns_names),
        admin: pick(&update.admin, &entry.admin),
        downstream: pick(&update.downstream, &entry.downstream),
        store_svid: pick(&update.store_svid, &entry.store_svid),
        expires_at: pick(&update.expires_at, &entry.expires_at),
        hint: pick(&update.hint, &entry.hint),
        revision_number: entry.revision_number + 1,
        created_at: entry.created_at,
        attributes: pick(&update.attributes, &entry.attributes),
    })
}

/// The entry as it will be read again.
fn normal(mut entry: Entry) -> Entry {
    let mut seen = HashSet::new();
    entry.dns_names.retain(|name| seen.insert(name.clone()));
    entry.expires_at = entry.expires_at.map(whole_second);
    entry
}

/// Writes the links by which the entries with these numbers are found.
pub(super) async fn link(
    tx: &mut Transaction,
    entries: &[(i64, &Entry)],
) -> Result<(), StoreError> {
    let (selectors, federations) = links(entries);
    tx.insert("entry_selectors", &["selector", "owner"], selectors).await?;
    tx.insert("entry_federations", &["trust_domain", "owner"], federations).await
}

/// Deletes what [`link`] wrote.
pub(super) async fn unlink(
    tx: &mut Transaction,
    entries: &[(i64, &Entry)],
) -> Result<(), StoreError> {
    let (selectors, federations) = links(entries);
    tx.unlink("entry_selectors", "selector", &selectors).await?;
    tx.unlink("entry_federations", "trust_domain", &federations).await
}

/// Deletes the links of the entries with these numbers to one trust domain.
pub(super) async fn unlink_domain(
    tx: &mut Transaction,
    trust_domain: &TrustDomain,
    numbers: &[i64],
) -> Result<(), StoreError> {
    let row = |&number: &i64| vec![trust_domain.as_str().into(), number.into()];
    let rows: Vec<Vec<Value>> = numbers.iter().map(row).collect();
    tx.unlink("entry_federations", "trust_domain", &rows).await
}

/// The rows of entries' links: to selectors, then to trust domains, each with the owner.
pub(super) fn links(entries: &[(i64, &Entry)]) -> (Vec<Vec<Value>>, Vec<Vec<Value>>) {
    let selectors = entries.iter().flat_map(|&(number, entry)| {
        entry.selectors.iter().map(move |one| vec![of_selector(one).into(), number.into()])
    });
    let federations = entries.iter().flat_map(|&(number, entry)| {
        entry.federates_with.iter().map(move |one| vec![one.as_str().into(), number.into()])
    });
    (selectors.collect(), federations.collect())
}
