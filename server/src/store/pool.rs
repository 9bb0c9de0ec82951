//! Connections that several may read on, opened as they are needed.

use std::time::Duration;

use sqlx::Database;
use sqlx::mysql::MySql;
use sqlx::pool::{Pool, PoolOptions};
use sqlx::postgres::Postgres;
use sqlx::sqlite::Sqlite;

use super::StoreError;
use super::database::{Connection, Link, failure};
use super::dialect::{Dialect, Opening};
use super::settings::PoolSettings;

/// How many connections read at the same time at most: of a file, and of a server, whose questions
/// take longer to travel.
const FILE_READERS: u32 = 4;
const READERS: u32 = 16;

/// How long a reader waits for a connection.
pub(super) const READER_WAIT: Duration = Duration::from_secs(10);

/// How long an unused one is kept, as in SPIRE.
const READER_IDLE: Duration = Duration::from_secs(30);

/// Connections that only read, opened as they are needed.
#[derive(Clone)]
pub(super) struct Readers {
    pool: AnyPool,
    dialect: &'static Dialect,
}

#[derive(Clone)]
enum AnyPool {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
    MySql(Pool<MySql>),
}

impl Readers {
    /// `taken` connections are there beside them.
    pub(super) fn new(opening: Opening, settings: PoolSettings, taken: u32) -> Self {
        let dialect = opening.dialect();
        let left = settings.max_open.saturating_sub(taken);
        let settings = PoolSettings { max_open: left.clamp(1, READERS), ..settings };
        let pool = match opening {
            Opening::Sqlite(options) => {
                let most = settings.max_open.min(FILE_READERS);
                let pool = pool(settings).max_connections(most).test_before_acquire(false);
                AnyPool::Sqlite(pool.connect_lazy_with(*options))
            }
            Opening::Postgres(options) => {
                AnyPool::Postgres(pool(settings).connect_lazy_with(*options))
            }
            Opening::MySql(options) => AnyPool::MySql(pool(settings).connect_lazy_with(*options)),
        };
        Self { pool, dialect }
    }

    pub(super) async fn acquire(&self) -> Result<Connection, StoreError> {
        let lent = match &self.pool {
            AnyPool::Sqlite(pool) => pool.acquire().await.map(Link::from),
            AnyPool::Postgres(pool) => pool.acquire().await.map(Link::from),
            AnyPool::MySql(pool) => pool.acquire().await.map(Link::from),
        };
        let is_remote = !matches!(self.pool, AnyPool::Sqlite(_));
        let link = lent.map_err(|error| failure(self.dialect, error))?;
        Ok(Connection::of(link, self.dialect, is_remote))
    }

    pub(super) async fn close(&self) {
        match &self.pool {
            AnyPool::Sqlite(pool) => pool.close().await,
            AnyPool::Postgres(pool) => pool.close().await,
            AnyPool::MySql(pool) => pool.close().await,
        }
    }
}

fn pool<D: Database>(settings: PoolSettings) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(settings.max_open)
        .acquire_timeout(READER_WAIT)
        .idle_timeout(READER_IDLE)
        .max_lifetime(settings.max_lifetime)
}
