//! How often workloads may call: a bucket of tokens for each method and each set of selectors, so
//! that the replicas of one workload share what is theirs and leave the others alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spire_core::selector::Selector;
use tokio::time::Instant;
use tonic::Status;

use crate::config::RateLimitsConfig;
use crate::workload::caller::Caller;

/// Buckets of one method. A set of selectors that finds no room shares the last bucket with all
/// others that do.
const MAX_BUCKETS: usize = 16_384;

/// After this time a bucket is full whatever was taken from it, and can be dropped at no loss.
const REFILLED: Duration = Duration::from_secs(1);

/// A method that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    FetchX509Svid,
    FetchX509Bundles,
    FetchJwtSvid,
    FetchJwtBundles,
}

impl Method {
    /// As it is called on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FetchX509Svid => "FetchX509SVID",
            Self::FetchX509Bundles => "FetchX509Bundles",
            Self::FetchJwtSvid => "FetchJWTSVID",
            Self::FetchJwtBundles => "FetchJWTBundles",
        }
    }
}

/// The limits that the operator has set.
#[derive(Debug)]
pub(super) struct RateLimits {
    x509_svids: Option<Limit>,
    x509_bundles: Option<Limit>,
    jwt_svids: Option<Limit>,
    jwt_bundles: Option<Limit>,
}

impl RateLimits {
    pub(super) fn new(config: RateLimitsConfig) -> Self {
        let limit = |rate: u32| (rate > 0).then(|| Limit::per_second(rate));
        Self {
            x509_svids: limit(config.fetch_x509_svid),
            x509_bundles: limit(config.fetch_x509_bundles),
            jwt_svids: limit(config.fetch_jwt_svid),
            jwt_bundles: limit(config.fetch_jwt_bundles),
        }
    }

    /// Takes a token for a call of `caller`, in which `found` was found. The agent's own calls are
    /// not counted.
    ///
    /// # Errors
    /// `UNAVAILABLE` where none is left.
    pub(super) fn check(
        &self,
        method: Method,
        caller: &Caller,
        found: &BTreeSet<Selector>,
    ) -> Result<(), Status> {
        let limit = match method {
            Method::FetchX509Svid => &self.x509_svids,
            Method::FetchX509Bundles => &self.x509_bundles,
            Method::FetchJwtSvid => &self.jwt_svids,
            Method::FetchJwtBundles => &self.jwt_bundles,
        };
        let Some(limit) = limit else { return Ok(()) };
        if caller.process().pid == std::process::id() || limit.take(found, Instant::now()) {
            return Ok(());
        }
        Err(Status::unavailable(format!("rate limit exceeded for {}", method.name())))
    }
}

/// So many calls per second of each set of selectors.
#[derive(Debug)]
pub(super) struct Limit {
    /// Tokens that a bucket gains in a second, and that it holds at most.
    rate: f64,
    buckets: Mutex<HashMap<BTreeSet<Selector>, Bucket>>,
}

/// Tokens at some time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limit {
    pub(super) fn per_second(rate: u32) -> Self {
        Self { rate: rate.into(), buckets: Mutex::default() }
    }

    /// Takes a token of `found`, where one is left.
    pub(super) fn take(&self, found: &BTreeSet<Selector>, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = Bucket { tokens: self.rate, at: now };
        let bucket = match buckets.get_mut(found) {
            Some(bucket) => bucket,
            None => {
                if buckets.len() >= MAX_BUCKETS {
                    buckets.retain(|_, bucket| now.duration_since(bucket.at) < REFILLED);
                }
                let key = if buckets.len() < MAX_BUCKETS { found.clone() } else { BTreeSet::new() };
                buckets.entry(key).or_insert(full)
            }
        };
        let gained = now.duration_since(bucket.at).as_secs_f64() * self.rate;
        *bucket = Bucket { tokens: (bucket.tokens + gained).min(self.rate), at: now };
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::samples::selectors;

    #[test]
    fn each_set_of_selectors_has_its_own_tokens_and_they_come_back() {
        let limit = Limit::per_second(2);
        let (one, other) = (selectors(&["a:1"]), selectors(&["a:1", "a:2"]));
        let start = Instant::now();
        assert_eq!([(); 3].map(|()| limit.take(&one, start)), [true, true, false]);
        assert!(limit.take(&other, start));
        let later = start + Duration::from_millis(500);
        assert_eq!([(); 2].map(|()| limit.take(&one, later)), [true, false]);
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let limit = Limit::per_second(1);
        let start = Instant::now();
        for number in 0..MAX_BUCKETS + 10 {
            limit.take(&selectors(&[&format!("a:{number}")]), start);
        }
        assert_eq!(limit.buckets.lock().unwrap().len(), MAX_BUCKETS + 1);
        limit.take(&selectors(&["b:1"]), start + REFILLED);
        assert_eq!(limit.buckets.lock().unwrap().len(), 1);
    }
}
