//! A node whose cache is filled by hand, with a real socket and SVIDs of a real authority.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;
use spire_agent::cache::{Authorized, Cache, HeldSvid, JwtSvid, JwtSvids, PrivateKey, SignJwt};
use spire_agent::endpoints::workload_api::{Parts, WorkloadApi};
use spire_agent::endpoints::{Audience, UnixEndpoint, workload_services};
use spire_agent::rotation::due::Renewal;
use spire_agent::workload::WorkloadAttestors;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::clock::Clock;
use spire_core::entry::Entry;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::selector::Selector;
use spire_core::svid::jwt::{self, Claims};
use spire_core::svid::x509::{CaTemplate, Issuer, LeafTemplate, Subject, self_sign_ca};
use spire_core::tasks::Tasks;
use spire_core::wire::convert::entry::received;
use spire_core::wire::types;
use spire_core::wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spire_core::workload::{Process, WorkloadAttestor, WorkloadError};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

pub(super) type Client = SpiffeWorkloadApiClient<Channel>;

const DAY: Duration = Duration::from_secs(86_400);

/// A request with the header that every call carries.
pub(super) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

/// A trust domain's authority: a root, one below it that signs, and a key for tokens.
pub(super) struct Authority {
    bundle: Mutex<Bundle>,
    issuer: Issuer,
    jwt_key: LocalKey,
}

impl Authority {
    pub(super) async fn new(name: &str) -> Self {
        let trust_domain = TrustDomain::parse(name).unwrap();
        let mut bundle = Bundle::empty(trust_domain.clone());
        let root = new_root(&trust_domain).await;
        let authority = X509Authority::trusted(root.certificate().clone()).unwrap();
        bundle.x509_authorities.push(authority);
        let (key, jwt_key) = (new_key(), new_key());
        let template = CaTemplate {
            trust_domain: &trust_domain,
            public_key: &key.public_key().spki,
            subject: &root.downstream_subject(),
            ttl: DAY,
        };
        let mut chain = root.sign_ca(&template, Timestamp::now()).await.unwrap();
        chain.truncate(1);
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: "kid".to_owned(),
            public_key: jwt_key.public_key().spki.clone(),
            expires_at: None,
            tainted: false,
        });
        let issuer = Issuer::intermediate(chain, Arc::new(key)).unwrap();
        Self { bundle: Mutex::new(bundle), issuer, jwt_key }
    }

    pub(super) fn bundle(&self) -> Bundle {
        self.bundle.lock().unwrap().clone()
    }

    /// A token for a workload of this domain that lives five minutes.
    pub(super) async fn token(
        &self,
        path: &str,
        audience: &[&str],
        issued_at: Timestamp,
    ) -> String {
        let id = self.bundle().trust_domain.member(path).unwrap();
        let audience: Vec<_> = audience.iter().map(|name| (*name).to_owned()).collect();
        let claims = Claims {
            subject: &id,
            audience: &audience,
            issued_at,
            expires_at: issued_at + Duration::from_secs(300),
            issuer: Some("https://issuer.test"),
            with_id: true,
        };
        jwt::sign(&self.jwt_key, "kid", &claims).await.unwrap()
    }

    async fn svid(&self, entry: &Entry, now: Timestamp) -> HeldSvid {
        let key = new_key();
        let template = LeafTemplate {
            id: &entry.spiffe_id,
            public_key: &key.public_key().spki,
            dns_names: &entry.dns_names,
            subject: None,
            ttl: Duration::from_secs(3600),
        };
        let svid = self.issuer.sign_leaf(&template, now).await.unwrap();
        let key = PrivateKey::new(key.to_pkcs8().unwrap().as_slice());
        HeldSvid { svid, key, revision: entry.revision_number }
    }
}

fn new_key() -> LocalKey {
    LocalKey::generate_blocking(KeyType::EcP256).unwrap()
}

async fn new_root(trust_domain: &TrustDomain) -> Issuer {
    let key = Arc::new(new_key());
    let subject = Subject::of_svids();
    let root = self_sign_ca(&*key, trust_domain, &subject, 2 * DAY, Timestamp::now()).await;
    Issuer::root(root.unwrap(), key).unwrap()
}

/// Finds `test:any` in everyone, and the numbers that the kernel tells.
#[derive(Default)]
pub(super) struct Attestor {
    pub(super) attestations: AtomicUsize,
    pub(super) fails: AtomicBool,
}

#[async_trait]
impl WorkloadAttestor for Attestor {
    async fn attest(&self, process: &Process) -> Result<Vec<Selector>, WorkloadError> {
        self.attestations.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(WorkloadError("switched off".to_owned()));
        }
        let values = [
            "any".to_owned(),
            format!("pid:{}", process.pid),
            format!("uid:{}", process.uid),
            format!("gid:{}", process.gid),
        ];
        Ok(values.iter().map(|value| Selector::new("test", value).unwrap()).collect())
    }
}

pub(super) struct Node {
    pub(super) authority: Arc<Authority>,
    pub(super) attestor: Arc<Attestor>,
    pub(super) clock: Clock,
    pub(super) cache: Arc<Cache>,
    pub(super) jwt_svids: JwtSvids,
    federated: Mutex<BTreeMap<TrustDomain, Arc<Bundle>>>,
    pub(super) socket: PathBuf,
    pub(super) tasks: Tasks,
    _folder: TempDir,
}

