//! Connections: with rows, pools and dialects, the only place that knows the database driver.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use sqlx::encode::Encode;
use sqlx::mysql::MySql;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Database, IntoArguments, SqliteConnection, Type,
};
use tokio::time::{Instant, sleep, timeout};

use super::StoreError;
use super::dialect::{self, Dialect, Opening};
use super::pool::READER_WAIT;
use super::row::{Row, rows};
use super::sql::{Statement, Value, with_numbers};

/// How long a connection may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// The pause between two tries to open a file that another process just makes.
const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// How long a database on another machine may take for one statement.
pub(super) const STATEMENT: Duration = Duration::from_secs(60);

/// The same for statements that others wait for: those of a write, those that follow the log and those
/// that find single records.
pub(super) const SHORT_STATEMENT: Duration = Duration::from_secs(15);

/// An open connection.
pub(super) struct Connection {
    link: Link,
    dialect: &'static Dialect,
    /// How long one statement may take; SQLite has limits of its own.
    limit: Option<Duration>,
    /// Whether a statement has failed since this was last set to false.
    pub(super) failed: bool,
}

pub(super) enum Link {
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
        let link = link(opening).await.map_err(|error| failure(opening.dialect(), error))?;
        Ok(Self::of(link, opening.dialect(), opening.is_remote()))
    }

    /// Why a database server is of no use for the time being; `None` where it is, or where waiting
    /// does not help.
    pub(super) async fn trouble(opening: &Opening) -> Option<String> {
        if !opening.is_remote() {
            return None;
        }
        let error = match link(opening).await {
            Ok(link) => {
                let mut connection = Self::of(link, opening.dialect(), true);
                connection.allow(OPENING);
                let is_read_only = connection.is_read_only().await == Ok(true);
                connection.close().await;
                return is_read_only.then(|| "it takes no writes: is it a replica?".to_owned());
            }
            Err(error) => error,
        };
        let passes = match &error {
            // What TLS finds wrong stays wrong.
            sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
            sqlx::Error::Database(error) => (opening.dialect().passes)(&**error),
            _ => false,
        };
        passes.then(|| error.to_string())
    }

    pub(super) fn of(link: Link, dialect: &'static Dialect, is_remote: bool) -> Self {
        Self { link, dialect, limit: is_remote.then_some(STATEMENT), failed: false }
    }

    /// What is spoken on it.
    pub(super) fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// Whether the database takes no writes of ordinary users.
    pub(super) async fn is_read_only(&mut self) -> Result<bool, StoreError> {
        let question = Statement::new(self.dialect.is_read_only);
        Ok(self.fetch_number(question).await? != 0)
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

    /// Runs `statements` and then `script`. SQLite takes all of it at once: each call is two changes
    /// of threads.
    pub(super) async fn finish(
        &mut self,
        statements: Vec<Statement>,
        script: Cow<'static, str>,
    ) -> Result<(), StoreError> {
        if statements.is_empty() || !matches!(self.link, Link::Sqlite(_)) {
            for statement in statements {
                self.execute(statement).await?;
            }
            return self.run_script(script).await.map(drop);
        }
        let last = Statement { text: script, arguments: Vec::new() };
        self.execute(statements.into_iter().chain([last]).collect()).await.map(drop)
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
        self.failed |= outcome.is_err();
        let is_remote = self.limit.is_some();
        let broken = each_driver!(&mut self.link, held => held.broken());
        *broken = is_remote && matches!(outcome, Err(StoreError::Unavailable(_)));
        outcome
    }
}

/// Connects to a database.
async fn link(opening: &Opening) -> Result<Link, sqlx::Error> {
    Ok(match opening {
        Opening::Sqlite(options) => Link::Sqlite(Held::own(open_file(options).await?)),
        Opening::Postgres(options) => {
            Link::Postgres(Held::own(within(Some(OPENING), options.connect()).await?))
        }
        Opening::MySql(options) => {
            Link::MySql(Held::own(within(Some(OPENING), options.connect()).await?))
        }
    })
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

/// What a failure of the driver means to a caller.
pub(super) fn failure(dialect: &Dialect, error: sqlx::Error) -> StoreError {
    let meaning = match &error {
        sqlx::Error::Database(error) => (dialect.meaning)(&**error),
        sqlx::Error::PoolTimedOut => Some(StoreError::Unavailable(format!(
            "no connection within {READER_WAIT:?}: the database is away, or max_open_conns is low"
        ))),
        _ => None,
    };
    meaning.unwrap_or_else(|| StoreError::Unavailable(error.to_string()))
}
