//! The listeners: a TCP port with TLS for agents, servers and remote operators, and a Unix socket
//! for the operators of this machine. Both speak HTTP/2 to one service each and tell it who calls
//! by a [`Caller`](crate::caller::Caller) in each request's extensions.

mod admin;
mod door;
mod proxy_header;
mod tcp;

use std::io;

use spire_core::grpc::SocketError;
use spire_core::os_error::reason;

pub use admin::AdminEndpoint;
pub use tcp::{TcpEndpoint, TcpSettings};

/// Calls at a time on the connection of a peer that is known.
const STREAMS: u32 = 128;

/// Why an endpoint cannot listen. The texts are those of SPIRE where it has one.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name in `bind_address` leads nowhere.
    #[error("could not resolve bind address {address:?}: {source}")]
    Resolve {
        /// Host and port as configured.
        address: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The port is taken, or may not be opened.
    #[error("listen tcp {address}: bind: {}", reason(source))]
    Tcp {
        /// Host and port as configured.
        address: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
}
