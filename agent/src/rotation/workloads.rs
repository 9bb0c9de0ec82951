//! The X.509-SVIDs of this node's workloads: signed when somebody waits for them, when they are to
//! be replaced, and ahead of time for those that may ask.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spire_core::clock::Clock;
use spire_core::entry::EntryId;
use spire_core::keys::{KeyError, KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, workload_request};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cache::{Cache, Due, HeldSvid};
use crate::client::{RpcError, Server};

/// Certificates asked for in one call. Small enough that what a caller waits for is not long on its
/// way, large enough that the call itself costs little; the server takes 500.
const BATCH: usize = 100;
/// Calls under way for whatever is due.
const CALLS: usize = 4;
/// Further calls for what callers wait for.
const URGENT_CALLS: usize = 4;
/// How soon it is tried again after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
const LAST_RETRY: Duration = Duration::from_mins(4);
/// How long at most nobody looks whether something is due: clocks may be set.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What an SVID is signed with and kept in.
pub struct WorkloadSvids {
    /// Who signs.
    pub server: Arc<Server>,
    /// Where SVIDs are kept; it knows which are due.
    pub cache: Arc<Cache>,
    /// The kind of the keys.
    pub key_type: KeyType,
    /// The time.
    pub clock: Clock,
}

/// What became of a batch: an answer for each entry, or a failure of the whole.
type Signed = Result<Vec<(EntryId, Result<HeldSvid, SignError>)>, SignError>;

/// Why an SVID was not signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("failed to generate CSR: {0}")]
    Key(#[from] KeyError),
}

impl WorkloadSvids {
    /// Signs until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut batches = Batches::default();
        let mut pause = Pause::none();
        loop {
            if pause.is_over(&self.cache, &self.clock) {
                self.launch(&mut batches, pause.batch);
            } else {
                self.let_callers_go();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.cache.wanted() => {}
                () = self.clock.sleep(self.rest(&pause)) => {}
                Some((due, signed)) = batches.next() => match signed {
                    Ok(answers) => {
                        pause.end();
                        self.keep_answers(answers);
                    }
                    Err(error) => {
                        let wait = pause.begin(&error, self.clock.now());
                        tracing::error!(
                            subsystem_name = "manager",
                            %error,
                            count = due.len(),
                            retry_interval = ?wait,
                            "Failed to fetch X509-SVIDs"
                        );
                        self.cache.postpone(&due);
                    }
                },
            }
        }
    }

    /// Begins as many calls as there is work and room for.
    fn launch(&self, batches: &mut Batches, batch: usize) {
        loop {
            let under_way = batches.entries();
            let mut due = self.cache.due(under_way.len() + BATCH);
            due.retain(|due| !under_way.contains(&due.entry.id));
            let is_awaited = |due: &Due| due.subscribed && !due.renewal;
            let urgent = due.iter().take_while(|due| is_awaited(due)).count();
            // What callers wait for goes alone, so that it is not held up by anything else.
            due.truncate(if urgent > 0 { urgent.min(batch) } else { batch });
            let room = if urgent > 0 { CALLS + URGENT_CALLS } else { CALLS };
            if due.is_empty() || batches.count() >= room {
                return;
            }
            let ids = due.iter().map(|due| due.entry.id.clone()).collect();
            batches.begin(ids, sign(self.server.clone(), due, self.key_type));
        }
    }

    /// While the server is not asked, callers get what is held already.
    fn let_callers_go(&self) {
        let due = self.cache.due(BATCH).into_iter();
        let awaited = due.filter(|due| due.subscribed && !due.renewal);
        let awaited: Vec<_> = awaited.map(|due| due.entry.id.clone()).collect();
        if !awaited.is_empty() {
            self.cache.postpone(&awaited);
        }
    }

    fn keep_answers(&self, answers: Vec<(EntryId, Result<HeldSvid, SignError>)>) {
        let mut held = Vec::with_capacity(answers.len());
        let mut refused = Vec::new();
        for (id, answer) in answers {
            match answer {
                Ok(svid) => {
                    let spiffe_id = &svid.svid.id;
                    tracing::debug!(
                        subsystem_name = "cache_manager",
                        entry_id = %id,
                        %spiffe_id,
                        "SVID updated"
                    );
                    held.push((id, svid));
                }
                Err(error) => {
                    tracing::error!(
                        subsystem_name = "manager",
                        entry_id = %id,
                        %error,
                        "X509-SVID was not signed"
                    );
                    refused.push(id);
                }
            }
        }
        if !held.is_empty() {
            self.cache.hold(held);
        }
        if !refused.is_empty() {
            self.cache.refuse(&refused);
        }
    }

    /// How long there is nothing to do unless somebody calls. What is being signed is still due, so
    /// the time never is too short.
    fn rest(&self, pause: &Pause) -> Duration {
        let now = self.clock.now();
        let next = pause.until.or_else(|| self.cache.next_due());
        let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        wait.unwrap_or(LONGEST_REST).clamp(FIRST_RETRY, LONGEST_REST)
    }
}

