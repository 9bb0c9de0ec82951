//! The database of a SPIRE server as a source, on any of its three kinds of database.
//!
//! Its schemas are many and its tables were changed step by step, so that the catalogue is asked
//! which columns exist, and columns are read by name. A column that is missing, like NULL, stands
//! for nothing: false, 0, an empty text. Nothing there is declared to refer to anything, so that
//! rows are left over from what is gone: they are skipped and named.

mod attributes;
mod bundles;
mod catalog;
mod columns;
mod entries;
mod journals;
mod nodes;
mod relationships;
mod survey;
mod time;
mod tokens;

use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;

use super::records::{Batch, Head, Kind, Position, Records, Source};
use super::snapshot::Snapshot;
use super::{Cause, CopyError, Skipped};
use crate::store::row::Row;
use crate::store::sql::Statement;
use crate::store::{Revision, StoreError};

use catalog::Catalog;
use columns::{Column, Fields, select};
use survey::Survey;
use time::Zone;

/// How many bundles or journals are read at a time: each may have many kilobytes.
const LARGE: u32 = 100;

/// SPIRE's tables at one moment.
pub(in crate::store) struct Spire {
    database: Database,
    survey: Survey,
    now: Timestamp,
}

/// What is asked, and what is known of its tables.
struct Database {
    snapshot: Snapshot,
    catalog: Catalog,
    zone: Zone,
}

impl Spire {
    /// Looks at what there is. What expired before `now` is not copied. In `data_dir`, that of a
    /// SPIRE server, a journal may lie that is not in the database.
    ///
    /// # Errors
    /// [`CopyError`] where it cannot be copied: its schema is not known, tables are missing, or
    /// things of several trust domains are in it.
    pub(in crate::store) async fn open(
        snapshot: Snapshot,
        data_dir: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, CopyError> {
        let mut snapshot = snapshot;
        let (catalog, zone) = match read(&mut snapshot).await {
            Ok(read) => read,
            Err(error) => {
                snapshot.close().await;
                return Err(error);
            }
        };
        let mut database = Database { snapshot, catalog, zone };
        match Survey::of(&mut database, data_dir, now).await {
            Ok(survey) => Ok(Self { database, survey, now }),
            Err(error) => {
                database.snapshot.close().await;
                Err(error)
            }
        }
    }
}

async fn read(snapshot: &mut Snapshot) -> Result<(Catalog, Zone), CopyError> {
    let catalog = Catalog::read(snapshot).await?;
    let zone = Zone::of(&snapshot.settings);
    Ok((catalog, zone.map_err(|reason| catalog::refused(snapshot, reason))?))
}

#[async_trait]
impl Source for Spire {
    fn title(&self) -> String {
        let Catalog { version, code_version, .. } = &self.database.catalog;
        let release =
            if code_version.is_empty() { "SPIRE" } else { &format!("SPIRE {code_version}") };
        let title = format!("{release}, schema {version}");
        match &self.survey.trust_domain {
            Some(trust_domain) => format!("{title}, trust domain {trust_domain}"),
            None => title,
        }
    }

    fn head(&self) -> Head {
        Head { revision: Revision::default(), number: self.survey.last_number }
    }

    async fn count(&mut self, kind: Kind) -> Result<u64, CopyError> {
        let table = table_of(kind);
        let beside = u64::from(kind == Kind::CaJournal && self.survey.journal.is_some());
        if self.database.catalog.columns(table).is_none() {
            return Ok(beside);
        }
        let count = Statement::built(format!("SELECT COUNT(*) FROM {table}"), Vec::new());
        let rows = self.database.fetch(kind, count).await?;
        let count = rows.first().map_or(Ok(0), |row| row.integer(0));
        let count = count.map_err(|error| CopyError::Read { kind, error })?;
        Ok(count.unsigned_abs() + beside)
    }

