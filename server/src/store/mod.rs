//! What must survive: entries, nodes, join tokens, bundles, CA journals and the log of changes.
//!
//! All SQL of the server is below this folder, one file for each kind of record. Callers see one
//! [`Store`] with asynchronous methods and the vocabulary of `spire_core`; which database answers
//! is known to `database.rs`, `sqlite.rs` and the migrations alone. Each call that changes
//! something is one transaction: it is acknowledged once it is on the disk, and until then nobody
//! sees any of it.

mod admission;
mod bundles;
mod ca_journals;
mod changes;
mod database;
mod entries;
mod entry_rows;
mod error;
mod join_tokens;
mod migrations;
mod node_rows;
mod nodes;
mod packing;
mod page;
mod settings;
mod sql;
mod sqlite;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use spire_core::tasks::Tasks;
use tokio::sync::{mpsc, watch};

use database::{Connection, Readers};
use migrations::Tables;
use writer::{Job, Writer};

pub use bundles::{DeleteMode, EditRefused};
pub use ca_journals::{CaJournal, CaJournalId};
pub use changes::{Change, Changes, Revision};
pub use entries::{CreatedEntry, EntryFilter};
pub use error::{OpenError, StoreError};
pub use join_tokens::{KeyFingerprint, Redemption, TokenUse};
pub use nodes::{Attestation, Node, NodeFilter, Recorded};
pub use page::{BadPageToken, Listed, Page, PageToken, SetMatch, SetRule};
pub use settings::{DatabaseKind, Settings, SettingsError};

/// How long [`Store::close`] waits for the writes that are left.
const LAST_WRITES: Duration = Duration::from_secs(15);

/// How many records are read at a time where all are wanted.
const BATCH: u32 = 1000;

/// The datastore. Cheap to clone; [`Store::close`] ends it for all clones.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: mpsc::Sender<Box<dyn Job>>,
    /// `None` where the database has one connection, because it is in memory.
    readers: Option<Readers>,
    changed: watch::Sender<Revision>,
    tasks: Tasks,
}

/// What a read does.
type Read<I, T> = for<'t> fn(&'t mut Connection, &'t I) -> BoxFuture<'t, Result<T, StoreError>>;

impl Store {
    /// Opens the database, creating or migrating its tables as needed. Must be called within a
    /// Tokio runtime, where the task that writes lives until the store is closed or dropped.
    ///
    /// # Errors
    /// [`OpenError`] names what is wrong and what to do; a database that holds SPIRE's tables is
    /// left as it is.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        let location = settings.location()?;
        let named = || settings.connection_string.clone();
        let unavailable = |error: StoreError| OpenError::Unavailable {
            connection: named(),
            reason: match error {
                StoreError::Unavailable(reason) => reason,
                other => other.to_string(),
            },
        };
        match migrations::whose(&location.tables().await.map_err(unavailable)?) {
            Tables::Usable => {}
            Tables::Spire => {
                return Err(OpenError::spire_tables(named(), location.path.as_deref()));
            }
            Tables::Foreign => return Err(OpenError::ForeignTables(named())),
        }
        let created = location.create();
        created.map_err(|error| unavailable(StoreError::Unavailable(error.to_string())))?;
        let mut connection = Connection::open(&location.writer()).await.map_err(unavailable)?;
        migrations::migrate(&mut connection, settings.disable_migration, unavailable).await?;
        let revision = changes::latest(&mut connection).await.map_err(unavailable)?;

        let on_disk = location.path.is_some();
        let (queue, waiting) = mpsc::channel(writer::QUEUE);
        let (changed, _) = watch::channel(revision);
        let tasks = Tasks::new();
        let replacement = on_disk.then(|| location.writer());
        let writer = Writer::new(connection, replacement, waiting, changed.clone());
        tasks.spawn(writer.run(tasks.stop_token()));
        let readers = on_disk.then(|| Readers::new(location.reader()));
        Ok(Self { inner: Arc::new(Inner { queue, readers, changed, tasks }) })
    }

    /// Opens the database to look at it: nothing is created, migrated or changed, and calls that
    /// would change something are `Unavailable`.
    ///
    /// # Errors
    /// [`OpenError`]; a database that is not there, or not of this version, is one.
    pub async fn look(settings: &Settings) -> Result<Self, OpenError> {
        let location = settings.location()?;
        let unavailable = |error: StoreError| OpenError::Unavailable {
            connection: settings.connection_string.clone(),
            reason: error.to_string(),
        };
        let nothing = || StoreError::Unavailable("it holds no tables yet".to_owned());
        let tables = location.tables().await.map_err(unavailable)?;
        match migrations::whose(&tables) {
            Tables::Usable if tables.is_empty() => return Err(unavailable(nothing())),
            Tables::Usable => {}
            Tables::Spire => {
                let connection = settings.connection_string.clone();
                return Err(OpenError::spire_tables(connection, location.path.as_deref()));
            }
            Tables::Foreign => {
                return Err(OpenError::ForeignTables(settings.connection_string.clone()));
            }
        }
        let onlooker = location.onlooker();
        let mut connection = Connection::open(&onlooker).await.map_err(unavailable)?;
        migrations::check(&mut connection, unavailable).await?;
        let revision = changes::latest(&mut connection).await.map_err(unavailable)?;
        connection.close().await;
        let (queue, _) = mpsc::channel(1);
        let (changed, _) = watch::channel(revision);
        let readers = Some(Readers::new(onlooker));
        Ok(Self { inner: Arc::new(Inner { queue, readers, changed, tasks: Tasks::new() }) })
    }

    /// Finishes the writes that wait and closes all connections. Later calls are `Unavailable`.
    pub async fn close(&self) {
        if let Some(readers) = &self.inner.readers {
            readers.close().await;
        }
        self.inner.tasks.drain(LAST_WRITES).await;
    }

    /// The newest revision of the change log, poked after each commit that changed it. When a
    /// call of this store that changed something returns, its revision is already here.
    pub fn changed(&self) -> watch::Receiver<Revision> {
        self.inner.changed.subscribe()
    }

    /// Runs `run` on a connection that sees what was committed before.
    async fn read<I, T>(&self, input: I, run: Read<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        match &self.inner.readers {
            Some(readers) => run(&mut readers.acquire().await?, &input).await,
            None => self.write((input, run), |tx, (input, run)| run(tx.reader(), input)).await,
        }
    }
}
