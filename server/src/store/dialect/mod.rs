//! What differs between the kinds of database, side by side.
//!
//! Statements are the same for all of them: whole numbers, texts and bytes, `?` for parameters.
//! What remains is here: how a write begins and ends, how servers that start at the same time wait
//! for each other, what failures mean, and where a connection string leads.

mod filling;
mod moment;
mod mysql;
mod notifications;
mod postgres;
mod sqlite;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::Connection;
use super::{DatabaseKind, Revision, Settings, StoreError, TlsFiles};

pub(super) use moment::Hold;
pub(super) use sqlite::{Location as SqliteLocation, is_busy};

/// What one kind of database wants to be told in its own words.
pub(super) struct Dialect {
    /// Begins a transaction that writes. It yields the row of `change_head`, which it holds until
    /// its end: of all servers one writes at a time, and sees all that was written before.
    pub(super) begin: &'static str,
    /// Ends it, before [`Dialect::commit`] adds the notification.
    commit: &'static str,
    /// Tells other servers that there is a new revision; empty where they have to look.
    notify: &'static str,
    /// Yields 1 once no other server migrates, until [`Dialect::migrated`].
    pub(super) begin_migration: &'static str,
    /// Keeps what was migrated.
    pub(super) migrated: &'static str,
    /// Undoes it where that is possible; else each step can be done again.
    pub(super) not_migrated: &'static str,
    /// Each version of the tables with what makes it from the one before.
    pub(super) versions: &'static [(i64, &'static str)],
    /// Yields the names of all tables.
    tables: &'static str,
    /// Yields the names of all indexes, and for each whether it can be used.
    pub(super) indexes: &'static str,
    /// What makes of a statement a question on how it would be run, and what the answer is.
    pub(super) explain: &'static str,
    pub(super) explained: Explained,
    /// What follows the word `ANALYZE`, which counts anew what is in a table.
    pub(super) analyze: &'static str,
    /// Whether parameters are `$1`, `$2` and so on.
    pub(super) numbers_parameters: bool,
    /// What an error says about the call; `None` where it says nothing in particular.
    pub(super) meaning: fn(&dyn DatabaseError) -> Option<StoreError>,
    /// Yields 1 where nothing can be written.
    pub(super) is_read_only: &'static str,
    /// Whether an error while a connection opens is that of a database that starts, stops or is
    /// busy.
    pub(super) passes: fn(&dyn DatabaseError) -> bool,
}

/// What the answer to [`Dialect::explain`] is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Explained {
    /// A row for each step, its words in the last column.
    Details,
    /// Lines, indented as the steps hang together.
    Tree,
    /// A row for each table.
    Tables,
}

/// The version of the tables that this server needs.
pub(super) const LAST_VERSION: i64 = 5;

/// The oldest version that a server may know to read and write tables of [`LAST_VERSION`]: a
/// migration that takes away what earlier servers use raises it.
pub(super) const READABLE_SINCE: i64 = 4;

pub(super) static SQLITE: Dialect = Dialect {
    begin: "BEGIN IMMEDIATE; SELECT revision, number, last_writer FROM change_head",
    commit: "COMMIT",
    notify: "",
    begin_migration: "BEGIN IMMEDIATE; SELECT 1",
    migrated: "COMMIT",
    not_migrated: "ROLLBACK",
    versions: &[
        (1, include_str!("../migrations/sqlite/1.sql")),
        (2, include_str!("../migrations/sqlite/2.sql")),
        (3, include_str!("../migrations/sqlite/3.sql")),
        (4, include_str!("../migrations/sqlite/4.sql")),
        (5, include_str!("../migrations/sqlite/5.sql")),
    ],
    tables: "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' \
             ESCAPE '@'",
    indexes: "SELECT name, 1 FROM sqlite_master WHERE type = 'index'",
    explain: "EXPLAIN QUERY PLAN",
    explained: Explained::Details,
    analyze: "",
    numbers_parameters: false,
    meaning: sqlite::meaning,
    is_read_only: "SELECT 0",
    passes: |_| false,
};

