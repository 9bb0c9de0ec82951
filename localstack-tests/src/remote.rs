//! Connections to the server's TCP port by somebody without a certificate, from an address of
//! one's choice: the whole of 127.0.0.0/8 is this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::tls::{self, ServerTrust};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::server::TRUST_DOMAIN;

/// Somebody at an address of this machine.
#[derive(Debug, Clone)]
pub struct Stranger {
    address: IpAddr,
    server: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Stranger {
    /// Somebody at 127.0.0.`number` who calls `server` and takes it for what it says it is.
    ///
    /// # Panics
    /// Never: the name of the trust domain is a good one.
    pub fn new(number: u8, server: SocketAddr) -> Self {
        let trust_domain = TrustDomain::parse(TRUST_DOMAIN).expect("a good name");
        let trust = ServerTrust::Insecure(Arc::new(OnceLock::new()));
        let tls = Arc::new(tls::client_config(&trust_domain, trust, None, Clock::system()));
        Self { address: Ipv4Addr::new(127, 0, 0, number).into(), server, tls }
    }

    /// A connection on which nothing has been said.
    ///
    /// # Errors
    /// When the server does not listen.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.address, 0))?;
        socket.connect(self.server).await
    }

    /// A connection after its handshake.
    ///
    /// # Errors
    /// When the server does not listen, or ends the connection.
    pub async fn greet(&self) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("spire-server").map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, self.connect().await?).await
    }

    /// A connection for calls.
    ///
    /// # Errors
    /// As [`greet`](Self::greet).
    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let stranger = self.clone();
        let connector = tower::service_fn(move |_| {
            let stranger = stranger.clone();
            async move { stranger.greet().await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://spire-server").connect_with_connector(connector).await
    }
}
