//! A database server: one that was named, or a private one that can be stopped and started again.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use url::Url;

use crate::disk;
use crate::engine::Engine;
use crate::say;
use crate::supervised::Supervised;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The administrator's password on private servers, which listen on this machine alone.
pub(crate) const PASSWORD: &str = "not-secret";

/// Certificates of a private server, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Who vouches for both others.
    pub root: PathBuf,
    /// The server's certificate, for its IP address.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A client's certificate.
    pub client_certificate: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// What a private server has.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time.
    pub connections: u32,
    /// The size of a disk of its own in mebibytes, which is gone when the server is stopped or
    /// killed. Only root may have one.
    pub disk: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 300, disk: None }
    }
}

/// A database server.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    /// How the administrator connects.
    url: Url,
    private: Option<Private>,
}

#[derive(Debug)]
struct Private {
    folder: PathBuf,
    address: SocketAddr,
    tls: TlsFiles,
    limits: Limits,
    process: Mutex<Option<Supervised>>,
}

impl Server {
    /// A server that runs somewhere.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn named(engine: Engine, url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url).with_context(|| format!("{} is no URL", engine.variable()))?;
        Ok(Self { engine, url, private: None })
    }

    /// Starts a server in a new folder on an address of its own. It goes away with this, or with
    /// the process.
    ///
    /// # Errors
    /// When the programs are missing and cannot be installed, or fail.
    pub async fn start(engine: Engine) -> anyhow::Result<Self> {
        Self::start_with(engine, Limits::default()).await
    }

    /// As [`start`](Self::start), with less of what a server can run out of.
    ///
    /// # Errors
    /// See above.
    pub async fn start_with(engine: Engine, limits: Limits) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let folder = tempfile::Builder::new().prefix("spire-database-").tempdir()?.keep();
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        let address = own_address();
        let tls = make_certificates(&folder, address.ip())?;
        engine.initialize(&folder)?;
        if limits.disk.is_some() {
            fs::create_dir(folder.join("disk"))?;
        }
        let url = format!("{}://{}:{PASSWORD}@{address}", engine.database_type(), engine.user());
        let mut url = Url::parse(&url)?;
        if engine == Engine::Postgres {
            url.set_query(Some("sslmode=disable"));
        } else {
            url.set_query(Some("ssl-mode=DISABLED"));
        }
        let private = Private { folder, address, tls, limits, process: Mutex::new(None) };
        let server = Self { engine, url, private: Some(private) };
        server.start_again().await?;
        say(&format!(
            "started {engine:?} at {address} in {:.1} s; {} names another server",
            begun.elapsed().as_secs_f32(),
            engine.variable()
        ));
        Ok(server)
    }

    /// The kind of server.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Whether it was named, so that what tests leave there would stay.
    pub fn is_named(&self) -> bool {
        self.private.is_none()
    }

    /// Where a private server listens.
    ///
    /// # Errors
    /// For a server that was named.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.private()?.address)
    }

    /// The certificates of a private server.
    ///
    /// # Errors
    /// For a server that was named.
    pub fn tls(&self) -> anyhow::Result<&TlsFiles> {
        Ok(&self.private()?.tls)
    }

    /// Stops a private server in order: what it acknowledged is there when it starts again.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(self.engine.stop_signal())
    }

    /// Ends a private server as a crash does. What it acknowledged is still there: the machine goes
    /// on.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn kill(&self) -> anyhow::Result<()> {
        // Of PostgreSQL the processes that serve connections end with the first by this signal.
        self.end(if self.engine == Engine::Postgres { "QUIT" } else { "KILL" })
    }

    /// Takes all that is free on the server's own disk, until [`free_disk`](Self::free_disk).
    ///
    /// # Errors
    /// Where it has none.
    pub fn fill_disk(&self) -> anyhow::Result<()> {
        disk::fill(self.id()?, &self.private()?.folder)
    }

    /// Gives back what [`fill_disk`](Self::fill_disk) took.
    ///
    /// # Errors
    /// Where nothing was taken.
    pub fn free_disk(&self) -> anyhow::Result<()> {
        disk::free(self.id()?, &self.private()?.folder)
    }

    fn id(&self) -> anyhow::Result<u32> {
        let process = self.private()?.process.lock().expect("nobody panics with it");
        process.as_ref().context("the server does not run")?.id()
    }

    fn end(&self, signal: &str) -> anyhow::Result<()> {
        let mut process = self.private()?.process.lock().expect("nobody panics with it");
        process.take().context("the server does not run")?.end(signal)
    }

    /// Starts a private server on the data that it has.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let Private { folder, address, tls, limits, process } = self.private()?;
        let mut command = self.engine.serve(folder, *address, tls, limits.connections)?;
        if let Some(mebibytes) = limits.disk {
            command = disk::own(&command, folder, mebibytes);
        }
        *process.lock().expect("nobody panics with it") =
            Some(Supervised::start(&command, folder)?);
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.execute("", "SELECT 1").await {
            if Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("{:?} does not answer: {error:#}\n{log}", self.engine);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The connection string of a database, as the server's file has it.
    pub fn connection_string(&self, database: &str) -> String {
        let url = self.url(database);
        match self.engine {
            Engine::Postgres => url.into(),
            Engine::MariaDb => {
                let tls = if self.is_named() { "" } else { "&tls=false" };
                format!(
                    "{}:{}@tcp({}:{})/{database}?parseTime=true{tls}",
                    url.username(),
                    url.password().unwrap_or_default(),
                    url.host_str().unwrap_or_default(),
                    url.port().unwrap_or(3306)
                )
            }
        }
    }

    /// The administrator's way to a database; without a name to the one that is always there.
    pub(crate) fn url(&self, database: &str) -> Url {
        let mut url = self.url.clone();
        match (database, self.engine) {
            ("", Engine::Postgres) if self.private.is_some() => url.set_path("postgres"),
            ("", Engine::MariaDb) if self.private.is_some() => url.set_path("mysql"),
            ("", _) => {}
            _ => url.set_path(database),
        }
        url
    }

    pub(crate) async fn execute(&self, database: &str, statements: &str) -> anyhow::Result<()> {
        let mut held = Held::open(self.engine, &self.url(database)).await?;
        held.execute(statements).await?;
        held.close().await
    }

    fn private(&self) -> anyhow::Result<&Private> {
        let variable = self.engine.variable();
        self.private
            .as_ref()
            .with_context(|| format!("this needs a server that no {variable} names"))
    }
}