    async fn read(&mut self, kind: Kind, from: Position) -> Result<Batch, CopyError> {
        let mut batch = match kind {
            Kind::Bundle => self.bundles(from).await?,
            Kind::Relationship => self.relationships(from).await?,
            Kind::Entry => self.entries(from).await?,
            Kind::Node => self.nodes(from).await?,
            Kind::JoinToken => self.tokens(from).await?,
            Kind::CaJournal => self.journals(from).await?,
        };
        if kind == Kind::Bundle && from == Position::Start {
            batch.remarks.extend(self.survey.remarks.iter().cloned());
        }
        Ok(batch)
    }

    async fn close(self: Box<Self>) {
        self.database.snapshot.close().await;
    }
}

/// A kind's own table.
fn table_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Bundle => "bundles",
        Kind::Relationship => "federated_trust_domains",
        Kind::Entry => "registered_entries",
        Kind::Node => "attested_node_entries",
        Kind::JoinToken => "join_tokens",
        Kind::CaJournal => "ca_journals",
    }
}

/// Rows of a kind's own table in the order of their ids.
struct Page {
    rows: Vec<Row>,
    /// The id before the first row, `None` at the beginning.
    after: Option<i64>,
    /// The id of the last row, `None` where nothing follows.
    last: Option<i64>,
}

impl Database {
    async fn fetch(&mut self, kind: Kind, statement: Statement) -> Result<Vec<Row>, CopyError> {
        let rows = self.snapshot.connection.fetch(statement).await;
        rows.map_err(|error| CopyError::Read { kind, error })
    }

    /// Reads rows of a kind's own table. The first of `columns` is the id. No table has no rows.
    async fn page(
        &mut self,
        kind: Kind,
        columns: &'static [Column],
        from: Position,
        limit: u32,
    ) -> Result<Page, CopyError> {
        let after = match from {
            Position::Number(number) => Some(number),
            _ => None,
        };
        let table = table_of(kind);
        let Some(existing) = self.catalog.columns(table) else {
            return Ok(Page { rows: Vec::new(), after, last: None });
        };
        let select = select(columns, existing, "", self.snapshot.settings.kind);
        let text = format!("SELECT {select} FROM {table} WHERE id > ? ORDER BY id LIMIT {limit}");
        let statement = Statement::built(text, Vec::new()).bind(after.unwrap_or(0));
        let rows = self.fetch(kind, statement).await?;
        let last = match rows.last() {
            Some(last) if rows.len() == limit as usize => {
                Some(last.integer(0).map_err(|error| CopyError::Read { kind, error })?)
            }
            _ => None,
        };
        Ok(Page { rows, after, last })
    }

    fn fields<'r>(&'r self, row: &'r Row, columns: &'static [Column]) -> Fields<'r> {
        Fields { row, columns, zone: &self.zone }
    }
}

impl Page {
    /// A batch of `records` that come of these rows, with nothing to say about them yet.
    fn batch(&self, records: Records) -> Batch {
        Batch {
            records,
            read: self.rows.len() as u64,
            skipped: Vec::new(),
            remarks: Vec::new(),
            next: self.last.map(Position::Number),
        }
    }
}

/// Why a row is not copied.
struct Unfit {
    cause: Cause,
    reason: String,
}

impl Unfit {
    /// Something that no server takes.
    fn unreadable(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Unreadable, reason: reason.into() }
    }

    fn expired(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Expired, reason: reason.into() }
    }

    fn orphan(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Orphan, reason: reason.into() }
    }

    fn of(self, table: &'static str, name: String) -> Skipped {
        Skipped { table, name, cause: self.cause, reason: self.reason }
    }
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Self::unreadable(error.to_string())
    }
}

/// Reads a text as what `column` must hold.
fn parse<T>(column: &str, text: &str) -> Result<T, Unfit>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| Unfit::unreadable(format!("{column} {text:?}: {error}")))
}

/// The second that `instant` lies in.
fn floor_second(instant: Timestamp) -> Timestamp {
    let second = instant.as_second();
    // The second before, where a time before 1970 has a fraction.
    let floor = if instant.subsec_nanosecond() < 0 { second - 1 } else { second };
    Timestamp::from_second(floor).unwrap_or(instant)
}
