//! Certificates of the CAs that issue to metadata services, from where a signer says they are.
//!
//! Who signs a document is not known until its issuer is, so that anybody can make the server ask.
//! It asks few hosts, for few bytes, one call for all who wait, follows nobody elsewhere, and takes
//! its time for addresses that it has not seen.

use std::sync::atomic::{AtomicBool, Ordering};
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
/// How long a certificate is kept. What it proves is checked anew each time.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one is kept over which no chain has held yet: what came may have been something else.
const DOUBTED: SignedDuration = SignedDuration::from_mins(1);
/// Certificates that are kept.
const MAX_KEPT: u64 = 64;
/// Longest address in bytes.
const MAX_ADDRESS_BYTES: usize = 1024;
/// Calls that may be made at once, and how long it takes until one more may be.
const BURST: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// Where issuers' certificates come from.
pub(super) struct Issuers {
    client: Client,
    hosts: &'static [&'static str],
    endpoint: Option<Endpoint>,
    clock: Clock,
    kept: Cache<Url, Arc<Issuer>>,
    allowance: Allowance,
}

/// An issuer's certificate, as it was fetched.
pub(super) struct Issuer {
    pub(super) der: CertificateDer<'static>,
    fetched_at: Timestamp,
    is_proven: AtomicBool,
}

impl Issuer {
    /// A chain has held over it.
    pub(super) fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
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
        let kept = Cache::builder().max_capacity(MAX_KEPT).time_to_live(KEPT).build();
        Self { client, hosts, endpoint, clock, kept, allowance: Allowance::new() }
    }

    /// The certificate at `address`.
    ///
    /// # Errors
    /// `Malformed` where the address is not one that is asked, or has no certificate;
    /// `Unavailable` where too many others have been asked of late.
    pub(super) async fn certificate(&self, address: &str) -> Result<Arc<Issuer>, AttestError> {
        let url = self.check(address).map_err(|why| {
            AttestError::Malformed(format!("certificate of the signer's issuer: {why}"))
        })?;
        if self.kept.get(&url).await.is_some_and(|known| self.is_doubted(&known)) {
            self.kept.invalidate(&url).await;
        }
        let kept = self.kept.try_get_with(url.clone(), self.fetch(&url)).await;
        kept.map_err(|error| match &*error {
            FetchError::Busy => AttestError::Unavailable(error.to_string()),
            FetchError::Failed(_) => AttestError::Malformed(error.to_string()),
        })
    }

    fn is_doubted(&self, known: &Issuer) -> bool {
        let age = self.clock.now().duration_since(known.fetched_at).abs();
        age >= DOUBTED && !known.is_proven.load(Ordering::Relaxed)
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

    async fn fetch(&self, url: &Url) -> Result<Arc<Issuer>, FetchError> {
        if !self.allowance.take(Instant::now()) {
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
        let der = read(&answer.body).map_err(failed)?;
        let fetched_at = self.clock.now();
        Ok(Arc::new(Issuer { der, fetched_at, is_proven: AtomicBool::new(false) }))
    }
}

/// One certificate, in DER or PEM.
fn read(body: &[u8]) -> Result<CertificateDer<'static>, String> {
    let der = match CertificateDer::pem_slice_iter(body).collect::<Result<Vec<_>, _>>() {
        Ok(mut certificates) if certificates.len() == 1 => certificates.remove(0),
        Ok(certificates) if certificates.len() > 1 => {
            return Err("several certificates".to_owned());
        }
        _ => CertificateDer::from(body.to_vec()),
    };
    Certificate::from_der(&der).map_err(|error| format!("no certificate: {error}"))?;
    Ok(der)
}

#[derive(Debug, Clone, thiserror::Error)]
enum FetchError {
    #[error("too many certificates of unknown issuers were asked for of late; try again later")]
    Busy,
    #[error("unable to get the certificate of the signer's issuer {0}")]
    Failed(String),
}

/// How many calls may be made: a few at once, and one more each time that a pause has passed.
struct Allowance(Mutex<(u32, Instant)>);

impl Allowance {
    fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// Takes one; false where none is left.
    fn take(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let pauses = now.duration_since(*since).as_millis() / PAUSE.as_millis();
        let pauses = u32::try_from(pauses).unwrap_or(BURST).min(BURST);
        if pauses > 0 {
            (*left, *since) = ((*left + pauses).min(BURST), now);
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
        let allowance = Allowance::new();
        let now = Instant::now();
        assert_eq!((0..50).filter(|_| allowance.take(now)).count(), BURST as usize);
        assert!(!allowance.take(now + PAUSE / 2));
        assert!(allowance.take(now + PAUSE * 2));
        let later = now + PAUSE * 100;
        assert_eq!((0..50).filter(|_| allowance.take(later)).count(), BURST as usize);
    }
}
