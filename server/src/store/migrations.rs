//! The tables, version by version.

use std::time::Duration;

use super::database::{Connection, STATEMENT};
use super::dialect::{LAST_VERSION, READABLE_SINCE};
use super::error::{OpenError, StoreError};
use super::sql::Statement;

/// The table that every version has, and that tells which one it is.
const VERSION_TABLE: &str = "schema_version";

const CREATE_VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version \
    (version BIGINT NOT NULL, code_version VARCHAR(255) NOT NULL)";

/// How long a migration may take, the waiting for another server's included.
const MIGRATION: Duration = Duration::from_mins(10);

/// Whose tables a database holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// There are none, or they are ours.
    Usable,
    /// They are SPIRE's, of any release.
    Spire,
    /// They are somebody else's.
    Foreign,
}

/// Tells tables apart by their names.
pub(super) fn whose(tables: &[String]) -> Tables {
    let has = |name: &str| tables.iter().any(|table| table == name);
    if tables.is_empty() || has(VERSION_TABLE) {
        Tables::Usable
    } else if ["migrations", "registered_entries", "attested_node_entries"].into_iter().any(has) {
        Tables::Spire
    } else {
        Tables::Foreign
    }
}

/// Brings `tables`, which are there, to the last version. Servers that start at the same time wait for
/// each other.
pub(super) async fn migrate(
    connection: &mut Connection,
    tables: &[String],
    disable_migration: bool,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    lock(connection, &unavailable).await?;
    let dialect = connection.dialect();
    let migrated = steps(connection, tables, disable_migration, &unavailable).await;
    let end = if migrated.is_ok() { dialect.migrated } else { dialect.not_migrated };
    let ended = connection.run_script(end.into()).await;
    migrated?;
    ended.map_err(&unavailable)?;
    connection.allow(STATEMENT);
    Ok(())
}

/// Waits until no other server migrates, which stays so until the migration is kept or undone.
pub(super) async fn lock(
    connection: &mut Connection,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    connection.allow(MIGRATION);
    let begin = connection.dialect().begin_migration;
    let begun = connection.run_script(begin.into()).await.map_err(&unavailable)?;
    if matches!(begun.last().map(|row| row.integer(0)), Some(Ok(1))) {
        return Ok(());
    }
    let others = "another server migrates the tables for long";
    Err(unavailable(StoreError::Unavailable(others.to_owned())))
}

/// Makes sure that the tables can be used as they are, without changing them.
pub(super) async fn check(
    connection: &mut Connection,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    let found = version(connection).await.map_err(&unavailable)?;
    let known = LAST_VERSION;
    if found < known {
        return Err(OpenError::MigrationDisabled { found, known });
    }
    match is_usable(connection, found).await.map_err(&unavailable)? {
        true => Ok(()),
        false => Err(OpenError::TooNew { found, known }),
    }
}

/// Whether tables of the version `found`, if that is later than the last one known here, still have
/// all that this server uses.
pub(super) async fn is_usable(connection: &mut Connection, found: i64) -> Result<bool, StoreError> {
    if found <= LAST_VERSION {
        return Ok(true);
    }
    let read = Statement::new("SELECT readable_since FROM schema_version");
    Ok(connection.fetch_number(read).await? <= LAST_VERSION)
}

/// The version of the tables, 0 where none is noted.
pub(super) async fn version(connection: &mut Connection) -> Result<i64, StoreError> {
    let read = Statement::new("SELECT version FROM schema_version");
    let row = connection.fetch_first(read).await?;
    row.as_ref().map_or(Ok(0), |row| row.integer(0))
}

/// Makes of `tables` those of the last version, step by step, within [`migrate`]'s lock. Where they are
/// of that version nothing is asked for that needs the right to create tables.
pub(super) async fn steps(
    connection: &mut Connection,
    tables: &[String],
    disable_migration: bool,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    if !tables.iter().any(|table| table == VERSION_TABLE) {
        connection.run_script(CREATE_VERSION_TABLE.into()).await.map_err(&unavailable)?;
    }
    let found = version(connection).await.map_err(&unavailable)?;
    let known = LAST_VERSION;
    if !is_usable(connection, found).await.map_err(&unavailable)? {
        return Err(OpenError::TooNew { found, known });
    }
    if 0 < found && found < known && disable_migration {
        return Err(OpenError::MigrationDisabled { found, known });
    }
    for (version, script) in connection.dialect().versions {
        if *version > found {
            connection.run_script((*script).into()).await.map_err(&unavailable)?;
        }
    }
    if found >= known {
        return Ok(());
    }
    let write = if found == 0 {
        "INSERT INTO schema_version (version, code_version, readable_since) VALUES (?, ?, ?)"
    } else {
        "UPDATE schema_version SET version = ?, code_version = ?, readable_since = ?"
    };
    let write = Statement::new(write).bind(known).bind(env!("CARGO_PKG_VERSION"));
    let write = write.bind(READABLE_SINCE);
    connection.execute(write).await.map_err(&unavailable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_apart() {
        let of =
            |names: &[&str]| whose(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Tables::Usable);
        assert_eq!(of(&["schema_version", "entries"]), Tables::Usable);
        assert_eq!(of(&["bundles", "registered_entries"]), Tables::Spire);
        assert_eq!(of(&["migrations"]), Tables::Spire);
        assert_eq!(of(&["albums"]), Tables::Foreign);
    }
}
