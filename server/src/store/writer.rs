//! The one task that writes: writes that wait at the same time share a transaction.
//!
//! A write is acknowledged after the commit. Where one of several fails, the transaction is undone
//! and each is done again in a transaction of its own, so that nobody pays for another's failure.
//! Where the database does not let it begin or end, nobody need try again.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::changes::{Revision, tell, tell_loss};
use super::database::Connection;
use super::dialect::Opening;
use super::transaction::Transaction;
use super::{Store, StoreError};

/// How many writes may wait.
pub(super) const QUEUE: usize = 1024;

/// How many writes share a transaction at most.
const BATCH: usize = 64;

/// How long a write may wait before it is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a caller waits for a database on another machine at the longest: for its turn, for a
/// transaction that lacks an answer and for another one in its place.
const LONGEST: Duration = Duration::from_secs(35);

/// How often a write is tried that loses against another writer.
const TRIES: u32 = 5;

/// The pause after the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The pause between two tries to find out what became of a commit.
const REOPENING: Duration = Duration::from_millis(200);

/// What a write does; it may be run more than once.
pub(super) type Run<I, T> =
    for<'t> fn(&'t mut Transaction, &'t I) -> BoxFuture<'t, Result<T, StoreError>>;

/// A write that waits.
pub(super) trait Job: Send {
    /// Does it as part of `transaction` and keeps the outcome.
    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> BoxFuture<'t, ()>;

    /// The failure that it kept.
    fn failure(&self) -> Option<&StoreError>;

    /// When it began to wait.
    fn since(&self) -> Instant;

    /// Tells the caller the outcome that was kept.
    fn finish(self: Box<Self>);

    /// Tells the caller that nothing was done.
    fn fail(self: Box<Self>, error: StoreError);
}

struct Write<I, T> {
    input: I,
    run: Run<I, T>,
    outcome: Option<Result<T, StoreError>>,
    since: Instant,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<I: Send + Sync, T: Send> Job for Write<I, T> {
    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> BoxFuture<'t, ()> {
        Box::pin(async move { self.outcome = Some((self.run)(transaction, &self.input).await) })
    }

    fn failure(&self) -> Option<&StoreError> {
        self.outcome.as_ref()?.as_ref().err()
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn finish(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // A caller that went away does not undo what it asked for.
            let _ = self.reply.send(outcome);
        }
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

impl Store {
    /// Runs `run` in a transaction; returns once that is on the disk.
    pub(super) async fn write<I, T>(&self, input: I, run: Run<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let closed = || StoreError::Unavailable("the server is stopping".into());
        let (reply, outcome) = oneshot::channel();
        let job = Write { input, run, outcome: None, since: Instant::now(), reply };
        match self.inner.queue.send_timeout(Box::new(job), PATIENCE).await {
            Ok(()) if self.inner.is_remote => {
                let outcome = timeout(LONGEST, outcome).await.map_err(|_| too_slow())?;
                outcome.map_err(|_| closed())?
            }
            Ok(()) => outcome.await.map_err(|_| closed())?,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(too_late()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(closed()),
        }
    }
}

fn too_slow() -> StoreError {
    StoreError::Unavailable(format!(
        "no answer within {LONGEST:?}; the change may still take place"
    ))
}

fn too_late() -> StoreError {
    StoreError::Unavailable("too many writes are waiting".into())
}

/// The task that writes.
pub(super) struct Writer {
    queue: mpsc::Receiver<Box<dyn Job>>,
    transaction: Transaction,
    changed: watch::Sender<Revision>,
    /// How a broken connection is replaced; `None` where that would lose the database.
    opening: Option<Opening>,
    /// How long a connection is kept, and since when this one is.
    lifetime: Option<Duration>,
    opened: Instant,
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        opening: Option<Opening>,
        lifetime: Option<Duration>,
        queue: mpsc::Receiver<Box<dyn Job>>,
        changed: watch::Sender<Revision>,
    ) -> Self {
        let transaction = Transaction::new(connection);
        let opened = Instant::now();
        Self { queue, transaction, changed, opening, lifetime, opened, failing: false }
    }

    /// Writes until `stop` fires or the store is dropped, and what waits then.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut jobs = Vec::new();
        loop {
            tokio::select! {
                received = self.queue.recv_many(&mut jobs, BATCH) => {
                    if received == 0 {
                        break;
                    }
                }
                () = stop.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            }
            self.write_all(std::mem::take(&mut jobs)).await;
        }
        self.transaction.connection.close().await;
    }

    async fn write_all(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        for job in jobs.extract_if(.., |job| job.since().elapsed() > PATIENCE) {
            job.fail(too_late());
        }
        if jobs.len() > 1 {
            match self.transact(&mut jobs).await {
                Ok(()) => return jobs.into_iter().for_each(Job::finish),
                // What one of them met need not meet the others.
                Err(error)
                    if error == StoreError::Conflict
                        || jobs.iter().any(|job| job.failure() == Some(&error)) => {}
                Err(error) => return jobs.into_iter().for_each(|job| job.fail(error.clone())),
            }
        }
        for job in jobs {
            // Each may take long where the database does not answer.
            if job.since().elapsed() > PATIENCE {
                job.fail(too_late());
                continue;
            }
            let mut alone = [job];
            let mut outcome = self.transact(&mut alone).await;
            for tried in 1..TRIES {
                if outcome == Err(StoreError::Conflict) {
                    sleep(FIRST_PAUSE * 2_u32.pow(tried - 1)).await;
                    outcome = self.transact(&mut alone).await;
                }
            }
            let [job] = alone;
            match outcome {
                Ok(()) => job.finish(),
                Err(error) => job.fail(error),
            }
        }
    }

    /// Runs all of `jobs` in one transaction and commits it; an error means that nothing was done.
    async fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let attempt = self.attempt(jobs).await;
        match &attempt {
            Ok(()) => self.tell_recovery(),
            Err(error) => {
                if let StoreError::Unavailable(reason) = error {
                    self.tell_failure(reason);
                }
                // After some failures the database has rolled back by itself, and says so; a
                // connection that cannot even begin anew is replaced.
                let _ = self.transaction.roll_back().await;
            }
        }
        attempt
    }