/// A server that no longer answers must not hold up the others, hence the time limits. They are set
/// for each transaction, so that a pooler between here and the database does not lose them.
pub(super) static POSTGRES: Dialect = Dialect {
    begin: "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '8s'; \
            SET LOCAL idle_in_transaction_session_timeout = '10s'; \
            SELECT revision, number, last_writer FROM change_head FOR UPDATE",
    commit: "COMMIT",
    notify: "NOTIFY spire_changes",
    begin_migration: "BEGIN; SELECT pg_advisory_xact_lock(8314891476538123365); SELECT 1::bigint",
    migrated: "COMMIT",
    not_migrated: "ROLLBACK",
    versions: &[
        (2, include_str!("../migrations/postgres/2.sql")),
        (3, include_str!("../migrations/postgres/3.sql")),
        (4, include_str!("../migrations/postgres/4.sql")),
        (5, include_str!("../migrations/postgres/5.sql")),
    ],
    tables: "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()",
    indexes: "SELECT c.relname::text, i.indisvalid::int::bigint FROM pg_index i \
              JOIN pg_class c ON c.oid = i.indexrelid \
              JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()",
    explain: "EXPLAIN",
    explained: Explained::Tree,
    analyze: "",
    numbers_parameters: true,
    meaning: postgres::meaning,
    is_read_only: "SELECT (current_setting('transaction_read_only') = 'on')::int::bigint",
    passes: postgres::passes,
};

/// As for PostgreSQL. What changes tables commits by itself here; the scripts can be run again.
pub(super) static MYSQL: Dialect = Dialect {
    begin: "SET SESSION innodb_lock_wait_timeout = 8, wait_timeout = 10; \
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; \
            SELECT revision, number, last_writer FROM change_head FOR UPDATE",
    commit: "COMMIT; SET SESSION wait_timeout = DEFAULT",
    notify: "",
    begin_migration: "SELECT GET_LOCK(LEFT(CONCAT('spire ', DATABASE()), 64), 300)",
    migrated: "DO RELEASE_LOCK(LEFT(CONCAT('spire ', DATABASE()), 64))",
    not_migrated: "DO RELEASE_LOCK(LEFT(CONCAT('spire ', DATABASE()), 64))",
    versions: &[
        (2, include_str!("../migrations/mysql/2.sql")),
        (3, include_str!("../migrations/mysql/3.sql")),
        (4, include_str!("../migrations/mysql/4.sql")),
        (5, include_str!("../migrations/mysql/5.sql")),
    ],
    tables: "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    indexes: "SELECT DISTINCT index_name, 1 FROM information_schema.statistics \
              WHERE table_schema = DATABASE()",
    explain: "EXPLAIN",
    explained: Explained::Tables,
    analyze: " TABLE",
    numbers_parameters: false,
    meaning: mysql::meaning,
    is_read_only: "SELECT CAST(@@global.read_only AS SIGNED)",
    passes: mysql::passes,
};

impl Dialect {
    /// Commits a transaction. Where it changed something, other servers are told on the way.
    pub(super) fn commit(&self, changed: Option<Revision>) -> Cow<'static, str> {
        match changed {
            Some(Revision(revision)) if !self.notify.is_empty() => {
                Cow::Owned(format!("{}, '{revision}'; {}", self.notify, self.commit))
            }
            _ => Cow::Borrowed(self.commit),
        }
    }
}

