//! Registration entries, and the one function that matches them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::id::{SpiffeId, TrustDomain};
use crate::limits::{MAX_ENTRY_ID_BYTES, MAX_HINT_BYTES};
use crate::selector::{RequiredSelectors, Selector};

/// The id of an entry: 1 to 255 bytes of `A-Z a-z 0-9 . _ -`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(Arc<str>);

/// The text is no entry id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry ID {0:?} is not 1 to 255 letters, numbers, dots, dashes and underscores")]
pub struct BadEntryId(String);

impl EntryId {
    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntryId {
    type Err = BadEntryId;
    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = (1..=MAX_ENTRY_ID_BYTES).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(BadEntryId(text.chars().take(MAX_ENTRY_ID_BYTES).collect()))
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for EntryId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A hint by which a workload chooses among its SVIDs: at most 1024 bytes, none of them NUL, often
/// empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint(Arc<str>);

/// Why a text is no hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// It is longer than 1024 bytes.
    #[error("hint is too long, max length is 1024 characters")]
    TooLong,
    /// It has a NUL character, which not every database keeps.
    #[error("hint has a NUL character")]
    Nul,
}

impl Hint {
    /// The hint as text, empty where there is none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hint {
    type Err = HintError;
    fn from_str(text: &str) -> Result<Self, HintError> {
        match text {
            _ if text.len() > MAX_HINT_BYTES => Err(HintError::TooLong),
            _ if text.contains('\0') => Err(HintError::Nul),
            _ => Ok(Self(text.into())),
        }
    }
}

/// A DNS name that an X.509-SVID may carry: ASCII labels, with at most one leading `*.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

/// Why a text is no DNS name for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsNameError {
    /// Nothing is there, or only a wildcard.
    #[error("empty or only whitespace")]
    Empty,
    /// The whole name exceeds 255 bytes.
    #[error("length exceeded")]
    TooLong,
    /// A label is empty, too long, or holds a character that no label may hold.
    #[error("label does not match regex: ^[a-zA-Z0-9]([-]*[a-zA-Z0-9])+$|^[a-zA-Z0-9]$")]
    Label,
}

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name and `other` are a wildcard and a name that it covers.
    pub fn overlaps(&self, other: &Self) -> bool {
        let covers = |wildcard: &str, name: &str| {
            let Some(parent) = wildcard.strip_prefix("*.") else { return false };
            !name.starts_with("*.") && name.split_once('.').is_some_and(|(_, rest)| rest == parent)
        };
        covers(&self.0, &other.0) || covers(&other.0, &self.0)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;
    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        if text.trim().is_empty() {
            return Err(DnsNameError::Empty);
        }
        if text.len() > 255 {
            return Err(DnsNameError::TooLong);
        }
        let well_formed = |label: &str| {
            label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !text.strip_prefix("*.").unwrap_or(text).split('.').all(well_formed) {
            return Err(DnsNameError::Label);
        }
        Ok(Self(text.into()))
    }
}

/// Which selectors earn which SPIFFE ID, below which parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id in this trust domain.
    pub id: EntryId,
    /// The identity that it grants.
    pub spiffe_id: SpiffeId,
    /// The agent, alias or workload below which it may be served.
    pub parent_id: SpiffeId,
    /// What a workload must be found to have, all of it.
    pub selectors: RequiredSelectors,
    /// Lifetime of its X.509-SVIDs in seconds; 0 means the server's default.
    pub x509_svid_ttl: u32,
    /// Lifetime of its JWT-SVIDs in seconds; 0 means the server's default.
    pub jwt_svid_ttl: u32,
    /// The foreign trust domains whose bundles its workloads get.
    pub federates_with: BTreeSet<TrustDomain>,
    /// DNS names of its X.509-SVIDs in the order given; the first becomes the common name.
    pub dns_names: Vec<DnsName>,
    /// Whether its holder may administer the server.
    pub admin: bool,
    /// Whether its holder is a server below this one.
    pub downstream: bool,
    /// Whether its SVIDs go to a store instead of the Workload API.
    pub store_svid: bool,
    /// When it ceases to exist; `None` means never.
    pub expires_at: Option<Timestamp>,
    /// What workloads choose by; non-empty hints are unique within a response.
    pub hint: Hint,
    /// 0 at first, one more with every update.
    pub revision_number: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// Rarer settings; `None` where they were never set, which the API shows.
    pub attributes: Option<AdditionalAttributes>,
}

