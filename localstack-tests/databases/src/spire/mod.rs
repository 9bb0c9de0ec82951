//! Databases as SPIRE's own servers leave them, for tests of what reads them.
//!
//! They are made by SQL alone: tables of one of its schemas, rows, and the changes by which later
//! releases bring tables to their schema.

pub mod messages;
mod rows;
mod schema;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, PgConnection, Row};
use tempfile::TempDir;

use crate::{Database, Engine};

pub use rows::{Columns, Value};

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MariaDB, which stands for MySQL too.
    MySql,
}

/// How SPIRE's tables came into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A server made them at its first start.
    Fresh,
    /// As fresh, in a database that a release before 0.7 began.
    Ancient,
}

/// A database of SPIRE's. Rows are noted, and written by [`SpireDatabase::write`].
#[derive(Debug)]
pub struct SpireDatabase {
    kind: Kind,
    schema: u32,
    place: Place,
    /// The next row's id by table.
    ids: BTreeMap<&'static str, i64>,
    script: String,
}

#[derive(Debug)]
enum Place {
    File(TempDir),
    Server(Database),
}

/// The file of an SQLite database.
const FILE: &str = "datastore.sqlite3";

impl SpireDatabase {
    /// A database with the tables of `schema` and nothing in them.
    ///
    /// # Errors
    /// When there is no database server, or the schema is none that is known here.
    pub async fn new(kind: Kind, schema: u32, origin: Origin) -> anyhow::Result<Self> {
        ensure!(schema::SCHEMAS.contains(&schema), "schema {schema} cannot be made");
        let mut database = Self::empty(kind).await?;
        database.schema = schema;
        database.script = schema::create(kind, schema, origin == Origin::Ancient);
        let columns = [
            ("version", i64::from(schema).into()),
            ("code_version", schema::release(schema).into()),
        ];
        database.row("migrations", &columns);
        database.write().await?;
        Ok(database)
    }

    /// A database without tables, for what is not like any of SPIRE's.
    ///
    /// # Errors
    /// When there is no database server.
    pub async fn empty(kind: Kind) -> anyhow::Result<Self> {
        let place = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir()?;
                let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
                let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
                options.connect().await?.close().await?;
                Place::File(folder)
            }
            Kind::Postgres => Place::Server(Database::new(Engine::Postgres).await?),
            Kind::MySql => Place::Server(Database::new(Engine::MariaDb).await?),
        };
        Ok(Self { kind, schema: 0, place, ids: BTreeMap::new(), script: String::new() })
    }

    /// Brings the tables to a later schema, as the releases do that write it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate(&mut self, to: u32) -> anyhow::Result<()> {
        self.write().await?;
        self.script = schema::migrate(self.kind, self.schema, to);
        let release = schema::release(to);
        self.script += &format!(
            "UPDATE migrations SET version = {to}, code_version = '{release}' WHERE id = 1;\n"
        );
        self.schema = to;
        self.write().await
    }

    /// Writes the rows that were noted.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&mut self) -> anyhow::Result<()> {
        let script = std::mem::take(&mut self.script);
        if script.is_empty() { Ok(()) } else { self.execute(&script).await }
    }

    /// Runs statements.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(&self, statements: &str) -> anyhow::Result<()> {
        match &self.place {
            Place::Server(database) => database.execute(statements).await,
            Place::File(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
                let mut connection = options.connect().await?;
                let statements = format!("BEGIN;\n{statements};\nCOMMIT;");
                sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// What the server's file calls the kind of database.
    pub fn database_type(&self) -> &'static str {
        match &self.place {
            Place::File(_) => "sqlite3",
            Place::Server(database) => database.database_type(),
        }
    }

    /// The connection string, as the server's file has it.
    pub fn connection_string(&self) -> String {
        match &self.place {
            Place::File(folder) => folder.path().join(FILE).display().to_string(),
            Place::Server(database) => database.connection_string(),
        }
    }

    /// The file of an SQLite database.
    ///
    /// # Errors
    /// When it is on a server.
    pub fn file(&self) -> anyhow::Result<PathBuf> {
        match &self.place {
            Place::File(folder) => Ok(folder.path().join(FILE)),
            Place::Server(_) => anyhow::bail!("{:?} keeps no file", self.kind),
        }
    }

    /// A text that differs where any row does, or any byte of a file.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fingerprint(&self) -> anyhow::Result<String> {
        let mut print = String::new();
        match &self.place {
            Place::File(folder) => {
                let mut files: Vec<_> =
                    std::fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
                files.sort_by_key(std::fs::DirEntry::path);
                for file in files {
                    print += &format!("{:?} {:?}\n", file.file_name(), std::fs::read(file.path())?);
                }
            }
            Place::Server(database) if self.kind == Kind::Postgres => {
                let url = database.server().url(database.name());
                let mut connection = PgConnection::connect(url.as_str()).await?;
                for table in schema::tables(self.schema) {
                    let sql = format!(
                        "SELECT COALESCE(string_agg(t::text, ';' ORDER BY t::text), '') FROM {table} t"
                    );
                    let rows: String =
                        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
                    print += &format!("{table}: {rows}\n");
                }
            }
            Place::Server(database) => {
                let url = database.server().url(database.name());
                let mut connection = MySqlConnection::connect(url.as_str()).await?;
                for table in schema::tables(self.schema) {
                    let sql = AssertSqlSafe(format!("CHECKSUM TABLE {table}"));
                    let row = sqlx::query(sql).fetch_one(&mut connection).await?;
                    let sum: Option<i64> = row.try_get(1)?;
                    print += &format!("{table}: {}\n", sum.context("the table is there")?);
                }
            }
        }
        Ok(print)
    }

    /// The id of the next row of a table.
    fn next_id(&mut self, table: &'static str) -> i64 {
        let id = self.ids.entry(table).or_default();
        *id += 1;
        *id
    }
}
