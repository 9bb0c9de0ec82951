//! What PostgreSQL can suffer from: settings that risk what was acknowledged, dead rows that nobody
//! clears away, transaction ids that run out, a pooler that swallows notifications.

use super::super::StoreError;
use super::super::database::Connection;
use super::super::dialect::Place;
use super::super::row::Row;
use super::super::sql::Statement;
use super::{LARGE, Report};

/// The oldest release that is supported, as its `server_version_num`.
const OLDEST: i64 = 130_000;

/// The age of the oldest transaction id from which on somebody must act; at about 2.1 thousand
/// million PostgreSQL stops.
const OLD_IDS: i64 = 1_000_000_000;

/// A transaction that is open for longer keeps dead rows from being cleared away, in seconds.
const LONG: i64 = 3600;

pub(super) async fn look(
    place: &Place,
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let text = "SELECT current_setting('server_version'), \
                current_setting('server_version_num')::bigint, \
                (SELECT COALESCE(MAX(version), 'no') FROM pg_stat_ssl WHERE pid = pg_backend_pid())";
    let row = one(connection, text).await?;
    report.fact("engine", format!("PostgreSQL {}", row.text(0)?));
    report.fact("TLS", row.text(2)?);
    if row.integer(1)? < OLDEST {
        let what = format!("PostgreSQL {} is too old to be supported", row.text(0)?);
        report.problem(what, "upgrade to PostgreSQL 13 or later");
    }
    if connection.is_read_only().await? {
        let what = "connection_string leads to a replica, which takes no writes";
        report.problem(what, "let it lead to the primary");
    }
    settings(connection, report).await?;
    if changes_backends(place, connection).await? {
        report.fact("pooler", "in transaction mode");
        report.problem(
            "a pooler hands out connections for single transactions: servers do not hear of each \
             other's changes, and look every cache_reload_interval instead",
            "let connection_string lead to the database itself, or to a pool in session mode",
        );
    }
    Ok(())
}

async fn one(connection: &mut Connection, text: &'static str) -> Result<Row, StoreError> {
    let row = connection.fetch_first(Statement::new(text)).await?;
    row.ok_or_else(|| StoreError::Corrupt("a row is missing".into()))
}

/// Settings under which a crash takes back what was acknowledged, and those that end badly later.
async fn settings(connection: &mut Connection, report: &mut Report) -> Result<(), StoreError> {
    let text = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
                current_setting('synchronous_commit'), current_setting('autovacuum')";
    let row = one(connection, text).await?;
    for (index, name) in ["fsync", "full_page_writes", "synchronous_commit"].iter().enumerate() {
        if row.text(index)? == "off" {
            report.problem(
                format!("{name} is off: a crash can take back what was acknowledged"),
                format!("set {name} = on"),
            );
        }
    }
    if row.text(3)? == "off" {
        let what = "autovacuum is off: dead rows pile up and transaction ids run out";
        report.problem(what, "set autovacuum = on");
    }
    let text = "SELECT age(datfrozenxid)::bigint, \
                (SELECT COALESCE(MAX(EXTRACT(EPOCH FROM now() - xact_start)), 0)::bigint \
                 FROM pg_stat_activity WHERE datname = current_database()) \
                FROM pg_database WHERE datname = current_database()";
    let row = one(connection, text).await?;
    let (age, open) = (row.integer(0)?, row.integer(1)?);
    report.fact("age of transaction ids", age.to_string());
    if age > OLD_IDS {
        report.problem(
            format!("the oldest transaction id is {age} old: at 2,100,000,000 writes are refused"),
            "run \"VACUUM (FREEZE)\", and see why autovacuum does not",
        );
    }
    if open > LONG {
        report.problem(
            format!("a transaction is open for {open} s, so that dead rows stay"),
            "end it: SELECT pid, query FROM pg_stat_activity ORDER BY xact_start",
        );
    }
    Ok(())
}

/// Tables with more dead rows than autovacuum should leave, and those that it leaves alone.
pub(super) async fn rows(
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let text = "SELECT s.relname::text, s.n_live_tup, s.n_dead_tup, \
                ('autovacuum_enabled=false' = ANY (COALESCE(c.reloptions, '{}')))::int::bigint \
                FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid \
                WHERE s.schemaname = current_schema() ORDER BY s.relname";
    let tables = connection.fetch(Statement::new(text)).await?;
    let mut dead_rows = 0;
    for row in tables {
        let (table, live, dead) = (row.text(0)?, row.integer(1)?, row.integer(2)?);
        dead_rows += dead;
        if dead > live.max(LARGE) {
            report.problem(
                format!("table {table} has {dead} dead rows and {live} others"),
                format!("run \"VACUUM ANALYZE {table}\", and see why autovacuum does not"),
            );
        }
        if row.truth(3)? {
            report.problem(
                format!("autovacuum leaves table {table} alone"),
                format!("run \"ALTER TABLE {table} RESET (autovacuum_enabled)\""),
            );
        }
    }
    report.fact("dead rows", dead_rows.to_string());
    Ok(())
}

/// Whether something in between gives this connection another backend as soon as somebody else
/// takes the one that it had.
async fn changes_backends(place: &Place, connection: &mut Connection) -> Result<bool, StoreError> {
    let backend = Statement::new("SELECT pg_backend_pid()::bigint");
    let before = connection.fetch_number(backend.clone()).await?;
    let mut other = Connection::open(&place.onlooker()).await?;
    other.run_script("BEGIN READ ONLY".into()).await?;
    let others = other.fetch_number(backend.clone()).await?;
    let after = connection.fetch_number(backend).await?;
    other.run_script("ROLLBACK".into()).await?;
    other.close().await;
    Ok(before != after || before == others)
}
