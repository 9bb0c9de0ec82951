//! Connections and rows: the only place that knows the database driver.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::error::DatabaseError;
use sqlx::pool::{Pool, PoolConnection, PoolOptions};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteQueryResult, SqliteRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Decode, Row as _, Sqlite, SqliteConnection,
    Type,
};

use tokio::time::{Instant, sleep};

use super::StoreError;
use super::sql::{Statement, Value, in_pieces};

/// How many connections read at the same time.
const READERS: u32 = 4;

/// How long a reader waits for one of them.
const READER_WAIT: Duration = Duration::from_secs(10);

/// How long an unused one is kept.
const READER_IDLE: Duration = Duration::from_secs(60);

/// How long a connection may take to open while another process holds the database.
const OPENING: Duration = Duration::from_secs(5);

/// The pause between two tries to open it.
const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// An open connection.
pub(super) struct Connection(Held);

enum Held {
    Own(SqliteConnection),
    Pooled(PoolConnection<Sqlite>),
}

impl Connection {
    /// Opens a connection. A database that another process just makes is waited for: the switch to
    /// a write-ahead log fails at once then, whatever the busy timeout.
    pub(super) async fn open(options: &SqliteConnectOptions) -> Result<Self, StoreError> {
        let deadline = Instant::now() + OPENING;
        loop {
            match options.connect().await {
                Ok(connection) => return Ok(Self(Held::Own(connection))),
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    sleep(OPENING_PAUSE).await;
                }
                Err(error) => return Err(failure(error)),
            }
        }
    }

    /// Closes it in order; a pooled one goes back to its pool.
    pub(super) async fn close(self) {
        if let Held::Own(connection) = self.0 {
            // A failure to close leaves the database as a crash would, which is safe.
            let _ = connection.close().await;
        }
    }

    fn driver(&mut self) -> &mut SqliteConnection {
        match &mut self.0 {
            Held::Own(connection) => connection,
            Held::Pooled(connection) => connection,
        }
    }

    /// Runs several statements without parameters.
    pub(super) async fn run_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(script).execute(self.driver()).await.map_err(failure)?;
        Ok(())
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        Ok(self.run(statement).await?.rows_affected())
    }

    async fn run(&mut self, statement: Statement) -> Result<SqliteQueryResult, StoreError> {
        query(statement).execute(self.driver()).await.map_err(failure)
    }

    /// Inserts rows into a table whose key the database numbers; returns their numbers in order.
    pub(super) async fn insert_numbered(
        &mut self,
        table_and_columns: &str,
        item: &str,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut numbers = Vec::with_capacity(rows.len());
        let head = format!("INSERT INTO {table_and_columns} VALUES ");
        for (statement, count) in in_pieces(&head, item, ", ", rows) {
            // Nobody else writes meanwhile, so that the rows of one statement are consecutive.
            let last = self.run(statement).await?.last_insert_rowid();
            numbers.extend(last + 1 - count as i64..=last);
        }
        Ok(numbers)
    }

    /// All rows that a statement yields.
    pub(super) async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let rows = query(statement).fetch_all(self.driver()).await.map_err(failure)?;
        Ok(rows.into_iter().map(Row).collect())
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
}

fn query<'q>(statement: Statement) -> sqlx::query::Query<'q, Sqlite, SqliteArguments> {
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
pub(super) struct Readers(Pool<Sqlite>);

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let pool = PoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            .idle_timeout(READER_IDLE)
            .test_before_acquire(false);
        Self(pool.connect_lazy_with(options))
    }

    pub(super) async fn acquire(&self) -> Result<Connection, StoreError> {
        Ok(Connection(Held::Pooled(self.0.acquire().await.map_err(failure)?)))
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

/// A row that was read; columns are counted from 0.
pub(super) struct Row(SqliteRow);

impl Row {
    fn column<'r, T>(&'r self, index: usize) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        self.0.try_get(index).map_err(failure)
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, StoreError> {
        self.column(index)
    }

    pub(super) fn optional_integer(&self, index: usize) -> Result<Option<i64>, StoreError> {
        self.column(index)
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
        self.column(index)
    }

    pub(super) fn blob(&self, index: usize) -> Result<&[u8], StoreError> {
        self.column(index)
    }

    pub(super) fn optional_blob(&self, index: usize) -> Result<Option<&[u8]>, StoreError> {
        self.column(index)
    }
}

/// What a failure of the driver means to a caller.
///
/// # Source
/// SQLite, Result and Error Codes; the low byte is the primary code.
fn failure(error: sqlx::Error) -> StoreError {
    use StoreError::{Conflict, Corrupt, Unavailable};
    let database = match &error {
        sqlx::Error::Database(database) => database,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            return Corrupt(error.to_string());
        }
        _ => return Unavailable(error.to_string()),
    };
    let message = database.message();
    match code(&**database) {
        5 | 6 => Unavailable(format!("{message}; another process is using it, or has it open")),
        8 => Unavailable(format!("{message}; check the permissions of the file and its folder")),
        10 => Unavailable(format!("{message}; check the file system that holds it")),
        13 => Unavailable(format!("{message}; free space on the file system that holds it")),
        14 => Unavailable(format!("{message}; check that its folder exists and can be written")),
        11 | 26 => Corrupt(message.to_owned()),
        19 => Conflict,
        _ => Unavailable(error.to_string()),
    }
}

/// SQLite's primary result code.
fn code(error: &dyn DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default() & 0xff
}

fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(code(error), 5 | 6))
}
