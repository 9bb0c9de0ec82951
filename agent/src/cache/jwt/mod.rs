//! JWT-SVIDs: from the cache while they are fresh, else from the server.

mod kept;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use spire_core::clock::Clock;
use spire_core::entry::{Entry, EntryId};
use spire_core::limits::REMOTE_CALL;
use tokio::sync::watch;

use crate::client::RpcError;
use kept::{KeptTokens, Key};

pub use token::JwtSvid;

/// How long after a failure the server is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// From so many requests under way on, those that nobody waits for are dropped.
const MAX_FLIGHTS: usize = 256;

/// Fetches JWT-SVIDs and keeps them by SPIFFE ID and audiences. Cheap to clone.
#[derive(Clone)]
pub struct JwtSvids(Arc<Inner>);

/// Asks the server for a token.
pub type SignJwt = Box<
    dyn Fn(EntryId, Vec<String>) -> BoxFuture<'static, Result<JwtSvid, RpcError>> + Send + Sync,
>;

struct Inner {
    sign: SignJwt,
    /// How long a renewal may take while the kept token is still valid.
    hit_timeout: Duration,
    clock: Clock,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    tokens: KeptTokens,
    flights: HashMap<Key, Flight>,
}

/// A request under way, which all share who ask for the same.
type Flight = Shared<BoxFuture<'static, Result<Arc<JwtSvid>, JwtFetchError>>>;

impl JwtSvids {
    /// No tokens yet. At most `max_size` are kept. While a kept token is valid still, its renewal
    /// may take `hit_timeout`.
    pub fn new(sign: SignJwt, max_size: usize, hit_timeout: Duration, clock: Clock) -> Self {
        let state = State { tokens: KeptTokens::new(max_size), flights: HashMap::new() };
        let (state, changed) = (Mutex::new(state), watch::Sender::new(()));
        Self(Arc::new(Inner { sign, hit_timeout, clock, state, changed }))
    }

    /// A token of `entry`'s identity for `audience`, which is not empty. A kept one is returned
    /// before half of its life is over; then it is renewed, and returned still where the server
    /// cannot be reached in time. Callers that ask for the same at once share one request.
    ///
    /// # Errors
    /// [`JwtFetchError`]; its text follows `could not fetch JWT-SVID: ` in the answer to a caller.
    pub async fn fetch(
        &self,
        entry: &Entry,
        audience: &[String],
    ) -> Result<Arc<JwtSvid>, JwtFetchError> {
        if entry.attributes.is_some_and(|attributes| attributes.jwt_svid_include_jti) {
            let signed = self.0.clone().sign_with_retries(entry.id.clone(), audience.to_vec());
            return signed.await.map(Arc::new);
        }
        let mut sorted = audience.to_vec();
        sorted.sort_unstable();
        let key = (entry.spiffe_id.clone(), sorted);
        let now = self.0.clock.now();
        let (kept, flight) = {
            let mut state = self.0.state();
            let kept = match state.tokens.take_use(&key, now) {
                Some((svid, renew_at)) if now < renew_at => return Ok(svid),
                kept => kept.map(|(svid, _)| svid),
            };
            state.forget_abandoned_flights();
            let flight = state.flights.entry(key.clone()).or_insert_with(|| {
                self.0.clone().renew(key, entry.id.clone(), audience.to_vec()).boxed().shared()
            });
            (kept, flight.clone())
        };
        match kept {
            Some(kept) => match tokio::time::timeout(self.0.hit_timeout, flight).await {
                Ok(Ok(renewed)) => Ok(renewed),
                Ok(Err(error)) if kept.expires_at <= self.0.clock.now() => Err(error),
                Ok(Err(_)) | Err(_) => Ok(kept),
            },
            None => flight.await,
        }
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.0.state().tokens.count()
    }

    /// All that are kept, each with the audiences that it is kept under.
    pub fn kept(&self) -> Vec<(Vec<String>, Arc<JwtSvid>)> {
        self.0.state().tokens.all()
    }

    /// Keeps a token that [`JwtSvids::kept`] gave, before a restart maybe.
    pub fn keep(&self, audience: Vec<String>, svid: JwtSvid) {
        let key = (svid.spiffe_id.clone(), audience);
        self.0.state().tokens.keep(key, Arc::new(svid));
    }

    /// Is poked after each change of what is kept.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Lets go of the tokens that one of `key_ids` signed, and returns their number.
    pub fn remove_signed_by(&self, key_ids: &[String]) -> usize {
        let count = self.0.state().tokens.remove_signed_by(key_ids);
        if count > 0 {
            self.0.changed.send_replace(());
        }
        count
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(
        self: Arc<Self>,
        key: Key,
        entry: EntryId,
        audience: Vec<String>,
    ) -> Result<Arc<JwtSvid>, JwtFetchError> {
        let signed = self.clone().sign_with_retries(entry, audience).await.map(Arc::new);
        let mut state = self.state();
        state.flights.remove(&key);
        if let Ok(svid) = &signed {
            state.tokens.keep(key, svid.clone());
            self.changed.send_replace(());
        }
        signed
    }

    async fn sign_with_retries(
        self: Arc<Self>,
        entry: EntryId,
        audience: Vec<String>,
    ) -> Result<JwtSvid, JwtFetchError> {
        let deadline = tokio::time::Instant::now() + REMOTE_CALL;
        let mut wait = RETRY;
        loop {
            match (self.sign)(entry.clone(), audience.clone()).await {
                Ok(svid) => return Ok(svid),
                Err(error) => {
                    let next = tokio::time::Instant::now() + wait;
                    if !error.is_transient() || next >= deadline {
                        return Err(JwtFetchError(error));
                    }
                    tokio::time::sleep_until(next).await;
                    wait *= 2;
                }
            }
        }
    }
}

impl State {
    /// Requests whose callers have all gone are finished by the next caller, or by nobody.
    fn forget_abandoned_flights(&mut self) {
        if self.flights.len() >= MAX_FLIGHTS {
            self.flights.retain(|_, flight| flight.strong_count().is_some_and(|count| count > 1));
        }
    }
}

impl fmt::Debug for JwtSvids {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("JwtSvids").field(&self.count()).finish()
    }
}

/// No JWT-SVID could be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to fetch JWT SVID: {0}")]
pub struct JwtFetchError(#[source] pub RpcError);

#[cfg(test)]
mod tests;
