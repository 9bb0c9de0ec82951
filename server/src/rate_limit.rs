//! How often one address may call: a token bucket for each, in which a call waits for its turn.
//!
//! Callers on the admin socket are never limited. Buckets fill up within a second, so those that
//! lie idle are dropped at no loss; their number is bounded whoever calls.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longest time that a call waits for its turn; where it would have to wait longer, it is refused
/// at once. This also bounds how many calls of one address wait: rate × this time.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// Buckets of one limit. An address that finds no room shares a bucket with all others that do.
const MAX_BUCKETS: usize = 65_536;

/// How long a bucket lies idle before it is dropped.
const IDLE: Duration = Duration::from_secs(60);

/// A limited method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `AttestAgent`: 1/s.
    AttestAgent,
    /// `RenewAgent`: shares 500/s with the two that follow.
    RenewAgent,
    /// `BatchNewX509SVID`: each certificate counts.
    NewX509Svid,
    /// `NewDownstreamX509CA`.
    NewDownstreamCa,
    /// `NewJWTSVID`: 500/s.
    NewJwtSvid,
    /// `PublishJWTAuthority`: 500/s, whatever the configuration says.
    PublishJwtAuthority,
    /// `PostStatus`: 10/s, whatever the configuration says.
    PostStatus,
}

impl Method {
    fn what(self) -> &'static str {
        match self {
            Self::AttestAgent => "attest agent",
            Self::RenewAgent => "renew agent",
            Self::NewX509Svid => "certificate signing",
            Self::NewDownstreamCa => "downstream CA signing",
            Self::NewJwtSvid => "JWT signing request",
            Self::PublishJwtAuthority => "key publishing",
            Self::PostStatus => "post status",
        }
    }
}

/// A call was refused because its address calls too often. Becomes `RESOURCE_EXHAUSTED`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rejecting request due to {what} rate limiting: {reason}")]
pub struct RateExceeded {
    what: &'static str,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    /// No waiting would help.
    #[error("rate ({cost}) exceeds burst size ({burst})")]
    Burst { cost: u32, burst: u32 },
    /// Too many calls wait already.
    #[error("all turns of the next {} seconds are taken; try again in {after} s", MAX_WAIT.as_secs())]
    Queue { after: u64 },
}

/// Which limits the operator has switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// `ratelimit.attestation`.
    pub attestation: bool,
    /// `ratelimit.signing`.
    pub signing: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self { attestation: true, signing: true }
    }
}

/// All limits of a server.
#[derive(Debug)]
pub struct RateLimits {
    attestation: Option<Limit>,
    signing: Option<Limit>,
    jwt_signing: Option<Limit>,
    publishing: Limit,
    status: Limit,
}

impl RateLimits {
    /// The limits of SPIRE, less those that are switched off.
    pub fn new(switches: Switches) -> Self {
        let signing = |rate| switches.signing.then(|| Limit::per_second(rate));
        Self {
            attestation: switches.attestation.then(|| Limit::per_second(1)),
            signing: signing(500),
            jwt_signing: signing(500),
            publishing: Limit::per_second(500),
            status: Limit::per_second(10),
        }
    }

    /// Waits until a caller at `address` may call `method`, whose work counts `cost` times. A
    /// caller without an address is on the admin socket and does not wait. A turn whose caller
    /// goes away while it waits is given back.
    ///
    /// # Errors
    /// [`RateExceeded`] where `cost` exceeds what one second gives, or the wait would exceed
    /// [`MAX_WAIT`].
    pub async fn wait(
        &self,
        method: Method,
        address: Option<IpAddr>,
        cost: u32,
    ) -> Result<(), RateExceeded> {
        let limit = match method {
            Method::AttestAgent => self.attestation.as_ref(),
            Method::RenewAgent | Method::NewX509Svid | Method::NewDownstreamCa => {
                self.signing.as_ref()
            }
            Method::NewJwtSvid => self.jwt_signing.as_ref(),
            Method::PublishJwtAuthority => Some(&self.publishing),
            Method::PostStatus => Some(&self.status),
        };
        let (Some(limit), Some(address)) = (limit, address) else { return Ok(()) };
        limit
            .wait(origin_of(address), cost)
            .await
            .map_err(|reason| RateExceeded { what: method.what(), reason })
    }
}

/// What counts as one address: whoever holds an IPv6 address mostly holds its whole /64.
pub(crate) fn origin_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[derive(Debug)]
struct Limit {
    /// Tokens that a bucket gains in a second, and that it holds at most.
    burst: u32,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    swept_at: Instant,
}

