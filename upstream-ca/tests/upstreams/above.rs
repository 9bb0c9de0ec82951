//! A small SPIRE above: an agent's Workload API on a socket, and a server's calls for those below
//! behind mutual TLS.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::clock::Clock;
use spire_core::grpc::{Connection, serve};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{
    CaTemplate, CertificateRequest, Issuer, LeafTemplate, Subject, self_sign_ca,
};
use spire_core::tasks::Tasks;
use spire_core::tls::{Identity, peer_identity, server_config};
use spire_core::wire::bundle::{PublishJwtAuthorityRequest, PublishJwtAuthorityResponse};
use spire_core::wire::convert;
use spire_core::wire::svid::{NewDownstreamX509caRequest, NewDownstreamX509caResponse};
use spire_core::wire::workload;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::harness::{HOUR, domain};

/// What there is above. Ends with it.
pub(crate) struct Above {
    pub(crate) port: u16,
    state: Arc<State>,
    tasks: Tasks,
}

struct State {
    inner: Mutex<Inner>,
    /// What the server shows.
    shown: watch::Sender<Option<Identity>>,
}

pub(crate) struct Inner {
    /// Who signs now.
    issuer: Issuer,
    /// All that is trusted; the agent and the server say the same.
    pub(crate) bundle: Bundle,
    /// The path of the ID that the agent gives.
    pub(crate) workload: &'static str,
    /// The path of the ID that the server shows.
    pub(crate) is_downstream: bool,
    /// How long the SVIDs of workloads live.
    pub(crate) svid_ttl: Duration,
    /// How often the agent was asked.
    pub(crate) fetches: usize,
    /// What is signed is of no CA.
    pub(crate) signs_leaves: bool,
}

impl Drop for Above {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Above {
    /// Starts both, the agent at `socket`.
    pub(crate) async fn start(socket: PathBuf) -> Self {
        let (issuer, root) = fresh_root().await;
        let bundle = Bundle { x509_authorities: vec![root], ..Bundle::empty(domain()) };
        let inner = Inner {
            issuer,
            bundle,
            workload: "/below",
            is_downstream: true,
            svid_ttl: HOUR,
            fetches: 0,
            signs_leaves: false,
        };
        let state = Arc::new(State { inner: Mutex::new(inner), shown: watch::Sender::new(None) });
        let above = Self::listen(state, 0, socket).await;
        above.show("/spire/server").await;
        above
    }

    async fn listen(state: Arc<State>, port: u16, socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let above = Self { port, state, tasks: Tasks::new() };
        above.serve_agent(UnixListener::bind(socket).unwrap());
        above.serve_server(listener);
        above
    }

    /// Stops both, and cuts all connections.
    pub(crate) async fn stop(&self) {
        assert!(self.tasks.drain(Duration::from_secs(10)).await);
    }

    /// Starts both anew, where they were.
    pub(crate) async fn start_again(&self, socket: PathBuf) -> Self {
        Self::listen(self.state.clone(), self.port, socket).await
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.inner.lock().unwrap()
    }

    /// The server shows a fresh SVID with this path.
    pub(crate) async fn show(&self, path: &str) {
        let (issuer, ttl) = (self.inner().issuer.clone(), HOUR);
        let (svid, key) = leaf(&issuer, path, ttl).await;
        self.state.shown.send_replace(Some(Identity::new(svid, Arc::new(key))));
    }

    /// Another root signs from now on; the former is still trusted.
    pub(crate) async fn rotate(&self) {
        let (issuer, root) = fresh_root().await;
        {
            let mut inner = self.inner();
            inner.issuer = issuer;
            inner.bundle.x509_authorities.push(root);
        }
        self.show("/spire/server").await;
    }

    /// A root that nobody trusts signs from now on.
    pub(crate) async fn sign_by_stranger(&self) {
        let (issuer, _) = fresh_root().await;
        self.inner().issuer = issuer;
    }

    fn serve_agent(&self, listener: UnixListener) {
        let (state, tasks) = (self.state.clone(), self.tasks.clone());
        self.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                let service = service_fn(move |request: http::Request<Body>| {
                    let state = state.clone();
                    async move { Ok(answer_workload(state, request).await) }
                });
                let served = tasks.clone();
                tasks.spawn(async move { serve(connection(stream), service, &served).await });
            }
        });
    }

    fn serve_server(&self, listener: TcpListener) {
        let (state, tasks) = (self.state.clone(), self.tasks.clone());
        let bundle_of = {
            let state = state.clone();
            Arc::new(move |_: &_| Some(Arc::new(state.inner.lock().unwrap().bundle.clone())))
        };
        let tls = server_config(state.shown.subscribe(), bundle_of, Clock::system());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        self.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, acceptor, served) = (state.clone(), acceptor.clone(), tasks.clone());
                tasks.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let peer = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let is_known = peer_identity(peer).is_ok_and(|it| it.id.path() == "/below");
                    let service = service_fn(move |request: http::Request<Body>| {
                        let state = state.clone();
                        async move { Ok(answer_server(state, is_known, request).await) }
                    });
                    serve(connection(stream), service, &served).await;
                });
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.stop_token();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

fn connection<S>(stream: S) -> Connection<TokioIo<S>, ()> {
    let io = TokioIo::new(stream);
    Connection { io, caller: (), streams: 10, window: 1 << 20, age: HOUR }
}

