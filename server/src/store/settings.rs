//! Where the database is, as checked.

use super::sqlite::Location;

/// The kinds of database that `database_type` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `sqlite3`: a file on this machine, or memory.
    Sqlite,
}

/// The checked settings of `DataStore "sql"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The kind of database.
    pub kind: DatabaseKind,
    /// Where it is, in the form that the kind prescribes.
    pub connection_string: String,
    /// Whether tables of an earlier version are an error instead of being migrated.
    pub disable_migration: bool,
}

/// Why a setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// `database_type` names no kind that is known.
    #[error("unsupported database_type: {0}")]
    UnknownKind(String),
    /// `connection_string` is absent or empty.
    #[error("connection_string must be set")]
    NoConnectionString,
    /// `connection_string` cannot be read.
    #[error("connection_string {text:?} is invalid: {reason}")]
    ConnectionString {
        /// As written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Settings {
    /// Checks `database_type` and `connection_string` without opening anything.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting.
    pub fn new(database_type: &str, connection_string: &str) -> Result<Self, SettingsError> {
        let kind = match database_type {
            "sqlite3" => DatabaseKind::Sqlite,
            other => return Err(SettingsError::UnknownKind(other.to_owned())),
        };
        let connection_string = connection_string.trim().to_owned();
        if connection_string.is_empty() {
            return Err(SettingsError::NoConnectionString);
        }
        let settings = Self { kind, connection_string, disable_migration: false };
        settings.location()?;
        Ok(settings)
    }

    /// Where the SQLite database is.
    pub(super) fn location(&self) -> Result<Location, SettingsError> {
        self.connection_string.parse().map_err(|reason| SettingsError::ConnectionString {
            text: self.connection_string.clone(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        assert!(Settings::new("sqlite3", "/data/datastore.sqlite3").is_ok());
        let error = |kind, text| Settings::new(kind, text).unwrap_err().to_string();
        assert_eq!(error("oracle", "x"), "unsupported database_type: oracle");
        assert_eq!(error("sqlite3", " "), "connection_string must be set");
        assert!(error("sqlite3", "https://example.org/x").contains("unsupported scheme"));
    }
}