/// The calls under way, and what they are for.
#[derive(Default)]
struct Batches {
    calls: JoinSet<Signed>,
    entries: HashMap<Id, Vec<EntryId>>,
}

impl Batches {
    fn begin(
        &mut self,
        entries: Vec<EntryId>,
        call: impl Future<Output = Signed> + Send + 'static,
    ) {
        let id = self.calls.spawn(call).id();
        self.entries.insert(id, entries);
    }

    fn count(&self) -> usize {
        self.calls.len()
    }

    fn entries(&self) -> HashSet<EntryId> {
        self.entries.values().flatten().cloned().collect()
    }

    /// The next one that ends; nothing where none is under way.
    async fn next(&mut self) -> Option<(Vec<EntryId>, Signed)> {
        let (id, signed) = match self.calls.join_next_with_id().await? {
            Ok((id, signed)) => (id, signed),
            Err(error) => (error.id(), Err(SignError::from(error))),
        };
        Some((self.entries.remove(&id).unwrap_or_default(), signed))
    }
}

impl From<JoinError> for SignError {
    fn from(error: JoinError) -> Self {
        Self::Rpc(RpcError::nonsense(format!("signing was cut off: {error}")))
    }
}

/// How long the server is left alone after a failure.
struct Pause {
    until: Option<Timestamp>,
    /// When it began, where the server could not be reached.
    unreachable_since: Option<Timestamp>,
    backoff: Backoff,
    /// How many certificates are asked for in a call: fewer after failures, which may come from
    /// one of them or from their number.
    batch: usize,
}

impl Pause {
    fn none() -> Self {
        let backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        Self { until: None, unreachable_since: None, backoff, batch: BATCH }
    }

    fn begin(&mut self, error: &SignError, now: Timestamp) -> Duration {
        let wait = self.backoff.after_failure();
        self.until = Some(now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
        let unreachable = matches!(error, SignError::Rpc(error) if error.is_unreachable());
        self.unreachable_since = unreachable.then_some(now);
        self.batch = (self.batch / 2).max(1);
        wait
    }

    fn end(&mut self) {
        *self = Self::none();
    }

    /// A server that answered a sync since it was found unreachable is asked at once.
    fn is_over(&mut self, cache: &Cache, clock: &Clock) -> bool {
        let Some(until) = self.until else { return true };
        let is_back = self.unreachable_since.is_some_and(|since| cache.synced_at() > Some(since));
        let over = is_back || clock.now() >= until;
        if over {
            self.until = None;
        }
        over
    }
}

/// Makes a key for each entry and has all of them signed in one call.
async fn sign(server: Arc<Server>, due: Vec<Due>, key_type: KeyType) -> Signed {
    let mut requests = Vec::with_capacity(due.len());
    let mut keys = Vec::with_capacity(due.len());
    for Due { entry, renewal, .. } in &due {
        let message = if *renewal { "Renewing X509-SVID" } else { "Creating X509-SVID" };
        tracing::info!(
            subsystem_name = "manager",
            entry_id = %entry.id,
            spiffe_id = %entry.spiffe_id,
            "{message}"
        );
        let key = LocalKey::generate(key_type).await?;
        requests.push((entry.id.clone(), workload_request(&key, &entry.spiffe_id).await?));
        keys.push(key);
        // A batch takes milliseconds: callers on this thread are served in between.
        tokio::task::yield_now().await;
    }
    let svids = server.sign_x509_svids(requests).await?;
    if svids.len() != due.len() {
        let text = format!("{} SVIDs for {} requests", svids.len(), due.len());
        return Err(RpcError::nonsense(text).into());
    }
    let answers = due.iter().zip(keys).zip(svids).map(|((due, key), svid)| {
        let held = svid.map_err(SignError::from).and_then(|svid| held(due, &key, svid));
        (due.entry.id.clone(), held)
    });
    Ok(answers.collect())
}

/// Ties an SVID to its key, where it is the one that was asked for.
fn held(due: &Due, key: &LocalKey, svid: X509Svid) -> Result<HeldSvid, SignError> {
    if svid.id != due.entry.spiffe_id {
        let text = format!("the server signed {} instead of {}", svid.id, due.entry.spiffe_id);
        return Err(RpcError::nonsense(text).into());
    }
    Ok(HeldSvid::new(svid, key, due.entry.revision_number)?)
}
