//! JWT-SVIDs: from the cache while they are fresh, else from the server.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;
use serde::Deserialize;
use spire_core::clock::Clock;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::SpiffeId;
use spire_core::limits::REMOTE_CALL;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::client::RpcError;
use crate::rotation::due::{half_life, jitter};

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
    /// How many tokens are kept at most.
    max_size: usize,
    /// How long a renewal may take while the kept token is still valid.
    hit_timeout: Duration,
    clock: Clock,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    tokens: HashMap<Key, Kept>,
    flights: HashMap<Key, Flight>,
    uses: u64,
}

/// A SPIFFE ID and audiences in order; an audience that was given twice counts twice.
type Key = (SpiffeId, Vec<String>);
type Flight = Shared<BoxFuture<'static, Result<Arc<JwtSvid>, JwtFetchError>>>;

struct Kept {
    svid: Arc<JwtSvid>,
    renew_at: Timestamp,
    last_use: u64,
}

/// A JWT-SVID.
pub struct JwtSvid {
    /// Whose identity it is.
    pub spiffe_id: SpiffeId,
    /// The token, compact form: a secret that wipes itself.
    pub token: Zeroizing<String>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl JwtSvids {
    /// No tokens yet. At most `max_size` are kept. While a kept token is valid still, its renewal
    /// may take `hit_timeout`.
    pub fn new(sign: SignJwt, max_size: usize, hit_timeout: Duration, clock: Clock) -> Self {
        let (state, changed) = (Mutex::default(), watch::Sender::new(()));
        Self(Arc::new(Inner { sign, max_size, hit_timeout, clock, state, changed }))
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
            let kept = match state.take_use(&key, now) {
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
        self.0.state().tokens.len()
    }

    /// All that are kept, each with the audiences that it is kept under.
    pub fn kept(&self) -> Vec<(Vec<String>, Arc<JwtSvid>)> {
        let state = self.0.state();
        let kept = |((_, audience), kept): (&Key, &Kept)| (audience.clone(), kept.svid.clone());
        state.tokens.iter().map(kept).collect()
    }

    /// Keeps a token that [`JwtSvids::kept`] gave, before a restart maybe.
    pub fn keep(&self, audience: Vec<String>, svid: JwtSvid) {
        let key = (svid.spiffe_id.clone(), audience);
        self.0.state().keep(key, Arc::new(svid), self.0.max_size);
    }

    /// Is poked after each change of what is kept.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Lets go of the tokens that one of `key_ids` signed, and returns their number.
    pub fn remove_signed_by(&self, key_ids: &[String]) -> usize {
        let mut state = self.0.state();
        let before = state.tokens.len();
        let is_tainted = |kept: &Kept| kept.svid.key_id().is_some_and(|id| key_ids.contains(&id));
        state.tokens.retain(|_, kept| !is_tainted(kept));
        let count = before - state.tokens.len();
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
            state.keep(key, svid.clone(), self.max_size);
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
    fn take_use(&mut self, key: &Key, now: Timestamp) -> Option<(Arc<JwtSvid>, Timestamp)> {
        self.uses += 1;
        let kept = self.tokens.get_mut(key).filter(|kept| now < kept.svid.expires_at)?;
        kept.last_use = self.uses;
        Some((kept.svid.clone(), kept.renew_at))
    }

    /// Requests whose callers have all gone are finished by the next caller, or by nobody.
    fn forget_abandoned_flights(&mut self) {
        if self.flights.len() >= MAX_FLIGHTS {
            self.flights.retain(|_, flight| flight.strong_count().is_some_and(|count| count > 1));
        }
    }

    fn keep(&mut self, key: Key, svid: Arc<JwtSvid>, max_size: usize) {
        let renew_at = half_life(svid.issued_at, svid.expires_at, jitter());
        self.uses += 1;
        self.tokens.insert(key, Kept { svid, renew_at, last_use: self.uses });
        while self.tokens.len() > max_size {
            let oldest = self.tokens.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some((oldest, _)) = oldest else { return };
            let oldest = oldest.clone();
            self.tokens.remove(&oldest);
        }
    }
}

impl JwtSvid {
    /// The `kid` of its header.
    fn key_id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Header {
            kid: String,
        }
        let header = self.token.split('.').next()?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        serde_json::from_slice(&header).ok().map(|Header { kid }| kid)
    }
}

impl fmt::Debug for JwtSvids {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("JwtSvids").field(&self.count()).finish()
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// No JWT-SVID could be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to fetch JWT SVID: {0}")]
pub struct JwtFetchError(#[source] pub RpcError);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use jiff::SignedDuration;
    use spire_core::entry::AdditionalAttributes;
    use tonic::Status;

    use super::super::samples::{entry, start};
    use super::*;

    /// A server that signs tokens of an hour, or fails as often as it is told to.
    #[derive(Clone)]
    struct Signer {
        clock: Clock,
        signed: Arc<Mutex<Vec<Vec<String>>>>,
        failures: Arc<Mutex<VecDeque<Status>>>,
    }

    impl Signer {
        fn new() -> Self {
            let clock = Clock::standing_at(start());
            Self { clock, signed: Arc::default(), failures: Arc::default() }
        }

        fn svids(&self, max_size: usize) -> JwtSvids {
            let signer = self.clone();
            let sign: SignJwt = Box::new(move |id, audience| {
                let signer = signer.clone();
                async move { signer.sign(&id, audience) }.boxed()
            });
            JwtSvids::new(sign, max_size, Duration::from_secs(30), self.clock.clone())
        }

        fn sign(&self, id: &EntryId, audience: Vec<String>) -> Result<JwtSvid, RpcError> {
            if let Some(failure) = self.failures.lock().unwrap().pop_front() {
                return Err(failure.into());
            }
            let mut signed = self.signed.lock().unwrap();
            signed.push(audience);
            let kid = if signed.len() == 1 { "first" } else { "later" };
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"kid":"{kid}"}}"#));
            Ok(JwtSvid {
                spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/{id}")).unwrap(),
                token: format!("{header}.{}.", signed.len()).into(),
                issued_at: self.clock.now(),
                expires_at: self.clock.now() + SignedDuration::from_hours(1),
            })
        }

        fn count(&self) -> usize {
            self.signed.lock().unwrap().len()
        }
    }

    fn audience(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_token_is_kept_until_half_of_its_life_is_over() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        let first = svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
        signer.clock.advance(SignedDuration::from_mins(26));
        let second = svids.fetch(&entry("e", &["a:b"]), &audience(&["y", "x"])).await.unwrap();
        assert_eq!(first.token, second.token);
        signer.clock.advance(SignedDuration::from_mins(8));
        let third = svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
        assert_ne!(first.token, third.token);
    }

    #[tokio::test]
    async fn an_audience_that_was_given_twice_makes_another_token() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
        svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y", "x"])).await.unwrap();
        assert_eq!((signer.count(), svids.count()), (2, 2));
    }

