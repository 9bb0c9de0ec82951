//! `datastore check`: what an operator wants to know of a database, and what is wrong with it.
//!
//! It asks and changes nothing. What holds for every kind of database is here and in `schema.rs`,
//! `statements.rs` and `plan.rs`; what only one kind can suffer from is in the file of its name.

mod mysql;
mod plan;
mod postgres;
mod schema;
mod sqlite;
mod statements;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::database::Connection;
use super::dialect::{LAST_VERSION, Place};
use super::migrations::{Tables, is_usable, version, whose};
use super::sql::Statement;
use super::{Settings, SettingsError, StoreError, TlsFiles};

/// From how many records on it matters that a statement reads them all.
const LARGE: i64 = 10_000;

/// A round trip that takes longer slows every write: each takes about five.
const FAR: Duration = Duration::from_millis(20);

/// How often a round trip is timed; the shortest counts.
const ROUND_TRIPS: usize = 5;

/// What was found out about a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where it is, without secrets.
    pub database: String,
    /// What it is and how it is, in the order in which it was asked.
    pub facts: Vec<Fact>,
    /// The tables that are there.
    pub tables: Vec<Table>,
    /// How statements find what they look for.
    pub statements: Vec<Plan>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Something that was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about, such as `engine`.
    pub name: &'static str,
    /// The answer.
    pub value: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: i64,
}

/// How the database would run a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What the statement is for.
    pub statement: &'static str,
    /// The indexes by which it finds rows.
    pub indexes: Vec<String>,
    /// The table, or its name in the statement, that it reads from one end to the other.
    pub reads_all_of: Option<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong, and what comes of it.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Report {
    fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push(Fact { name, value: value.into() });
    }

    fn problem(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), remedy: remedy.into() });
    }

    /// What could not be asked is a problem as well.
    fn unanswered(&mut self, what: &str, error: &StoreError) {
        let remedy = "see that the database runs, lets this machine in and gives the user all \
                      rights on its tables";
        self.problem(format!("{what}: {error}"), remedy);
    }

    fn rows_of(&self, table: &str) -> i64 {
        self.tables.iter().find(|known| known.name == table).map_or(0, |known| known.rows)
    }
}

/// Looks at the database of `settings`, and at its replica. Servers keep changes for as long as
/// `changes_kept_for`.
///
/// # Errors
/// A connection string that cannot be read. All else is part of the report.
pub async fn check(
    settings: &Settings,
    changes_kept_for: Duration,
) -> Result<Report, SettingsError> {
    let (place, replica) = (settings.place()?, settings.replica()?);
    let mut report = Report {
        database: place.name(),
        facts: Vec::new(),
        tables: Vec::new(),
        statements: Vec::new(),
        problems: Vec::new(),
    };
    if place.is_memory() {
        report.problem(
            "the database is in the memory of its server, and goes away with it",
            "write the path of a file to connection_string",
        );
        return Ok(report);
    }
    let looked = look(&place, replica.as_ref(), &settings.tls, changes_kept_for, &mut report);
    if let Err(error) = looked.await {
        report.unanswered("the database does not answer", &error);
    }
    Ok(report)
}

async fn look(
    place: &Place,
    replica: Option<&Place>,
    tls: &TlsFiles,
    changes_kept_for: Duration,
    report: &mut Report,
) -> Result<(), StoreError> {
    let names = place.tables().await?;
    let mut connection = Connection::open(&place.onlooker()).await?;
    match place {
        Place::Sqlite(location) => sqlite::look(location, &mut connection, report).await?,
        Place::Postgres(_) => postgres::look(place, &mut connection, report).await?,
        Place::MySql(_) => mysql::look(&mut connection, report).await?,
    }
    if !matches!(place, Place::Sqlite(_)) {
        let time = round_trip(&mut connection).await?;
        report.fact("round trip", format!("{:.2} ms", time.as_secs_f64() * 1e3));
        if time > FAR {
            report.problem(
                format!("the database is far away: a round trip takes {time:.0?}, a write five"),
                "run the servers near the database",
            );
        }
    }
    match whose(&names) {
        Tables::Usable if names.is_empty() => report.problem(
            "it holds no tables yet",
            "start a server without disable_migration, which creates them",
        ),
        Tables::Usable => {
            tables(&names, changes_kept_for, &mut connection, report).await?;
            match place {
                Place::Sqlite(_) => {}
                Place::Postgres(_) => postgres::rows(&mut connection, report).await?,
                Place::MySql(_) => mysql::types(&mut connection, report).await?,
            }
            if let Some(replica) = replica {
                follow(replica, &mut connection, report).await?;
            }
        }
        Tables::Spire => report.problem(
            "it holds tables of SPIRE, which a server leaves as they are",
            format!("run \"{}\" and set connection_string to the copy", place.copy_command(tls)),
        ),
        Tables::Foreign => report.problem(
            "it holds tables that are not a server's",
            "set connection_string to a database of its own",
        ),
    }
    connection.close().await;
    Ok(())
}

