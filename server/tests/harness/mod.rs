//! What the tests of this crate share: certificates, clients, and a server in a temporary folder.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, reason = "several test binaries use it")]

mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{Issuer, LeafTemplate, Subject, self_sign_ca};
use spire_core::tls::{self, Identity, ServerTrust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use server::{TestAgent, TestServer};

pub fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// An authority for tests that need TLS without a server.
pub struct TestAuthority {
    trust_domain: TrustDomain,
    issuer: Issuer,
    server: watch::Sender<Option<Identity>>,
}

impl TestAuthority {
    pub async fn new() -> Self {
        Self::of(trust_domain()).await
    }

    pub async fn of(trust_domain: TrustDomain) -> Self {
        let key: Arc<dyn SigningKey> =
            Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap());
        let ttl = Duration::from_secs(3600);
        let subject = Subject::default();
        let root = self_sign_ca(&*key, &trust_domain, &subject, ttl, Timestamp::now()).await;
        let issuer = Issuer::root(root.unwrap(), key).unwrap();
        let authority = Self { trust_domain, issuer, server: watch::channel(None).0 };
        let server = authority.identity("/spire/server").await;
        authority.server.send_replace(Some(server));
        authority
    }

    pub async fn identity(&self, path: &str) -> Identity {
        self.identity_of(path, Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap()))
            .await
    }

    /// The server shows an SVID with this key.
    pub async fn show(&self, key: Arc<dyn SigningKey>) {
        let server = self.identity_of("/spire/server", key).await;
        self.server.send_replace(Some(server));
    }

    async fn identity_of(&self, path: &str, key: Arc<dyn SigningKey>) -> Identity {
        let id = self.trust_domain.member(path).unwrap();
        let template = LeafTemplate {
            id: &id,
            public_key: &key.public_key().spki,
            dns_names: &[],
            subject: None,
            ttl: Duration::from_secs(600),
        };
        let svid = self.issuer.sign_leaf(&template, Timestamp::now()).await.unwrap();
        Identity::new(svid, key)
    }

    pub fn bundle(&self) -> Bundle {
        let root = X509Authority { certificate: self.issuer.certificate().clone(), tainted: false };
        Bundle { x509_authorities: vec![root], ..Bundle::empty(self.trust_domain.clone()) }
    }

    pub fn server_tls(&self) -> ServerConfig {
        let bundle = Arc::new(self.bundle());
        let bundle_of: tls::BundleOf = Arc::new(move |_| Some(bundle.clone()));
        tls::server_config(self.server.subscribe(), bundle_of, Clock::system())
    }
}

/// A client that takes any server, with or without an SVID of its own.
pub fn client_tls(identity: Option<Identity>) -> ClientConfig {
    client_tls_at(identity, Clock::system())
}

pub fn client_tls_at(identity: Option<Identity>, clock: Clock) -> ClientConfig {
    let identity = identity.map(|identity| {
        let (sender, receiver) = watch::channel(Some(identity));
        std::mem::forget(sender); // the identity of a test does not change
        receiver
    });
    let trust = ServerTrust::Insecure(Arc::new(OnceLock::new()));
    tls::client_config(&trust_domain(), trust, identity, clock)
}

pub async fn channel(
    address: SocketAddr,
    tls: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    channel_over(TcpStream::connect(address).await.unwrap(), tls).await
}

/// A channel over one TLS connection. A server that refuses a client certificate says so with the
/// first bytes after the handshake, so that the first call may be what fails.
pub async fn channel_over(
    stream: TcpStream,
    tls: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let stream = Mutex::new(Some(stream));
    let connector = TlsConnector::from(Arc::new(tls));
    connect(move || {
        let stream = stream.lock().unwrap().take();
        let connector = connector.clone();
        async move {
            let gone = || std::io::Error::other("a test's connection is made once");
            let name = ServerName::try_from("spire-server").unwrap();
            connector.connect(name, stream.ok_or_else(gone)?).await
        }
    })
    .await
}

pub async fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    connect(move || UnixStream::connect(path.clone())).await.unwrap()
}

async fn connect<C, F, S>(connect: C) -> Result<Channel, tonic::transport::Error>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = std::io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = connect();
        async move { stream.await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://spire-server").connect_with_connector(connector).await
}