/// Where a database is, as its connection string says.
#[derive(Clone)]
pub(super) enum Place {
    Sqlite(sqlite::Location),
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

/// How a connection is opened.
#[derive(Clone)]
pub(super) enum Opening {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

impl Place {
    /// Reads a connection string. Nothing is opened.
    ///
    /// # Errors
    /// What is wrong with it, without repeating its secrets.
    pub(super) fn read(settings: &Settings, connection_string: &str) -> Result<Self, String> {
        match settings.kind {
            DatabaseKind::Sqlite => connection_string.parse().map(Self::Sqlite),
            DatabaseKind::Postgres => {
                postgres::options(connection_string).map(|options| Self::Postgres(options.into()))
            }
            DatabaseKind::MySql => mysql::options(connection_string, &settings.tls)
                .map(|options| Self::MySql(options.into())),
        }
    }

    /// Its name in messages, without secrets.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Sqlite(location) => {
                let path = location.path.as_ref().map(|path| path.display().to_string());
                path.unwrap_or_else(|| ":memory:".to_owned())
            }
            Self::Postgres(options) => format!(
                "postgres://{}@{}:{}/{}",
                options.get_username(),
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_else(|| options.get_username())
            ),
            Self::MySql(options) => format!(
                "mysql://{}@{}:{}/{}",
                options.get_username(),
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
        }
    }

    /// The command that copies SPIRE's tables out of it, for a shell; `tls` are the files of
    /// MySQL. Connection strings may hold passwords, so that only paths are written out.
    pub(super) fn copy_command(&self, tls: &TlsFiles) -> String {
        let (kind, from, to, files) = match self {
            Self::Sqlite(_) => ("sqlite3", self.name(), format!("{}.copy", self.name()), None),
            Self::Postgres(_) => ("postgres", ITS_STRING.into(), EMPTY_STRING.into(), None),
            Self::MySql(_) => ("mysql", ITS_STRING.into(), EMPTY_STRING.into(), Some(tls)),
        };
        let (from, to) = (format!("{kind}:{from}"), format!("{kind}:{to}"));
        let mut command = format!(
            "spire-server datastore copy -from {} -to {}",
            for_a_shell(&from),
            for_a_shell(&to)
        );
        if let Some(tls) = files {
            for (flag, path) in [
                ("-fromRootCA", &tls.root_ca_path),
                ("-fromClientCert", &tls.client_cert_path),
                ("-fromClientKey", &tls.client_key_path),
            ] {
                if let Some(path) = path {
                    let path = path.to_string_lossy();
                    command.push_str(&format!(" {flag} {}", for_a_shell(&path)));
                }
            }
        }
        command
    }

    /// Whether it lies in this process and goes away with its only connection.
    pub(super) fn is_memory(&self) -> bool {
        matches!(self, Self::Sqlite(location) if location.path.is_none())
    }

    /// How the connection is opened that writes.
    pub(super) fn writer(&self) -> Opening {
        match self {
            Self::Sqlite(location) => Opening::Sqlite(location.writer().into()),
            Self::Postgres(options) => Opening::Postgres(options.clone()),
            Self::MySql(options) => Opening::MySql(options.clone()),
        }
    }

    /// How connections are opened that only read.
    pub(super) fn reader(&self) -> Opening {
        match self {
            Self::Sqlite(location) => Opening::Sqlite(location.reader().into()),
            _ => self.writer(),
        }
    }

    /// How a connection is opened that changes nothing, not even in the files beside a database.
    pub(super) fn onlooker(&self) -> Opening {
        match self {
            Self::Sqlite(location) => Opening::Sqlite(location.onlooker().into()),
            _ => self.writer(),
        }
    }

    /// The names of the tables that the database holds, found without changing a byte of it.
    pub(super) async fn tables(&self) -> Result<Vec<String>, StoreError> {
        if let Self::Sqlite(location) = self
            && !location.has_content()?
        {
            return Ok(Vec::new());
        }
        let onlooker = self.onlooker();
        let mut connection = Connection::open(&onlooker).await?;
        let names = self.table_names(&mut connection).await?;
        connection.close().await;
        Ok(names)
    }

