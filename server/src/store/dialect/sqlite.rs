//! SQLite: where the database is, how connections are set up, and what errors mean.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::{StoreError, unescape};

/// How long a statement waits for a lock of another process, unless the connection string says
/// otherwise.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest write-ahead log that is left on the disk when nobody needs it, in bytes.
const KEPT_LOG_BYTES: u32 = 16 << 20;

/// A connection string: a path, a `file:` URI with parameters, or `:memory:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Location {
    /// The file; `None` is memory.
    pub(super) path: Option<PathBuf>,
    create: bool,
    busy_timeout: Duration,
}

impl FromStr for Location {
    type Err = String;

    /// Reads the forms of SPIRE's driver. Parameters that only tune that driver are without effect
    /// here: foreign keys and the write-ahead log are always on.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, parameters) = text.split_once('?').unwrap_or((text, ""));
        let path = match path.split_once(':') {
            Some(("", "memory:")) => ":memory:",
            Some(("file", path)) => match path.strip_prefix("//") {
                None => path,
                Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
            },
            Some((scheme, _)) if is_scheme(scheme) => {
                return Err(format!("unsupported scheme {scheme:?}; write a path or a file: URI"));
            }
            _ => path,
        };
        let path = unescape(path)?;
        let mut location = Self {
            path: (path != ":memory:").then(|| PathBuf::from(&path)),
            create: true,
            busy_timeout: BUSY_TIMEOUT,
        };
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name, unescape(value)?.as_str()) {
                ("mode", "memory") => location.path = None,
                ("mode", "rw") => location.create = false,
                ("mode", "rwc") => location.create = true,
                ("mode", _) => {
                    return Err(format!("parameter {parameter:?}: mode is rw, rwc or memory"));
                }
                ("_busy_timeout" | "_timeout", value) => {
                    let milliseconds = value.parse().map_err(|_| {
                        format!("parameter {parameter:?}: a time-out is a number of milliseconds")
                    })?;
                    location.busy_timeout = Duration::from_millis(milliseconds);
                }
                _ => {}
            }
        }
        match &location.path {
            Some(path) if path.as_os_str().is_empty() => Err("it names no file".to_owned()),
            _ => Ok(location),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|next| next.is_ascii_alphanumeric() || "+-.".contains(next))
}

impl Location {
    /// The file; `None` is memory.
    pub(in crate::store) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file beside it that holds what was written last.
    pub(in crate::store) fn log(&self) -> Option<PathBuf> {
        self.path().map(|path| path.with_file_name(beside(path, "-wal")))
    }

    fn options(&self) -> SqliteConnectOptions {
        let path = self.path.as_deref().unwrap_or(Path::new(":memory:"));
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(self.busy_timeout);
        options.thread_name(|number| format!("sqlite-{number}")).disable_statement_logging()
    }

    /// How the one connection that writes is opened.
    ///
    /// Each commit reaches the disk before it is acknowledged (`synchronous = FULL`): with less, a
    /// power loss could bring back a join token that was spent or an agent that was banned. Writes
    /// that wait share a commit, so that this costs little.
    pub(super) fn writer(&self) -> SqliteConnectOptions {
        let options = self.options().foreign_keys(true).pragma("cache_size", "-4096");
        if self.path.is_none() {
            return options;
        }
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", KEPT_LOG_BYTES.to_string())
    }

    /// How connections that only read are opened.
    pub(super) fn reader(&self) -> SqliteConnectOptions {
        self.options().read_only(true).pragma("cache_size", "-1024").row_buffer_size(256)
    }

    /// How a connection is opened that changes not a byte. Even a reader writes to the files beside
    /// a database whose log is in use; one without a log can be read as if it were on a medium that
    /// cannot be written to.
    pub(super) fn onlooker(&self) -> SqliteConnectOptions {
        let is_in_use = self.has_log().unwrap_or(true);
        self.options().read_only(true).immutable(!is_in_use)
    }

    /// How a connection is opened that keeps others out and changes nothing itself.
    pub(super) fn holder(&self) -> SqliteConnectOptions {
        self.options().row_buffer_size(256)
    }

    /// Whether something is in the write-ahead log, and perhaps not in the file yet.
    pub(super) fn has_log(&self) -> Result<bool, StoreError> {
        self.log().map_or(Ok(false), |log| Ok(bytes_in(&log)? > 0))
    }

    /// Removes the file and those beside it.
    pub(super) fn remove(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        for ending in ["-wal", "-shm", ""] {
            match std::fs::remove_file(path.with_file_name(beside(path, ending))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether there is a file with anything in it. What is in memory begins empty.
    pub(super) fn has_content(&self) -> Result<bool, StoreError> {
        self.path.as_deref().map_or(Ok(false), |path| Ok(bytes_in(path)? > 0))
    }

    /// Creates the file, for nobody but this user, unless it is there or must be.
    pub(super) fn create(&self) -> io::Result<()> {
        match &self.path {
            Some(path) if self.create => {
                let mut options = OpenOptions::new();
                options.create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// The name of a file that SQLite keeps beside the database.
fn beside(path: &Path, ending: &str) -> std::ffi::OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    name
}

/// The size of a file; 0 where there is none.
fn bytes_in(path: &Path) -> Result<u64, StoreError> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// What a result code says.
///
/// # Source
/// SQLite, Result and Error Codes; the low byte is the primary code.
pub(super) fn meaning(error: &dyn DatabaseError) -> Option<StoreError> {
    use StoreError::{Conflict, Corrupt, Unavailable};
    let message = error.message();
    Some(match code(error) {
        5 | 6 => Unavailable(format!("{message}; another process is using it, or has it open")),
        8 => Unavailable(format!("{message}; check the permissions of the file and its folder")),
        10 => Unavailable(format!("{message}; check the file system that holds it")),
        13 => Unavailable(format!("{message}; free space on the file system that holds it")),
        14 => Unavailable(format!("{message}; check that its folder exists and can be written")),
        11 | 26 => Corrupt(message.to_owned()),
        19 => Conflict,
        _ => return None,
    })
}

/// The primary result code.
fn code(error: &dyn DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default() & 0xff
}

/// Whether another process holds a lock.
pub(in crate::store) fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(code(error), 5 | 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_read_as_spire_reads_them() {
        let path = |text: &str| text.parse::<Location>().unwrap().path;
        let data = Some(PathBuf::from("/data/x.sqlite3"));
        assert_eq!(path("/data/x.sqlite3"), data);
        assert_eq!(path("file:/data/x.sqlite3?_foreign_keys=ON&cache=shared"), data);
        assert_eq!(path("file:///data/x.sqlite3"), data);
        assert_eq!(path("file:/data/x%2Esqlite3"), data);
        assert_eq!(path("./data/x.sqlite3?_journal_mode=WAL"), Some("./data/x.sqlite3".into()));
        for memory in [":memory:", "file::memory:", "file:x?mode=memory&cache=shared"] {
            assert_eq!(path(memory), None, "{memory}");
        }
        let timed: Location = "x?_busy_timeout=20".parse().unwrap();
        assert_eq!(timed.busy_timeout, Duration::from_millis(20));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in ["postgres://x", "file:", "x?mode=ro", "x?_timeout=soon", "x%zz", "x%"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
