//! Whether a caller may call a method, and as what. Everything is read from memory; the database
//! is asked only where memory would refuse an agent, since another server may have attested it a
//! moment ago. Such an agent waits until memory has what that server wrote, and so what it is
//! answered is not less than what it was told there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spire_core::clock::Clock;
use spire_core::id::SpiffeId;
use spire_core::tasks::Tasks;
use spire_core::wire::convert::denial::Reason;
use tokio::time::timeout;

use super::refusals::Refusals;
use super::{Class, Rule};
use crate::caller::{Caller, PeerSvid};
use crate::registry::{Registry, Snapshot};
use crate::store::{Store, StoreError};

/// How long an agent waits until memory has what another server wrote of it.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// Decides who may call what.
pub struct Policy {
    admin_ids: HashSet<SpiffeId>,
    registry: Arc<Registry>,
    store: Store,
    clock: Clock,
    tasks: Tasks,
    refusals: Refusals,
    /// Agents whose new serial number is being made the present one.
    promotions: Arc<Mutex<HashSet<SpiffeId>>>,
}

/// What a caller may call a method as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// The method is open to everyone.
    Anyone,
    /// A process of this machine.
    Local,
    /// An administrator, by `admin_ids`.
    AdminByConfig,
    /// An administrator, by an entry.
    AdminByEntry,
    /// A server below this one, by an entry.
    Downstream,
    /// An attested agent.
    Agent,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller is in no class that the method is open to.
    #[error("authorization denied for method {0}")]
    Class(String),
    /// The method is for agents, and the caller is none that may act.
    #[error("authorization denied for method {path}")]
    Agent {
        /// The method.
        path: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// Memory knows no such agent, and the database could not be asked.
    #[error("failed to look up the agent")]
    Store(#[source] StoreError),
    /// Another server has admitted the agent, and memory does not follow.
    #[error("this server has not read yet what another one wrote of the agent; try again")]
    Behind,
}

impl Grant {
    /// `authorized_as` of the audit log; nothing where the method is open to everyone.
    pub fn authorized_as(self) -> Option<&'static str> {
        match self {
            Self::Anyone => None,
            Self::Local => Some("local"),
            Self::AdminByConfig | Self::AdminByEntry => Some("admin"),
            Self::Downstream => Some("downstream"),
            Self::Agent => Some("agent"),
        }
    }

    /// `authorized_via` of the audit log.
    pub fn authorized_via(self) -> Option<&'static str> {
        match self {
            Self::Anyone => None,
            Self::Local => Some("transport"),
            Self::AdminByConfig => Some("config"),
            Self::AdminByEntry | Self::Downstream => Some("entries"),
            Self::Agent => Some("datastore"),
        }
    }
}

impl Policy {
    /// A policy under which `admin_ids` are administrators beside those that entries name.
    pub fn new(
        admin_ids: impl IntoIterator<Item = SpiffeId>,
        registry: Arc<Registry>,
        store: Store,
        clock: Clock,
        tasks: Tasks,
    ) -> Self {
        let admin_ids = admin_ids.into_iter().collect();
        let (refusals, promotions) = (Refusals::default(), Arc::default());
        Self { admin_ids, registry, store, clock, tasks, refusals, promotions }
    }

    /// Whether `caller` may call the method of `rule`, and as what: the cheapest class first.
    ///
    /// # Errors
    /// [`Denied`]
    pub async fn decide(&self, rule: &Rule, caller: &Caller) -> Result<Grant, Denied> {
        if rule.allows(Class::Anyone) {
            return Ok(Grant::Anyone);
        }
        let svid = match caller {
            Caller::Local(_) if rule.allows(Class::Local) => return Ok(Grant::Local),
            Caller::Local(_) => return Err(Denied::Class(rule.path())),
            Caller::Remote(peer) => peer.svid.as_ref(),
        };
        let Some(svid) = svid else { return Err(Denied::Class(rule.path())) };
        let expired = svid.expires_at <= self.clock.now();
        if !expired {
            if rule.allows(Class::Admin) && self.admin_ids.contains(&svid.id) {
                return Ok(Grant::AdminByConfig);
            }
            let snapshot = self.registry.snapshot();
            if rule.allows(Class::Admin) && snapshot.is_admin(&svid.id) {
                return Ok(Grant::AdminByEntry);
            }
            if rule.allows(Class::Downstream) && snapshot.is_downstream(&svid.id) {
                return Ok(Grant::Downstream);
            }
        }
        if !rule.allows(Class::Agent) {
            return Err(Denied::Class(rule.path()));
        }
        let denied = |reason| Denied::Agent { path: rule.path(), reason };
        if expired {
            return Err(denied(Reason::AgentExpired));
        }
        match self.standing(svid).await? {
            Standing::Active => {}
            Standing::Pending => self.promote(svid),
            Standing::Refused(reason) => return Err(denied(reason)),
        }
        Ok(Grant::Agent)
    }

