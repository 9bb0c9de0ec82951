//! How an entry lies in a record, and how it is read from there.

use jiff::Timestamp;
use spire_core::entry::{AdditionalAttributes, Entry, EntryId, Hint};
use spire_core::id::TrustDomain;
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::wire::convert::{EntryView, IdView};
use uuid::Uuid;

use super::packing::{Packer, Texts, Unpacker, long, short};
use super::snapshot::Snapshot;

const ADMIN: u8 = 1;
const DOWNSTREAM: u8 = 1 << 1;
const STORE_SVID: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const ATTRIBUTES: u8 = 1 << 4;
const NO_PREFETCH: u8 = 1 << 5;
const JTI: u8 = 1 << 6;
const UUID: u8 = 1 << 7;

/// Packs an entry whose parent is the group of that number. What syncs and checks read comes
/// first.
pub(super) fn pack(entry: &Entry, group: u32, trust_domain: &TrustDomain) -> Packer {
    let uuid = canonical_uuid(entry.id.as_str());
    let attributes = entry.attributes.unwrap_or_default();
    let flags = [
        (entry.admin, ADMIN),
        (entry.downstream, DOWNSTREAM),
        (entry.store_svid, STORE_SVID),
        (entry.expires_at.is_some(), EXPIRES),
        (entry.attributes.is_some(), ATTRIBUTES),
        (attributes.disable_x509_svid_prefetch, NO_PREFETCH),
        (attributes.jwt_svid_include_jti, JTI),
        (uuid.is_some(), UUID),
    ];
    let mut packer = Packer::new();
    packer.raw(&[flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()]);
    packer.raw(&group.to_le_bytes());
    packer.signed(entry.revision_number);
    packer.timestamp(entry.created_at);
    match uuid {
        Some(uuid) => packer.raw(uuid.as_bytes()),
        None => packer.text(entry.id.as_str()),
    }
    packer.text(short(&entry.spiffe_id, trust_domain));
    packer.sorted_texts(entry.selectors.iter().map(Selector::as_str).collect());
    packer.integer(entry.x509_svid_ttl.into());
    packer.integer(entry.jwt_svid_ttl.into());
    if let Some(expires_at) = entry.expires_at {
        packer.timestamp(expires_at);
    }
    packer.texts(
        entry.federates_with.iter().map(TrustDomain::as_str).collect::<Vec<_>>().into_iter(),
    );
    packer.texts(entry.dns_names.iter().map(|name| name.as_str()));
    packer.text(entry.hint.as_str());
    packer
}

/// The value of a UUID that is written as UUIDs commonly are: then its value stands for its text.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (hyphenated(uuid, &mut Uuid::encode_buffer()) == text).then_some(uuid)
}

/// Room for an id that is kept as a UUID; made by [`Uuid::encode_buffer`].
pub type IdBuffer = [u8; 45];

fn hyphenated(uuid: Uuid, buffer: &mut IdBuffer) -> &str {
    uuid.hyphenated().encode_lower(buffer)
}

/// The parts of an ID that was shortened.
fn id_view<'a>(short: &'a str, trust_domain: &'a TrustDomain) -> IdView<'a> {
    match short.strip_prefix("spiffe://") {
        None => IdView { trust_domain: trust_domain.as_str(), path: short },
        Some(rest) => {
            let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            IdView { trust_domain, path }
        }
    }
}

/// An entry within a snapshot; the parts that a sync compares are read in place.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) record: &'a [u8],
}

impl<'a> EntryRef<'a> {
    /// Its id.
    pub fn id(&self) -> EntryId {
        self.with_id(|id| id.parse()).expect("ids were packed from ids")
    }

