//! What the tests work in: a server's database, clock and keys, and an upstream CA.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::clock::Clock;
use spire_core::entry::{Entry, EntryId, Hint};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::memory::MemoryKeyManager;
use spire_core::keys::{KeyManager, KeyType, LocalKey};
use spire_core::selector::RequiredSelectors;
use spire_core::svid::x509::{
    CaTemplate, CertificateRequest, Issuer, Subject, self_sign_ca, workload_request,
};
use spire_core::tasks::Tasks;
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamBundle, UpstreamError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use tokio::sync::watch;

use super::super::application::Application;
use super::super::orders::{Command, Obeyed};
use super::super::rotation::Rotation;
use super::super::{Authority, Parts, RotationError, Settings, StartError};
use crate::store::{self, Store};

/// Lifetime of authorities in these tests: prepared after 90 s, activated after 150 s.
pub(super) const CA_TTL: Duration = Duration::from_secs(180);

pub(super) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(super) fn id(path: &str) -> SpiffeId {
    domain().member(path).unwrap()
}

pub(super) fn settings() -> Settings {
    Settings {
        trust_domain: domain(),
        ca_key_type: KeyType::EcP256,
        jwt_key_type: KeyType::EcP256,
        ca_subject: subject(),
        ca_ttl: CA_TTL,
        default_x509_svid_ttl: Duration::from_secs(20),
        default_jwt_svid_ttl: Duration::from_secs(10),
        agent_ttl: Duration::from_secs(25),
        jwt_issuer: None,
        disable_jwt_svids: false,
        rotation_check_interval: Duration::from_secs(10),
    }
}

fn subject() -> Subject {
    Subject {
        country: vec!["US".to_owned()],
        organization: vec!["SPIFFE".to_owned()],
        ..Subject::default()
    }
}

/// What outlives a restart of the server.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) keys: Arc<dyn KeyManager>,
    pub(super) upstream: Option<Arc<FakeUpstream>>,
    pub(super) settings: Settings,
}

/// A started server, whose rotation waits for the test.
pub(super) struct Server {
    pub(super) authority: Arc<Authority>,
    pub(super) rotation: Rotation,
}

impl Server {
    /// Looks for due steps, and takes up what the upstream signs for them.
    pub(super) async fn look(&mut self) {
        self.rotation.look().await;
        self.go_on().await;
    }

    pub(super) async fn look_if_tainted(&mut self) {
        self.rotation.look_if_tainted().await;
        self.go_on().await;
    }

    /// What becomes of an order when the upstream has signed.
    pub(super) async fn obey(&mut self, command: Command) -> Obeyed {
        loop {
            match self.rotation.obey(command.clone()).await {
                Err(RotationError::NotYet) => self.rotation.answered().await,
                outcome => return outcome,
            }
        }
    }

    async fn go_on(&mut self) {
        while self.rotation.application.as_ref().is_some_and(Application::is_asked) {
            self.rotation.answered().await;
            self.rotation.look().await;
        }
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let settings_of_store = store::Settings::new("sqlite3", ":memory:").unwrap();
        Self {
            store: Store::open(&settings_of_store).await.unwrap(),
            clock: Clock::standing_at(Timestamp::from_second(1_800_000_000).unwrap()),
            keys: Arc::new(MemoryKeyManager::new()),
            upstream: None,
            settings: settings(),
        }
    }

    /// A world in which the server's CA hangs below another.
    pub(super) async fn below_upstream() -> Self {
        let mut world = Self::new().await;
        let root_ttl = Duration::from_secs(365 * 24 * 3600);
        world.upstream = Some(Arc::new(FakeUpstream::new(world.clock.clone(), root_ttl).await));
        world
    }

    /// A world in which it hangs below a SPIRE.
    pub(super) async fn below_spire() -> Self {
        let mut world = Self::new().await;
        let root_ttl = Duration::from_secs(365 * 24 * 3600);
        let mut upstream = FakeUpstream::new(world.clock.clone(), root_ttl).await;
        upstream.jwt_keys = Some(Mutex::default());
        world.upstream = Some(Arc::new(upstream));
        world
    }

