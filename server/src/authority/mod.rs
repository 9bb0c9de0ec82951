//! The certificate authority: what is signed, with which keys, and when they turn over.
//!
//! [`Authority`] is what the rest of the server holds. Signing reads the active keys from memory;
//! one task owns the slots and turns them; new authorities are in the stored bundle before they
//! sign anything.

mod issue;
mod journal;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::bundle::{Bundle, JwtAuthority};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyManager, KeyType};
use spire_core::svid::x509::Subject;
use spire_core::tasks::Tasks;
use spire_core::tls::IdentityState;
use spire_core::upstream::UpstreamAuthority;
use tokio::sync::watch;

use crate::store::Store;

pub use issue::{IssueError, JwtRequest, JwtSvid};

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

/// Why the authority does not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Why an authority was not prepared, activated or published.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RotationError(String);

/// One authority as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityState {
    /// The subject key identifier in hexadecimal digits, or the `kid`.
    pub authority_id: String,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
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
pub struct Authority {}

impl Authority {
    /// Takes up what the journal and the key manager still hold, prepares and activates what is
    /// missing, issues the server's own SVID, and leaves the upkeep to `tasks`.
    ///
    /// # Errors
    /// [`StartError`] where there is no authority in the end (the upstream refused, the store or
    /// the key manager failed), or where what is stored belongs to another trust domain.
    pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Arc<Self>, StartError> {
        let _ = (parts, tasks);
        todo!()
    }

    /// The server's own SVID with its key, renewed in time.
    pub fn server_svid(&self) -> IdentityState {
        todo!()
    }

    /// The trust domain's bundle: what is stored, whoever changed it.
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        todo!()
    }

    /// Publishes the key of a server below this one: upstream where that is supported, else in
    /// the bundle. Returns all keys for JWT-SVIDs.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn publish_jwt_key(
        &self,
        key: JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, RotationError> {
        let _ = key;
        todo!()
    }

    /// The authorities of one kind.
    pub fn states(&self, kind: Kind) -> SlotStates {
        let _ = kind;
        todo!()
    }

    /// Makes the next authority, whether one is due or not. One that was prepared is replaced.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn prepare(&self, kind: Kind) -> Result<AuthorityState, RotationError> {
        let _ = kind;
        todo!()
    }

    /// Lets the prepared authority sign.
    ///
    /// # Errors
    /// [`RotationError`] where `authority_id` is not the one that is prepared.
    pub async fn activate(
        &self,
        kind: Kind,
        authority_id: &str,
    ) -> Result<AuthorityState, RotationError> {
        let _ = (kind, authority_id);
        todo!()
    }

    /// Why the last look for due authorities failed: `rotation_err` of `server.ca.rotator`.
    pub fn rotation_failure(&self) -> Option<Arc<str>> {
        todo!()
    }

    /// Whether an X.509-SVID can be signed: `sign_x509_svid_err` of `server.ca`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn check_signing(&self) -> Result<(), IssueError> {
        todo!()
    }
}
