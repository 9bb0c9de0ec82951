//! The listeners over real sockets, before a service that says who called.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod harness;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::{TestAuthority, channel, channel_over, client_tls};
use spire_core::clock::Clock;
use spire_core::keys::{KeyError, KeyType, LocalKey, PublicKey, SigningKey};
use spire_core::limits::HANDSHAKE;
use spire_core::tasks::Tasks;
use spire_core::threads::Threads;
use spire_core::wire::agent::CountAgentsRequest;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_server::caller::Caller;
use spire_server::endpoints::{AdminEndpoint, TcpEndpoint, TcpSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;

/// A service whose answer is its caller; with `hold` it waits to be told.
#[derive(Clone, Default)]
struct Echo {
    hold: Option<Arc<(Notify, Notify)>>,
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let hold = self.hold.clone();
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.0.notify_one();
                hold.1.notified().await;
            }
            let caller = request.extensions().get::<Caller>().unwrap();
            Ok(Status::aborted(format!("{caller:?}")).into_http())
        })
    }
}

struct Listening {
    address: SocketAddr,
    authority: TestAuthority,
    tasks: Tasks,
}

async fn listen(service: Echo, trusted_proxies: &[&str]) -> Listening {
    listen_for(service, trusted_proxies, HANDSHAKE).await
}

async fn listen_for(service: Echo, trusted_proxies: &[&str], handshake: Duration) -> Listening {
    listen_as(TestAuthority::new().await, service, trusted_proxies, handshake, false).await
}

/// Listens with the SVID of `authority`, whose handshakes may have threads of their own.
async fn listen_as(
    authority: TestAuthority,
    service: Echo,
    trusted_proxies: &[&str],
    handshake: Duration,
    apart: bool,
) -> Listening {
    let tasks = Tasks::new();
    let endpoint = TcpEndpoint::bind(TcpSettings {
        host: "127.0.0.1".to_owned(),
        port: 0,
        trusted_proxies: trusted_proxies.iter().map(|text| text.parse().unwrap()).collect(),
        tls: Arc::new(authority.server_tls()),
        handshake,
        clock: Clock::system(),
    })
    .await
    .unwrap();
    let address = endpoint.address();
    let threads = Threads::start("connections", &tasks).unwrap();
    let handshakes = apart.then(|| Threads::start("handshakes", &tasks).unwrap());
    tasks.spawn(endpoint.serve(service, threads, handshakes, tasks.clone()));
    Listening { address, authority, tasks }
}