/// Tokens at some time; below zero where calls have reserved what is yet to come.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limit {
    fn per_second(burst: u32) -> Self {
        let buckets = Buckets { by_address: HashMap::new(), swept_at: Instant::now() };
        Self { burst, buckets: Mutex::new(buckets) }
    }

    async fn wait(&self, address: IpAddr, cost: u32) -> Result<(), Reason> {
        if cost > self.burst {
            return Err(Reason::Burst { cost, burst: self.burst });
        }
        let wait = self.reserve(address, cost)?;
        if !wait.is_zero() {
            let mut turn = Turn { limit: self, address, cost, taken: false };
            tokio::time::sleep(wait).await;
            turn.taken = true;
        }
        Ok(())
    }

    fn reserve(&self, address: IpAddr, cost: u32) -> Result<Duration, Reason> {
        let now = Instant::now();
        let burst = f64::from(self.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.at(address, burst, now);
        bucket.fill(burst, now);
        let left = bucket.tokens - f64::from(cost);
        let wait = Duration::from_secs_f64((-left / burst).max(0.0));
        if wait > MAX_WAIT {
            return Err(Reason::Queue { after: (wait - MAX_WAIT).as_secs() + 1 });
        }
        bucket.tokens = left;
        Ok(wait)
    }

    fn give_back(&self, address: IpAddr, cost: u32) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.by_address.get_mut(&address) {
            bucket.tokens = (bucket.tokens + f64::from(cost)).min(f64::from(self.burst));
        }
    }
}

impl Buckets {
    fn at(&mut self, address: IpAddr, burst: f64, now: Instant) -> &mut Bucket {
        if now.duration_since(self.swept_at) >= IDLE {
            self.drop_idle(IDLE, now);
        }
        let mut key = address;
        if self.by_address.len() >= MAX_BUCKETS && !self.by_address.contains_key(&address) {
            key = Ipv6Addr::UNSPECIFIED.into();
        }
        self.by_address.entry(key).or_insert(Bucket { tokens: burst, at: now })
    }

    fn drop_idle(&mut self, idle: Duration, now: Instant) {
        self.by_address.retain(|_, bucket| now.duration_since(bucket.at) < idle);
        self.by_address.shrink_to_fit();
        self.swept_at = now;
    }
}

impl Bucket {
    fn fill(&mut self, burst: f64, now: Instant) {
        let gained = now.duration_since(self.at).as_secs_f64() * burst;
        self.tokens = (self.tokens + gained).min(burst);
        self.at = now;
    }
}

/// A reserved turn, given back where its caller does not stay for it.
struct Turn<'l> {
    limit: &'l Limit,
    address: IpAddr,
    cost: u32,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.limit.give_back(self.address, self.cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn limits() -> RateLimits {
        RateLimits::new(Switches::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_attestation_of_an_address_waits_and_others_do_not() {
        let limits = limits();
        let start = Instant::now();
        limits.wait(Method::AttestAgent, HERE, 1).await.unwrap();
        limits.wait(Method::AttestAgent, "10.0.0.1".parse().ok(), 1).await.unwrap();
        limits.wait(Method::AttestAgent, None, 1).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        limits.wait(Method::AttestAgent, HERE, 1).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn three_methods_share_the_bucket_for_signing() {
        let limits = limits();
        let start = Instant::now();
        limits.wait(Method::NewX509Svid, HERE, 499).await.unwrap();
        limits.wait(Method::RenewAgent, HERE, 1).await.unwrap();
        limits.wait(Method::NewJwtSvid, HERE, 1).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        limits.wait(Method::NewDownstreamCa, HERE, 1).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_is_refused_at_once() {
        let refused = limits().wait(Method::NewX509Svid, HERE, 501).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst \
             size (500)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_of_an_address_is_bounded_and_whoever_leaves_it_gives_up_its_turn() {
        let limits = std::sync::Arc::new(limits());
        let calls: Vec<_> = (0..31)
            .map(|_| {
                let limits = limits.clone();
                tokio::spawn(async move { limits.wait(Method::AttestAgent, HERE, 1).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let refused = limits.wait(Method::AttestAgent, HERE, 1).await.unwrap_err();
        assert!(refused.to_string().ends_with("taken; try again in 2 s"), "{refused}");

        calls[30].abort();
        tokio::task::yield_now().await;
        limits.wait(Method::AttestAgent, HERE, 1).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_switched_off_does_not_wait() {
        let limits = RateLimits::new(Switches { attestation: false, signing: false });
        let start = Instant::now();
        for _ in 0..100 {
            limits.wait(Method::AttestAgent, HERE, 1).await.unwrap();
        }
        limits.wait(Method::NewX509Svid, HERE, 5000).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(limits.wait(Method::PostStatus, HERE, 11).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_buckets_are_dropped_and_their_number_is_bounded() {
        let limit = Limit::per_second(10);
        for number in 0..MAX_BUCKETS as u32 + 10 {
            limit.reserve(IpAddr::V4(number.into()), 1).unwrap();
        }
        let held = || limit.buckets.lock().unwrap().by_address.len();
        assert_eq!(held(), MAX_BUCKETS + 1);
        tokio::time::advance(IDLE).await;
        limit.reserve(HERE.unwrap(), 1).unwrap();
        assert_eq!(held(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| origin_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
