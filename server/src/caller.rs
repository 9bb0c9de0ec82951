//! Who is calling. Listeners learn it once for each connection and put a [`Caller`] into the
//! extensions of each request; what a caller may do is left to [`crate::policy`].

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::id::SpiffeId;

/// The other end of a connection. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine, over the admin socket.
    Local(LocalPeer),
    /// Whoever reached the TCP port.
    Remote(RemotePeer),
}

/// A process, as the kernel describes it at the time it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPeer {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
    /// Its process id, where the kernel tells it. For logs only: ids of processes are used again.
    pub pid: Option<i32>,
}

/// A peer on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePeer {
    /// Where it comes from: the peer of the connection, or what a trusted proxy says.
    pub address: SocketAddr,
    /// Its SVID, verified in the TLS handshake; `None` where it showed no certificate.
    pub svid: Option<PeerSvid>,
}

/// What later checks need of a verified X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSvid {
    /// Whose it is.
    pub id: SpiffeId,
    /// The serial number of the leaf, decimal.
    pub serial: Arc<str>,
    /// When the leaf expires, which may be during the connection.
    pub expires_at: Timestamp,
}

impl Caller {
    /// Whether it came over the admin socket.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The SVID that it has proven to hold.
    pub fn svid(&self) -> Option<&PeerSvid> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => peer.svid.as_ref(),
        }
    }

    /// The SPIFFE ID that it has proven to have.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.svid().map(|svid| &svid.id)
    }

    /// Where it comes from; `None` for a process of this machine.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => Some(peer.address),
        }
    }
}
