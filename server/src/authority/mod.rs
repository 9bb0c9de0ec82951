//! The certificate authority: what is signed, with which keys, and when they turn over.
//!
//! [`Authority`] is what the rest of the server holds. Signing reads the active keys from memory;
//! one task owns the slots and turns them; new authorities are in the stored bundle before they
//! sign anything.

mod application;
mod bundle;
mod error;
mod follow;
mod issue;
pub(crate) mod journal;
mod jwt_key;
mod missing;
mod orders;
mod origin;
mod recovery;
mod restore;
mod rotation;
mod server_svid;
mod slots;
mod x509_ca;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::{Bundle, JwtAuthority};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyManager, KeyType};
use spire_core::svid::x509::Subject;
use spire_core::tasks::Tasks;
use spire_core::tls::{Identity, IdentityState};
use spire_core::upstream::{UpstreamAuthority, UpstreamError};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::store::Store;
use bundle::TrustBundle;
use jwt_key::JwtKey;
use orders::Order;
use rotation::Rotation;
use x509_ca::X509Ca;

pub use error::{RotationError, StartError};
pub use issue::{IssueError, JwtRequest, JwtSvid};

/// How many orders of operators may wait.
const ORDERS: usize = 8;
/// How long an upstream authority may take to publish a key.
const PUBLISH: Duration = Duration::from_secs(5);

/// What the operator decided about the authority.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// The kind of keys of X.509 authorities and of the server's own SVID.
    pub ca_key_type: KeyType,
    /// The kind of keys that sign JWT-SVIDs.
    pub jwt_key_type: KeyType,
    /// The subject of X.509 authorities; a `serialNumber` is added to it.
    pub ca_subject: Subject,
    /// Lifetime of X.509 authorities and of JWT keys.
    pub ca_ttl: Duration,
    /// Lifetime of X.509-SVIDs that ask for none.
    pub default_x509_svid_ttl: Duration,
    /// Lifetime of JWT-SVIDs that ask for none.
    pub default_jwt_svid_ttl: Duration,
    /// Lifetime of agents' SVIDs.
    pub agent_ttl: Duration,
    /// The `iss` of JWT-SVIDs; without it they have none.
    pub jwt_issuer: Option<String>,
    /// Whether JWT-SVIDs are refused and no key is made for them.
    pub disable_jwt_svids: bool,
    /// How often it is looked whether an authority is due; 10 s where nothing else was said.
    pub rotation_check_interval: Duration,
}

/// What the authority works with.
pub struct Parts {
    /// What the operator decided.
    pub settings: Settings,
    /// Keeps the bundle and the journal.
    pub store: Store,
    /// Makes and holds the keys.
    pub keys: Arc<dyn KeyManager>,
    /// What signs this server's CA, if anything does.
    pub upstream: Option<Arc<dyn UpstreamAuthority>>,
    /// Where the trust domain's bundle is told to all who watch it; made before any plugin, since
    /// plugins watch it.
    pub bundle: watch::Sender<Arc<Bundle>>,
    /// The time.
    pub clock: Clock,
}

/// One authority as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityState {
    /// The subject key identifier in hexadecimal digits, or the `kid`.
    pub authority_id: String,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
    /// When the next authority is prepared, should this one be active.
    pub prepares_next_at: Timestamp,
    /// When the next authority takes over, should this one be active.
    pub activates_next_at: Timestamp,
    /// Its certificate (DER) and what leads from it to a root; empty for a key for JWT-SVIDs.
    pub chain: Vec<Bytes>,
    /// The subject key identifier of the upstream root, for an X.509 authority below one.
    pub upstream_authority_id: Option<String>,
}

/// The authorities of one kind as operators see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotStates {
    /// The one that signs.
    pub active: Option<AuthorityState>,
    /// The one that signs next.
    pub prepared: Option<AuthorityState>,
    /// The one that signed before.
    pub old: Option<AuthorityState>,
}

/// Which authorities are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Those that sign X.509-SVIDs.
    X509,
    /// Those that sign JWT-SVIDs.
    Jwt,
}

/// The server's authority.
pub struct Authority {
    settings: Settings,
    store: Store,
    keys: Arc<dyn KeyManager>,
    upstream: Option<Arc<dyn UpstreamAuthority>>,
    clock: Clock,
    bundle: TrustBundle,
    /// Ids of roots that the upstream has tainted, whether this server has left them or not.
    tainted_above: watch::Sender<BTreeSet<String>>,
    /// What signs, read without a lock.
    x509: ArcSwapOption<X509Ca>,
    jwt: ArcSwapOption<JwtKey>,
    /// What signs X.509-SVIDs next, and servers below this one as soon as it is known.
    next_x509: ArcSwapOption<X509Ca>,
    x509_states: ArcSwap<SlotStates>,
    jwt_states: ArcSwap<SlotStates>,
    server_svid: watch::Sender<Option<Identity>>,
    rotation_failure: ArcSwapOption<String>,
    orders: mpsc::Sender<Order>,
    warned_of_local_keys: AtomicBool,
}

