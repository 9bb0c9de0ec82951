//! PostgreSQL and MariaDB for tests: real servers with nothing in them.
//!
//! A test asks for a [`Database`] and gets an empty one of its own. Tests of one process share a
//! server, which is started when the first of them asks and goes away with the process, however
//! that ends. Where a program is missing its Debian package is installed. The variables
//! [`POSTGRES`] and [`MYSQL`] name servers that are to be used instead.
//!
//! The crate uses none of the project's others, so that the tests of any of them may use it.

mod disk;
mod engine;
pub mod packages;
mod proxy;
mod server;
pub mod spire;
mod supervised;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use engine::Engine;
pub use proxy::{Cut, Proxy};
pub use server::{Held, Limits, Server, TlsFiles};

/// Names a PostgreSQL whose user may create databases: `postgres://user:password@host:port/name`.
pub const POSTGRES: &str = "SPIRE_TEST_POSTGRES";
/// Names a MySQL or MariaDB whose user may create databases: `mysql://user:password@host:port/name`.
pub const MYSQL: &str = "SPIRE_TEST_MYSQL";

/// An empty database. Where a variable named its server, it is dropped when this goes away.
#[derive(Debug)]
pub struct Database {
    server: Arc<Server>,
    name: String,
}

impl Database {
    /// A database on the server that the tests of this process share.
    ///
    /// # Errors
    /// When there is no server; says what is missing.
    pub async fn new(engine: Engine) -> anyhow::Result<Self> {
        static SERVERS: [OnceCell<Arc<Server>>; 2] = [OnceCell::const_new(), OnceCell::const_new()];
        let server = SERVERS[engine as usize].get_or_try_init(|| async {
            let server = match std::env::var(engine.variable()) {
                Ok(url) => Server::named(engine, &url)?,
                Err(_) => Server::start(engine).await?,
            };
            anyhow::Ok(Arc::new(server))
        });
        Self::on(server.await?).await
    }

    /// A database on this server.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not let the user create one.
    pub async fn on(server: &Arc<Server>) -> anyhow::Result<Self> {
        let name = format!("spire_{}", Uuid::new_v4().simple());
        server.execute("", &format!("CREATE DATABASE {name}")).await?;
        Ok(Self { server: Arc::clone(server), name })
    }

    /// What the server's file calls the kind of database.
    pub fn database_type(&self) -> &'static str {
        self.server.engine().database_type()
    }

    /// The connection string, as the server's file has it.
    pub fn connection_string(&self) -> String {
        self.server.connection_string(&self.name)
    }

    /// The server that it is on.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// As [`connection_string`](Self::connection_string), by way of `proxy`.
    ///
    /// # Errors
    /// Where the server is not private, so that its address is not known.
    pub fn through(&self, proxy: &Proxy) -> anyhow::Result<String> {
        let (from, to) = (self.server.address()?.to_string(), proxy.address().to_string());
        Ok(self.connection_string().replace(&from, &to))
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements beside the program under test.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(&self, statements: &str) -> anyhow::Result<()> {
        self.server.execute(&self.name, statements).await
    }

    /// Runs statements on a connection that stays open.
    ///
    /// # Errors
    /// What the database says.
    pub async fn hold(&self, statements: &str) -> anyhow::Result<Held> {
        let mut held = Held::open(self.server.engine(), &self.server.url(&self.name)).await?;
        held.execute(statements).await?;
        Ok(held)
    }

    /// The number that a query yields.
    ///
    /// # Errors
    /// What the database says.
    pub async fn number(&self, query: &str) -> anyhow::Result<i64> {
        let url = self.server.url(&self.name);
        let query = AssertSqlSafe(query.to_owned());
        match self.server.engine() {
            Engine::Postgres => {
                let mut connection = PgConnection::connect(url.as_str()).await?;
                Ok(sqlx::query_scalar(query).fetch_one(&mut connection).await?)
            }
            Engine::MariaDb => {
                let mut connection = MySqlConnection::connect(url.as_str()).await?;
                Ok(sqlx::query_scalar(query).fetch_one(&mut connection).await?)
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.server.is_named() {
            return;
        }
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        let dropped = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(server.execute("", &format!("DROP DATABASE {name}")))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            say(&format!("the database {} is left on the server that was named", self.name));
        }
    }
}

/// The target folder, where what is made once is kept.
///
/// # Errors
/// When the running program lies elsewhere.
pub fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.canonicalize()?;
    let mut folder = program.parent().context("a program lies in a folder")?;
    if folder.file_name().is_some_and(|name| name == "deps") {
        folder = folder.parent().context("tests lie in the folder of a profile")?;
    }
    Ok(folder.parent().context("the folder of a profile lies in the target folder")?.to_owned())
}

/// Tells the person at the terminal, also where a test's own output is kept back.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "localstack-tests: {what}");
}
