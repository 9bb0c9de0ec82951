//! What is copied, in the server's vocabulary, and the contract that a source fulfils.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;

use super::CopyError;
use super::tables::journal_number;
use crate::config::FederatesWith;
use crate::store::{CaJournal, KeyFingerprint, Node, Revision};

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A trust domain's bundle, its own or a foreign one.
    Bundle,
    /// Where the bundle of another trust domain is fetched.
    Relationship,
    /// A registration entry.
    Entry,
    /// An attested node.
    Node,
    /// A join token.
    JoinToken,
    /// A server's journal of its authorities.
    CaJournal,
}

impl Kind {
    /// All of them, in the order in which they are copied: entries name bundles.
    pub const ALL: [Self; 6] = [
        Self::Bundle,
        Self::Relationship,
        Self::Entry,
        Self::Node,
        Self::JoinToken,
        Self::CaJournal,
    ];

    /// Its name in the plural.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundles",
            Self::Relationship => "federation relationships",
            Self::Entry => "entries",
            Self::Node => "agents",
            Self::JoinToken => "join tokens",
            Self::CaJournal => "CA journals",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A record and the number of its row, which the copy keeps: it gives the order of lists and is
/// their page token. Greater than 0, and no two records of a kind have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Numbered<T> {
    pub(in crate::store) number: i64,
    pub(in crate::store) record: T,
}

/// A join token as it is kept, which says nothing about its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct JoinToken {
    /// SHA-256 of its text.
    pub(in crate::store) hash: [u8; 32],
    /// In whole seconds.
    pub(in crate::store) expires_at: Timestamp,
    /// For whom it was spent.
    pub(in crate::store) redeemed_by: Option<KeyFingerprint>,
}

/// Records of one kind, exactly as the store keeps them: times in whole seconds, each DNS name
/// once, serial numbers in decimal digits, journals in the layout of `authority/journal.rs`, which
/// is SPIRE's, with every end (`not_after`) filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Records {
    Bundles(Vec<Numbered<Bundle>>),
    Relationships(Vec<Numbered<FederatesWith>>),
    Entries(Vec<Numbered<Entry>>),
    Nodes(Vec<Numbered<Node>>),
    JoinTokens(Vec<JoinToken>),
    /// Each with the `id` of its row.
    CaJournals(Vec<CaJournal>),
}

impl Records {
    /// What they are.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Bundles(_) => Kind::Bundle,
            Self::Relationships(_) => Kind::Relationship,
            Self::Entries(_) => Kind::Entry,
            Self::Nodes(_) => Kind::Node,
            Self::JoinTokens(_) => Kind::JoinToken,
            Self::CaJournals(_) => Kind::CaJournal,
        }
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bundles(records) => records.len(),
            Self::Relationships(records) => records.len(),
            Self::Entries(records) => records.len(),
            Self::Nodes(records) => records.len(),
            Self::JoinTokens(records) => records.len(),
            Self::CaJournals(records) => records.len(),
        }
    }

    /// How many links lead to them, by which they are found.
    pub(super) fn links(&self) -> usize {
        match self {
            Self::Entries(entries) => {
                let links =
                    |entry: &Entry| entry.selectors.iter().count() + entry.federates_with.len();
                entries.iter().map(|kept| links(&kept.record)).sum()
            }
            Self::Nodes(nodes) => nodes.iter().map(|kept| kept.record.selectors.len()).sum(),
            _ => 0,
        }
    }

    /// Keeps the first `length`; says whether there were more.
    pub(super) fn truncate(&mut self, length: usize) -> bool {
        let had_more = self.len() > length;
        match self {
            Self::Bundles(records) => records.truncate(length),
            Self::Relationships(records) => records.truncate(length),
            Self::Entries(records) => records.truncate(length),
            Self::Nodes(records) => records.truncate(length),
            Self::JoinTokens(records) => records.truncate(length),
            Self::CaJournals(records) => records.truncate(length),
        }
        had_more
    }

    /// The number of the row at `index`; join tokens have none.
    fn number(&self, index: usize) -> Option<i64> {
        match self {
            Self::Bundles(records) => records.get(index).map(|kept| kept.number),
            Self::Relationships(records) => records.get(index).map(|kept| kept.number),
            Self::Entries(records) => records.get(index).map(|kept| kept.number),
            Self::Nodes(records) => records.get(index).map(|kept| kept.number),
            Self::JoinTokens(_) => None,
            Self::CaJournals(records) => records.get(index).map(journal_number),
        }
    }

    /// The lowest number.
    pub(super) fn first_number(&self) -> Option<i64> {
        self.number(0)
    }

    /// The highest number.
    pub(super) fn last_number(&self) -> Option<i64> {
        self.number(self.len().checked_sub(1)?)
    }

    /// Whether both have the same record at `index`, or none.
    pub(super) fn is_same_at(&self, other: &Self, index: usize) -> bool {
        match (self, other) {
            (Self::Bundles(one), Self::Bundles(two)) => one.get(index) == two.get(index),
            (Self::Relationships(one), Self::Relationships(two)) => {
                one.get(index) == two.get(index)
            }
            (Self::Entries(one), Self::Entries(two)) => one.get(index) == two.get(index),
            (Self::Nodes(one), Self::Nodes(two)) => one.get(index) == two.get(index),
            (Self::JoinTokens(one), Self::JoinTokens(two)) => one.get(index) == two.get(index),
            (Self::CaJournals(one), Self::CaJournals(two)) => one.get(index) == two.get(index),
            _ => false,
        }
    }

    /// What names the record at `index`; a secret is not told.
    pub(super) fn name(&self, index: usize) -> Option<String> {
        match self {
            Self::Bundles(records) => {
                records.get(index).map(|kept| kept.record.trust_domain.to_string())
            }
            Self::Relationships(records) => {
                records.get(index).map(|kept| kept.record.trust_domain.to_string())
            }
            Self::Entries(records) => records.get(index).map(|kept| kept.record.id.to_string()),
            Self::Nodes(records) => records.get(index).map(|kept| kept.record.agent_id.to_string()),
            Self::JoinTokens(records) => {
                let of = |token: &JoinToken| format!("that expires at {}", token.expires_at);
                records.get(index).map(of)
            }
            Self::CaJournals(records) => {
                records.get(index).map(|journal| journal.active_x509_authority_id.clone())
            }
        }
    }
}