    #[tokio::test]
    async fn tokens_with_an_id_of_their_own_are_never_kept() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        let mut entry = entry("e", &["a:b"]);
        entry.attributes =
            Some(AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() });
        for _ in 0..2 {
            svids.fetch(&entry, &audience(&["x"])).await.unwrap();
        }
        assert_eq!((signer.count(), svids.count()), (2, 0));
    }

    #[tokio::test]
    async fn the_limit_is_hard_and_the_least_used_token_goes() {
        let signer = Signer::new();
        let svids = signer.svids(2);
        for name in ["1", "2", "1", "3", "1"] {
            svids.fetch(&entry(name, &["a:b"]), &audience(&["x"])).await.unwrap();
        }
        assert_eq!((signer.count(), svids.count()), (3, 2));
        svids.fetch(&entry("2", &["a:b"]), &audience(&["x"])).await.unwrap();
        assert_eq!(signer.count(), 4);
    }

    #[tokio::test]
    async fn a_kept_token_serves_while_its_renewal_fails() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        let first = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
        signer.clock.advance(SignedDuration::from_mins(40));
        let refused = Status::permission_denied("entry not found");
        signer.failures.lock().unwrap().extend([refused.clone(), refused]);
        let second = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
        assert_eq!(first.token, second.token);
        signer.clock.advance(SignedDuration::from_mins(20));
        let error = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to fetch JWT SVID: rpc error: code = PermissionDenied desc = entry not found"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_moment_is_asked_again() {
        let signer = Signer::new();
        signer.failures.lock().unwrap().extend([Status::unavailable("away"), Status::aborted("")]);
        let svids = signer.svids(10);
        svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
        assert_eq!(signer.count(), 1);
    }

    #[tokio::test]
    async fn callers_that_ask_at_once_share_one_request() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        let (entry, audience) = (entry("e", &["a:b"]), audience(&["x"]));
        let all = futures::future::join_all((0..16).map(|_| svids.fetch(&entry, &audience))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(signer.count(), 1);
    }

    #[tokio::test]
    async fn tokens_of_a_tainted_key_are_dropped() {
        let signer = Signer::new();
        let svids = signer.svids(10);
        for name in ["1", "2"] {
            svids.fetch(&entry(name, &["a:b"]), &audience(&["x"])).await.unwrap();
        }
        assert_eq!(svids.remove_signed_by(&["first".to_owned()]), 1);
        assert_eq!(svids.count(), 1);
    }
}
