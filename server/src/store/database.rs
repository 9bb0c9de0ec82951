//! Connections and rows: with the dialects, the only place that knows the database driver.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::encode::Encode;
use sqlx::mysql::{MySql, MySqlRow};
use sqlx::pool::{Pool, PoolConnection, PoolOptions};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Database, IntoArguments, Row as _,
    SqliteConnection, Type,
};
use tokio::time::{Instant, sleep, timeout};

use super::StoreError;
use super::dialect::{self, Dialect, Opening};
use super::settings::PoolSettings;
use super::sql::{Statement, Value, with_numbers};

/// How many connections read at the same time at most: of a file, and of a server, whose questions
/// take longer to travel.
const FILE_READERS: u32 = 4;
const READERS: u32 = 16;

/// How long a reader waits for a connection.
const READER_WAIT: Duration = Duration::from_secs(10);

/// How long an unused one is kept, as in SPIRE.
const READER_IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// The pause between two tries to open a file that another process just makes.
const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// How long a database on another machine may take for one statement.
pub(super) const STATEMENT: Duration = Duration::from_secs(60);

/// An open connection.
pub(super) struct Connection {
    link: Link,
    dialect: &'static Dialect,
    /// How long one statement may take; SQLite has limits of its own.
    limit: Option<Duration>,
}

enum Link {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
    MySql(Held<MySql>),
}

/// A driver's connection. One that may be in the middle of a call, or has lost the database, is
/// broken: it is of no use to anybody.
pub(super) enum Held<D: Database> {
    Own { connection: D::Connection, broken: bool },
    Pooled(Lent<D>),
}

/// A connection that goes back to its pool, or is closed where it is broken.
pub(super) struct Lent<D: Database> {
    connection: PoolConnection<D>,
    broken: bool,
}

impl<D: Database> Drop for Lent<D> {
    fn drop(&mut self) {
        if self.broken {
            self.connection.close_on_drop();
        }
    }
}

impl<D: Database> Held<D> {
    fn own(connection: D::Connection) -> Self {
        Self::Own { connection, broken: false }
    }

    fn driver(&mut self) -> &mut D::Connection {
        match self {
            Self::Own { connection, .. } => connection,
            Self::Pooled(lent) => &mut lent.connection,
        }
    }

    fn broken(&mut self) -> &mut bool {
        match self {
            Self::Own { broken, .. } | Self::Pooled(Lent { broken, .. }) => broken,
        }
    }
}

impl From<PoolConnection<Sqlite>> for Link {
    fn from(connection: PoolConnection<Sqlite>) -> Self {
        Self::Sqlite(Held::Pooled(Lent { connection, broken: false }))
    }
}
impl From<PoolConnection<Postgres>> for Link {
    fn from(connection: PoolConnection<Postgres>) -> Self {
        Self::Postgres(Held::Pooled(Lent { connection, broken: false }))
    }
}
impl From<PoolConnection<MySql>> for Link {
    fn from(connection: PoolConnection<MySql>) -> Self {
        Self::MySql(Held::Pooled(Lent { connection, broken: false }))
    }
}

/// The same expression for each driver.
macro_rules! each_driver {
    ($link:expr, $held:ident => $does:expr) => {
        match $link {
            Link::Sqlite($held) => $does,
            Link::Postgres($held) => $does,
            Link::MySql($held) => $does,
        }
    };
}

impl Connection {
    /// Opens a connection of its own.
    pub(super) async fn open(opening: &Opening) -> Result<Self, StoreError> {
        let connected = match opening {
            Opening::Sqlite(options) => open_file(options).await.map(Held::own).map(Link::Sqlite),
            Opening::Postgres(options) => {
                let connected = within(Some(OPENING), options.connect()).await;
                connected.map(Held::own).map(Link::Postgres)
            }
            Opening::MySql(options) => {
                let connected = within(Some(OPENING), options.connect()).await;
                connected.map(Held::own).map(Link::MySql)
            }
        };
        let link = connected.map_err(|error| failure(opening.dialect(), error))?;
        Ok(Self::of(link, opening.dialect(), opening.is_remote()))
    }

