//! The TCP port: TLS with an optional client certificate.
//!
//! A proven connection lives as long as its client certificate. SPIRE ends each after three
//! minutes, so that agents spread over servers; that makes handshakes, the dearest thing that a
//! server does, for ever. Load balancers spread agents when they connect, and agents connect anew
//! with each SVID of their own. Without a certificate there is only an attestation or a bundle to
//! ask for, and the three minutes stay.
//!
//! Where the server's key is RSA each handshake takes milliseconds of a thread: those handshakes
//! have threads of their own, and calls on other connections go on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::ServerConfig;
use spire_core::clock::Clock;
use spire_core::grpc::{self, BACKLOG, Connection, GrpcService, KNOWN_WINDOW, accepted};
use spire_core::tasks::Tasks;
use spire_core::threads::Threads;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::door::{Door, Guest};
use super::{BindError, STREAMS};

/// Calls at a time on a connection without a client certificate: an agent that attests needs one.
const UNPROVEN_STREAMS: u32 = 8;

/// What may lie there unread of one: as much as HTTP/2 grants everyone.
const UNPROVEN_WINDOW: u32 = (64 << 10) - 1;

/// What the port is opened with.
#[derive(Clone)]
pub struct TcpSettings {
    /// `bind_address`: an IP address, or a name that is looked up once.
    pub host: String,
    /// `bind_port`; 0 takes any that is free.
    pub port: u16,
    /// Whose PROXY header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Own SVID, and whose certificates hold.
    pub tls: Arc<ServerConfig>,
    /// How long a client may take for the handshake from its turn on, and its proxy for the header
    /// before.
    pub handshake: Duration,
    /// The time.
    pub clock: Clock,
}

/// The TCP port, which listens.
pub struct TcpEndpoint {
    listener: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

impl TcpEndpoint {
    /// Opens the port.
    ///
    /// # Errors
    /// [`BindError`], in SPIRE's words.
    pub async fn bind(settings: TcpSettings) -> Result<Self, BindError> {
        let TcpSettings { host, port, trusted_proxies, tls, handshake, clock } = settings;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let address = format!("{host}:{port}");
        let addresses = tokio::net::lookup_host((name, port)).await;
        let addresses: Vec<_> = addresses
            .map_err(|source| BindError::Resolve { address: address.clone(), source })?
            .collect();
        let failed = |source| BindError::Tcp { address: address.clone(), source };
        let listener = listen_at_first(&addresses).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let door = Door::new(trusted_proxies, TlsAcceptor::from(tls), handshake, clock);
        Ok(Self { listener, address, door: Arc::new(door) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the tasks stop, each connection with its calls on one of `threads`; calls in
    /// progress go on as tasks. With `handshakes` a connection is there until it has passed.
    pub async fn serve<S: GrpcService>(
        self,
        service: S,
        threads: Threads,
        handshakes: Option<Threads>,
        tasks: Tasks,
    ) {
        tracing::info!(
            subsystem_name = "endpoints",
            address = %self.address,
            network = "tcp",
            "Starting Server APIs"
        );
        let stop = tasks.stop_token();
        while let Some(accepted) = stop.run_until_cancelled(self.accept()).await {
            let Some((stream, peer, room)) = accepted else { continue };
            let door = Arc::clone(&self.door);
            let (service, tasks_of_calls) = (service.clone(), tasks.clone());
            let stop = stop.clone();
            let thread = threads.next().clone();
            let (first, later) = match &handshakes {
                Some(handshakes) => (handshakes.next().clone(), Some(thread)),
                None => (thread, None),
            };
            // It leaves the runtime of the listener for that of its own thread.
            let Ok(stream) = stream.into_std() else { continue };
            let connection = async move {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let passed = stop.run_until_cancelled(door.pass(stream, peer, room)).await;
                match (passed, later) {
                    // Whoever waits for its turn does not need the memory of those who have passed.
                    (Some(Ok(guest)), None) => {
                        Box::pin(serve(guest, service, &tasks_of_calls)).await;
                    }
                    (Some(Ok(mut guest)), Some(thread)) => {
                        let tasks = tasks_of_calls.clone();
                        let serving = async move {
                            if guest.move_here().is_ok() {
                                serve(guest, service, &tasks_of_calls).await;
                            }
                        };
                        tasks.spawn_on(serving, &thread);
                    }
                    (Some(Err(why)), _) => tracing::debug!(
                        subsystem_name = "endpoints",
                        caller_addr = %peer,
                        error = %why,
                        "Connection refused"
                    ),
                    (None, _) => {}
                }
            };
            tasks.spawn_on(connection, &first);
        }
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let room = self.door.room().await;
        let (stream, peer) = accepted(self.listener.accept().await).await?;
        Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()), room))
    }
}

async fn serve<S: GrpcService>(guest: Guest, service: S, tasks: &Tasks) {
    let Guest { io, caller, age, place } = guest;
    let (streams, window) = match caller.svid() {
        Some(_) => (STREAMS, KNOWN_WINDOW),
        None => (UNPROVEN_STREAMS, UNPROVEN_WINDOW),
    };
    let connection = Connection { io: TokioIo::new(io), caller, streams, window, age };
    grpc::serve(connection, service, tasks).await;
    drop(place);
}

/// Listens at the first of `addresses` that can be had.
fn listen_at_first(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match listen(*address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that starts again does not wait for connections of the one before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