/// The shortest time that a question takes to be answered.
async fn round_trip(connection: &mut Connection) -> Result<Duration, StoreError> {
    let mut shortest = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let begin = Instant::now();
        connection.fetch_first(Statement::new("SELECT 1")).await?;
        shortest = shortest.min(begin.elapsed());
    }
    Ok(shortest)
}

/// The server's tables: their version, what is in them, and whether all that finds rows is there.
async fn tables(
    names: &[String],
    changes_kept_for: Duration,
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let found = version(connection).await?;
    if found < LAST_VERSION || !is_usable(connection, found).await? {
        report.fact("schema", format!("version {found}, this server needs {LAST_VERSION}"));
        let (what, remedy) = if found > LAST_VERSION {
            ("later", "run the server version that made it, or a later one")
        } else {
            ("earlier", "start a server of this version without disable_migration")
        };
        report.problem(format!("the tables are of an {what} version of the server"), remedy);
        return Ok(());
    }
    let fits = if found == LAST_VERSION { "as this server needs" } else { "which it can use" };
    report.fact("schema", format!("version {found}, {fits}"));
    schema::look(names, connection, report).await?;
    for table in report.tables.iter_mut() {
        let count = format!("SELECT COUNT(*) FROM {}", table.name);
        table.rows = connection.fetch_number(Statement::built(count, Vec::new())).await?;
    }
    log(changes_kept_for, connection, report).await?;
    statements::look(connection, report).await
}

/// The log of changes: how long it is, and whether anybody shortens it.
async fn log(
    kept_for: Duration,
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let text = "SELECT revision, pruned FROM change_head";
    let head = connection.fetch_first(Statement::new(text)).await?;
    let head = head.ok_or_else(|| StoreError::Corrupt("the table change_head is empty".into()))?;
    let text = "SELECT changed_at FROM changes WHERE revision IN \
                ((SELECT MIN(revision) FROM changes), (SELECT MAX(revision) FROM changes)) \
                ORDER BY revision";
    let ends = connection.fetch(Statement::new(text)).await?;
    let now = Timestamp::now();
    let ages = ends.iter().map(|row| {
        Ok(Duration::try_from(now.duration_since(row.timestamp(0)?)).unwrap_or_default())
    });
    let ages = ages.collect::<Result<Vec<_>, StoreError>>()?;
    let (oldest, newest) = (ages.first().copied(), ages.last().copied());
    let age = |age: Option<Duration>| {
        age.map_or_else(|| "none".to_owned(), |age| format!("{} s ago", age.as_secs()))
    };
    report.fact(
        "change log",
        format!(
            "{} changes up to revision {}, forgotten up to {}; oldest {}, newest {}",
            report.rows_of("changes"),
            head.integer(0)?,
            head.integer(1)?,
            age(oldest),
            age(newest)
        ),
    );
    let is_in_use = newest.is_some_and(|newest| newest < kept_for);
    // Servers look after it twice in that time.
    if is_in_use && oldest.is_some_and(|oldest| oldest > kept_for * 2) {
        report.problem(
            format!(
                "the change log is not shortened: its oldest change was made {}, they are kept \
                 for {} s",
                age(oldest),
                kept_for.as_secs()
            ),
            "see in the servers' logs why they cannot prune; it only takes space meanwhile",
        );
    }
    Ok(())
}

/// The replica: whether it is one, and how far behind.
async fn follow(
    replica: &Place,
    primary: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let revision = Statement::new("SELECT revision FROM change_head");
    // The replica is asked first, so that it is not ahead of the primary.
    let asked = async {
        let mut connection = Connection::open(&replica.onlooker()).await?;
        let read_only = connection.is_read_only().await?;
        let revision = connection.fetch_number(revision.clone()).await?;
        connection.close().await;
        Ok::<_, StoreError>((read_only, revision))
    };
    let (read_only, there) = match asked.await {
        Ok(found) => found,
        Err(error) => {
            report.fact("replica", format!("{}: does not answer", replica.name()));
            report.problem(
                format!("the replica of ro_connection_string does not answer: {error}"),
                "mend it or remove ro_connection_string; servers read from connection_string \
                 meanwhile",
            );
            return Ok(());
        }
    };
    let here = primary.fetch_number(revision).await?;
    let behind = here - there;
    report.fact("replica", format!("{}: {behind} changes behind", replica.name()));
    if !read_only {
        report.problem(
            "ro_connection_string leads to a database that can be written: is it a replica?",
            "set it to a replica of connection_string, or remove it",
        );
    }
    if !(0..=LARGE).contains(&behind) {
        report.problem(
            format!("the replica is at revision {there}, the primary at {here}"),
            "see why it lags, or whether it follows another database",
        );
    }
    Ok(())
}