    /// Its revision number.
    pub fn revision_number(&self) -> i64 {
        self.after_group().signed()
    }

    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        let mut rest = self.after_group();
        rest.signed();
        rest.timestamp()
    }

    /// All of it, read in place. Its selectors are in order of their bytes; its id may be written
    /// to `buffer`.
    pub fn view<'b>(&self, buffer: &'b mut IdBuffer) -> EntryView<'b, Texts<'b>>
    where
        'a: 'b,
    {
        let flags = self.record[0];
        let id_view = |short| id_view(short, self.snapshot.trust_domain());
        let mut rest = self.after_group();
        // In the order in which they were packed.
        let (revision_number, created_at) = (rest.signed(), rest.timestamp());
        let id = match flags & UUID {
            0 => rest.text(),
            _ => hyphenated(Uuid::from_bytes(rest.array()), buffer),
        };
        let (spiffe_id, selectors) = (id_view(rest.text()), rest.texts());
        let (x509_svid_ttl, jwt_svid_ttl) = (rest.integer() as u32, rest.integer() as u32);
        let expires_at = (flags & EXPIRES != 0).then(|| rest.timestamp());
        let (federates_with, dns_names) = (rest.texts(), rest.texts());
        EntryView {
            id,
            spiffe_id,
            parent_id: id_view(self.snapshot.group_name(self.group())),
            selectors,
            x509_svid_ttl,
            jwt_svid_ttl,
            federates_with,
            dns_names,
            admin: flags & ADMIN != 0,
            downstream: flags & DOWNSTREAM != 0,
            store_svid: flags & STORE_SVID != 0,
            expires_at,
            hint: rest.text(),
            revision_number,
            created_at,
            attributes: (flags & ATTRIBUTES != 0).then_some(AdditionalAttributes {
                disable_x509_svid_prefetch: flags & NO_PREFETCH != 0,
                jwt_svid_include_jti: flags & JTI != 0,
            }),
        }
    }

    /// All of it.
    pub fn to_entry(&self) -> Entry {
        let trust_domain = self.snapshot.trust_domain();
        let mut buffer = Uuid::encode_buffer();
        let view = self.view(&mut buffer);
        let selectors = view.selectors.map(|text| text.parse().expect("as packed"));
        let domains = view.federates_with.map(|name| name.parse().expect("as packed"));
        let names = view.dns_names.map(|name| name.parse().expect("as packed"));
        Entry {
            id: view.id.parse().expect("ids were packed from ids"),
            spiffe_id: long(self.after_id().text(), trust_domain),
            parent_id: long(self.snapshot.group_name(self.group()), trust_domain),
            selectors: RequiredSelectors::new(selectors).expect("packed from a set with members"),
            x509_svid_ttl: view.x509_svid_ttl,
            jwt_svid_ttl: view.jwt_svid_ttl,
            federates_with: domains.collect(),
            dns_names: names.collect(),
            admin: view.admin,
            downstream: view.downstream,
            store_svid: view.store_svid,
            expires_at: view.expires_at,
            hint: view.hint.parse::<Hint>().expect("packed from a hint"),
            revision_number: view.revision_number,
            created_at: view.created_at,
            attributes: view.attributes,
        }
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.with_id(|own| own == id)
    }

    /// The number of its parent's group.
    pub(super) fn group(&self) -> u32 {
        let group = self.record[1..].first_chunk().expect("records are whole");
        u32::from_le_bytes(*group)
    }

    /// Its SPIFFE ID, shortened.
    pub(super) fn short_spiffe_id(&self) -> &'a [u8] {
        self.after_id().text_bytes()
    }

    /// Its selectors' texts in order.
    pub(super) fn selector_texts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.after_id();
        rest.text_bytes();
        rest.texts().bytes()
    }

    fn after_group(&self) -> Unpacker<'a> {
        Unpacker::new(&self.record[1 + size_of::<u32>()..])
    }

    fn before_id(&self) -> Unpacker<'a> {
        let mut rest = self.after_group();
        rest.signed();
        rest.timestamp();
        rest
    }

    fn with_id<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        let mut rest = self.before_id();
        if self.record[0] & UUID != 0 {
            read(hyphenated(Uuid::from_bytes(rest.array()), &mut Uuid::encode_buffer()))
        } else {
            read(rest.text())
        }
    }

    fn after_id(&self) -> Unpacker<'a> {
        let mut rest = self.before_id();
        if self.record[0] & UUID != 0 {
            rest.array::<16>();
        } else {
            rest.text_bytes();
        }
        rest
    }
}
