//! What MySQL and MariaDB can suffer from: settings under which writes are refused, cut short or
//! lost, and tables that were rebuilt with other types.

use super::super::StoreError;
use super::super::database::Connection;
use super::super::row::Row;
use super::super::sql::Statement;
use super::Report;

/// The oldest releases that are supported.
const OLDEST_MYSQL: (u32, u32) = (8, 0);
const OLDEST_MARIADB: (u32, u32) = (10, 6);

/// The largest statement: a journal or a bundle in one row, or 64 entries, in bytes.
const LARGEST_STATEMENT: i64 = 16 << 20;

pub(super) async fn look(
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let row = one(connection, "SELECT VERSION()").await?;
    let version = row.text(0)?;
    let (name, oldest) = match version.contains("MariaDB") {
        true => ("MariaDB", OLDEST_MARIADB),
        false => ("MySQL", OLDEST_MYSQL),
    };
    report.fact("engine", format!("{name} {version}"));
    if is_older(version, oldest) {
        let what = format!("{name} {version} is too old to be supported");
        report.problem(what, format!("upgrade to {name} {}.{} or later", oldest.0, oldest.1));
    }
    let row = one(connection, "SHOW SESSION STATUS LIKE 'Ssl_version'").await?;
    let tls = row.text(1)?;
    report.fact("TLS", if tls.is_empty() { "no" } else { tls });
    if connection.is_read_only().await? {
        let what = "connection_string leads to a database that takes no writes: is it a replica?";
        report.problem(what, "let it lead to the primary");
    }
    settings(connection, report).await
}

async fn one(connection: &mut Connection, text: &'static str) -> Result<Row, StoreError> {
    let row = connection.fetch_first(Statement::new(text)).await?;
    row.ok_or_else(|| StoreError::Corrupt("a row is missing".into()))
}

async fn settings(connection: &mut Connection, report: &mut Report) -> Result<(), StoreError> {
    let text = "SELECT CAST(@@global.max_allowed_packet AS SIGNED), CAST(@@log_bin AS SIGNED), \
                @@global.binlog_format, CAST(@@global.innodb_flush_log_at_trx_commit AS SIGNED), \
                @@global.sql_mode";
    let row = one(connection, text).await?;
    let packet = row.integer(0)?;
    report.fact("max_allowed_packet", packet.to_string());
    if packet < LARGEST_STATEMENT {
        report.problem(
            format!("max_allowed_packet is {packet}: large bundles and journals are refused"),
            format!("set max_allowed_packet = {LARGEST_STATEMENT} or more"),
        );
    }
    if row.truth(1)? && row.text(2)?.eq_ignore_ascii_case("STATEMENT") {
        report.problem(
            "binlog_format is STATEMENT, with which READ COMMITTED transactions are refused",
            "set binlog_format = ROW",
        );
    }
    if row.integer(3)? != 1 {
        report.problem(
            "innodb_flush_log_at_trx_commit is not 1: a crash can take back what was acknowledged",
            "set innodb_flush_log_at_trx_commit = 1",
        );
    }
    if !row.text(4)?.contains("STRICT_") {
        report.problem(
            "sql_mode is not strict: texts that are too long are cut instead of refused",
            "add STRICT_TRANS_TABLES to sql_mode",
        );
    }
    Ok(())
}

/// The types of the server's own tables. Texts are kept as bytes, in tables with transactions. A dump that was changed on its way, or a
/// conversion of all tables, undoes that.
pub(super) async fn types(
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let text = "SELECT table_name, column_name, collation_name FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND collation_name IS NOT NULL \
                AND table_name <> 'schema_version' ORDER BY table_name, ordinal_position";
    for row in connection.fetch(Statement::new(text)).await? {
        let (table, column, collation) = (row.text(0)?, row.text(1)?, row.text(2)?);
        report.problem(
            format!(
                "column {column} of table {table} compares by {collation}: what differs in case \
                 or accents is the same"
            ),
            format!("change its type back to VARBINARY: ALTER TABLE {table} MODIFY {column} …"),
        );
    }
    let text = "SELECT table_name, engine FROM information_schema.tables \
                WHERE table_schema = DATABASE() AND engine <> 'InnoDB' ORDER BY table_name";
    for row in connection.fetch(Statement::new(text)).await? {
        let (table, engine) = (row.text(0)?, row.text(1)?);
        report.problem(
            format!("table {table} is kept by {engine}, without transactions"),
            format!("run \"ALTER TABLE {table} ENGINE = InnoDB\""),
        );
    }
    Ok(())
}

/// Whether a version such as `10.11.6-MariaDB` is older than one of these.
fn is_older(version: &str, (major, minor): (u32, u32)) -> bool {
    // MySQL's own replication once needed this before MariaDB's version.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    found < (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(!is_older("10.11.6-MariaDB-0+deb12u1", OLDEST_MARIADB));
        assert!(!is_older("5.5.5-11.4.2-MariaDB", OLDEST_MARIADB));
        assert!(is_older("10.5.9-MariaDB", OLDEST_MARIADB));
        assert!(is_older("5.7.44-log", OLDEST_MYSQL));
        assert!(!is_older("8.0.36", OLDEST_MYSQL) && !is_older("9.1.0", OLDEST_MYSQL));
    }
}
