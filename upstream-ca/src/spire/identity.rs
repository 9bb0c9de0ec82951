//! Who this server is to the server above, and how that one is known: both from the agent of the
//! SPIRE above, over the Workload API.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, X509Context};
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::catalog::{Host, PluginError};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::LocalKey;
use spire_core::svid::x509::X509Svid;
use spire_core::telemetry::log::with_causes;
use spire_core::tls::{Identity, IdentityState};
use spire_core::upstream::UpstreamError;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long the agent may take. It keeps a workload waiting that it does not know yet.
const ASK: Duration = Duration::from_secs(10);

/// The SVID and the bundle as the agent last gave them.
pub(super) struct Identities {
    trust_domain: TrustDomain,
    clock: Clock,
    agent: Endpoint,
    presented: watch::Sender<Option<Identity>>,
    trusted: watch::Sender<Arc<Bundle>>,
}

impl Identities {
    /// Those that the agent at `socket` gives. It is not asked yet.
    pub(super) fn new(socket: PathBuf, host: &Host) -> Result<Self, PluginError> {
        let socket = std::path::absolute(socket)
            .map_err(|error| PluginError::Unusable(format!("workload_api_socket: {error}")))?;
        Ok(Self {
            trust_domain: host.trust_domain.clone(),
            clock: host.clock.clone(),
            agent: Endpoint::Unix(socket),
            presented: watch::Sender::new(None),
            trusted: watch::Sender::new(Arc::new(Bundle::empty(host.trust_domain.clone()))),
        })
    }

    pub(super) fn presented(&self) -> IdentityState {
        self.presented.subscribe()
    }

    pub(super) fn trusted(&self) -> watch::Receiver<Arc<Bundle>> {
        self.trusted.subscribe()
    }

    /// Takes over roots of the trust domain, from the agent or from the server above, which was
    /// checked: it knows a new root before the agent does. Returns whether they are others.
    pub(super) fn trust(&self, roots: &[X509Authority]) -> bool {
        let set = |roots: &[X509Authority]| -> BTreeSet<Bytes> {
            roots.iter().map(|root| root.certificate.clone()).collect()
        };
        self.trusted.send_if_modified(|trusted| {
            let is_new = set(&trusted.x509_authorities) != set(roots);
            if is_new {
                let bundle = Bundle::empty(self.trust_domain.clone());
                *trusted = Arc::new(Bundle { x509_authorities: roots.to_vec(), ..bundle });
            }
            is_new
        })
    }

    /// Asks the agent where the SVID has used up half of its life; returns whether another one came.
    /// While the agent does not answer, an SVID that is valid goes on.
    pub(super) async fn refresh_if_due(&self) -> Result<bool, UpstreamError> {
        let now = self.clock.now();
        let is_due = |held: &Identity| now >= held.svid().half_life();
        let due = self.presented.borrow().as_ref().is_none_or(is_due);
        if due { self.refresh().await } else { Ok(false) }
    }

    /// As [`refresh_if_due`](Self::refresh_if_due), due or not; returns whether anything is new.
    pub(super) async fn refresh(&self) -> Result<bool, UpstreamError> {
        let now = self.clock.now();
        let answer = self.ask().await;
        let (identity, roots) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let is_valid = |held: &Identity| now < held.svid().expires_at;
                return match self.presented.borrow().as_ref().is_some_and(is_valid) {
                    true => Ok(false),
                    false => Err(error),
                };
            }
        };
        let is_same = |held: &Identity| held.svid().chain == identity.svid().chain;
        let is_new_svid = !self.presented.borrow().as_ref().is_some_and(is_same);
        if is_new_svid {
            tracing::debug!(plugin_name = "spire", svid = ?identity, "Upstream SVID updated");
            self.presented.send_replace(Some(identity));
        }
        Ok(self.trust(&roots) || is_new_svid)
    }

    async fn ask(&self) -> Result<(Identity, Vec<X509Authority>), UpstreamError> {
        let fetch = async {
            WorkloadApiClient::connect(self.agent.clone()).await?.fetch_x509_context().await
        };
        let unavailable =
            |why: String| UpstreamError::Unavailable(format!("the upstream agent: {why}"));
        match timeout(ASK, fetch).await {
            Ok(Ok(context)) => self.read(&context).map_err(unavailable),
            Ok(Err(error)) => Err(unavailable(with_causes(&error))),
            Err(_) => Err(unavailable(format!("no answer within {} s", ASK.as_secs()))),
        }
    }

    /// The first SVID of the answer, as is the rule for a workload that has several.
    fn read(&self, context: &X509Context) -> Result<(Identity, Vec<X509Authority>), String> {
        let svid = context.default_svid().ok_or("there is no X.509-SVID")?;
        let (theirs, ours) = (svid.spiffe_id().trust_domain(), &self.trust_domain);
        if theirs.as_str() != ours.as_str() {
            return Err(format!(
                "its trust domain is {theirs}, and this server's {ours}; a server below another \
                 must have its trust domain"
            ));
        }
        let key = LocalKey::from_pkcs8(svid.private_key().as_bytes())
            .map_err(|error| format!("the key of the SVID: {error}"))?;
        let chain = svid.cert_chain().iter();
        let chain = chain.map(|der| Bytes::copy_from_slice(der.as_bytes())).collect();
        let parsed = X509Svid::from_chain(chain).map_err(|error| error.to_string())?;
        let bundle = context.bundle_set().get_ref(theirs).ok_or("there is no bundle")?;
        let roots = bundle.authorities().iter();
        let roots =
            roots.map(|root| X509Authority::trusted(Bytes::copy_from_slice(root.as_bytes())));
        let roots = roots.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok((Identity::new(parsed, Arc::new(key)), roots))
    }
}
