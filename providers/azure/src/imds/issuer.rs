//! Certificates of the CAs that issue to metadata services, from where a signer says they are.
//!
//! Who signs a document is not known until its issuer is, so that anybody can make the server ask.
//! It asks few hosts, for few bytes, one call for all who wait, follows nobody elsewhere, takes its
//! time for addresses that it has not seen, and more of it for whoever asks for many of them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use spire_core::clock::Clock;
use spire_core::limits::MAX_CERTIFICATE_BYTES;
use spire_core::node::AttestError;
use spire_core::remote::{Client, Endpoint};
use url::Url;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a certificate is kept over which a chain has held until it is asked for again. Where
/// nobody answers then, it is kept on until it ends: what it proves is checked anew each time.
const FRESH: SignedDuration = SignedDuration::from_hours(24);
/// How long one is kept over which no chain has held yet: what came may have been something else.
const DOUBTED: SignedDuration = SignedDuration::from_mins(1);
/// Certificates of each of these kinds that are kept.
const MAX_KEPT: u64 = 64;
/// Longest address in bytes.
const MAX_ADDRESS_BYTES: usize = 1024;
/// Calls that may be made for all nodes together.
const FOR_ALL: Rate = Rate { burst: 10, pause: Duration::from_secs(2) };
/// Calls that may be made for nodes of one address.
const FOR_ONE: Rate = Rate { burst: 5, pause: Duration::from_secs(4) };
/// Addresses that are remembered, each until it may have as many calls as at first.
const MAX_ADDRESSES: u64 = 10_000;
const ADDRESS_KEPT: Duration = Duration::from_secs(60);

/// Where issuers' certificates come from.
pub(super) struct Issuers {
    client: Client,
    hosts: &'static [&'static str],
    endpoint: Option<Endpoint>,
    clock: Clock,
    /// Those over which a chain has held; no others push them out.
    proven: Cache<Url, Arc<Issuer>>,
    doubted: Cache<Url, Arc<Issuer>>,
    for_all: Allowance,
    for_one: Cache<IpAddr, Arc<Allowance>>,
}

/// An issuer's certificate, as it was fetched.
pub(super) struct Issuer {
    pub(super) der: CertificateDer<'static>,
    url: Url,
    /// When it ends, in Unix seconds.
    not_after: i64,
    /// When it was last asked for, in Unix seconds.
    asked_at: AtomicI64,
}

impl Issuer {
    fn age(&self, now: Timestamp) -> SignedDuration {
        SignedDuration::from_secs(now.as_second() - self.asked_at.load(Ordering::Relaxed)).abs()
    }
}

impl Issuers {
    /// Certificates on `hosts`, or at `endpoint` in their place.
    pub(super) fn new(
        client: Client,
        hosts: &'static [&'static str],
        endpoint: Option<Endpoint>,
        clock: Clock,
    ) -> Self {
        let (proven, doubted) = (Cache::new(MAX_KEPT), Cache::new(MAX_KEPT));
        let for_one = Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(ADDRESS_KEPT);
        let (for_all, for_one) = (Allowance::new(FOR_ALL), for_one.build());
        Self { client, hosts, endpoint, clock, proven, doubted, for_all, for_one }
    }

    /// The certificate at `address`, for a node that comes from `peer`.
    ///
    /// # Errors
    /// `Malformed` where the address is not one that is asked, or has no certificate;
    /// `Unavailable` where too many others have been asked of late.
    pub(super) async fn certificate(
        &self,
        address: &str,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Issuer>, AttestError> {
        let url = self.check(address).map_err(|why| {
            AttestError::Malformed(format!("certificate of the signer's issuer: {why}"))
        })?;
        let now = self.clock.now();
        let proven = self.proven.get(&url).await.filter(|one| now.as_second() <= one.not_after);
        if let Some(known) = &proven {
            if known.age(now) < FRESH {
                return Ok(known.clone());
            }
            // One node asks; the others need not wait for it.
            known.asked_at.store(now.as_second(), Ordering::Relaxed);
        }
        if self.doubted.get(&url).await.is_some_and(|known| known.age(now) >= DOUBTED) {
            self.doubted.invalidate(&url).await;
        }
        let fetched = self.doubted.try_get_with(url.clone(), self.fetch(&url, peer)).await;
        fetched.or_else(|error| proven.ok_or(error)).map_err(|error| match &*error {
            FetchError::Busy => AttestError::Unavailable(error.to_string()),
            FetchError::Failed(_) => AttestError::Malformed(error.to_string()),
        })
    }

    /// A chain has held over `issuer`.
    pub(super) async fn prove(&self, issuer: &Arc<Issuer>) {
        self.doubted.invalidate(&issuer.url).await;
        self.proven.insert(issuer.url.clone(), issuer.clone()).await;
    }

    /// Makes sure that `address` is on one of the hosts and nothing else.
    fn check(&self, address: &str) -> Result<Url, String> {
        if address.len() > MAX_ADDRESS_BYTES {
            return Err(format!("address is longer than {MAX_ADDRESS_BYTES} bytes"));
        }
        let url = Url::parse(address).map_err(|error| format!("{address:?}: {error}"))?;
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|host| is_plain && self.hosts.contains(host));
        match host {
            Some(_) => Ok(url),
            None => Err(format!("{address:?} is not on {}", self.hosts.join(" or "))),
        }
    }

    async fn fetch(&self, url: &Url, peer: Option<IpAddr>) -> Result<Arc<Issuer>, FetchError> {
        if !self.may_ask(peer).await {
            return Err(FetchError::Busy);
        }
        let failed = |why: String| FetchError::Failed(format!("from {url}: {why}"));
        let asked = match (&self.endpoint, url.query()) {
            (None, _) => url.clone(),
            (Some(endpoint), None) => endpoint.url(url.path()),
            (Some(endpoint), Some(query)) => endpoint.url(&format!("{}?{query}", url.path())),
        };
        let request = self.client.request(Method::GET, asked);
        let answer = self.client.send(request, ANSWER, MAX_CERTIFICATE_BYTES).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        if answer.status != StatusCode::OK {
            return Err(failed(format!("status {}", answer.status)));
        }
        let (der, not_after) = read(&answer.body).map_err(failed)?;
        let asked_at = AtomicI64::new(self.clock.now().as_second());
        Ok(Arc::new(Issuer { der, url: url.clone(), not_after, asked_at }))
    }

    /// Whether one more call may be made: for nodes of this address, and for any.
    async fn may_ask(&self, peer: Option<IpAddr>) -> bool {
        let now = Instant::now();
        if let Some(address) = peer {
            let new = async { Arc::new(Allowance::new(FOR_ONE)) };
            if !self.for_one.get_with(network(address), new).await.take(now) {
                return false;
            }
        }
        self.for_all.take(now)
    }
}

