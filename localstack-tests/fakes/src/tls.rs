//! A way to a fake service by TLS, as private endpoints have it.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::http::HttpServer;

/// An address where a service is reached by TLS, below a CA of its own.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    authority: String,
    task: JoinHandle<()>,
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsFront {
    /// A way to `server`.
    pub async fn to(server: &HttpServer) -> Self {
        let (authority, config) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(accept(listener, acceptor, server.address()));
        Self { address, authority, task }
    }

    /// Its base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of its CA, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// A CA, and the configuration of a server at 127.0.0.1 with a certificate of it.
fn identity() -> (String, ServerConfig) {
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let authority = params.self_signed(&authority_key).expect("a certificate");
    let issuer = Issuer::from_params(&params, &authority_key);
    let (names, server_key) = (vec!["127.0.0.1".to_owned()], key());
    let server = CertificateParams::new(names).expect("an address is a name");
    let server = server.signed_by(&server_key, &issuer).expect("a certificate");
    let server_key = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], server_key)
        .expect("the key is the certificate's");
    (authority.pem(), config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(forward(stream, acceptor.clone(), service));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Clients that do not trust the certificate go away, which is no news here.
async fn forward(stream: TcpStream, acceptor: TlsAcceptor, service: SocketAddr) {
    let Ok(mut client) = acceptor.accept(stream).await else { return };
    let Ok(mut service) = TcpStream::connect(service).await else { return };
    let _ = copy_bidirectional(&mut client, &mut service).await;
}
