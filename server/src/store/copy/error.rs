//! Why nothing was copied.

use spire_core::id::TrustDomain;

use super::records::Kind;
use crate::store::{OpenError, SettingsError, StoreError};

/// Why nothing was copied. The source is as it was before, and so is the target, except where the
/// text says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A connection string or a file cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A database in memory is nobody else's.
    #[error("the {0} is a database in memory, which ends with this command; name a file")]
    InMemory(&'static str),
    /// Both are one.
    #[error("source and target are the same database, {0:?}; name another target")]
    SamePlace(String),
    /// There is nothing to copy.
    #[error("the source {0:?} holds nothing; check -from")]
    EmptySource(String),
    /// Somebody else uses the source.
    #[error(
        "the source {name:?} is in use: {by}; stop every server and program that uses it, or see \
         with -rehearsal what a copy would do"
    )]
    InUse {
        /// Where it is, without secrets.
        name: String,
        /// Who it is, as far as the database tells.
        by: String,
    },
    /// The source cannot be copied as it is: its version, its layout, what it holds. The reason is
    /// a sentence with the remedy.
    #[error("the source {source_name:?} cannot be copied: {reason}")]
    Source {
        /// Where it is, without secrets.
        source_name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The source mixes trust domains.
    #[error(
        "entry {entry} is of the trust domain {other}, others are of {one}; a server has one trust \
         domain: delete the entry with the source's own server"
    )]
    TrustDomains {
        /// The id of the entry.
        entry: String,
        /// That of the first entry.
        one: TrustDomain,
        /// That of this one.
        other: TrustDomain,
    },
    /// The target is not empty, and not a copy of the source.
    #[error(
        "the target {name:?} holds other data: {what}; it was left unchanged; name an empty database"
    )]
    TargetHolds {
        /// Where it is, without secrets.
        name: String,
        /// What was found there.
        what: String,
    },
    /// Reading the source failed.
    #[error("cannot read the {kind} of the source: {error}")]
    Read {
        /// What was read.
        kind: Kind,
        /// What the database said.
        error: StoreError,
    },
    /// Writing to the target failed.
    #[error("cannot write the {kind} to the target: {error}; the target was left as it was")]
    Write {
        /// What was written.
        kind: Kind,
        /// What the database said.
        error: StoreError,
    },
    /// Reading the target failed.
    #[error("cannot read the {kind} of the target: {error}; the target was left as it was")]
    ReadTarget {
        /// What was read.
        kind: Kind,
        /// What the database said.
        error: StoreError,
    },
    /// Writing how far the numbers of rows and revisions have come failed.
    #[error("cannot write the counters to the target: {0}; the target was left as it was")]
    Counters(StoreError),
    /// What was written is not what was read.
    #[error("the copy differs from the source: {0}; the target was left as it was")]
    Differs(String),
    /// Nobody can tell whether the target kept the copy.
    #[error(
        "the target went away while it committed: {0}; run the same command again, which finds out"
    )]
    Commit(StoreError),
}