    /// Another server of this world, with keys of its own.
    pub(super) fn beside(&self) -> Self {
        Self {
            store: self.store.clone(),
            clock: self.clock.clone(),
            keys: Arc::new(MemoryKeyManager::new()),
            upstream: self.upstream.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Has a new database in a file.
    pub(super) async fn keep_in(&mut self, path: &Path) {
        let settings = store::Settings::new("sqlite3", path.to_str().unwrap()).unwrap();
        self.store = Store::open(&settings).await.unwrap();
    }

    pub(super) fn parts(&self) -> Parts {
        Parts {
            settings: self.settings.clone(),
            store: self.store.clone(),
            keys: self.keys.clone(),
            upstream: self.upstream.clone().map(|it| it as Arc<dyn UpstreamAuthority>),
            bundle: watch::Sender::new(Arc::new(Bundle::empty(self.settings.trust_domain.clone()))),
            clock: self.clock.clone(),
        }
    }

    pub(super) async fn start(&self) -> Result<Server, StartError> {
        let (authority, rotation, _orders) = Authority::open(self.parts(), &Tasks::new()).await?;
        let mut server = Server { authority, rotation };
        server.go_on().await;
        Ok(server)
    }

    pub(super) fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    pub(super) async fn stored(&self) -> Bundle {
        self.store.bundle(&domain()).await.unwrap().unwrap()
    }
}

/// What keeps servers from changing a table of a database in a file.
pub(super) struct Obstacle(SqliteConnection);

impl Obstacle {
    pub(super) async fn before(table: &str, path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = options.connect().await.unwrap();
        let trigger = format!(
            "CREATE TRIGGER obstacle BEFORE UPDATE ON {table} \
             BEGIN SELECT RAISE(ABORT, 'no'); END"
        );
        sqlx::query(AssertSqlSafe(trigger)).execute(&mut connection).await.unwrap();
        Self(connection)
    }

    pub(super) async fn remove(mut self) {
        sqlx::query("DROP TRIGGER obstacle").execute(&mut self.0).await.unwrap();
    }
}

pub(super) async fn request(path: &str) -> CertificateRequest {
    let key = LocalKey::generate(KeyType::EcP256).await.unwrap();
    CertificateRequest::parse(&workload_request(&key, &id(path)).await.unwrap()).unwrap()
}

pub(super) fn entry(path: &str) -> Entry {
    let selector = "unix:uid:1".parse().unwrap();
    Entry {
        id: EntryId::random(),
        spiffe_id: id(path),
        parent_id: id("/spire/agent/x"),
        selectors: RequiredSelectors::new([selector]).unwrap(),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: BTreeSet::new(),
        dns_names: Vec::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: Hint::default(),
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        attributes: None,
    }
}

/// A small CA that signs what it is asked to, while it is there.
pub(super) struct FakeUpstream {
    clock: Clock,
    root: Mutex<(Issuer, Bytes)>,
    pub(super) away: AtomicBool,
    pub(super) mints: AtomicUsize,
    /// It takes its time, and signs when it is told that it is not busy.
    pub(super) busy: watch::Sender<bool>,
    /// It says beforehand when it ends.
    pub(super) tells_its_end: AtomicBool,
    /// It names no root of what it signs.
    pub(super) hostile: AtomicBool,
    /// The keys that were published, where this upstream takes any: where it is a SPIRE.
    pub(super) jwt_keys: Option<Mutex<Vec<JwtAuthority>>>,
    /// What it trusts.
    pub(super) bundle: Mutex<UpstreamBundle>,
}

impl FakeUpstream {
    pub(super) async fn new(clock: Clock, root_ttl: Duration) -> Self {
        let root = Self::make_root(&clock, root_ttl).await;
        Self {
            clock,
            root: Mutex::new(root),
            away: AtomicBool::new(false),
            mints: AtomicUsize::new(0),
            busy: watch::Sender::new(false),
            tells_its_end: AtomicBool::new(false),
            hostile: AtomicBool::new(false),
            jwt_keys: None,
            bundle: Mutex::default(),
        }
    }

    async fn make_root(clock: &Clock, ttl: Duration) -> (Issuer, Bytes) {
        let key = Arc::new(LocalKey::generate(KeyType::EcP384).await.unwrap());
        let upstream_domain = TrustDomain::parse("upstream.test").unwrap();
        let certificate =
            self_sign_ca(&*key, &upstream_domain, &subject(), ttl, clock.now()).await.unwrap();
        (Issuer::root(certificate.clone(), key).unwrap(), certificate)
    }

    pub(super) async fn replace_root(&self, ttl: Duration) {
        let root = Self::make_root(&self.clock, ttl).await;
        *self.root.lock().unwrap() = root;
    }

    pub(super) fn root(&self) -> Bytes {
        self.root.lock().unwrap().1.clone()
    }
}

#[async_trait]
impl UpstreamAuthority for FakeUpstream {
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(UpstreamError::Unavailable("gone fishing".to_owned()));
        }
        // The sender is at hand, so the wait cannot fail.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
        self.mints.fetch_add(1, Ordering::Relaxed);
        let (issuer, root) = self.root.lock().unwrap().clone();
        let request = CertificateRequest::parse(csr).unwrap();
        let subject = match self.jwt_keys {
            Some(_) => issuer.downstream_subject(),
            None => request.subject,
        };
        let template = CaTemplate {
            trust_domain: &domain(),
            public_key: &request.public_key,
            subject: &subject,
            ttl,
        };
        let chain = issuer
            .sign_ca(&template, self.clock.now())
            .await
            .map_err(|err| UpstreamError::Invalid(err.to_string()))?;
        let mut roots = vec![X509Authority { certificate: root, tainted: false }];
        if self.hostile.load(Ordering::Relaxed) {
            roots.clear();
        }
        Ok(Minted { chain, roots })
    }