/// Settings of an entry that few entries have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdditionalAttributes {
    /// Sign its X.509-SVID only once a workload asks.
    pub disable_x509_svid_prefetch: bool,
    /// Give each of its JWT-SVIDs a `jti`.
    pub jwt_svid_include_jti: bool,
}

impl Entry {
    /// Whether a workload in which `found` was found earns this entry's identity.
    pub fn matches(&self, found: &BTreeSet<Selector>) -> bool {
        self.selectors.are_met_by(found)
    }

    /// Whether its selectors name one plugin where it has `store_svid`, as they must.
    ///
    /// # Errors
    /// [`SeveralKinds`] where they name several.
    pub fn check_store_svid(&self) -> Result<(), SeveralKinds> {
        if self.store_svid && !self.selectors.are_of_one_kind() {
            Err(SeveralKinds)
        } else {
            Ok(())
        }
    }
}

/// An entry with `store_svid` has selectors of several types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("selector types must be the same when store SVID is enabled")]
pub struct SeveralKinds;

/// New values for an entry; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of an entry")]
pub struct EntryUpdate {
    pub id: EntryId,
    pub spiffe_id: Option<SpiffeId>,
    pub parent_id: Option<SpiffeId>,
    pub selectors: Option<RequiredSelectors>,
    pub x509_svid_ttl: Option<u32>,
    pub jwt_svid_ttl: Option<u32>,
    pub federates_with: Option<BTreeSet<TrustDomain>>,
    pub dns_names: Option<Vec<DnsName>>,
    pub admin: Option<bool>,
    pub downstream: Option<bool>,
    pub store_svid: Option<bool>,
    pub expires_at: Option<Option<Timestamp>>,
    pub hint: Option<Hint>,
    pub attributes: Option<Option<AdditionalAttributes>>,
}

impl EntryUpdate {
    /// An update of `id` that changes nothing but the revision number.
    pub fn new(id: EntryId) -> Self {
        Self {
            id,
            spiffe_id: None,
            parent_id: None,
            selectors: None,
            x509_svid_ttl: None,
            jwt_svid_ttl: None,
            federates_with: None,
            dns_names: None,
            admin: None,
            downstream: None,
            store_svid: None,
            expires_at: None,
            hint: None,
            attributes: None,
        }
    }

    /// Writes the new values into `entry`, and nothing else.
    pub fn apply(&self, entry: &mut Entry) {
        fn set<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        set(&mut entry.spiffe_id, &self.spiffe_id);
        set(&mut entry.parent_id, &self.parent_id);
        set(&mut entry.selectors, &self.selectors);
        set(&mut entry.x509_svid_ttl, &self.x509_svid_ttl);
        set(&mut entry.jwt_svid_ttl, &self.jwt_svid_ttl);
        set(&mut entry.federates_with, &self.federates_with);
        set(&mut entry.dns_names, &self.dns_names);
        set(&mut entry.admin, &self.admin);
        set(&mut entry.downstream, &self.downstream);
        set(&mut entry.store_svid, &self.store_svid);
        set(&mut entry.expires_at, &self.expires_at);
        set(&mut entry.hint, &self.hint);
        set(&mut entry.attributes, &self.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_follow_the_rules_for_labels() {
        for good in ["a", "a.b-c.d", "*.example.org", "A1"] {
            assert!(good.parse::<DnsName>().is_ok(), "{good}");
        }
        for bad in ["", " ", "a..b", "-a", "a-", "a.*.b", "*", "*.", "ü.org", "a_b"] {
            assert!(bad.parse::<DnsName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_overlaps_what_it_covers() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert!(name("*.example.org").overlaps(&name("a.example.org")));
        assert!(!name("*.example.org").overlaps(&name("a.b.example.org")));
        assert!(!name("*.example.org").overlaps(&name("*.example.org")));
    }
}
