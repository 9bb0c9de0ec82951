//! The tables, version by version.

use super::database::Connection;
use super::error::{OpenError, StoreError};
use super::sql::Statement;

/// What makes each version of the tables from the one before; the first from nothing.
const VERSIONS: [&str; 1] = [include_str!("migrations/sqlite/1.sql")];

/// The table that every version has, and that tells which one it is.
const VERSION_TABLE: &str = "schema_version";

const CREATE_VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version \
    (version INTEGER NOT NULL, code_version TEXT NOT NULL)";

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

/// Brings the tables to the last version in one transaction, which servers that start at the same
/// time wait for.
pub(super) async fn migrate(
    connection: &mut Connection,
    disable_migration: bool,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    connection.run_script("BEGIN IMMEDIATE").await.map_err(&unavailable)?;
    let migrated = steps(connection, disable_migration, &unavailable).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.run_script(end).await;
    migrated?;
    ended.map_err(&unavailable)
}

/// Makes sure that the tables are of the last version, without changing them.
pub(super) async fn check(
    connection: &mut Connection,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    let found = version(connection).await.map_err(unavailable)?;
    let known = VERSIONS.len() as i64;
    match found {
        _ if found > known => Err(OpenError::TooNew { found, known }),
        _ if found < known => Err(OpenError::MigrationDisabled { found, known }),
        _ => Ok(()),
    }
}

async fn version(connection: &mut Connection) -> Result<i64, StoreError> {
    let read = Statement::new("SELECT version FROM schema_version");
    let row = connection.fetch_first(read).await?;
    row.as_ref().map_or(Ok(0), |row| row.integer(0))
}

async fn steps(
    connection: &mut Connection,
    disable_migration: bool,
    unavailable: impl Fn(StoreError) -> OpenError,
) -> Result<(), OpenError> {
    connection.run_script(CREATE_VERSION_TABLE).await.map_err(&unavailable)?;
    let found = version(connection).await.map_err(&unavailable)?;
    let known = VERSIONS.len() as i64;
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    if 0 < found && found < known && disable_migration {
        return Err(OpenError::MigrationDisabled { found, known });
    }
    for script in VERSIONS.into_iter().skip(usize::try_from(found).unwrap_or_default()) {
        connection.run_script(script).await.map_err(&unavailable)?;
    }
    if found == known {
        return Ok(());
    }
    let write = if found == 0 {
        "INSERT INTO schema_version (version, code_version) VALUES (?, ?)"
    } else {
        "UPDATE schema_version SET version = ?, code_version = ?"
    };
    let write = Statement::new(write).bind(known).bind(env!("CARGO_PKG_VERSION"));
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