/// What the echo says of whoever calls over `channel`.
async fn caller(channel: tonic::transport::Channel) -> String {
    let status = AgentClient::new(channel).count_agents(CountAgentsRequest::default()).await;
    status.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn a_certificate_is_optional_and_names_the_caller() {
    let listening = listen(Echo::default(), &[]).await;
    let anonymous = channel(listening.address, client_tls(None)).await.unwrap();
    let said = caller(anonymous).await;
    assert!(said.contains("address: 127.0.0.1:") && said.contains("svid: None"), "{said}");

    let identity = listening.authority.identity("/spire/agent/test/1").await;
    let agent = channel(listening.address, client_tls(Some(identity))).await.unwrap();
    let said = caller(agent).await;
    assert!(said.contains("spiffe://example.org/spire/agent/test/1"), "{said}");
}

/// An RSA key that signs when the gate is open.
#[derive(Debug)]
struct SlowKey {
    key: LocalKey,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    is_closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn close(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let is_closed = self.is_closed.lock().unwrap();
        drop(self.moved.wait_while(is_closed, |is_closed| *is_closed).unwrap());
    }
}

#[async_trait::async_trait]
impl SigningKey for SlowKey {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message).await
    }

    fn as_local(&self) -> Option<&LocalKey> {
        self.gate.pass();
        Some(&self.key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_handshakes_with_an_rsa_key_take_long() {
    let (authority, gate) = (TestAuthority::new().await, Arc::new(Gate::default()));
    let key = LocalKey::generate(KeyType::Rsa2048).await.unwrap();
    let slow = Arc::new(SlowKey { key, gate: Arc::clone(&gate) });
    authority.show(slow).await;
    let listening = listen_as(authority, Echo::default(), &[], HANDSHAKE, true).await;
    let threads = std::thread::available_parallelism().unwrap().get();
    // One on each thread for connections.
    let mut open = Vec::new();
    for _ in 0..threads {
        let opened = channel(listening.address, client_tls(None)).await.unwrap();
        caller(opened.clone()).await;
        open.push(opened);
    }
    gate.close(true);
    // One on each thread for handshakes, which stands still.
    let waiting: Vec<_> =
        (0..threads).map(|_| tokio::spawn(channel(listening.address, client_tls(None)))).collect();
    for opened in &open {
        let said = tokio::time::timeout(Duration::from_secs(5), caller(opened.clone())).await;
        assert!(said.unwrap().contains("svid: None"));
    }
    assert!(waiting.iter().all(|it| !it.is_finished()));
    gate.close(false);
    for opened in waiting {
        let said = caller(opened.await.unwrap().unwrap()).await;
        assert!(said.contains("svid: None"), "{said}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_client_and_another_does_not() {
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n";
    let trusting = listen(Echo::default(), &["127.0.0.0/8"]).await;
    let mut stream = TcpStream::connect(trusting.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let said = caller(channel_over(stream, client_tls(None)).await.unwrap()).await;
    assert!(said.contains("address: 192.0.2.7:5000"), "{said}");
    let direct = channel(trusting.address, client_tls(None)).await.unwrap();
    assert!(caller(direct).await.contains("address: 127.0.0.1:"));

    let wary = listen(Echo::default(), &["10.0.0.0/8"]).await;
    let mut stream = TcpStream::connect(wary.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    assert!(channel_over(stream, client_tls(None)).await.is_err());
}

#[tokio::test]
async fn clients_that_send_nothing_do_not_stop_those_of_other_addresses() {
    let listening = listen(Echo::default(), &["127.0.0.3/32"]).await;
    // More than one address may have in their handshake.
    let _silent = silent(listening.address, 1100).await;
    // A proxy says in time who comes, or holds a place of those that pass.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(connect_from(3, listening.address).await);
    }
    let call = async {
        let stream = connect_from(2, listening.address).await;
        caller(channel_over(stream, client_tls(None)).await.unwrap()).await
    };
    let said = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap();
    assert!(said.contains("127.0.0.2"), "{said}");
}

#[tokio::test]
async fn those_of_one_address_wait_for_their_turn_and_have_all_their_time_then() {
    spire_core::process::raise_open_files();
    let limit = Duration::from_secs(1);
    let listening = listen_for(Echo::default(), &[], limit).await;
    // A round of silence comes first.
    let began = std::time::Instant::now();
    let silent = silent(listening.address, 1024 + 64).await;
    let said = caller(channel(listening.address, client_tls(None)).await.unwrap()).await;
    assert!(said.contains("127.0.0.1"), "{said}");
    assert!(began.elapsed() > limit, "{:?}", began.elapsed());
    drop(silent);
}

/// So many connections of 127.0.0.1 of which each second begins a record that never ends.
async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"\x16\x03\x01").await;
        }
        silent.push(stream);
    }
    silent
}

/// A connection of 127.0.0.`number`.
async fn connect_from(number: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, number], 0))).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_ended() {
    let listening = listen_for(Echo::default(), &[], Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
    assert!(matches!(ended.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_client_without_http2_is_closed_after_its_handshake() {
    let listening = listen(Echo::default(), &[]).await;
    let mut tls = client_tls(None);
    tls.alpn_protocols.clear();
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = rustls::pki_types::ServerName::try_from("spire-server").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let mut byte = [0];
    assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_admin_socket_knows_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let tasks = Tasks::new();
    let endpoint = AdminEndpoint::bind(&path).unwrap();
    tasks.spawn(endpoint.serve(Echo::default(), tasks.clone()));
    let said = caller(harness::unix_channel(&path).await).await;
    assert!(said.contains(&format!("pid: Some({})", std::process::id())), "{said}");
    assert!(said.starts_with("Local("), "{said}");

    tasks.drain(Duration::from_secs(5)).await;
    assert!(UnixStream::connect(&path).await.is_err() && !path.exists());
}

#[tokio::test]
async fn a_stop_lets_calls_end_and_takes_no_more() {
    let hold = Arc::new((Notify::new(), Notify::new()));
    let listening = listen(Echo { hold: Some(hold.clone()) }, &[]).await;
    let channel = channel(listening.address, client_tls(None)).await.unwrap();
    let call = tokio::spawn(caller(channel));
    hold.0.notified().await;

    let tasks = listening.tasks.clone();
    let drained = tokio::spawn(async move { tasks.drain(Duration::from_secs(10)).await });
    listening.tasks.stop_token().cancelled().await;
    while TcpStream::connect(listening.address).await.is_ok() {
        tokio::task::yield_now().await; // until the listener is gone
    }
    assert!(!drained.is_finished());
    hold.1.notify_one();
    assert!(call.await.unwrap().contains("127.0.0.1"));
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn one_identity_holds_so_many_connections_and_no_more() {
    let listening = listen(Echo::default(), &[]).await;
    let connect = async |path: &str| {
        let identity = listening.authority.identity(path).await;
        match channel(listening.address, client_tls(Some(identity))).await {
            Ok(channel) => (caller(channel.clone()).await, Some(channel)),
            Err(error) => (error.to_string(), None),
        }
    };
    let mut held = Vec::new();
    for _ in 0..128 {
        let (said, channel) = connect("/spire/agent/test/1").await;
        assert!(said.contains("/spire/agent/test/1"), "{said}");
        held.push(channel);
    }
    assert!(!connect("/spire/agent/test/1").await.0.contains("/spire/agent/test/1"));
    assert!(connect("/spire/agent/test/2").await.0.contains("/spire/agent/test/2"));
}