    async fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        self.begin().await?;
        tell_loss(&self.changed, self.transaction.begun_at());
        for job in jobs {
            self.transaction.written = false;
            self.transaction.connection.failed = false;
            job.run(&mut self.transaction).await;
            // A verdict that nothing was written before leaves nothing to undo. After an error of its
            // own PostgreSQL does nothing more in a transaction.
            let is_spoilt = self.transaction.written || self.transaction.connection.failed;
            if let Some(error) = job.failure()
                && (is_spoilt || !error.is_verdict())
            {
                return Err(error.clone());
            }
        }
        let (changed, last_words) = self.transaction.last_words();
        if let Err(error) = self.transaction.commit(changed, last_words).await {
            self.find_out(changed, error).await?;
        }
        if let Some(revision) = changed {
            tell(&self.changed, revision);
        }
        Ok(())
    }

    /// Finds out whether the commit took place that was to end with the revision `changed`, where the
    /// database went away in the middle of it. Whoever holds the counter knows that all earlier
    /// transactions have ended.
    ///
    /// # Errors
    /// `Conflict` where it did not, so that it can be tried again; `error` where that cannot be
    /// found out, or not in time.
    async fn find_out(
        &mut self,
        changed: Option<Revision>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + PATIENCE;
        while self.transaction.connection.is_broken() && Instant::now() < deadline {
            if self.reopen().await.is_err() || self.transaction.begin().await.is_err() {
                sleep(REOPENING).await;
                continue;
            }
            let committed = self.transaction.was_committed(changed).await;
            let _ = self.transaction.roll_back().await;
            match committed {
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => return Err(StoreError::Conflict),
                Ok(None) => return Err(error),
                Err(_) => {}
            }
        }
        Err(error)
    }

    /// Begins a transaction, on a new connection where the old one is broken: a database that was
    /// away costs nobody a write once it is back. One that has served its time is replaced if that is
    /// possible.
    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.lifetime.is_some_and(|lifetime| self.opened.elapsed() >= lifetime) {
            self.opened = Instant::now();
            let _ = self.reopen().await;
        }
        if self.transaction.connection.is_broken() {
            self.reopen().await?;
            return self.transaction.begin().await;
        }
        match self.transaction.begin().await {
            Err(_) if self.transaction.connection.is_broken() => {
                self.reopen().await?;
                self.transaction.begin().await
            }
            Err(error) => {
                self.reopen().await?;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn reopen(&mut self) -> Result<(), StoreError> {
        if let Some(opening) = &self.opening {
            let connection = Connection::open(opening).await?;
            self.opened = Instant::now();
            std::mem::replace(&mut self.transaction.connection, connection).close().await;
        }
        Ok(())
    }

    fn tell_failure(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            error!(
                subsystem_name = "datastore",
                error = reason,
                "Datastore cannot be written; changes are refused until it can; check its free \
                 space, its permissions, and who else holds it locked"
            );
        }
    }

    fn tell_recovery(&mut self) {
        if std::mem::take(&mut self.failing) {
            info!(subsystem_name = "datastore", "Datastore can be written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use spire_test_databases::{Database, Engine};

    use super::*;
    use crate::store::sql::Statement;
    use crate::store::{Change, Settings};

    /// Inserts a row for `number`, then fails with the error given.
    fn insert(tx: &mut Transaction, number: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let text = "INSERT INTO ca_journals (active_x509_authority_id, data, expires_at) \
                        VALUES ('', x'', ?)";
            tx.execute(Statement::new(text).bind(number)).await?;
            tx.note(Change::Bundle("example.org".parse().unwrap()));
            if number < 0 { Err(StoreError::NotFound) } else { Ok(()) }
        })
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_and_spoils_nothing() {
        let store = Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap();
        let numbers = -20..20;
        let writes = numbers.map(|number| store.write(number, |tx, number| insert(tx, *number)));
        let outcomes = futures::future::join_all(writes).await;
        assert!(outcomes[..20].iter().all(|outcome| *outcome == Err(StoreError::NotFound)));
        assert!(outcomes[20..].iter().all(|outcome| *outcome == Ok(())));
        let journals = store.ca_journals().await.unwrap();
        let times = journals.iter().map(|journal| journal.expires_at.as_second());
        assert_eq!(times.collect::<Vec<_>>(), Vec::from_iter(0..20));
        assert_eq!(store.latest_revision().await, Ok(*store.changed().borrow()));
    }

    /// The clock goes on by itself while everybody waits.
    #[tokio::test]
    async fn a_caller_waits_for_a_database_on_another_machine_with_a_bound() {
        let database = Database::new(Engine::Postgres).await.unwrap();
        let settings = Settings::new("postgres", &database.connection_string()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        let begun = Instant::now();
        let endless = store.write((), |_, ()| {
            Box::pin(async {
                tokio::time::pause();
                std::future::pending::<Result<(), _>>().await
            })
        });
        assert_eq!(endless.await, Err(too_slow()));
        assert_eq!(begun.elapsed().as_secs(), LONGEST.as_secs());
        tokio::time::resume();
    }

    /// Both wait when the task begins, and share a transaction.
    #[tokio::test]
    async fn a_question_that_fails_spoils_nothing_either() {
        let database = Database::new(Engine::Postgres).await.unwrap();
        let settings = Settings::new("postgres", &database.connection_string()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        let fails = store.write((), |tx, ()| {
            Box::pin(tx.reader().fetch_number(Statement::new("SELECT CAST('x' AS BIGINT)")))
        });
        let token = store.create_join_token("token".into(), Timestamp::UNIX_EPOCH, None);
        let (failed, created) = futures::join!(fails, token);
        assert!(matches!(failed, Err(StoreError::Invalid(_))), "{failed:?}");
        assert_eq!(created, Ok(None));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_undoes_nothing() {
        let store = Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap();
        let mut write = Box::pin(store.write(7, |tx, number| insert(tx, *number)));
        assert!(futures::poll!(&mut write).is_pending());
        drop(write);
        assert_eq!(store.write(8, |tx, number| insert(tx, *number)).await, Ok(()));
        assert_eq!(store.ca_journals().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_store_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datastore.sqlite3");
        let settings = Settings::new("sqlite3", path.to_str().unwrap()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        let writes = (0..100).map(|number| store.write(number, |tx, number| insert(tx, *number)));
        let (outcomes, ()) = futures::join!(futures::future::join_all(writes), store.close());
        assert!(outcomes.iter().all(Result::is_ok));
        let late = store.write(1, |tx, number| insert(tx, *number)).await;
        assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
        let store = Store::open(&settings).await.unwrap();
        assert_eq!(store.ca_journals().await.unwrap().len(), 100);
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_is_got_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datastore.sqlite3");
        let settings = Settings::new("sqlite3", path.to_str().unwrap()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        // At its limit of pages SQLite fails as it does when the disk is full.
        let limit = |pages: u32| {
            store.write(pages, |tx, pages| {
                let text = format!("PRAGMA max_page_count = {pages}");
                Box::pin(tx.execute(Statement::built(text, Vec::new())))
            })
        };
        let fill = || {
            store.write((), |tx, ()| {
                let text = "INSERT INTO ca_journals (active_x509_authority_id, data, expires_at) \
                            VALUES ('', zeroblob(100000), 0)";
                Box::pin(tx.execute(Statement::new(text)))
            })
        };
        limit(1).await.unwrap();
        for outcome in futures::future::join_all([fill(), fill()]).await {
            let Err(StoreError::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
            assert!(why.contains("full") && why.contains("free space"), "{why}");
        }
        assert_eq!(store.ca_journals().await, Ok(vec![]));
        limit(u32::MAX >> 1).await.unwrap();
        assert_eq!(fill().await, Ok(1));
        assert_eq!(store.ca_journals().await.unwrap().len(), 1);
    }
}
