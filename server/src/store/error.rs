//! How the store fails.

use spire_core::id::TrustDomain;

use super::dialect::Place;
use super::{SettingsError, TlsFiles};

/// Why a call of the store did not do what was asked. Nothing was changed, unless a database server
/// went away just then and did not come back in time (`Unavailable`): then nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such record.
    #[error("record not found")]
    NotFound,
    /// A record with that name exists. The text is a sentence for the caller.
    #[error("{0}")]
    AlreadyExists(String),
    /// The records that exist forbid the change. The text is a sentence for the caller.
    #[error("{0}")]
    Refused(String),
    /// What the caller gave names something that does not exist, or that this may not be done to.
    /// The text is a sentence for the caller.
    #[error("{0}")]
    Invalid(String),
    /// An entry federates with a trust domain whose bundle is not here.
    #[error("unable to find federated bundle \"{}\"", .0.id())]
    NoFederatedBundle(TrustDomain),
    /// Another writer was faster, several times; the same call may succeed later.
    #[error("the record is being changed by others; try again")]
    Conflict,
    /// The database is locked, full, unreadable or gone; the same call may succeed later.
    #[error("datastore is unavailable: {0}")]
    Unavailable(String),
    /// A row holds what no version of the server wrote.
    #[error("datastore is corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether it follows from the records and the request, so that trying again is of no use.
    pub fn is_verdict(&self) -> bool {
        match self {
            Self::NotFound
            | Self::AlreadyExists(_)
            | Self::Refused(_)
            | Self::Invalid(_)
            | Self::NoFederatedBundle(_) => true,
            Self::Conflict | Self::Unavailable(_) | Self::Corrupt(_) => false,
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The tables are SPIRE's; nothing was changed.
    #[error(
        "the database at {connection:?} holds tables of SPIRE and was left unchanged; copy it \
         with \"{command}\" and set connection_string to the copy"
    )]
    SpireTables {
        /// Where it is, without secrets.
        connection: String,
        /// The command that copies it.
        command: String,
    },
    /// The tables are those of some other program; nothing was changed.
    #[error(
        "the database at {0:?} holds tables that are not the server's; set connection_string to \
         a database of its own"
    )]
    ForeignTables(String),
    /// The tables are of a later version of the server, and this one cannot use them.
    #[error(
        "the database has schema version {found}, this server knows up to {known}; run the \
         server version that made it, or a later one"
    )]
    TooNew {
        /// Version in the database.
        found: i64,
        /// Last version known here.
        known: i64,
    },
    /// The tables are of an earlier version and `disable_migration` is set.
    #[error(
        "the database has schema version {found} and this server needs {known}, but \
         disable_migration is set; remove it, or migrate with another server"
    )]
    MigrationDisabled {
        /// Version in the database.
        found: i64,
        /// Version needed here.
        known: i64,
    },
    /// The database cannot be reached, read or written.
    #[error("unable to open the database at {connection:?}: {reason}")]
    Unavailable {
        /// Where it is, without secrets.
        connection: String,
        /// What failed.
        reason: String,
    },
}

impl OpenError {
    /// The refusal of SPIRE's tables in the database at `place`, which is let in by `tls`.
    pub(super) fn spire_tables(place: &Place, tls: &TlsFiles) -> Self {
        Self::SpireTables { connection: place.name(), command: place.copy_command(tls) }
    }

    /// The database at `place` does not do what it must.
    pub(super) fn unavailable(place: &Place, error: StoreError) -> Self {
        let reason = match error {
            StoreError::Unavailable(reason) => reason,
            other => other.to_string(),
        };
        Self::Unavailable { connection: place.name(), reason }
    }
}
