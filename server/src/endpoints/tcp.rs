//! The TCP port: TLS with an optional client certificate.
//!
//! A proven connection lives as long as its client certificate. SPIRE ends each after three
//! minutes, so that agents spread over servers; that makes handshakes, the dearest thing that a
//! server does, for ever. Load balancers spread agents when they connect, and agents connect anew
//! with each SVID of their own. Without a certificate there is only an attestation or a bundle to
//! ask for, and the three minutes stay.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::ServerConfig;
use spire_core::clock::Clock;
use spire_core::grpc::{
    self, BACKLOG, Connection, Crowd, GrpcService, KNOWN_WINDOW, Place, accepted,
};
use spire_core::id::SpiffeId;
use spire_core::svid::x509::CertificateError;
use spire_core::tasks::Tasks;
use spire_core::threads::Threads;
use spire_core::tls;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{BindError, STREAMS, proxy_header};
use crate::caller::{Caller, PeerSvid, RemotePeer};
use crate::rate_limit::origin_of;

/// Connections at a time; each keeps tens of kilobytes.
const CONNECTIONS: usize = 16_384;

/// Of these, from one address, in their handshake or without a client certificate: more than the
/// nodes behind one NAT that boot together, and far less than all.
const UNPROVEN_EACH: usize = 1024;

/// Of these, of one client certificate's SPIFFE ID: an agent needs two while its SVID changes.
const PROVEN_EACH: usize = 128;

/// Calls at a time on a connection without a client certificate: an agent that attests needs one.
const UNPROVEN_STREAMS: u32 = 8;

/// What may lie there unread of one: as much as HTTP/2 grants everyone.
const UNPROVEN_WINDOW: u32 = (64 << 10) - 1;

/// How long a connection without a client certificate is open before it is asked to end, and how
/// long one with a certificate outlives it, so that its agent is told why it is refused.
const UNPROVEN_AGE: Duration = Duration::from_secs(180);

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
    /// How long a client may take until its first call: its proxy's header and the handshake.
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
        let crowd = Crowd::new(CONNECTIONS, UNPROVEN_EACH);
        let door = Door { trusted_proxies, tls: TlsAcceptor::from(tls), handshake, clock, crowd };
        Ok(Self { listener, address, door: Arc::new(door) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the tasks stop, each connection with its calls on one of `threads`; calls in
    /// progress go on as tasks.
    pub async fn serve<S: GrpcService>(self, service: S, threads: Threads, tasks: Tasks) {
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
            // It leaves the runtime of the listener for that of its own thread.
            let Ok(stream) = stream.into_std() else { continue };
            let connection = async move {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let entered = door.enter(stream, peer, room);
                let Some(Some(guest)) = stop.run_until_cancelled(entered).await else { return };
                let Guest { io, caller, age, place } = guest;
                let (streams, window) = match caller.svid() {
                    Some(_) => (STREAMS, KNOWN_WINDOW),
                    None => (UNPROVEN_STREAMS, UNPROVEN_WINDOW),
                };
                let io = TokioIo::new(io);
                let connection = Connection { io, caller, streams, window, age };
                grpc::serve(connection, service, &tasks_of_calls).await;
                drop(place);
            };
            tasks.spawn_on(connection, threads.next());
        }
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let room = self.door.crowd.room().await;
        let (stream, peer) = accepted(self.listener.accept().await).await?;
        Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()), room))
    }
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

/// What a connection passes before it may call anything.
struct Door {
    trusted_proxies: Vec<IpNet>,
    tls: TlsAcceptor,
    handshake: Duration,
    clock: Clock,
    crowd: Crowd<Origin>,
}

/// Whose a connection is, among all that are open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Origin {
    Address(IpAddr),
    Id(SpiffeId),
}

/// A connection that has passed.
struct Guest {
    io: TlsStream<TcpStream>,
    caller: Caller,
    age: Duration,
    place: Place<Origin>,
}

impl Door {
    /// Header of a proxy, place among the others, handshake: all within the time of a handshake.
    async fn enter(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        room: OwnedSemaphorePermit,
    ) -> Option<Guest> {
        match tokio::time::timeout(self.handshake, self.greet(stream, peer, room)).await {
            Ok(Ok(guest)) => Some(guest),
            Ok(Err(why)) => {
                tracing::debug!(subsystem_name = "endpoints", caller_addr = %peer, error = %why,
                    "Connection refused");
                None
            }
            Err(_) => {
                tracing::debug!(subsystem_name = "endpoints", caller_addr = %peer,
                    "Connection refused: the handshake took too long");
                None
            }
        }
    }

    async fn greet(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        room: OwnedSemaphorePermit,
    ) -> Result<Guest, Refusal> {
        stream.set_nodelay(true)?;
        let mut address = peer;
        if self.trusted_proxies.iter().any(|network| network.contains(&peer.ip())) {
            address = proxy_header::read(&mut stream).await?.unwrap_or(peer);
        }
        let origin = Origin::Address(origin_of(address.ip()));
        let mut place = self.crowd.admit(origin, room).ok_or(Refusal::Crowded)?;

        let io = self.tls.accept(stream).await?;
        let (_, session) = io.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return Err(Refusal::NotHttp2);
        }
        let svid = session.peer_certificates().map(tls::peer_identity).transpose()?;
        let svid = svid.map(|svid| PeerSvid {
            id: svid.id,
            serial: svid.serial.into(),
            expires_at: svid.expires_at,
        });
        let mut age = UNPROVEN_AGE;
        if let Some(svid) = &svid {
            if !place.move_to(Origin::Id(svid.id.clone()), PROVEN_EACH) {
                return Err(Refusal::TooMany(svid.id.clone()));
            }
            let left = svid.expires_at.duration_since(self.clock.now());
            age += Duration::try_from(left).unwrap_or_default();
        }
        let caller = Caller::Remote(RemotePeer { address, svid });
        Ok(Guest { io, caller, age, place })
    }
}

/// Why a connection is closed before its first call. Nobody is told but the log: clients see an
/// alert of TLS, or the end.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Header(#[from] proxy_header::HeaderError),
    #[error("too many connections of this address have shown no certificate yet")]
    Crowded,
    #[error("too many connections of {0} are open")]
    TooMany(SpiffeId),
    #[error("the client does not speak HTTP/2 (ALPN h2)")]
    NotHttp2,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Io(#[from] io::Error),
}
