//! An issuer's keys, fetched once for all who wait and kept as long as the issuer says.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};

use super::{JwsError, KeySet, PublicKey, freshness};
use crate::clock::Clock;
use crate::remote::Flight;

/// Keys are kept for so long at least, whatever their issuer says.
const MIN_FRESH: Duration = Duration::from_secs(5 * 60);
/// Keys are fetched again after so long at the latest, whatever their issuer says.
const MAX_FRESH: Duration = Duration::from_secs(12 * 60 * 60);
/// Keys that cannot be fetched again are used for so long after they were fetched.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// How long it takes at least until an issuer is asked again by tokens of unknown keys, or after
/// it has failed while older keys are at hand.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(10);

/// Where an issuer publishes its keys.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// Fetches them now.
    ///
    /// # Errors
    /// Why they cannot be had, for the operator.
    async fn fetch(&self) -> Result<Fetched, String>;
}

/// Keys as they were published a moment ago.
#[derive(Debug, Clone)]
pub struct Fetched {
    keys: KeySet,
    fresh_for: Duration,
}

impl Fetched {
    /// Keys that came with these headers, which say how long they are good.
    pub fn new(keys: KeySet, headers: &HeaderMap, now: Timestamp) -> Self {
        let lifetime = freshness::lifetime(headers, now).unwrap_or(MIN_FRESH);
        Self { keys, fresh_for: lifetime.clamp(MIN_FRESH, MAX_FRESH) }
    }
}

/// Keeps an issuer's keys.
///
/// They are fetched when they are first asked for and when they have ceased to be fresh, by one
/// call for all who wait. Where that fails, those at hand are used for a while. A key that is not
/// known is looked for once more, though not often: anybody may name one.
pub struct KeyCache {
    shared: Arc<Shared>,
    flight: Flight<Result<(), String>>,
}

struct Shared {
    source: Box<dyn KeySource>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When they were last asked for, and why that failed.
    tried_at: Option<Timestamp>,
    failure: Option<String>,
}

struct Held {
    keys: KeySet,
    fetched_at: Timestamp,
    fresh_until: Timestamp,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

impl KeyCache {
    /// A cache that holds nothing yet.
    pub fn new(source: impl KeySource, clock: Clock) -> Self {
        let shared = Shared { source: Box::new(source), clock, state: Mutex::default() };
        Self { shared: Arc::new(shared), flight: Flight::default() }
    }

    /// The key of that ID.
    ///
    /// # Errors
    /// [`JwsError::UnknownKey`], and [`JwsError::NoKeys`] where none can be had.
    pub async fn key(&self, key_id: &str) -> Result<PublicKey, JwsError> {
        if self.shared.should_fetch(key_id) {
            let shared = self.shared.clone();
            // What becomes of it is in the state.
            let _ = self.flight.join(move || shared.fetch().boxed()).await;
        }
        self.shared.find(key_id)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn should_fetch(&self, key_id: &str) -> bool {
        let now = self.clock.now();
        let state = self.state();
        let Some(held) = &state.held else { return true };
        let is_pause = |tried_at: Timestamp| now.duration_since(tried_at).abs() < PAUSE;
        let is_stale = now >= held.fresh_until || now < held.fetched_at;
        (is_stale || held.keys.get(key_id).is_none()) && !state.tried_at.is_some_and(is_pause)
    }

    fn find(&self, key_id: &str) -> Result<PublicKey, JwsError> {
        let now = self.clock.now();
        let state = self.state();
        match &state.held {
            Some(held) if now.duration_since(held.fetched_at) <= MAX_AGE => {
                let key = held.keys.get(key_id).cloned();
                key.ok_or_else(|| JwsError::UnknownKey(key_id.to_owned()))
            }
            _ => Err(JwsError::NoKeys(state.failure.clone().unwrap_or_default())),
        }
    }

    async fn fetch(self: Arc<Self>) -> Result<(), String> {
        let fetched = tokio::time::timeout(FETCH, self.source.fetch()).await;
        let fetched =
            fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH.as_secs())));
        let now = self.clock.now();
        let mut state = self.state();
        state.tried_at = Some(now);
        // An issuer that has keys does not lose them all at once.
        let stored = fetched.and_then(|fetched| match (&state.held, fetched.keys.is_empty()) {
            (Some(_), true) => Err("the set of keys is empty".to_owned()),
            _ => Ok(fetched),
        });
        match stored {
            Ok(Fetched { keys, fresh_for }) => {
                let fresh_until = now.saturating_add(fresh_for).unwrap_or(Timestamp::MAX);
                state.held = Some(Held { keys, fetched_at: now, fresh_until });
                state.failure = None;
                Ok(())
            }
            Err(error) => {
                let held_since = state.held.as_ref().map(|held| held.fetched_at);
                tracing::warn!(
                    %error,
                    held_since = held_since.map(tracing::field::display),
                    "Keys of a token issuer cannot be fetched"
                );
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }
}