    /// Why a database server cannot be reached for the time being; `None` where it can, or where
    /// waiting does not help.
    pub(super) async fn trouble(opening: &Opening) -> Option<String> {
        let error = match opening {
            Opening::Sqlite(_) => return None,
            Opening::Postgres(options) => within(Some(OPENING), options.connect()).await.err()?,
            Opening::MySql(options) => within(Some(OPENING), options.connect()).await.err()?,
        };
        let passes = match &error {
            // What TLS finds wrong stays wrong.
            sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
            sqlx::Error::Database(error) => (opening.dialect().passes)(&**error),
            _ => false,
        };
        passes.then(|| error.to_string())
    }

    fn of(link: Link, dialect: &'static Dialect, is_remote: bool) -> Self {
        Self { link, dialect, limit: is_remote.then_some(STATEMENT) }
    }

    /// What is spoken on it.
    pub(super) fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// Whether it has to be replaced.
    pub(super) fn is_broken(&mut self) -> bool {
        *each_driver!(&mut self.link, held => held.broken())
    }

    /// Gives each statement from here on as much time as `limit`.
    pub(super) fn allow(&mut self, limit: Duration) {
        self.limit = self.limit.map(|_| limit);
    }

    /// Closes it in order.
    pub(super) async fn close(self) {
        // A failure to close leaves the database as a crash would, which is safe.
        each_driver!(self.link, held => if let Held::Own { connection, .. } = held {
            let _ = timeout(OPENING, connection.close()).await;
        });
    }

    /// Runs several statements without parameters; returns all rows that they yield.
    pub(super) async fn run_script(
        &mut self,
        script: Cow<'static, str>,
    ) -> Result<Vec<Row>, StoreError> {
        let limit = self.begin_call()?;
        let script = || match script.clone() {
            Cow::Borrowed(text) => sqlx::raw_sql(text),
            // Built here and in the dialects; nothing from outside is in it but numbers.
            Cow::Owned(text) => sqlx::raw_sql(AssertSqlSafe(text)),
        };
        let outcome = each_driver!(&mut self.link, held => {
            within(limit, script().fetch_all(held.driver())).await.map(rows)
        });
        self.end_call(outcome)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        let limit = self.begin_call()?;
        let statement = self.in_dialect(statement);
        let outcome = match &mut self.link {
            Link::Sqlite(held) => {
                let done = within(limit, query(statement).execute(held.driver())).await;
                done.map(|done| done.rows_affected())
            }
            Link::Postgres(held) => {
                let done = within(limit, query(statement).execute(held.driver())).await;
                done.map(|done| done.rows_affected())
            }
            Link::MySql(held) => {
                let done = within(limit, query(statement).execute(held.driver())).await;
                done.map(|done| done.rows_affected())
            }
        };
        self.end_call(outcome)
    }

    /// All rows that a statement yields.
    pub(super) async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let limit = self.begin_call()?;
        let statement = self.in_dialect(statement);
        let outcome = each_driver!(&mut self.link, held => {
            within(limit, query(statement).fetch_all(held.driver())).await.map(rows)
        });
        self.end_call(outcome)
    }

    /// The first row that a statement yields.
    pub(super) async fn fetch_first(
        &mut self,
        statement: Statement,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(statement).await?.into_iter().next())
    }

    /// The number that a statement yields.
    pub(super) async fn fetch_number(&mut self, statement: Statement) -> Result<i64, StoreError> {
        let row = self.fetch_first(statement).await?;
        row.ok_or_else(|| StoreError::Corrupt("a row is missing".into()))?.integer(0)
    }

    fn in_dialect(&self, statement: Statement) -> Statement {
        if !self.dialect.numbers_parameters {
            return statement;
        }
        Statement { text: with_numbers(&statement.text).into(), ..statement }
    }

    /// A call that is given up in the middle leaves the connection broken.
    fn begin_call(&mut self) -> Result<Option<Duration>, StoreError> {
        let broken = each_driver!(&mut self.link, held => held.broken());
        if std::mem::replace(broken, true) {
            return Err(StoreError::Unavailable("the connection was lost".into()));
        }
        Ok(self.limit)
    }

    fn end_call<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let outcome = outcome.map_err(|error| failure(self.dialect, error));
        let is_remote = self.limit.is_some();
        let broken = each_driver!(&mut self.link, held => held.broken());
        *broken = is_remote && matches!(outcome, Err(StoreError::Unavailable(_)));
        outcome
    }
}

