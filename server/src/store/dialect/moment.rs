//! A database as it is at one moment, with writers kept out: what copying reads from.
//!
//! Nothing is changed in it. Whether somebody else has it open is found out first, since a copy of
//! what a server goes on changing would be of no use.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sqlite::Location;
use super::{Opening, Place, StoreError};
use crate::store::database::Connection;
use crate::store::sql::Statement;

/// How long the connections of a server that has just ended are waited for, and how often one looks.
const LEAVING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

/// How long one statement may take while a database is copied.
const STATEMENT: Duration = Duration::from_mins(10);

/// Holds a file alone. The first statement makes SQLite use the files beside it in the usual way,
/// so that the lock can be given up again; the last one sees the moment.
const ALONE: &str = "SELECT COUNT(*) FROM sqlite_master; PRAGMA locking_mode = EXCLUSIVE; \
                     BEGIN EXCLUSIVE; SELECT COUNT(*) FROM sqlite_master";
const NO_LONGER_ALONE: &str =
    "ROLLBACK; PRAGMA locking_mode = NORMAL; SELECT COUNT(*) FROM sqlite_master";

/// Who else is connected. Connections that the user may not look at have no type.
const OTHERS_POSTGRES: &str = "SELECT concat_ws(' ', usename, 'from', \
    coalesce(host(client_addr), 'a socket'), nullif(application_name, ''))::text \
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
    AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' \
    ORDER BY 1 LIMIT 5";
const OTHERS_MYSQL: &str = "SELECT CONCAT(user, ' from ', host) \
    FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() LIMIT 5";

/// One that copies may be silent for long, and so may its transaction.
const MOMENT_POSTGRES: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
    SET LOCAL lock_timeout = '8s'";
const MOMENT_MYSQL: &str = "SET SESSION wait_timeout = 28800; \
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
    START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
const LOCK_MYSQL: &str = "SET SESSION wait_timeout = 28800, lock_wait_timeout = 8; LOCK TABLES";

/// A database at one moment.
pub(in crate::store) struct Moment {
    /// Reads, in the transaction that sees the moment.
    pub(in crate::store) connection: Connection,
    /// Who else has the database open. Writers are kept out where nobody has.
    pub(in crate::store) others: Option<String>,
    hold: Hold,
}

/// What has to be given up at the end.
pub(in crate::store) enum Hold {
    /// Nothing but the connection that reads.
    Nothing,
    /// A file whose log holds what is not in the file yet, and stays so.
    Log(Location),
    /// Locks of another connection.
    Locks(Connection),
}

impl Moment {
    /// The connection, and what [`Hold::end`] gives up with it.
    pub(in crate::store) fn into_parts(self) -> (Connection, Hold) {
        (self.connection, self.hold)
    }
}

impl Hold {
    /// Ends the transaction of `connection` and lets writers in again.
    pub(in crate::store) async fn end(self, mut connection: Connection) {
        match self {
            Self::Nothing => connection.close().await,
            Self::Locks(guard) => {
                connection.close().await;
                guard.close().await;
            }
            Self::Log(location) => {
                // The last connection that may write moves the log into the file. One that may not
                // does not, and while it is there the other is not the last.
                let released = connection.run_script(NO_LONGER_ALONE.into()).await;
                let reader = Connection::open(&Opening::Sqlite(location.reader().into())).await;
                if let (Ok(_), Ok(mut reader)) = (released, reader) {
                    let look = Statement::new("SELECT COUNT(*) FROM sqlite_master");
                    let _ = reader.fetch_number(look).await;
                    connection.close().await;
                    reader.close().await;
                }
            }
        }
    }
}

impl Place {
    /// The database as it is now; `tables` are all of its tables.
    ///
    /// # Errors
    /// It cannot be opened, or the user lacks the right to keep writers out.
    pub(in crate::store) async fn moment(&self, tables: &[String]) -> Result<Moment, StoreError> {
        let mut moment = match self {
            Self::Sqlite(location) => of_file(location).await?,
            Self::Postgres(_) => self.of_postgres(tables).await?,
            Self::MySql(_) => self.of_mysql(tables).await?,
        };
        moment.connection.allow(STATEMENT);
        Ok(moment)
    }

    async fn of_postgres(&self, tables: &[String]) -> Result<Moment, StoreError> {
        let mut connection = Connection::open(&self.writer()).await?;
        let others = others(&mut connection, OTHERS_POSTGRES).await?;
        let mut script = MOMENT_POSTGRES.to_owned();
        if others.is_none() {
            let quoted = tables.iter().map(|table| format!("\"{}\"", table.replace('"', "\"\"")));
            let tables = quoted.collect::<Vec<_>>().join(", ");
            script.push_str(&format!("; LOCK TABLE {tables} IN SHARE MODE"));
        }
        connection.run_script(script.into()).await?;
        Ok(Moment { connection, others, hold: Hold::Nothing })
    }

    async fn of_mysql(&self, tables: &[String]) -> Result<Moment, StoreError> {
        let mut connection = Connection::open(&self.writer()).await?;
        let others = others(&mut connection, OTHERS_MYSQL).await?;
        let mut hold = Hold::Nothing;
        if others.is_none() {
            // The beginning of a transaction gives up the locks of its own connection.
            let mut guard = Connection::open(&self.writer()).await?;
            let quoted = tables.iter().map(|table| format!("`{}` READ", table.replace('`', "``")));
            let tables = quoted.collect::<Vec<_>>().join(", ");
            guard.run_script(format!("{LOCK_MYSQL} {tables}").into()).await?;
            hold = Hold::Locks(guard);
        }
        connection.run_script(MOMENT_MYSQL.into()).await?;
        Ok(Moment { connection, others, hold })
    }
}

/// A file is held alone, so that no other process can even open it; where that fails it is read
/// beside the others.
async fn of_file(location: &Location) -> Result<Moment, StoreError> {
    let has_log = location.has_log()?;
    let mut connection = Connection::open(&Opening::Sqlite(location.holder().into())).await?;
    let others = match connection.run_script(ALONE.into()).await {
        Ok(_) => {
            let hold = if has_log { Hold::Log(location.clone()) } else { Hold::Nothing };
            return Ok(Moment { connection, others: None, hold });
        }
        Err(StoreError::Unavailable(reason)) => reason,
        Err(error) => return Err(error),
    };
    let mut reader = Connection::open(&Opening::Sqlite(location.reader().into())).await?;
    connection.close().await;
    reader.run_script("BEGIN; SELECT COUNT(*) FROM sqlite_master".into()).await?;
    Ok(Moment { connection: reader, others: Some(others), hold: Hold::Nothing })
}

/// Who is connected besides. Whoever is just leaving is waited for.
async fn others(
    connection: &mut Connection,
    query: &'static str,
) -> Result<Option<String>, StoreError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        let rows = connection.fetch(Statement::new(query)).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            let names: Result<Vec<&str>, _> = rows.iter().map(|row| row.text(0)).collect();
            return Ok(Some(format!("connections of {}", names?.join(", "))));
        }
        sleep(LOOK).await;
    }
}