/// Why a row of the source is not in the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its time is over, and the server would delete it.
    Expired,
    /// What it belongs to is gone.
    Orphan,
    /// It holds what no server takes; somebody has to look at it.
    Unreadable,
}

impl Cause {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Orphan => "orphan",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A row of the source that is not in the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The table in the source.
    pub table: &'static str,
    /// What names the row: an id as far as it has one that is no secret.
    pub name: String,
    /// Why.
    pub cause: Cause,
    /// The same in words.
    pub reason: String,
}

/// Something that was copied and that the operator should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The table in the source.
    pub table: &'static str,
    /// What names the row.
    pub name: String,
    /// What there is to say.
    pub text: String,
}

/// Where reading goes on; the source alone knows what it means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) enum Position {
    /// At the beginning.
    #[default]
    Start,
    /// After the row with this number.
    Number(i64),
    /// After the row with this number in another table, whose rows belong to the kind's.
    Stray(i64),
    /// After the token with this hash.
    Token([u8; 32]),
}

/// A part of a kind's rows, in the order of their numbers. At most [`super::BATCH`] records, some
/// megabytes.
#[derive(Debug, Clone)]
pub(in crate::store) struct Batch {
    /// What is copied.
    pub(in crate::store) records: Records,
    /// Rows of the kind's own table that were read for it, the skipped ones included.
    pub(in crate::store) read: u64,
    /// What is not copied, of whatever table. Each row is in one batch only.
    pub(in crate::store) skipped: Vec<Skipped>,
    /// What there is to say about what is copied.
    pub(in crate::store) remarks: Vec<Remark>,
    /// Where the next batch begins; `None` after the last. A batch may be empty and not the last.
    pub(in crate::store) next: Option<Position>,
}

impl Batch {
    /// The only batch of a kind that the source does not have.
    pub(in crate::store) fn empty(kind: Kind) -> Self {
        let records = match kind {
            Kind::Bundle => Records::Bundles(Vec::new()),
            Kind::Relationship => Records::Relationships(Vec::new()),
            Kind::Entry => Records::Entries(Vec::new()),
            Kind::Node => Records::Nodes(Vec::new()),
            Kind::JoinToken => Records::JoinTokens(Vec::new()),
            Kind::CaJournal => Records::CaJournals(Vec::new()),
        };
        Self { records, read: 0, skipped: Vec::new(), remarks: Vec::new(), next: None }
    }
}

/// Counters of a source that go on in the copy; 0 where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Head {
    /// The last revision of the log of changes, which itself is not copied.
    pub(in crate::store) revision: Revision,
    /// The last number that was given to a row.
    pub(in crate::store) number: i64,
}

/// A database that is copied, read as it was at one moment, however often and long it is read. It
/// changes nothing there. Dropping it ends the reading as a crash would; [`Source::close`] ends it
/// in order.
#[async_trait]
pub(in crate::store) trait Source: Send {
    /// What it is and of which version, for the report: `SPIRE 1.15.3, schema 25`.
    fn title(&self) -> String;

    /// Its counters.
    fn head(&self) -> Head;

    /// How many rows the own table of a kind has, for the progress.
    async fn count(&mut self, kind: Kind) -> Result<u64, CopyError>;

    /// The batch of a kind's rows that begins at `from`. The same question has the same answer.
    async fn read(&mut self, kind: Kind, from: Position) -> Result<Batch, CopyError>;

    /// Ends it.
    async fn close(self: Box<Self>);
}