impl Authority {
    /// Takes up what the journal and the key manager still hold, prepares and activates what is
    /// missing, issues the server's own SVID, and leaves the upkeep to `tasks`.
    ///
    /// # Errors
    /// [`StartError`] where there is no authority in the end (the upstream refused, the store or
    /// the key manager failed), or where what is stored belongs to another trust domain.
    pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Arc<Self>, StartError> {
        let (authority, rotation, orders) = Self::open(parts, tasks).await?;
        let stop = tasks.stop_token();
        tasks.spawn(async move {
            stop.run_until_cancelled(rotation.run(orders)).await;
        });
        let (kept, stop) = (authority.clone(), tasks.stop_token());
        tasks.spawn(async move {
            stop.run_until_cancelled(kept.bundle.keep(&kept.clock)).await;
        });
        let (kept, stop) = (authority.clone(), tasks.stop_token());
        tasks.spawn(async move {
            stop.run_until_cancelled(kept.keep_server_svid()).await;
        });
        if let Some(upstream) = authority.upstream.clone() {
            let (kept, stop) = (authority.clone(), tasks.stop_token());
            tasks.spawn(async move {
                stop.run_until_cancelled(kept.follow(&*upstream)).await;
            });
        }
        Ok(authority)
    }

    /// All of [`Authority::start`] but the tasks.
    async fn open(
        parts: Parts,
        tasks: &Tasks,
    ) -> Result<(Arc<Self>, Rotation, mpsc::Receiver<Order>), StartError> {
        let Parts { settings, store, keys, upstream, bundle, clock } = parts;
        let bundle = TrustBundle::new(settings.trust_domain.clone(), store.clone(), bundle);
        bundle.refresh().await?;
        let restored =
            restore::restore(&settings, &store, &*keys, &bundle.current(), clock.now()).await?;
        let (orders, received) = mpsc::channel(ORDERS);
        let authority = Arc::new(Self {
            settings,
            store,
            keys,
            upstream,
            clock,
            bundle,
            tainted_above: watch::Sender::default(),
            x509: ArcSwapOption::empty(),
            jwt: ArcSwapOption::empty(),
            next_x509: ArcSwapOption::empty(),
            x509_states: ArcSwap::default(),
            jwt_states: ArcSwap::default(),
            server_svid: watch::Sender::new(None),
            rotation_failure: ArcSwapOption::empty(),
            orders,
            warned_of_local_keys: AtomicBool::new(false),
        });
        let mut rotation = Rotation::new(authority.clone(), restored, tasks.clone());
        rotation.first_turn().await?;
        authority.renew_server_svid().await?;
        Ok((authority, rotation, received))
    }

    /// The server's own SVID with its key, renewed in time.
    pub fn server_svid(&self) -> IdentityState {
        self.server_svid.subscribe()
    }

    /// The trust domain's bundle: what is stored, whoever changed it.
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    /// Publishes a key for JWT-SVIDs, of this server or of one below it: upstream where that is
    /// supported, and in the bundle. Returns all keys for JWT-SVIDs. One below may taint what it
    /// published, but not what this server signs with.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn publish_jwt_key(
        &self,
        key: JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, RotationError> {
        if key.tainted && self.is_in_use(&key.key_id) {
            tracing::warn!(
                subsystem_name = "ca_manager",
                local_authority_id = key.key_id,
                "A server below would taint a JWT key in use here; it stays as it is"
            );
            return Ok(self.bundle.current().jwt_authorities.clone());
        }
        let mut keys = self.publish_upstream(&key).await?;
        // A tainted one may have been revoked here.
        keys.retain(|known| !known.tainted && known.key_id != key.key_id);
        keys.push(key);
        self.bundle.add_keys(keys).await?;
        Ok(self.bundle.current().jwt_authorities.clone())
    }

    /// Whether this server signs with the JWT key `id`, or is about to.
    fn is_in_use(&self, id: &str) -> bool {
        let states = self.states(Kind::Jwt);
        let mut in_use = [&states.active, &states.prepared].into_iter().flatten();
        in_use.any(|state| state.authority_id == id)
    }

    /// Publishes a key upstream, if anything is there that takes keys. Returns what is known there.
    async fn publish_upstream(
        &self,
        key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        let Some(upstream) = &self.upstream else { return Ok(Vec::new()) };
        match timeout(PUBLISH, upstream.publish_jwt_key(key)).await {
            Ok(Err(UpstreamError::Unsupported)) => {
                if !self.warned_of_local_keys.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        subsystem_name = "ca_manager",
                        "UpstreamAuthority plugin does not support JWT-SVIDs. Workloads managed \
                         by this server may have trouble communicating with workloads outside \
                         this cluster when using JWT-SVIDs."
                    );
                }
                Ok(Vec::new())
            }
            Ok(published) => published,
            Err(_) => Err(late()),
        }
    }

    /// The authorities of one kind.
    pub fn states(&self, kind: Kind) -> Arc<SlotStates> {
        match kind {
            Kind::X509 => self.x509_states.load_full(),
            Kind::Jwt => self.jwt_states.load_full(),
        }
    }

    /// Why authorities do not turn over although it is time to worry: `rotation_err` of
    /// `server.ca.rotator`.
    pub fn rotation_failure(&self) -> Option<Arc<String>> {
        self.rotation_failure.load_full()
    }

    /// Whether no authority in use has ended, of any kind of SVID that is issued here.
    pub fn is_valid(&self) -> bool {
        let now = self.clock.now();
        let is_valid =
            |kind| self.states(kind).active.as_ref().is_some_and(|active| now < active.expires_at);
        is_valid(Kind::X509) && (self.settings.disable_jwt_svids || is_valid(Kind::Jwt))
    }

    fn set_rotation_failure(&self, failure: Option<String>) {
        self.rotation_failure.store(failure.map(Arc::new));
    }
}

/// What becomes of a question that an upstream authority took too long for.
fn late() -> UpstreamError {
    UpstreamError::Unavailable("it did not answer in time".to_owned())
}

/// `ttl` after `now`, or the end of time.
fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