/// A connection to the socket at `path`.
pub(super) async fn channel_to(path: &Path) -> Channel {
    let address = format!("unix://{}", path.display());
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node whose Workload API has other `settings` than usual.
    pub(super) async fn start_with(settings: impl FnOnce(&mut Parts)) -> Self {
        let authority = Arc::new(Authority::new("example.org").await);
        let trust_domain = authority.bundle().trust_domain;
        let clock = Clock::standing_at(Timestamp::now());
        let cache = Cache::new(trust_domain.clone(), 1000, Renewal::default(), clock.clone());
        let attestor = Arc::new(Attestor::default());
        let attestors: Arc<dyn WorkloadAttestor> = attestor.clone();
        let signs = sign_jwt(authority.clone(), cache.clone(), clock.clone());
        let jwt_svids = JwtSvids::new(signs, 1000, Duration::from_secs(10), clock.clone());
        let mut parts = Parts {
            cache: cache.clone(),
            jwt_svids: jwt_svids.clone(),
            attestors: WorkloadAttestors::new(vec![("test", attestors)]),
            trust_domain,
            allow_unauthenticated_verifiers: false,
            allowed_foreign_jwt_claims: Default::default(),
            log_selectors: Default::default(),
            ratelimit: Default::default(),
            clock: clock.clone(),
        };
        settings(&mut parts);
        let api = WorkloadApi::new(parts);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let endpoint = UnixEndpoint::bind(&socket, Audience::Workloads).unwrap();
        let tasks = Tasks::new();
        let services = workload_services(api, false, tasks.stop_token());
        tasks.spawn(endpoint.serve(services, tasks.clone()));
        let federated = Mutex::default();
        Self {
            authority,
            attestor,
            clock,
            cache,
            jwt_svids,
            federated,
            socket,
            tasks,
            _folder: folder,
        }
    }

    pub(super) async fn channel(&self) -> Channel {
        channel_to(&self.socket).await
    }

    pub(super) async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// A bare connection.
    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// The bundles of other domains that the next authorization brings.
    pub(super) fn federate(&self, bundles: impl IntoIterator<Item = Bundle>) {
        let named = |bundle: Bundle| (bundle.trust_domain.clone(), Arc::new(bundle));
        *self.federated.lock().unwrap() = bundles.into_iter().map(named).collect();
    }

    /// What a sync does: these entries and no others, with an SVID for each that lacks one.
    pub(super) async fn authorize(&self, entries: impl IntoIterator<Item = types::Entry>) {
        self.authorize_without_svids(entries);
        self.sign().await;
    }

    /// A sync whose SVIDs are still to be signed. Nothing is awaited.
    pub(super) fn authorize_without_svids(&self, entries: impl IntoIterator<Item = types::Entry>) {
        let known = self.cache.entries();
        let read = |wire: types::Entry| {
            let entry = Arc::new(received(&wire).unwrap());
            known.get(&entry.id).filter(|known| **known == entry).cloned().unwrap_or(entry)
        };
        self.cache.authorize(Authorized {
            entries: entries.into_iter().map(read).collect(),
            own: Arc::new(self.authority.bundle()),
            federated: self.federated.lock().unwrap().clone(),
            synced_at: Some(self.clock.now()),
        });
    }

    /// A new SVID for an entry that is none of this node's.
    pub(super) async fn signed(&self, entry: &types::Entry) -> HeldSvid {
        self.authority.svid(&received(entry).unwrap(), self.clock.now()).await
    }

    /// Signs whatever is due.
    pub(super) async fn sign(&self) {
        let mut svids = Vec::new();
        for due in self.cache.due(1000) {
            let svid = self.authority.svid(&due.entry, self.clock.now()).await;
            svids.push((due.entry.id.clone(), svid));
        }
        self.cache.hold(svids);
    }

    /// Signs the SVID of an entry once more.
    pub(super) async fn renew(&self, path: &str) {
        let id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        let entries = self.cache.entries();
        let entry = entries.values().find(|entry| entry.spiffe_id == id).unwrap();
        let svid = self.authority.svid(entry, self.clock.now()).await;
        self.cache.hold(vec![(entry.id.clone(), svid)]);
    }

    /// Another root joins the own bundle.
    pub(super) async fn add_root(&self) {
        let root = new_root(&self.authority.bundle().trust_domain).await;
        let root = X509Authority::trusted(root.certificate().clone()).unwrap();
        self.authority.bundle.lock().unwrap().x509_authorities.push(root);
        self.cache.authorize(Authorized {
            entries: self.cache.entries().into_values().collect(),
            own: Arc::new(self.authority.bundle()),
            federated: self.federated.lock().unwrap().clone(),
            synced_at: Some(self.clock.now()),
        });
    }
}

/// Signs as a server would.
fn sign_jwt(authority: Arc<Authority>, cache: Arc<Cache>, clock: Clock) -> SignJwt {
    Box::new(move |id, audience| {
        let (authority, now) = (authority.clone(), clock.now());
        let entry = cache.entries().remove(&id).unwrap();
        async move {
            let audience: Vec<_> = audience.iter().map(String::as_str).collect();
            let token = authority.token(entry.spiffe_id.path(), &audience, now).await;
            Ok(JwtSvid {
                spiffe_id: entry.spiffe_id.clone(),
                token: token.into(),
                issued_at: now,
                expires_at: now + Duration::from_secs(300),
            })
        }
        .boxed()
    })
}