    /// How many connections there are beside those that only read: the writer's, and the listener's.
    pub(super) fn own_connections(&self) -> u32 {
        match self {
            Self::Postgres(_) => 2,
            Self::Sqlite(_) | Self::MySql(_) => 1,
        }
    }

    /// Pokes `changed` with what other servers commit, as far as the database tells, until `stop`
    /// fires. A connection is kept for `lifetime` at most.
    pub(super) async fn listen(
        self,
        changed: watch::Sender<Revision>,
        lifetime: Option<Duration>,
        stop: CancellationToken,
    ) {
        if let Self::Postgres(options) = self {
            notifications::listen(*options, changed, lifetime, stop).await;
        }
    }

    /// What is weaker about its connections than it may seem.
    pub(super) fn weakness(&self) -> Option<&'static str> {
        match self {
            Self::Postgres(options) if matches!(options.get_ssl_mode(), PgSslMode::VerifyCa) => {
                Some(
                    "Datastore may show a certificate with any name, and public authorities count \
                     too; set sslmode=verify-full where the certificate has the name of the host",
                )
            }
            _ => None,
        }
    }

    /// Tells that in the log.
    pub(super) fn warn(&self) {
        if let Some(weakness) = self.weakness() {
            tracing::warn!(subsystem_name = "datastore", database = self.name(), "{weakness}");
        }
    }

    /// Creates what must be there before a connection can be opened.
    pub(super) fn create(&self) -> io::Result<()> {
        match self {
            Self::Sqlite(location) => location.create(),
            Self::Postgres(_) | Self::MySql(_) => Ok(()),
        }
    }
}

impl Opening {
    /// What is spoken on the connection.
    pub(super) fn dialect(&self) -> &'static Dialect {
        match self {
            Self::Sqlite(_) => &SQLITE,
            Self::Postgres(_) => &POSTGRES,
            Self::MySql(_) => &MYSQL,
        }
    }

    /// Whether the database is another process, which may stop and come back.
    pub(super) fn is_remote(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }
}

/// What stands for connection strings in a command.
const ITS_STRING: &str = "<its connection_string>";
const EMPTY_STRING: &str = "<that of an empty database>";

/// A word of a command as a shell takes it, in quotes where it needs them.
fn for_a_shell(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(&byte);
    if word.bytes().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// Replaces `%xx`.
pub(in crate::store) fn unescape(text: &str) -> Result<String, String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| hex::decode(digits).ok());
        bytes.extend(byte.ok_or("a % is not followed by two hexadecimal digits")?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_copies_can_be_pasted_into_a_shell() {
        let command = |kind, text, tls: &TlsFiles| {
            let settings = Settings { tls: tls.clone(), ..Settings::new(kind, text).unwrap() };
            settings.place().unwrap().copy_command(tls)
        };
        let none = TlsFiles::default();
        let plain = command("sqlite3", "/data/a.sqlite3", &none);
        let expected = "spire-server datastore copy -from sqlite3:/data/a.sqlite3 \
                        -to sqlite3:/data/a.sqlite3.copy";
        assert_eq!(plain, expected);
        let spaced = command("sqlite3", "/my data/it's", &none);
        let word = r"'sqlite3:/my data/it'\''s";
        let expected = format!("spire-server datastore copy -from {word}' -to {word}.copy'");
        assert_eq!(spaced, expected);
        let files = TlsFiles {
            root_ca_path: Some("/ca.pem".into()),
            client_cert_path: Some("/a cert".into()),
            client_key_path: Some("/key".into()),
        };
        let mysql = command("mysql", "me:s3cret@tcp(a)/b?parseTime=true", &files);
        let expected = "spire-server datastore copy -from 'mysql:<its connection_string>' \
                        -to 'mysql:<that of an empty database>' -fromRootCA /ca.pem \
                        -fromClientCert '/a cert' -fromClientKey /key";
        assert_eq!(mysql, expected);
    }
}
