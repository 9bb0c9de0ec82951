//! The journal: which authorities this server has, so that a restart takes them up again. Its
//! layout is SPIRE's; it is kept in the database under the id of the active X.509 authority.

use jiff::Timestamp;
use prost::Message;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::slots::SlotId;

/// How many entries of each kind are kept, the newest ones.
const MAX_ENTRIES: usize = 10;

/// Every authority that this server remembers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Journal {
    #[prost(message, repeated, tag = "1")]
    pub(crate) x509_cas: Vec<X509CaEntry>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) jwt_keys: Vec<JwtKeyEntry>,
    /// Keys for WIT-SVIDs, which another server wrote: carried along unread.
    #[prost(bytes = "vec", repeated, tag = "3")]
    wit_keys: Vec<Vec<u8>>,
}

/// An X.509 authority.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct X509CaEntry {
    #[prost(string, tag = "1")]
    pub(crate) slot_id: String,
    /// Unix time in seconds.
    #[prost(int64, tag = "2")]
    pub(crate) issued_at: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) certificate: Vec<u8>,
    /// Empty where it is self-signed; else its own certificate and what leads to the roots.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(crate) upstream_chain: Vec<Vec<u8>>,
    #[prost(enumeration = "Status", tag = "5")]
    pub(crate) status: i32,
    #[prost(string, tag = "6")]
    pub(crate) authority_id: String,
    /// Unix time in seconds.
    #[prost(int64, tag = "7")]
    pub(crate) not_after: i64,
    #[prost(string, tag = "8")]
    pub(crate) upstream_authority_id: String,
}

impl X509CaEntry {
    /// SubjectPublicKeyInfo DER; `None` where the certificate cannot be read.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        let certificate = Certificate::from_der(&self.certificate).ok()?;
        certificate.tbs_certificate().subject_public_key_info().to_der().ok()
    }
}

/// A key for JWT-SVIDs.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct JwtKeyEntry {
    #[prost(string, tag = "1")]
    pub(crate) slot_id: String,
    /// Unix time in seconds.
    #[prost(int64, tag = "2")]
    pub(crate) issued_at: i64,
    /// Unix time in seconds.
    #[prost(int64, tag = "3")]
    pub(crate) not_after: i64,
    #[prost(string, tag = "4")]
    pub(crate) kid: String,
    /// PKIX DER.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) public_key: Vec<u8>,
    #[prost(enumeration = "Status", tag = "6")]
    pub(crate) status: i32,
    #[prost(string, tag = "7")]
    pub(crate) authority_id: String,
}

/// What an authority does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Status {
    Unknown = 0,
    Prepared = 2,
    Active = 3,
    Old = 4,
}

/// What both kinds of entries have in common.
pub(super) trait JournalEntry {
    fn slot(&self) -> Option<SlotId>;
    fn status(&self) -> Status;
    fn set_status(&mut self, status: Status);
    fn authority_id(&self) -> &str;
}

macro_rules! journal_entry {
    ($type:ty) => {
        impl JournalEntry for $type {
            fn slot(&self) -> Option<SlotId> {
                SlotId::BOTH.into_iter().find(|slot| slot.as_str() == self.slot_id)
            }
            fn status(&self) -> Status {
                Status::try_from(self.status).unwrap_or(Status::Unknown)
            }
            fn set_status(&mut self, status: Status) {
                self.status = status as i32;
            }
            fn authority_id(&self) -> &str {
                &self.authority_id
            }
        }
    };
}
journal_entry!(X509CaEntry);
journal_entry!(JwtKeyEntry);

/// Adds an authority that was prepared, as the newest.
pub(super) fn add<T: JournalEntry>(entries: &mut Vec<T>, entry: T) {
    entries.push(entry);
    let surplus = entries.len().saturating_sub(MAX_ENTRIES);
    entries.drain(..surplus);
}

/// Notes that the authority `id` signs, and that the one before it no longer does.
pub(super) fn activate<T: JournalEntry>(entries: &mut [T], id: &str) {
    for entry in entries {
        if entry.authority_id() == id {
            entry.set_status(Status::Active);
        } else if entry.status() == Status::Active {
            entry.set_status(Status::Old);
        }
    }
}

/// The newest entry of each slot: older ones have lost their key.
pub(super) fn newest_per_slot<T: JournalEntry>(entries: &[T]) -> impl Iterator<Item = &T> {
    SlotId::BOTH
        .into_iter()
        .filter_map(|slot| entries.iter().rev().find(|entry| entry.slot() == Some(slot)))
}

impl Journal {
    /// When the last of its authorities ends; nothing can be taken up from it afterwards.
    pub(crate) fn ends_at(&self) -> Option<Timestamp> {
        let x509 = self.x509_cas.iter().map(|entry| entry.not_after);
        let jwt = self.jwt_keys.iter().map(|entry| entry.not_after);
        x509.chain(jwt).max().and_then(|second| Timestamp::from_second(second).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt_key(id: &str, slot: SlotId, status: Status) -> JwtKeyEntry {
        JwtKeyEntry {
            slot_id: slot.to_string(),
            issued_at: 1,
            not_after: 2,
            kid: id.to_owned(),
            public_key: vec![1],
            status: status as i32,
            authority_id: id.to_owned(),
        }
    }

    #[test]
    fn the_layout_is_the_one_of_spire() {
        let entry = X509CaEntry {
            slot_id: "A".into(),
            issued_at: 5,
            certificate: vec![1, 2],
            upstream_chain: vec![vec![3]],
            status: Status::Active as i32,
            authority_id: "ab".into(),
            not_after: 6,
            upstream_authority_id: "cd".into(),
        };
        let journal = Journal { x509_cas: vec![entry], ..Journal::default() };
        let expected = b"\x0a\x18\x0a\x01A\x10\x05\x1a\x02\x01\x02\x22\x01\x03\x28\x03\x32\x02ab\x38\x06\x42\x02cd";
        assert_eq!(journal.encode_to_vec(), expected);
    }

    #[test]
    fn it_survives_a_round_trip_with_what_it_does_not_know() {
        let journal = Journal {
            jwt_keys: vec![jwt_key("k", SlotId::B, Status::Prepared)],
            wit_keys: vec![b"\x0a\x01A".to_vec()],
            ..Journal::default()
        };
        let bytes = journal.encode_to_vec();
        assert_eq!(Journal::decode(bytes.as_slice()).unwrap(), journal);
    }

    #[test]
    fn the_ten_newest_are_kept() {
        let mut entries = Vec::new();
        for number in 0..13 {
            add(&mut entries, jwt_key(&number.to_string(), SlotId::A, Status::Old));
        }
        assert_eq!(entries.len(), 10);
        assert_eq!(entries[0].kid, "3");
    }

    #[test]
    fn one_authority_is_active() {
        let mut entries = vec![
            jwt_key("1", SlotId::A, Status::Old),
            jwt_key("2", SlotId::B, Status::Active),
            jwt_key("3", SlotId::A, Status::Prepared),
        ];
        activate(&mut entries, "3");
        let statuses: Vec<_> = entries.iter().map(JournalEntry::status).collect();
        assert_eq!(statuses, [Status::Old, Status::Old, Status::Active]);
        let newest: Vec<_> = newest_per_slot(&entries).map(|entry| entry.kid.as_str()).collect();
        assert_eq!(newest, ["3", "2"]);
    }
}