/// What one node can have of addresses: of IPv6 a network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// One certificate, in DER or PEM, and when it ends, in Unix seconds.
fn read(body: &[u8]) -> Result<(CertificateDer<'static>, i64), String> {
    let der = match CertificateDer::pem_slice_iter(body).collect::<Result<Vec<_>, _>>() {
        Ok(mut certificates) if certificates.len() == 1 => certificates.remove(0),
        Ok(certificates) if certificates.len() > 1 => {
            return Err("several certificates".to_owned());
        }
        _ => CertificateDer::from(body.to_vec()),
    };
    let certificate =
        Certificate::from_der(&der).map_err(|error| format!("no certificate: {error}"))?;
    let not_after = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    let not_after = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
    Ok((der, not_after))
}

#[derive(Debug, Clone, thiserror::Error)]
enum FetchError {
    #[error("too many certificates of unknown issuers were asked for of late; try again later")]
    Busy,
    #[error("unable to get the certificate of the signer's issuer {0}")]
    Failed(String),
}

/// How many calls may be made: a few at once, and one more each time that a pause has passed.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// Calls that may still be made at a rate.
struct Allowance {
    rate: Rate,
    /// How many, and since when.
    left: Mutex<(u32, Instant)>,
}

impl Allowance {
    fn new(rate: Rate) -> Self {
        Self { rate, left: Mutex::new((rate.burst, Instant::now())) }
    }

    /// Takes one; false where none is left.
    fn take(&self, now: Instant) -> bool {
        let Rate { burst, pause } = self.rate;
        let mut state = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let pauses = now.duration_since(*since).as_millis() / pause.as_millis();
        let pauses = u32::try_from(pauses).unwrap_or(burst).min(burst);
        if pauses > 0 {
            (*left, *since) = ((*left + pauses).min(burst), now);
        }
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuers() -> Issuers {
        let client = Client::new(&spire_core::remote::Endpoints::default()).unwrap();
        Issuers::new(client, &["www.microsoft.com"], None, Clock::system())
    }

    #[test]
    fn one_host_is_asked_and_no_other() {
        let issuers = issuers();
        for good in [
            "http://www.microsoft.com/pkiops/certs/Issuing%20CA%2001%20-%20xsign.crt",
            "https://WWW.microsoft.com/a",
            "http://www.microsoft.com:80/a",
        ] {
            issuers.check(good).unwrap();
        }
        for bad in [
            "",
            "www.microsoft.com/a",
            "//www.microsoft.com/a",
            "http://www.microsoft.com.evil/a",
            "http://www.microsoft.com:8443/a",
            "http://www.microsoft.com@evil/a",
            "http://evil@www.microsoft.com/a",
            "http://[::1]/a",
            "http://2130706433/a",
            "file://www.microsoft.com/etc/passwd",
            "ldap://www.microsoft.com/a",
            &format!("http://www.microsoft.com/{}", "a".repeat(MAX_ADDRESS_BYTES)),
        ] {
            assert!(issuers.check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strangers_get_a_few_calls_and_one_more_now_and_then() {
        let allowance = Allowance::new(FOR_ALL);
        let Rate { burst, pause } = FOR_ALL;
        let now = Instant::now();
        assert_eq!((0..50).filter(|_| allowance.take(now)).count(), burst as usize);
        assert!(!allowance.take(now + pause / 2));
        assert!(allowance.take(now + pause * 2));
        let later = now + pause * 100;
        assert_eq!((0..50).filter(|_| allowance.take(later)).count(), burst as usize);
    }

    #[tokio::test]
    async fn many_addresses_of_one_network_are_one_stranger() {
        let issuers = issuers();
        let mut allowed = 0;
        for number in 0..50 {
            let address = format!("2001:db8:0:1::{number:x}").parse().ok();
            allowed += u32::from(issuers.may_ask(address).await);
        }
        assert_eq!(allowed, FOR_ONE.burst);
        assert!(issuers.may_ask("2001:db8:0:2::1".parse().ok()).await);
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()).to_string(), "192.0.2.7");
    }
}