/// An administrator's connection that stays open.
#[derive(Debug)]
pub struct Held(Link);

#[derive(Debug)]
enum Link {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Held {
    pub(crate) async fn open(engine: Engine, url: &Url) -> anyhow::Result<Self> {
        Ok(Self(match engine {
            Engine::Postgres => Link::Postgres(PgConnection::connect(url.as_str()).await?),
            Engine::MariaDb => Link::MySql(MySqlConnection::connect(url.as_str()).await?),
        }))
    }

    /// Runs statements.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(&mut self, statements: &str) -> anyhow::Result<()> {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match &mut self.0 {
            Link::Postgres(connection) => statements.execute(connection).await.map(drop)?,
            Link::MySql(connection) => statements.execute(connection).await.map(drop)?,
        }
        Ok(())
    }

    /// Ends it, and with it its transaction and its locks.
    ///
    /// # Errors
    /// Where it is lost already.
    pub async fn close(self) -> anyhow::Result<()> {
        match self.0 {
            Link::Postgres(connection) => connection.close().await?,
            Link::MySql(connection) => connection.close().await?,
        }
        Ok(())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.process.get_mut().map(Option::take));
        let _ = fs::remove_dir_all(&self.folder); // where it ran, that has removed it
    }
}

/// An address on this machine that no other test has: the IP address follows from this process's id.
fn own_address() -> SocketAddr {
    static PORTS: AtomicU16 = AtomicU16::new(20_000);
    let port = PORTS.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    // Process ids end at 2^22, so that the second byte stays below 192.
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 128 | a, b, c)), port)
}

fn make_certificates(folder: &Path, ip: IpAddr) -> anyhow::Result<TlsFiles> {
    let file = |name: &str| folder.join(name);
    let tls = TlsFiles {
        root: file("root.pem"),
        certificate: file("server.pem"),
        key: file("server.key"),
        client_certificate: file("client.pem"),
        client_key: file("client.key"),
    };
    let mut root = CertificateParams::new([])?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "root");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    fs::write(&tls.root, root.pem())?;
    for (names, certificate, key) in [
        (vec![ip.to_string()], &tls.certificate, &tls.key),
        (vec!["client".to_owned()], &tls.client_certificate, &tls.client_key),
    ] {
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names.concat());
        let signed = params.signed_by(&pair, &root)?;
        fs::write(certificate, signed.pem())?;
        fs::write(key, pair.serialize_pem())?;
        fs::set_permissions(key, Permissions::from_mode(0o600))?;
    }
    ensure!(tls.key.exists(), "the key was written");
    Ok(tls)
}