async fn answer_workload(state: Arc<State>, request: http::Request<Body>) -> http::Response<Body> {
    let fetch = service_fn(move |_: Request<workload::X509svidRequest>| {
        let state = state.clone();
        async move {
            let (issuer, path, ttl) = {
                let mut inner = state.inner.lock().unwrap();
                inner.fetches += 1;
                (inner.issuer.clone(), inner.workload, inner.svid_ttl)
            };
            let (svid, key) = leaf(&issuer, path, ttl).await;
            let roots = state.inner.lock().unwrap().bundle.x509_authorities.clone();
            let bundle: Vec<Bytes> = roots.into_iter().map(|root| root.certificate).collect();
            let one = workload::X509svid {
                spiffe_id: svid.id.to_string(),
                x509_svid: svid.chain_der(),
                x509_svid_key: Bytes::copy_from_slice(&key.to_pkcs8().unwrap()),
                bundle: bundle.concat().into(),
                hint: String::new(),
            };
            let answer = workload::X509svidResponse { svids: vec![one], ..Default::default() };
            let stream = tokio_stream::iter([Ok::<_, Status>(answer)]);
            Ok::<_, Status>(Response::new(stream))
        }
    });
    Grpc::new(ProstCodec::default()).server_streaming(fetch, request).await
}

async fn answer_server(
    state: Arc<State>,
    is_known: bool,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let may = is_known && state.inner.lock().unwrap().is_downstream;
    let refused = || Status::permission_denied("caller is not a downstream workload");
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "NewDownstreamX509CA" => {
            let sign = service_fn(move |request: Request<NewDownstreamX509caRequest>| {
                let state = state.clone();
                async move {
                    if !may {
                        return Err(refused());
                    }
                    Ok(Response::new(sign(&state, &request.into_inner()).await))
                }
            });
            Grpc::new(ProstCodec::default()).unary(sign, request).await
        }
        "PublishJWTAuthority" => {
            let publish = service_fn(move |request: Request<PublishJwtAuthorityRequest>| {
                let mut inner = state.inner.lock().unwrap();
                let keys = request.into_inner().jwt_authority;
                let keys = convert::bundle::jwt_authorities(keys.as_slice()).unwrap();
                inner.bundle.jwt_authorities.extend(keys);
                let all = inner.bundle.jwt_authorities.iter().map(Into::into).collect();
                let answer = PublishJwtAuthorityResponse { jwt_authorities: all };
                std::future::ready(if may { Ok(Response::new(answer)) } else { Err(refused()) })
            });
            Grpc::new(ProstCodec::default()).unary(publish, request).await
        }
        _ => {
            let get = service_fn(move |_: Request<spire_core::wire::bundle::GetBundleRequest>| {
                let bundle = state.inner.lock().unwrap().bundle.clone();
                let bundle = convert::bundle::sent(&bundle, None);
                std::future::ready(Ok::<_, Status>(Response::new(bundle)))
            });
            Grpc::new(ProstCodec::default()).unary(get, request).await
        }
    }
}

async fn sign(state: &State, request: &NewDownstreamX509caRequest) -> NewDownstreamX509caResponse {
    let csr = CertificateRequest::parse(&request.csr).unwrap();
    let (issuer, signs_leaves) = {
        let inner = state.inner.lock().unwrap();
        (inner.issuer.clone(), inner.signs_leaves)
    };
    let ttl = Duration::from_secs(request.preferred_ttl.try_into().unwrap());
    let chain = if signs_leaves {
        let id = domain().member("/leaf").unwrap();
        let (public_key, dns_names, subject) = (&csr.public_key[..], &[][..], None);
        let template = LeafTemplate { id: &id, public_key, dns_names, subject, ttl };
        issuer.sign_leaf(&template, Timestamp::now()).await.unwrap().chain
    } else {
        let (trust_domain, subject) = (&domain(), &issuer.downstream_subject());
        let template = CaTemplate { trust_domain, public_key: &csr.public_key, subject, ttl };
        issuer.sign_ca(&template, Timestamp::now()).await.unwrap()
    };
    NewDownstreamX509caResponse { ca_cert_chain: chain, x509_authorities: Vec::new() }
}

async fn fresh_root() -> (Issuer, X509Authority) {
    let key = Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap());
    let (subject, ttl) = (Subject::of_svids(), 100 * HOUR);
    let root = self_sign_ca(&*key, &domain(), &subject, ttl, Timestamp::now()).await.unwrap();
    (Issuer::root(root.clone(), key).unwrap(), X509Authority::trusted(root).unwrap())
}

async fn leaf(
    issuer: &Issuer,
    path: &str,
    ttl: Duration,
) -> (spire_core::svid::x509::X509Svid, LocalKey) {
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let id = domain().member(path).unwrap();
    let public = key.public_key().spki.clone();
    let template =
        LeafTemplate { id: &id, public_key: &public, dns_names: &[], subject: None, ttl };
    (issuer.sign_leaf(&template, Timestamp::now()).await.unwrap(), key)
}

/// A key for JWT-SVIDs.
pub(crate) fn jwt_key(id: &str) -> JwtAuthority {
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let public_key = key.public_key().spki.clone();
    JwtAuthority { key_id: id.to_owned(), public_key, expires_at: None, tainted: false }
}
