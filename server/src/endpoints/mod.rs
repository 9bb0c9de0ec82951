//! The listeners: a TCP port with TLS for agents, servers and remote operators, and a Unix socket
//! for the operators of this machine. Both speak HTTP/2 to one service each and tell it who calls
//! by a [`Caller`](crate::caller::Caller) in each request's extensions.

mod admin;
mod door;
mod proxy_header;
mod tcp;

use std::io;
use std::path::PathBuf;

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
    /// The path does not fit into the address of a Unix socket.
    #[error(
        "socket_path {path:?} is {bytes} bytes long, and a Unix socket takes at most 107; choose a \
         shorter path"
    )]
    PathTooLong {
        /// As configured.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The socket or its folder cannot be made.
    #[error("unable to {what} {path:?}: {}", reason(source))]
    Unix {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}
