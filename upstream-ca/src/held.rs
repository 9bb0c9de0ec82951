//! An upstream CA whose key this process holds: what `disk` and `awssecret` do alike, wherever
//! certificate and key lie.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::{JwtAuthority, X509Authority};
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{LocalKey, SigningKey};
use spire_core::svid::x509::{CaTemplate, IssueError, Issuer};
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamBundle, UpstreamError};

use crate::certificate;
use crate::path;
use crate::pem::Text;
use crate::request;

/// Where certificate and key lie.
#[async_trait]
pub(crate) trait Place: Send + Sync {
    /// The plugin's name.
    const PLUGIN: &'static str;
    /// How often it is looked whether something else lies there.
    const LOOK: Duration;

    /// Reads what lies there; the error says what cannot be read, and why.
    async fn read(&self) -> Result<Texts, String>;
}

/// Certificate, key and roots as they lie there.
pub(crate) struct Texts {
    pub(crate) certificate: Text,
    pub(crate) key: Text,
    /// The roots; without them the certificate is the root.
    pub(crate) bundle: Option<Text>,
}

/// Which of the texts is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Certificate,
    Key,
    Bundle,
}

/// Why the texts are no usable CA.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Unusable {
    pub(crate) part: Part,
    pub(crate) message: String,
}

/// A CA with its key.
#[derive(Debug)]
pub(crate) struct HeldCa {
    issuer: Issuer,
    /// When the first of the certificates that lead from it to the root ends.
    ends_at: Timestamp,
    roots: Vec<X509Authority>,
}

impl HeldCa {
    /// Reads a CA and checks that it can sign at `now`.
    pub(crate) fn read(texts: &Texts, now: Timestamp) -> Result<Self, Unusable> {
        let at = |part| move |message| Unusable { part, message };
        let of_key = |err| format!("unable to load upstream CA key: {}: {err}", texts.key.name);
        let key = LocalKey::from_pem(&texts.key.pem).map_err(of_key).map_err(at(Part::Key))?;
        let chain = texts.certificate.certificates().map_err(|err| {
            at(Part::Certificate)(format!("unable to load upstream CA cert: {err}"))
        })?;
        let roots = match &texts.bundle {
            None if chain.len() > 1 => {
                let sentence =
                    "with no bundle_file_path configured only self-signed CAs are supported";
                return Err(at(Part::Certificate)(sentence.to_owned()));
            }
            None => chain.clone(),
            Some(bundle) => bundle.certificates().map_err(|err| {
                at(Part::Bundle)(format!("unable to load upstream CA bundle: {err}"))
            })?,
        };
        let of_ca = |err| at(Part::Certificate)(format!("unable to load upstream CA: {err}"));
        let ends_at = check(&chain, &roots, &key, now).map_err(of_ca)?;
        let key: Arc<dyn SigningKey> = Arc::new(key);
        let issuer = match (&texts.bundle, chain.first()) {
            (None, Some(root)) => Issuer::root(root.clone(), key),
            _ => Issuer::intermediate(chain, key),
        };
        let issuer = issuer.map_err(|err| of_ca(err.to_string()))?;
        let root = |certificate| X509Authority { certificate, tainted: false };
        Ok(Self { issuer, ends_at, roots: roots.into_iter().map(root).collect() })
    }

    async fn mint(
        &self,
        trust_domain: &TrustDomain,
        csr: &[u8],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Minted, UpstreamError> {
        let request = request::read(csr, trust_domain)?;
        let left = Duration::try_from(self.ends_at.duration_since(now)).unwrap_or_default();
        let template = CaTemplate {
            trust_domain,
            public_key: &request.public_key,
            subject: &request.subject,
            ttl: request::lifetime(ttl).min(left),
        };
        let chain = self.issuer.sign_ca(&template, now).await.map_err(|err| match err {
            IssueError::Key(err) => UpstreamError::Unavailable(err.to_string()),
            IssueError::Template(why) => UpstreamError::Invalid(why),
        })?;
        Ok(Minted { chain, roots: self.roots.clone() })
    }
}

/// Checks that the first of `chain` has this key and leads to one of the roots. Returns when the
/// first certificate on the way ends.
fn check(
    chain: &[Bytes],
    roots: &[Bytes],
    key: &LocalKey,
    now: Timestamp,
) -> Result<Timestamp, String> {
    let chain = certificate::read_all(chain)?;
    let roots = certificate::read_all(roots)?;
    let (own, others) = chain.split_first().ok_or("there is no certificate")?;
    if own.public_key != key.public_key().spki {
        return Err("certificate and private key do not match".to_owned());
    }
    let path = path::verify(own, 1, others, &roots, now).map_err(|err| {
        format!(
            "certificate cannot be validated with the provided bundle or is not self-signed: {err}"
        )
    })?;
    Ok(own.not_after.min(path.ends_at))
}

/// Signs with a CA that is read anew for each signature. While it cannot be read, the last one that
/// could goes on.
pub(crate) struct Held<P> {
    place: P,
    trust_domain: TrustDomain,
    clock: Clock,
    last: Mutex<Last>,
}

/// What was found when it was last read.
#[derive(Default)]
struct Last {
    good: Option<Arc<HeldCa>>,
    /// Why it could not be read since then.
    failure: Option<String>,
}

impl<P: Place> Held<P> {
    /// A CA that was read already where `good` is there.
    pub(crate) fn new(place: P, host: &Host, good: Option<HeldCa>) -> Self {
        let last = Last { good: good.map(Arc::new), failure: None };
        Self {
            place,
            trust_domain: host.trust_domain.clone(),
            clock: host.clock.clone(),
            last: Mutex::new(last),
        }
    }

    /// The CA as it is now, else as it last was good.
    async fn current(&self, now: Timestamp) -> Result<Arc<HeldCa>, UpstreamError> {
        let read = async {
            let texts = self.place.read().await?;
            HeldCa::read(&texts, now).map_err(|err| err.message)
        };
        let read = read.await;
        let mut last = self.last();
        let failure = match read {
            Ok(ca) => {
                let ca = Arc::new(ca);
                *last = Last { good: Some(ca.clone()), failure: None };
                return Ok(ca);
            }
            Err(failure) => failure,
        };
        let Some(good) = last.good.clone().filter(|good| now < good.ends_at) else {
            return Err(UpstreamError::Unavailable(failure));
        };
        if last.failure.as_ref() != Some(&failure) {
            tracing::warn!(
                plugin_name = P::PLUGIN,
                error = failure,
                "Unable to read the upstream CA; the one that was read before is used"
            );
            last.failure = Some(failure);
        }
        Ok(good)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<P: Place> UpstreamAuthority for Held<P> {
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError> {
        let now = self.clock.now();
        let ca = self.current(now).await?;
        ca.mint(&self.trust_domain, csr, ttl, now).await
    }

    async fn publish_jwt_key(
        &self,
        _key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        Err(UpstreamError::Unsupported)
    }

    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError> {
        let ca = self.current(self.clock.now()).await?;
        Ok(UpstreamBundle { roots: ca.roots.clone(), ..UpstreamBundle::default() })
    }

    fn bundle_period(&self) -> Duration {
        P::LOOK
    }
}