    async fn standing(&self, svid: &PeerSvid) -> Result<Standing, Denied> {
        let snapshot = self.registry.snapshot();
        if let Some(standing) = admitted(&snapshot, svid) {
            return Ok(standing);
        }
        let (revision, now) = (snapshot.revision(), self.clock.now());
        if let Some(reason) = self.refusals.reason(svid, revision, now) {
            return Ok(Standing::Refused(reason));
        }
        let standing = match self.store.node(&svid.id).await.map_err(Denied::Store)? {
            None => Standing::Refused(Reason::AgentNotAttested),
            Some(node) => Standing::of(svid, &node.serial, Some(&node.new_serial)),
        };
        if let Standing::Refused(reason) = standing {
            self.refusals.remember(svid, reason, revision, now);
            return Ok(standing);
        }
        self.caught_up(svid).await
    }

    /// Waits until memory has all that was written up to now, the holder of `svid` included.
    async fn caught_up(&self, svid: &PeerSvid) -> Result<Standing, Denied> {
        let revision = self.store.latest_revision().await.map_err(Denied::Store)?;
        let known = timeout(KNOWN_WITHIN, self.registry.wait_for(revision)).await;
        known.ok().and_then(|snapshot| admitted(&snapshot, svid)).ok_or(Denied::Behind)
    }

    /// Notes that the agent uses its new SVID, which retires the one before. The agent does not
    /// wait for it: both count until it is done, and its next call tries again where it failed.
    fn promote(&self, svid: &PeerSvid) {
        let agent_id = svid.id.clone();
        if !lock(&self.promotions).insert(agent_id.clone()) {
            return;
        }
        let (store, serial) = (self.store.clone(), svid.serial.to_string());
        let promotions = Arc::clone(&self.promotions);
        self.tasks.spawn(async move {
            if let Err(error) = store.promote_serial(agent_id.clone(), serial).await {
                tracing::warn!(
                    subsystem_name = "api",
                    caller_id = %agent_id,
                    %error,
                    "Failed to note that the agent uses its new SVID; its next call tries again"
                );
            }
            lock(&promotions).remove(&agent_id);
        });
    }
}

fn lock(promotions: &Mutex<HashSet<SpiffeId>>) -> std::sync::MutexGuard<'_, HashSet<SpiffeId>> {
    promotions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How an agent stands that `snapshot` knows by this SVID; `None` where it would be refused.
fn admitted(snapshot: &Snapshot, svid: &PeerSvid) -> Option<Standing> {
    let node = snapshot.node(&svid.id)?;
    match Standing::of(svid, node.serial(), node.new_serial()) {
        Standing::Refused(_) => None,
        standing => Some(standing),
    }
}

/// How the SVID of an agent compares with what is known of the agent.
enum Standing {
    Active,
    /// It was renewed and is used for the first time.
    Pending,
    Refused(Reason),
}

impl Standing {
    fn of(svid: &PeerSvid, serial: &str, new_serial: Option<&str>) -> Self {
        if serial.is_empty() {
            Self::Refused(Reason::AgentBanned)
        } else if *svid.serial == *serial {
            Self::Active
        } else if new_serial == Some(&*svid.serial) {
            Self::Pending
        } else {
            Self::Refused(Reason::AgentNotActive)
        }
    }
}
