//! How an entry lies in a record, and how it is read from there.
//!
//! The head of a record holds what the list of a sync tells of each entry: its id where that is a
//! UUID, its revision number and the second in which it was created.

use jiff::Timestamp;
use spire_core::entry::{AdditionalAttributes, Entry, EntryId, Hint};
use spire_core::id::TrustDomain;
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::wire::convert::{EntryView, IdView};
use uuid::Uuid;

use super::group::Group;
use super::packing::{Packer, Texts, Unpacker, long, short};
use super::page::{Head, Page, Record};
use super::snapshot::Snapshot;

const ADMIN: u8 = 1;
const DOWNSTREAM: u8 = 1 << 1;
const STORE_SVID: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const ATTRIBUTES: u8 = 1 << 4;
const NO_PREFETCH: u8 = 1 << 5;
const JTI: u8 = 1 << 6;
const UUID: u8 = 1 << 7;

/// Packs an entry. Its parent is known from where it lies.
pub(super) fn pack(entry: &Entry, trust_domain: &TrustDomain) -> Record {
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
    if uuid.is_none() {
        packer.text(entry.id.as_str());
    }
    packer.text(short(&entry.spiffe_id, trust_domain));
    packer.sorted_texts(entry.selectors.iter().map(Selector::as_str).collect());
    packer.signed(entry.created_at.subsec_nanosecond().into());
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
    let head = pack_head(uuid, entry.revision_number, entry.created_at.as_second());
    Record { head, rest: packer.into_bytes() }
}

fn pack_head(uuid: Option<Uuid>, revision_number: i64, created_second: i64) -> Head {
    let mut head = Head::default();
    head[..16].copy_from_slice(uuid.unwrap_or_default().as_bytes());
    head[16..24].copy_from_slice(&revision_number.to_le_bytes());
    head[24..].copy_from_slice(&created_second.to_le_bytes());
    head
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
    snapshot: &'a Snapshot,
    group: &'a Group,
    page: &'a Page,
    /// Its place on the page.
    at: usize,
    head: &'a Head,
}

impl<'a> EntryRef<'a> {
    /// The entry of a slot that is taken.
    pub(super) fn of(snapshot: &'a Snapshot, group: &'a Group, slot: u32) -> Self {
        let (page, at) = group.page(slot);
        Self { snapshot, group, page, at, head: &page.heads()[at] }
    }

    /// All entries of a page.
    pub(super) fn of_page(
        snapshot: &'a Snapshot,
        group: &'a Group,
        page: &'a Page,
    ) -> impl Iterator<Item = Self> {
        let heads = page.heads().iter().enumerate();
        heads.map(move |(at, head)| Self { snapshot, group, page, at, head })
    }

    /// Its id.
    pub fn id(&self) -> EntryId {
        self.with_id(|id| id.parse()).expect("ids were packed from ids")
    }

    /// Its revision number.
    pub fn revision_number(&self) -> i64 {
        i64::from_le_bytes(self.head_bytes(16))
    }

    /// The second in which it was created.
    pub fn created_second(&self) -> i64 {
        i64::from_le_bytes(self.head_bytes(24))
    }

    /// All of it, read in place. Its selectors are in order of their bytes; its id may be written
    /// to `buffer`.
    pub fn view<'b>(&self, buffer: &'b mut IdBuffer) -> EntryView<'b, Texts<'b>>
    where
        'a: 'b,
    {
        let id_view = |short| id_view(short, self.snapshot.trust_domain());
        // In the order in which they were packed.
        let (flags, mut rest) = self.rest();
        let id = match flags & UUID {
            0 => rest.text(),
            _ => hyphenated(self.uuid(), buffer),
        };
        let (spiffe_id, selectors) = (id_view(rest.text()), rest.texts());
        let created_at = Timestamp::new(self.created_second(), rest.signed() as i32);
        let (x509_svid_ttl, jwt_svid_ttl) = (rest.integer() as u32, rest.integer() as u32);
        let expires_at = (flags & EXPIRES != 0).then(|| rest.timestamp());
        let (federates_with, dns_names) = (rest.texts(), rest.texts());
        EntryView {
            id,
            spiffe_id,
            parent_id: id_view(&self.group.parent),
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
            revision_number: self.revision_number(),
            created_at: created_at.expect("times were packed from times"),
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
            spiffe_id: long(self.short_spiffe_id(), trust_domain),
            parent_id: long(&self.group.parent, trust_domain),
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

    /// The group below its parent.
    pub(super) fn group(&self) -> &'a Group {
        self.group
    }

    /// Its SPIFFE ID, shortened.
    pub(super) fn short_spiffe_id(&self) -> &'a str {
        let (flags, mut rest) = self.rest();
        if flags & UUID == 0 {
            rest.text_bytes();
        }
        rest.text()
    }

    fn with_id<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        let (flags, mut rest) = self.rest();
        if flags & UUID == 0 {
            read(rest.text())
        } else {
            read(hyphenated(self.uuid(), &mut Uuid::encode_buffer()))
        }
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.head_bytes(0))
    }

    fn head_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.head[at..].first_chunk().expect("it was packed so")
    }

    /// Its flags, and what follows them.
    fn rest(&self) -> (u8, Unpacker<'a>) {
        let mut rest = Unpacker::new(self.page.rest(self.at));
        let [flags] = rest.array();
        (flags, rest)
    }
}
