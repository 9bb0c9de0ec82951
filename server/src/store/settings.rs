//! Where the database is, as checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::dialect::Place;

/// The kinds of database that `database_type` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `sqlite3`: a file on this machine, or memory.
    Sqlite,
    /// `postgres`: PostgreSQL.
    Postgres,
    /// `mysql`: MySQL or MariaDB.
    MySql,
}

/// Where a database is and how one is let in: a secret where it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString(Zeroizing<String>);

impl ConnectionString {
    /// `None` where nothing is written.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned().into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ConnectionString")
    }
}

/// Files for TLS with MySQL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `root_ca_path`: who may vouch for the database, besides the public authorities.
    pub root_ca_path: Option<PathBuf>,
    /// `client_cert_path`: the certificate that the server shows.
    pub client_cert_path: Option<PathBuf>,
    /// `client_key_path`: its key.
    pub client_key_path: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether any is set.
    pub(super) fn are_set(&self) -> bool {
        self.root_ca_path.is_some() || self.client_cert_path.is_some()
    }
}

/// How many connections there may be, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// `max_open_conns`: most connections to the database, or to each of the two where reads have
    /// one of their own.
    pub max_open: u32,
    /// `conn_max_lifetime`: after that long a connection is replaced; `None` keeps it.
    pub max_lifetime: Option<Duration>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { max_open: 100, max_lifetime: None }
    }
}

/// The checked settings of `DataStore "sql"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The kind of database.
    pub kind: DatabaseKind,
    /// Where it is, in the form that the kind prescribes.
    pub connection_string: ConnectionString,
    /// Where a replica is that answers what may be a little old; `None` for SQLite.
    pub ro_connection_string: Option<ConnectionString>,
    /// Files for TLS.
    pub tls: TlsFiles,
    /// The connections.
    pub pool: PoolSettings,
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
    /// A connection string cannot be read.
    #[error("{key} is invalid: {reason}")]
    ConnectionString {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The same for MySQL, in the words of SPIRE.
    #[error("invalid mysql config: {0}")]
    MySql(String),
}

impl Settings {
    /// Settings that say only which database it is.
    ///
    /// # Errors
    /// [`SettingsError`] where one of the two is missing or unknown.
    pub fn new(database_type: &str, connection_string: &str) -> Result<Self, SettingsError> {
        let kind = match database_type {
            "sqlite3" => DatabaseKind::Sqlite,
            "postgres" => DatabaseKind::Postgres,
            "mysql" => DatabaseKind::MySql,
            other => return Err(SettingsError::UnknownKind(other.to_owned())),
        };
        let connection_string =
            ConnectionString::new(connection_string).ok_or(SettingsError::NoConnectionString)?;
        Ok(Self {
            kind,
            connection_string,
            ro_connection_string: None,
            tls: TlsFiles::default(),
            pool: PoolSettings::default(),
            disable_migration: false,
        })
    }

    /// Checks that the connection strings can be read. Nothing is opened.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting.
    pub fn checked(self) -> Result<Self, SettingsError> {
        self.place()?;
        self.replica()?;
        Ok(self)
    }

    /// What is weaker about connections to the database than it may seem, in a sentence.
    pub fn weakness(&self) -> Option<&'static str> {
        self.place().ok()?.weakness()
    }

    /// Where the database is.
    pub(super) fn place(&self) -> Result<Place, SettingsError> {
        self.read("connection_string", &self.connection_string)
    }

    /// Where the replica is that only reads.
    pub(super) fn replica(&self) -> Result<Option<Place>, SettingsError> {
        let replica = self.ro_connection_string.as_ref();
        replica.map(|replica| self.read("ro_connection_string", replica)).transpose()
    }

    fn read(&self, key: &'static str, text: &ConnectionString) -> Result<Place, SettingsError> {
        Place::read(self, text.as_str()).map_err(|reason| match self.kind {
            DatabaseKind::MySql => SettingsError::MySql(reason),
            _ => SettingsError::ConnectionString { key, reason },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let check = |kind, text| Settings::new(kind, text).and_then(Settings::checked);
        assert!(check("sqlite3", "/data/datastore.sqlite3").is_ok());
        let error = |kind, text| check(kind, text).unwrap_err().to_string();
        assert_eq!(error("oracle", "x"), "unsupported database_type: oracle");
        assert_eq!(error("sqlite3", " "), "connection_string must be set");
        assert!(error("sqlite3", "https://example.org/x").contains("unsupported scheme"));
        assert!(error("postgres", "dbname").contains("connection_string is invalid"));
        let missing = "invalid mysql config: missing parseTime=true param in connection_string";
        assert_eq!(error("mysql", "username:@tcp(127.0.0.1)/spire_test"), missing);
    }

    #[test]
    fn secrets_are_not_shown() {
        for (kind, text) in [
            ("postgres", "postgres://me:s3cret@db.example.org:5433/spire"),
            ("mysql", "me:s3cret@tcp(db.example.org:5433)/spire?parseTime=true"),
        ] {
            let settings = Settings::new(kind, text).unwrap();
            let name = settings.place().unwrap().name();
            assert!(name.ends_with("://me@db.example.org:5433/spire"), "{name}");
            assert!(!format!("{settings:?}").contains("s3cret"));
        }
        for text in ["me:s3cret@tcp(x", "postgres://me:s3cret@x:y/", "password=s3cret x"] {
            for kind in ["mysql", "postgres"] {
                let error = Settings::new(kind, text).unwrap().checked().unwrap_err();
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
            }
        }
    }
}
