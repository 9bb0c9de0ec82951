//! What a connection to the TCP port passes before it may call anything: the header of its proxy,
//! its turn, the handshake.
//!
//! Handshakes are the dearest thing that a server does for somebody whom it does not know. So many
//! are let in at a time as it can serve soon, and whoever comes then waits for its turn among those
//! of its own address. A fleet that boots at once is served one after the other, each in a short
//! time, instead of all together in a time that is too long for each.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use futures::FutureExt;
use ipnet::IpNet;
use spire_core::clock::Clock;
use spire_core::grpc::{Crowd, Place};
use spire_core::id::SpiffeId;
use spire_core::svid::x509::{CertificateError, X509Svid};
use spire_core::tls;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::proxy_header;
use crate::caller::{Caller, PeerSvid, RemotePeer};
use crate::rate_limit::origin_of;

/// Connections at a time that have passed or are about to; each keeps tens of kilobytes.
const CONNECTIONS: usize = 16_384;

/// Of these, in their handshake or without a client certificate: as many as keep the processors
/// busy while clouds are asked about them. A quarter of them may be of one address: more nodes behind
/// one NAT that boot together take turns, and others do not notice. A quarter is more than a cloud is
/// asked about in one call: fewer would never fill a call, and wait for the pace of calls instead.
const UNPROVEN: usize = 4096;
const UNPROVEN_EACH: usize = UNPROVEN / 4;

/// Besides, who waits for its turn, a few kilobytes each: so many nodes behind one NAT may boot
/// together and leave room for those behind another.
const WAITING: usize = 16_384;
const WAITING_EACH: usize = 10_240;

/// Connections of one client certificate's SPIFFE ID: an agent needs two while its SVID changes.
const PROVEN_EACH: usize = 128;

/// How long a connection without a client certificate is open before it is asked to end, and how
/// long one with a certificate outlives it, so that its agent is told why it is refused.
const UNPROVEN_AGE: Duration = Duration::from_secs(180);

/// The door.
pub(super) struct Door {
    trusted_proxies: Vec<IpNet>,
    tls: TlsAcceptor,
    limit: Duration,
    clock: Clock,
    waiting: Crowd<IpAddr>,
    unproven: Crowd<IpAddr>,
    proven: Crowd<SpiffeId>,
}

/// A connection that has passed.
pub(super) struct Guest {
    pub(super) io: TlsStream<TcpStream>,
    pub(super) caller: Caller,
    /// How long it is open before it is asked to end.
    pub(super) age: Duration,
    /// To be kept as long as the connection is open.
    pub(super) place: Seat,
}

impl Guest {
    /// Has the runtime of this thread look after its socket from now on, not the one of its
    /// handshake.
    ///
    /// # Errors
    /// What the system says where it gives no more files.
    pub(super) fn move_here(&mut self) -> io::Result<()> {
        let (stream, _) = self.io.get_mut();
        let socket = stream.as_fd().try_clone_to_owned()?;
        *stream = TcpStream::from_std(socket.into())?;
        Ok(())
    }
}

/// The place of a guest among the others.
pub(super) enum Seat {
    Proven { _place: Place<SpiffeId> },
    Unproven { _place: Place<IpAddr>, _room: OwnedSemaphorePermit },
}

/// Why a connection is closed before its first call. Nobody is told but the log: clients see an
/// alert of TLS, or the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Header(#[from] proxy_header::HeaderError),
    #[error("too many connections wait for their turn, of this address or of all")]
    Crowded,
    #[error("the client left before it was its turn")]
    Left,
    #[error("too many connections of {0} are open")]
    TooMany(SpiffeId),
    #[error("the handshake took too long")]
    TooSlow,
    #[error("the client does not speak HTTP/2 (ALPN h2)")]
    NotHttp2,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Door {
    /// A door where each may take `limit` for its proxy's header, and as long for its handshake from
    /// its turn on.
    pub(super) fn new(
        trusted_proxies: Vec<IpNet>,
        tls: TlsAcceptor,
        limit: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            trusted_proxies,
            tls,
            limit,
            clock,
            waiting: Crowd::new(WAITING, WAITING_EACH),
            unproven: Crowd::new(UNPROVEN, UNPROVEN_EACH),
            proven: Crowd::new(CONNECTIONS, PROVEN_EACH),
        }
    }

    /// Waits until one more may pass at all.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        self.proven.room().await
    }

    /// Lets a connection of `peer` pass, for which there is `room`.
    ///
    /// # Errors
    /// [`Refusal`]
    pub(super) async fn pass(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        room: OwnedSemaphorePermit,
    ) -> Result<Guest, Refusal> {
        stream.set_nodelay(true)?;
        let address = self.address(&mut stream, peer).await?;
        let (stranger, room) = self.turn(&stream, origin_of(address.ip()), room).await?;
        let io = self.in_time(self.tls.accept(stream)).await??;
        let (_, session) = io.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return Err(Refusal::NotHttp2);
        }
        let Some(certificates) = session.peer_certificates() else {
            let caller = Caller::Remote(RemotePeer { address, svid: None });
            let place = Seat::Unproven { _place: stranger, _room: room };
            return Ok(Guest { io, caller, age: UNPROVEN_AGE, place });
        };
        let X509Svid { id, serial, expires_at, .. } = tls::peer_identity(certificates)?;
        let place = self.proven.admit(id.clone(), room);
        let place = Seat::Proven { _place: place.ok_or_else(|| Refusal::TooMany(id.clone()))? };
        let left = Duration::try_from(expires_at.duration_since(self.clock.now()));
        let svid = PeerSvid { id, serial: serial.into(), expires_at };
        let caller = Caller::Remote(RemotePeer { address, svid: Some(svid) });
        Ok(Guest { io, caller, age: UNPROVEN_AGE + left.unwrap_or_default(), place })
    }

    /// Where the client is, which a proxy that is believed may say.
    async fn address(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Refusal> {
        if !self.trusted_proxies.iter().any(|network| network.contains(&peer.ip())) {
            return Ok(peer);
        }
        Ok(self.in_time(proxy_header::read(stream)).await??.unwrap_or(peer))
    }

    /// Waits until it is the turn of a connection from `origin`. Meanwhile it gives up its room.
    async fn turn(
        &self,
        stream: &TcpStream,
        origin: IpAddr,
        room: OwnedSemaphorePermit,
    ) -> Result<(Place<IpAddr>, OwnedSemaphorePermit), Refusal> {
        if let Some(place) = self.unproven.enter(origin) {
            return Ok((place, room));
        }
        drop(room);
        let waiting = self.waiting.enter(origin).ok_or(Refusal::Crowded)?;
        let place = self.unproven.admit_in_turn(origin).await;
        let room = self.room().await;
        drop(waiting);
        let state = stream.ready(Interest::READABLE).now_or_never().transpose()?;
        if state.is_some_and(|state| state.is_read_closed()) {
            return Err(Refusal::Left);
        }
        Ok((place, room))
    }

    async fn in_time<T>(&self, step: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(self.limit, step).await.map_err(|_| Refusal::TooSlow)
    }
}
