//! What must survive: entries, nodes, join tokens, bundles, CA journals and the log of changes.
//!
//! All SQL of the server is below this folder, one file for each kind of record. Callers see one
//! [`Store`] with asynchronous methods and the vocabulary of `spire_core`; which database answers
//! is known to `dialect/`, `database.rs`, `pool.rs`, `row.rs` and the migrations alone. Each call that changes
//! something is one transaction: it is acknowledged once it is on the disk, and until then nobody
//! sees any of it.

mod admission;
mod bundles;
mod ca_journals;
mod changes;
pub mod check;
pub mod copy;
mod database;
mod dialect;
mod entries;
mod entry_filter;
mod entry_rows;
mod error;
mod join_tokens;
mod migrations;
mod node_rows;
mod nodes;
mod packing;
mod page;
mod pool;
mod relationships;
mod replica;
mod row;
mod selection;
mod settings;
mod sql;
mod transaction;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use spire_core::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::DropGuard;

use database::Connection;
use dialect::Place;
use migrations::Tables;
use pool::Readers;
use replica::Replica;
use writer::{Job, Writer};

pub use bundles::DeleteMode;
pub use ca_journals::{CaJournal, CaJournalId};
pub use changes::{Bookmark, Change, Changes, Revision};
pub use entries::CreatedEntry;
pub use entry_filter::EntryFilter;
pub use error::{OpenError, StoreError};
pub use join_tokens::{KeyFingerprint, Redemption, TokenUse};
pub use nodes::{Attestation, Node, NodeFilter, Recorded};
pub use page::{BadPageToken, Listed, Page, PageToken, SetMatch, SetRule};
pub use settings::{
    ConnectionString, DatabaseKind, PoolSettings, Settings, SettingsError, TlsFiles,
};

/// How long [`Store::close`] waits for the writes that are left.
const LAST_WRITES: Duration = Duration::from_secs(15);

/// How long a database server is waited for at the start, and how often it is tried.
const START: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(2);

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
    /// Answers what may be a little old.
    replica: Option<Replica>,
    changed: watch::Sender<Revision>,
    /// Whether the database is another process.
    is_remote: bool,
    tasks: Tasks,
    /// Ends the tasks with the last clone of a store that nobody closed.
    _stop: DropGuard,
}

/// What a read does.
type Read<I, T> = for<'t> fn(&'t mut Connection, &'t I) -> BoxFuture<'t, Result<T, StoreError>>;

impl Store {
    /// Opens the database, creating or migrating its tables as needed. A server that is away is
    /// waited for, a minute at most. Must be called within a Tokio runtime, where the tasks of the
    /// store live until it is closed or dropped.
    ///
    /// # Errors
    /// [`OpenError`] names what is wrong and what to do; a database that holds SPIRE's tables is
    /// left as it is.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        let place = settings.place()?;
        let unavailable = |error| OpenError::unavailable(&place, error);
        place.warn();
        wait_for(&place).await;
        let tables = place.tables().await.map_err(unavailable)?;
        match migrations::whose(&tables) {
            Tables::Usable => {}
            Tables::Spire => return Err(OpenError::spire_tables(&place, &settings.tls)),
            Tables::Foreign => return Err(OpenError::ForeignTables(place.name())),
        }
        place.create().map_err(|error| unavailable(StoreError::Unavailable(error.to_string())))?;
        let mut connection = Connection::open(&place.writer()).await.map_err(unavailable)?;
        let disable_migration = settings.disable_migration;
        migrations::migrate(&mut connection, &tables, disable_migration, unavailable).await?;
        let end = changes::end(&mut connection).await.map_err(unavailable)?;

