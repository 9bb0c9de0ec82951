//! Why nothing was copied.

use super::records::Kind;
use crate::store::{OpenError, SettingsError, StoreError};

/// Why nothing was copied. The target is as it was before, and so is the source.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A connection string or a file cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source cannot be copied as it is: its version, its trust domains, what it holds. The
    /// text is a sentence with the remedy.
    #[error("the source {source_name:?} cannot be copied: {reason}")]
    Source {
        /// Where it is, without secrets.
        source_name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Reading the source failed.
    #[error("cannot read the {kind} of the source: {error}")]
    Read {
        /// What was read.
        kind: Kind,
        /// What the database said.
        error: StoreError,
    },
}