    async fn publish_jwt_key(
        &self,
        key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(UpstreamError::Unavailable("gone fishing".to_owned()));
        }
        let keys = self.jwt_keys.as_ref().ok_or(UpstreamError::Unsupported)?;
        let mut keys = keys.lock().unwrap();
        keys.push(key.clone());
        Ok(keys.clone())
    }

    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(UpstreamError::Unavailable("gone fishing".to_owned()));
        }
        Ok(self.bundle.lock().unwrap().clone())
    }

    fn bundle_period(&self) -> Duration {
        Duration::from_millis(10)
    }

    async fn ends_at(&self) -> Result<Option<Timestamp>, UpstreamError> {
        let tells = self.tells_its_end.load(Ordering::Relaxed);
        Ok(tells.then(|| self.root.lock().unwrap().0.expires_at()))
    }
}

/// Whether OpenSSL accepts a chain, leaf first, below the roots of `bundle`.
pub(super) fn openssl_verifies(chain: &[Bytes], bundle: &Bundle, now: Timestamp) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, certificates: &[Bytes]| {
        let text: String = certificates.iter().map(|der| pem(der)).collect();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let roots: Vec<_> =
        bundle.x509_authorities.iter().map(|root| root.certificate.clone()).collect();
    write("roots.pem", &roots);
    write("leaf.pem", &chain[..1]);
    let mut command = std::process::Command::new("openssl");
    command.args(["verify", "-x509_strict", "-attime", &now.as_second().to_string()]);
    command.args(["-CAfile", "roots.pem"]);
    if chain.len() > 1 {
        write("chain.pem", &chain[1..]);
        command.args(["-untrusted", "chain.pem"]);
    }
    command.arg("leaf.pem").current_dir(&folder);
    command.output().expect("openssl is part of a test machine").status.success()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|it| str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
