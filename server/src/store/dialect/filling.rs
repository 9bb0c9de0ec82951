//! Filling an empty database in one step: what copying writes to.
//!
//! Tables and records appear with the one commit at the end. MySQL commits tables by themselves:
//! there they are made first and dropped again where nothing comes of it.

use std::io;

use super::{Place, StoreError};
use crate::store::database::Connection;
use crate::store::sql::Statement;

/// After the lock of the migrations and the tables: whoever fills may be silent for long, and no
/// server that is there already writes meanwhile.
const CALM_POSTGRES: &str = "SET LOCAL statement_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '8s'; \
    SELECT number FROM change_head FOR UPDATE";
const CALM_MYSQL: &str = "SET SESSION wait_timeout = 28800, innodb_lock_wait_timeout = 8; \
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; \
    SELECT number FROM change_head FOR UPDATE";

/// Links are written in the order of hashes: with a small cache each row would read a page.
const CALM_SQLITE: &str = "PRAGMA cache_size = -65536; SELECT number FROM change_head";

impl Place {
    /// Begins to fill tables that have just been migrated, in the transaction of that as far as the
    /// database has such.
    pub(in crate::store) fn begin_filling(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => CALM_SQLITE,
            Self::Postgres(_) => CALM_POSTGRES,
            Self::MySql(_) => CALM_MYSQL,
        }
    }

    /// The names of the tables that `connection` sees.
    pub(in crate::store) async fn table_names(
        &self,
        connection: &mut Connection,
    ) -> Result<Vec<String>, StoreError> {
        let rows = connection.fetch(Statement::new(connection.dialect().tables)).await?;
        rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
    }

    /// Keeps all of it, and lets servers in that want to migrate.
    pub(in crate::store) async fn keep_filled(
        &self,
        connection: &mut Connection,
    ) -> Result<(), StoreError> {
        connection.run_script("COMMIT".into()).await?;
        match self {
            Self::Sqlite(_) => {}
            // Until it has looked for itself, a minute later or so, it would plan as for empty tables.
            Self::Postgres(_) => {
                let names = self.table_names(connection).await.unwrap_or_default().join(", ");
                let _ = connection.run_script(format!("ANALYZE {names}").into()).await;
            }
            // The lock ends with the connection, too.
            Self::MySql(_) => {
                let _ = connection.run_script(connection.dialect().migrated.into()).await;
            }
        }
        Ok(())
    }

    /// Undoes all of it; `made_tables` says whether there were no tables before.
    pub(in crate::store) async fn undo_filling(
        &self,
        connection: &mut Connection,
        made_tables: bool,
    ) -> Result<(), StoreError> {
        connection.run_script("ROLLBACK".into()).await?;
        if let Self::MySql(_) = self {
            let names = self.table_names(connection).await?.join(", ");
            if made_tables && !names.is_empty() {
                let drop = format!("SET FOREIGN_KEY_CHECKS = 0; DROP TABLE IF EXISTS {names}");
                connection.run_script(drop.into()).await?;
            }
            connection.run_script(connection.dialect().not_migrated.into()).await?;
        }
        Ok(())
    }

    /// Whether it is a file that is not there yet.
    pub(in crate::store) fn is_missing(&self) -> bool {
        match self {
            Self::Sqlite(location) => location.path.as_ref().is_some_and(|path| !path.exists()),
            Self::Postgres(_) | Self::MySql(_) => false,
        }
    }

    /// Removes the file that [`Place::create`] made, and those beside it.
    pub(in crate::store) fn remove(&self) -> io::Result<()> {
        match self {
            Self::Sqlite(location) => location.remove(),
            Self::Postgres(_) | Self::MySql(_) => Ok(()),
        }
    }

    /// Whether both connection strings lead to the same tables, as far as they tell.
    pub(in crate::store) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(two)) => {
                let real = |path: &std::path::PathBuf| path.canonicalize().ok();
                let paths = one.path.as_ref().zip(two.path.as_ref());
                paths.is_some_and(|(one, two)| {
                    one == two || real(one).is_some_and(|one| Some(one) == real(two))
                })
            }
            (Self::Postgres(one), Self::Postgres(two)) => {
                self.name() == other.name()
                    && one.get_socket() == two.get_socket()
                    && one.get_options() == two.get_options()
            }
            (Self::MySql(one), Self::MySql(two)) => {
                self.name() == other.name() && one.get_socket() == two.get_socket()
            }
            _ => false,
        }
    }
}
