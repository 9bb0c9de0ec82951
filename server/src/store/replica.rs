//! Reading from a replica what may be a little old, as long as it is old enough to be known.
//!
//! Only what is large is read there: all entries and all agents, at the start of a server. The log
//! of changes and single records always come from the primary, so that a replica that lags, or that
//! stands for several with different lags, never hides a change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::database::Connection;
use super::dialect::Opening;
use super::pool::Readers;
use super::settings::PoolSettings;
use super::{Bookmark, Read, Store, StoreError, changes};

/// How often a replica that lags is asked again, and after which pause.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// How long one statement may take there: a replica that hangs must not keep a server from starting.
const STATEMENT: Duration = Duration::from_secs(10);

/// A database that follows the one that is written to.
pub(super) struct Replica {
    readers: Readers,
    /// The revision, plus one, for which the replica was of no use; 0 before that happens.
    given_up: AtomicU64,
}

impl Replica {
    pub(super) fn new(opening: Opening, settings: PoolSettings) -> Self {
        Self { readers: Readers::new(opening, settings, 0), given_up: AtomicU64::new(0) }
    }

    /// A connection on which everything up to `bookmark` can be seen. The row of its transaction
    /// proves it: a database that took another way after a failover may have as many revisions.
    async fn acquire(&self, bookmark: Bookmark) -> Result<Connection, StoreError> {
        let Bookmark { revision, transaction } = bookmark;
        let Some(transaction) = transaction else {
            let nothing = "the log has no change by which it could be known";
            return Err(StoreError::Unavailable(nothing.into()));
        };
        for _ in 0..TRIES {
            let mut connection = self.readers.acquire().await?;
            connection.allow(STATEMENT);
            if changes::has(&mut connection, revision, transaction).await? {
                return Ok(connection);
            }
            drop(connection);
            sleep(PAUSE).await;
        }
        Err(StoreError::Unavailable("it lags behind, or follows another database".into()))
    }

    async fn read<I: Sync, T>(
        &self,
        bookmark: Bookmark,
        input: &I,
        run: Read<I, T>,
    ) -> Result<T, StoreError> {
        run(&mut self.acquire(bookmark).await?, input).await
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
    }
}

impl Store {
    /// Runs `run` where everything up to `bookmark` can be seen: on the replica if there is one and
    /// it answers, else where writes go. What one read finds of no use, the next ones up to the same
    /// revision do not ask.
    pub(super) async fn read_since<I, T>(
        &self,
        bookmark: Bookmark,
        input: I,
        run: Read<I, T>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let given_up = bookmark.revision.0 + 1;
        if let Some(replica) = &self.inner.replica
            && replica.given_up.load(Ordering::Relaxed) != given_up
        {
            match replica.read(bookmark, &input, run).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    replica.given_up.store(given_up, Ordering::Relaxed);
                    tracing::warn!(
                        subsystem_name = "datastore",
                        %error,
                        "Replica of ro_connection_string is not read; connection_string is instead"
                    );
                }
            }
        }
        self.read(input, run).await
    }
}
