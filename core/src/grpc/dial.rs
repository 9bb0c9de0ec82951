//! Connections to a server: all its addresses in turn, TLS that checks SPIFFE IDs, HTTP/2.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::Gathered;
use crate::limits::HANDSHAKE;

/// How long a handshake may take: a server at which a fleet boots lets its clients wait for their
/// turn.
const TURN: Duration = Duration::from_secs(20);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an address; an IPv6 address stands without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// A channel to a server that dials at its first call, and again whenever the connection ended:
/// each time another of the addresses behind the name first.
pub fn connect(address: &ServerAddress, config: Arc<ClientConfig>) -> Channel {
    let address = address.clone();
    let turn = Arc::new(AtomicUsize::new(first_turn()));
    // TLS belongs to the connector: to tonic this is a plain connection. The connector knows the
    // address; the URI only fills the `:authority` header, where odd names would not parse.
    let authority =
        Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/");
    let endpoint = authority
        .build()
        .map_or_else(|_| Endpoint::from_static("http://spire-server"), Endpoint::from);
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (address, config, turn) = (address.clone(), config.clone(), turn.clone());
        async move {
            let stream = dial(&address, config, &turn).await?;
            io::Result::Ok(Gathered::new(TokioIo::new(stream)))
        }
    }))
}

/// Where this process begins among several addresses, so that a fleet spreads over the servers.
fn first_turn() -> usize {
    let mut bytes = [0; 2];
    // Without random numbers all begin at the first address, which works as well.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    usize::from(u16::from_be_bytes(bytes))
}

async fn dial(
    address: &ServerAddress,
    config: Arc<ClientConfig>,
    turn: &AtomicUsize,
) -> io::Result<TlsStream<TcpStream>> {
    let candidates: Vec<_> = lookup_host((address.host.as_str(), address.port)).await?.collect();
    let first = turn.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for candidate in candidates[first..].iter().chain(&candidates[..first]) {
        // Servers are known by their SPIFFE ID; the name serves routers on the way alone.
        let name = ServerName::try_from(address.host.clone())
            .unwrap_or_else(|_| ServerName::IpAddress(candidate.ip().into()));
        let attempt = async {
            let stream = TcpStream::connect(candidate);
            let stream = within(HANDSHAKE, "connection to", candidate, stream).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config.clone()).connect(name, stream);
            within(TURN, "TLS handshake with", candidate, stream).await
        };
        match attempt.await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn within<T>(
    limit: Duration,
    what: &str,
    server: &SocketAddr,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        let text = format!("no {what} {server} within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_written_in_brackets() {
        let address = |host: &str| ServerAddress { host: host.to_owned(), port: 8081 }.to_string();
        assert_eq!(address("::1"), "[::1]:8081");
        assert_eq!(address("spire.example.org"), "spire.example.org:8081");
    }
}
