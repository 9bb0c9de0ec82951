//! The database that is copied to: empty before, and all of the copy after its one commit.

use super::records::{Kind, Records};
use super::{CopyError, tables};
use crate::store::database::Connection;
use crate::store::dialect::{LAST_VERSION, Place};
use crate::store::migrations::{self, Tables, whose};
use crate::store::sql::Statement;
use crate::store::{OpenError, StoreError};

use super::records::Head;

/// What a target holds.
pub(super) enum Content {
    /// No tables, or the server's with nothing in them.
    Nothing,
    /// Records of the server; the connection reads them.
    Records(Connection),
}

/// Looks at the target without changing it.
pub(super) async fn content(place: &Place) -> Result<Content, CopyError> {
    let holds =
        |what: &str| Err(CopyError::TargetHolds { name: place.name(), what: what.to_owned() });
    let unavailable = |error| OpenError::unavailable(place, error);
    let names = place.tables().await.map_err(unavailable)?;
    match whose(&names) {
        Tables::Usable if names.is_empty() => return Ok(Content::Nothing),
        Tables::Usable => {}
        Tables::Spire => return holds("tables of SPIRE"),
        Tables::Foreign => return holds("tables of another program"),
    }
    let mut connection = Connection::open(&place.onlooker()).await.map_err(unavailable)?;
    let version = migrations::version(&mut connection).await.map_err(unavailable)?;
    if version > LAST_VERSION {
        return Err(OpenError::TooNew { found: version, known: LAST_VERSION }.into());
    }
    if is_empty(&mut connection, &names).await.map_err(unavailable)? {
        connection.close().await;
        return Ok(Content::Nothing);
    }
    if version < LAST_VERSION {
        return holds(&format!("records in tables of version {version}"));
    }
    Ok(Content::Records(connection))
}

/// Whether the tables `names` have no record.
async fn is_empty(connection: &mut Connection, names: &[String]) -> Result<bool, StoreError> {
    for table in Kind::ALL.map(tables::table) {
        if names.iter().any(|name| name == table) {
            let look = format!("SELECT 1 FROM {table} LIMIT 1");
            if connection.fetch_first(Statement::built(look, Vec::new())).await?.is_some() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A target that is being filled. It is ended by [`Filling::commit`] or [`Filling::undo`]; where
/// the process ends before, the database undoes it, and at most empty tables are left.
pub(super) struct Filling {
    connection: Connection,
    place: Place,
    /// Whether there was no file, and whether there were no tables: known once nobody else can
    /// make them.
    made_file: bool,
    made_tables: bool,
    /// The last number of a row.
    number: i64,
}

impl Filling {
    /// Makes the tables as far as they are missing. Other copies and servers that start wait.
    pub(super) async fn begin(place: &Place) -> Result<Self, CopyError> {
        let unavailable = |error| OpenError::unavailable(place, error);
        let was_missing = place.is_missing();
        place.create().map_err(|error| unavailable(StoreError::Unavailable(error.to_string())))?;
        let connection = Connection::open(&place.writer()).await.map_err(unavailable)?;
        let place = place.clone();
        let mut filling =
            Self { connection, place, made_file: false, made_tables: false, number: 0 };
        match filling.prepare(was_missing).await {
            Ok(()) => Ok(filling),
            Err(error) => {
                filling.undo().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self, was_missing: bool) -> Result<(), CopyError> {
        let place = self.place.clone();
        let unavailable = |error| OpenError::unavailable(&place, error);
        let connection = &mut self.connection;
        migrations::lock(connection, unavailable).await?;
        let tables = place.table_names(connection).await.map_err(unavailable)?;
        self.made_tables = tables.is_empty();
        self.made_file = was_missing && self.made_tables;
        migrations::steps(connection, &tables, false, unavailable).await?;
        let begin = place.begin_filling();
        let head = connection.run_script(begin.into()).await.map_err(unavailable)?;
        if head.is_empty() {
            return Err(unavailable(StoreError::Corrupt("change_head is empty".into())).into());
        }
        // Somebody may have been faster since the first look.
        let names = Kind::ALL.map(|kind| tables::table(kind).to_owned());
        if !is_empty(connection, &names).await.map_err(unavailable)? {
            let what = "another program has just written to it".to_owned();
            return Err(CopyError::TargetHolds { name: place.name(), what });
        }
        Ok(())
    }

    /// Writes records.
    pub(super) async fn insert(&mut self, records: &Records) -> Result<(), CopyError> {
        let inserted = tables::insert(&mut self.connection, records).await;
        inserted.map_err(|error| CopyError::Write { kind: records.kind(), error })?;
        self.number = self.number.max(records.last_number().unwrap_or(0));
        Ok(())
    }

    /// Lets the counters go on where those of the source stand. The log itself begins there: it
    /// tells servers that run what to read again, and none runs.
    pub(super) async fn set_head(&mut self, head: Head) -> Result<(), StoreError> {
        let revision = head.revision.0.cast_signed();
        self.connection.execute(Statement::new("DELETE FROM changes")).await?;
        let text = "UPDATE change_head SET revision = ?, pruned = ?, number = ?";
        let number = self.number.max(head.number);
        let update = Statement::new(text).bind(revision).bind(revision).bind(number);
        self.connection.execute(update).await.map(drop)
    }

    /// Reads what was written.
    pub(super) fn reader(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Keeps all of it.
    pub(super) async fn commit(mut self) -> Result<(), CopyError> {
        let kept = self.place.keep_filled(&mut self.connection).await;
        self.connection.close().await;
        kept.map_err(CopyError::Commit)
    }

    /// Leaves the target as it was.
    pub(super) async fn undo(mut self) {
        // Where the database cannot be told, it finds out by itself.
        let _ = self.place.undo_filling(&mut self.connection, self.made_tables).await;
        self.connection.close().await;
        if self.made_file {
            let _ = self.place.remove();
        }
    }
}