        let (queue, waiting) = mpsc::channel(writer::QUEUE);
        let (changed, _) = watch::channel(end.revision);
        let tasks = Tasks::new();
        let replacement = (!place.is_memory()).then(|| place.writer());
        let lifetime = settings.pool.max_lifetime;
        let writer = Writer::new(connection, replacement, lifetime, waiting, changed.clone());
        tasks.spawn(writer.run(tasks.stop_token()));
        tasks.spawn(place.clone().listen(changed.clone(), lifetime, tasks.stop_token()));
        let readers = || Readers::new(place.reader(), settings.pool, place.own_connections());
        let readers = (!place.is_memory()).then(readers);
        let replica = settings.replica()?.inspect(Place::warn);
        let replica = replica.map(|replica| Replica::new(replica.reader(), settings.pool));
        let _stop = tasks.stop_token().drop_guard();
        let is_remote = place.writer().is_remote();
        let inner = Inner { queue, readers, replica, changed, is_remote, tasks, _stop };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the database to look at it: nothing is created, migrated or changed, and calls that
    /// would change something are `Unavailable`.
    ///
    /// # Errors
    /// [`OpenError`]; a database that is not there, or not of this version, is one.
    pub async fn look(settings: &Settings) -> Result<Self, OpenError> {
        let place = settings.place()?;
        let unavailable = |error| OpenError::unavailable(&place, error);
        let tables = place.tables().await.map_err(unavailable)?;
        match migrations::whose(&tables) {
            Tables::Usable if tables.is_empty() => {
                let nothing = StoreError::Unavailable("it holds no tables yet".to_owned());
                return Err(unavailable(nothing));
            }
            Tables::Usable => {}
            Tables::Spire => return Err(OpenError::spire_tables(&place, &settings.tls)),
            Tables::Foreign => return Err(OpenError::ForeignTables(place.name())),
        }
        let onlooker = place.onlooker();
        let mut connection = Connection::open(&onlooker).await.map_err(unavailable)?;
        migrations::check(&mut connection, unavailable).await?;
        let end = changes::end(&mut connection).await.map_err(unavailable)?;
        connection.close().await;
        let (queue, _) = mpsc::channel(1);
        let (changed, _) = watch::channel(end.revision);
        let is_remote = onlooker.is_remote();
        let readers = Some(Readers::new(onlooker, settings.pool, 0));
        let tasks = Tasks::new();
        let _stop = tasks.stop_token().drop_guard();
        let inner = Inner { queue, readers, replica: None, changed, is_remote, tasks, _stop };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Finishes the writes that wait and closes all connections. Later calls are `Unavailable`.
    pub async fn close(&self) {
        if let Some(readers) = &self.inner.readers {
            readers.close().await;
        }
        if let Some(replica) = &self.inner.replica {
            replica.close().await;
        }
        self.inner.tasks.drain(LAST_WRITES).await;
    }

    /// The newest revision of the change log that is known here, poked by each commit of this server
    /// and by what is heard or read of others. When a call of this store that changed something
    /// returns, its revision is already here.
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

/// Waits until the database at `place` can be reached, or says why not, or it has taken too long.
async fn wait_for(place: &Place) {
    let deadline = Instant::now() + START;
    while let Some(reason) = Connection::trouble(&place.writer()).await {
        if Instant::now() + RETRY > deadline {
            return;
        }
        tracing::warn!(
            subsystem_name = "datastore",
            error = %reason,
            retry_interval = ?RETRY,
            "Datastore cannot be reached; trying again"
        );
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// The clock of the test goes on by itself while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_stays_away_is_waited_for_a_minute() {
        // Nobody else gets the port, and nobody listens.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        for (kind, text) in [
            ("postgres", format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable")),
            ("mysql", format!("u@tcp(127.0.0.1:{port})/d?parseTime=true")),
        ] {
            let begun = Instant::now();
            let away = Store::open(&Settings::new(kind, &text).unwrap()).await.err().unwrap();
            let told =
                format!("unable to open the database at \"{kind}://u@127.0.0.1:{port}/d\": ");
            assert!(away.to_string().starts_with(&told), "{away}");
            let waited = begun.elapsed();
            assert!(waited > START - RETRY * 2 && waited < START + RETRY * 5, "{waited:?}");
        }
    }
}
