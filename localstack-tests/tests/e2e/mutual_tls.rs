//! A client and a server that others wrote, on two nodes, take their SVIDs from the Workload API
//! and shake hands all the time, while their SVIDs and the CA turn over. No handshake fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection};
use spiffe::X509Source;
use spiffe_rustls::{TlsStatus, authorizer, mtls_client, mtls_server};
use spire_core::bundle::Bundle;
use spire_localstack_tests::{Agent, Folder};

use crate::turnover::{self, Held, LIMIT};

const CLIENT: &str = "spiffe://example.org/client";
const SERVER: &str = "spiffe://example.org/server";
/// Between two handshakes.
const PAUSE: Duration = Duration::from_millis(25);

#[tokio::test]
async fn no_handshake_fails_while_svids_and_ca_turn_over() {
    let (first, second) = (Folder::new().unwrap(), Folder::new().unwrap());
    let authority = turnover::server(&first).await;
    let (client_agent, _) = turnover::agent(&first, &authority, "/client").await;
    let (server_agent, _) = turnover::agent(&second, &authority, "/server").await;
    let (mut client, mut server) = (Peer::new(&client_agent).await, Peer::new(&server_agent).await);
    let builder = mtls_client(client.source.clone());
    let builder = builder.authorize(authorizer::exact([SERVER]).unwrap());
    let (config, status) = builder.build_with_status().unwrap();
    let to_server = (Arc::new(config), status);
    let builder = mtls_server(server.source.clone());
    let builder = builder.authorize(authorizer::exact([CLIENT]).unwrap());
    let (config, status) = builder.build_with_status().unwrap();
    let to_client = (Arc::new(config), status);

    let mut handshakes = Handshakes::default();
    let shaken = async {
        while !(client.has_turned_over() && server.has_turned_over()) {
            tokio::time::sleep(PAUSE).await;
            handshakes.shake(&to_server, &to_client);
            client.look();
            server.look();
        }
    };
    tokio::time::timeout(LIMIT, shaken).await.expect("all turns over in time");
    handshakes.assert_done(500);
    for peer in [&client, &server] {
        assert!(peer.leaves.len() >= 4, "only {} SVIDs", peer.leaves.len());
    }
}

/// What came of many handshakes.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    pub(crate) done: usize,
    pub(crate) failures: Vec<String>,
    /// Those that were not tried while a side's TLS library [was taking over](is_taking_over).
    passed_over: usize,
}

impl Handshakes {
    /// One more.
    pub(crate) fn shake(
        &mut self,
        (client, client_status): &(Arc<ClientConfig>, TlsStatus),
        (server, server_status): &(Arc<ServerConfig>, TlsStatus),
    ) {
        if is_taking_over(client_status) || is_taking_over(server_status) {
            self.passed_over += 1;
            return;
        }
        match shake_hands(client, server) {
            Ok(()) => self.done += 1,
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    /// Takes in what came of others.
    pub(crate) fn add(&mut self, others: Self) {
        self.done += others.done;
        self.failures.extend(others.failures);
        self.passed_over += others.passed_over;
    }

    /// More than `least` were done, none failed, and all but a few were tried.
    pub(crate) fn assert_done(&self, least: usize) {
        let Self { done, failures, passed_over } = self;
        println!("{done} handshakes, {} failures, {passed_over} passed over", failures.len());
        assert!(failures.is_empty(), "{done} handshakes, and {failures:#?}");
        assert!(*done > least, "only {done} handshakes");
        assert!(passed_over * 100 < *done, "{passed_over} passed over beside {done}");
    }
}

/// Whether the TLS library has yet to turn what it was given into what TLS needs: for an instant, on
/// this very thread, it serves neither the former nor the latter.
fn is_taking_over(status: &TlsStatus) -> bool {
    let status = status.current();
    status.source_revision != status.applied_revision
}

/// One side, and what it has held so far.
struct Peer {
    source: X509Source,
    roots: Bundle,
    leaves: BTreeSet<Vec<u8>>,
    is_by_a_later_ca: bool,
}

impl Peer {
    async fn new(agent: &Agent) -> Self {
        let source = X509Source::builder().endpoint(agent.endpoint()).build().await.unwrap();
        let roots = Held::of(&source.x509_context().unwrap()).bundle;
        Self { source, roots, leaves: BTreeSet::new(), is_by_a_later_ca: false }
    }

    /// Notes what is held now.
    fn look(&mut self) {
        let held = Held::of(&self.source.x509_context().unwrap());
        if self.leaves.insert(held.chain[0].to_vec()) {
            self.is_by_a_later_ca = held.is_by_a_later_ca(&self.roots);
        }
    }

    /// Whether its SVID is signed by a CA that was not there when all began.
    fn has_turned_over(&self) -> bool {
        self.is_by_a_later_ca
    }
}

/// A full handshake of both, by what each holds at this moment: nothing else runs meanwhile.
fn shake_hands(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(), rustls::Error> {
    let name = ServerName::try_from("example.org").expect("a DNS name");
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    Ok(())
}

/// Brings one side what the other has written.
fn carry<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut written = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut written).expect("memory takes everything");
    }
    let mut unread = written.as_slice();
    while !unread.is_empty() {
        to.read_tls(&mut unread).expect("memory can be read");
        to.process_new_packets()?;
    }
    Ok(())
}