/// Opens a file. One that another process just makes is waited for: the switch to a write-ahead log
/// fails at once then, whatever the busy timeout.
async fn open_file(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let deadline = Instant::now() + OPENING;
    loop {
        match options.connect().await {
            Err(error) if dialect::is_busy(&error) && Instant::now() < deadline => {
                sleep(OPENING_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn within<T>(
    limit: Option<Duration>,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let Some(limit) = limit else { return call.await };
    timeout(limit, call).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, reason).into())
    })
}

fn query<D>(statement: Statement) -> Query<'static, D, D::Arguments>
where
    D: Database,
    D::Arguments: IntoArguments<D>,
    for<'q> Option<i64>: Encode<'q, D> + Type<D>,
    for<'q> i64: Encode<'q, D> + Type<D>,
    for<'q> String: Encode<'q, D> + Type<D>,
    for<'q> Vec<u8>: Encode<'q, D> + Type<D>,
{
    let mut query = match statement.text {
        Cow::Borrowed(text) => sqlx::query(text),
        // Built from the texts of this folder; what comes from outside is a parameter.
        Cow::Owned(text) => sqlx::query(AssertSqlSafe(text)),
    };
    for value in statement.arguments {
        query = match value {
            Value::Null => query.bind(None::<i64>),
            Value::Integer(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        };
    }
    query
}

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
    pub(super) fn new(opening: Opening, settings: PoolSettings) -> Self {
        let dialect = opening.dialect();
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
        // The writer and the listener have connections of their own.
        .max_connections(settings.max_open.saturating_sub(2).clamp(1, READERS))
        .acquire_timeout(READER_WAIT)
        .idle_timeout(READER_IDLE)
        .max_lifetime(settings.max_lifetime)
}

/// A row that was read; columns are counted from 0.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}
impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}
impl From<MySqlRow> for Row {
    fn from(row: MySqlRow) -> Self {
        Self::MySql(row)
    }
}

fn rows<R: Into<Row>>(rows: Vec<R>) -> Vec<Row> {
    rows.into_iter().map(Into::into).collect()
}

impl Row {
    pub(super) fn integer(&self, index: usize) -> Result<i64, StoreError> {
        self.optional_integer(index)?.ok_or_else(|| corrupt(index, "is NULL"))
    }

    pub(super) fn optional_integer(&self, index: usize) -> Result<Option<i64>, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            Self::MySql(row) => row.try_get(index),
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }

    /// A point in time, kept as Unix seconds.
    pub(super) fn timestamp(&self, index: usize) -> Result<Timestamp, StoreError> {
        let seconds = self.integer(index)?;
        Timestamp::from_second(seconds)
            .map_err(|_| StoreError::Corrupt(format!("{seconds} is no point in time")))
    }

    pub(super) fn truth(&self, index: usize) -> Result<bool, StoreError> {
        Ok(self.integer(index)? != 0)
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            // Texts are bytes there; see its dialect.
            Self::MySql(_) => {
                let text = std::str::from_utf8(self.blob(index)?);
                return text.map_err(|error| corrupt(index, &error.to_string()));
            }
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }

    pub(super) fn blob(&self, index: usize) -> Result<&[u8], StoreError> {
        self.optional_blob(index)?.ok_or_else(|| corrupt(index, "is NULL"))
    }

    pub(super) fn optional_blob(&self, index: usize) -> Result<Option<&[u8]>, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            Self::MySql(row) => row.try_get(index),
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }
}

fn corrupt(index: usize, reason: &str) -> StoreError {
    StoreError::Corrupt(format!("column {index} of a row: {reason}"))
}

/// What a failure of the driver means to a caller.
fn failure(dialect: &Dialect, error: sqlx::Error) -> StoreError {
    let meaning = match &error {
        sqlx::Error::Database(error) => (dialect.meaning)(&**error),
        sqlx::Error::PoolTimedOut => Some(StoreError::Unavailable(format!(
            "no connection within {READER_WAIT:?}: the database is away, or max_open_conns is low"
        ))),
        _ => None,
    };
    meaning.unwrap_or_else(|| StoreError::Unavailable(error.to_string()))
}
