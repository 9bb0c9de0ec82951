//! The server's own tables as a source.

use async_trait::async_trait;

use super::records::{Batch, Head, Kind, Position, Source};
use super::snapshot::Snapshot;
use super::{BATCH, CopyError, tables};
use crate::store::dialect::LAST_VERSION;
use crate::store::sql::Statement;
use crate::store::{OpenError, Revision, StoreError, migrations};

/// The oldest version of the tables that is read; older ones are migrated by their server.
const OLDEST_VERSION: i64 = 2;

/// The version that brought federation relationships.
const WITH_RELATIONSHIPS: i64 = 3;

/// How many bundles or journals are read at a time: one may have megabytes.
const FEW: u32 = 50;

/// A database of this server.
pub(super) struct Own {
    snapshot: Snapshot,
    version: i64,
    head: Head,
}

impl Own {
    /// Reads what the database says about itself.
    pub(super) async fn open(mut snapshot: Snapshot) -> Result<Self, CopyError> {
        match read_head(&mut snapshot).await {
            Ok((version, head)) => Ok(Self { snapshot, version, head }),
            Err(error) => {
                snapshot.close().await;
                Err(error)
            }
        }
    }
}

async fn read_head(snapshot: &mut Snapshot) -> Result<(i64, Head), CopyError> {
    let place = snapshot.place.clone();
    let unreadable = |error| CopyError::Open(OpenError::unavailable(&place, error));
    let version = migrations::version(&mut snapshot.connection).await.map_err(unreadable)?;
    if version > LAST_VERSION {
        return Err(OpenError::TooNew { found: version, known: LAST_VERSION }.into());
    }
    if version < OLDEST_VERSION {
        let reason = format!(
            "its tables have version {version}, and versions from {OLDEST_VERSION} are read; start \
             the server once with this database, which migrates it"
        );
        return Err(CopyError::Source { source_name: place.name(), reason });
    }
    let read = Statement::new("SELECT revision, number FROM change_head");
    let row = snapshot.connection.fetch_first(read).await.map_err(unreadable)?;
    let row = row.ok_or_else(|| unreadable(StoreError::Corrupt("change_head is empty".into())))?;
    let number = |index| row.integer(index).map_err(unreadable);
    let revision = Revision(number(0)?.unsigned_abs());
    Ok((version, Head { revision, number: number(1)? }))
}

#[async_trait]
impl Source for Own {
    fn title(&self) -> String {
        format!("tables of this server, version {}", self.version)
    }

    fn head(&self) -> Head {
        self.head
    }

    async fn count(&mut self, kind: Kind) -> Result<u64, CopyError> {
        if kind == Kind::Relationship && self.version < WITH_RELATIONSHIPS {
            return Ok(0);
        }
        let counted = tables::count(&mut self.snapshot.connection, kind).await;
        counted.map_err(|error| CopyError::Read { kind, error })
    }

    async fn read(&mut self, kind: Kind, from: Position) -> Result<Batch, CopyError> {
        if kind == Kind::Relationship && self.version < WITH_RELATIONSHIPS {
            return Ok(Batch::empty(kind));
        }
        let limit = match kind {
            Kind::Bundle | Kind::CaJournal => FEW,
            _ => BATCH,
        };
        let read = tables::read(&mut self.snapshot.connection, kind, from, limit).await;
        let (records, next) = read.map_err(|error| CopyError::Read { kind, error })?;
        let read = records.len() as u64;
        Ok(Batch { records, read, skipped: Vec::new(), remarks: Vec::new(), next })
    }

    async fn close(self: Box<Self>) {
        self.snapshot.close().await;
    }
}
