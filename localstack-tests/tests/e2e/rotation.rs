//! Everything turns over while a workload listens: its entry, its SVID, the CA.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::svid::x509;
use spire_core::wire::entry::BatchUpdateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_localstack_tests::server::{agent_path, entry, member};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

/// Several times what is needed for a CA to be replaced.
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_live_stream_sees_no_gap_while_entry_svid_and_ca_turn_over() {
    let folder = Folder::new().unwrap();
    // The next CA is made after half its life and signs after five sixths.
    let short = r#"ca_ttl = "24s"
    agent_ttl = "14s"
    default_x509_svid_ttl = "14s"
    experimental { rotation_check_interval = "1s" }"#;
    let file = ServerFile { server: short.to_owned(), ..ServerFile::default() };
    let server = Server::start(&folder, &file).await.unwrap();
    let token = server.join_token().await.unwrap();
    let selector = format!("unix:uid:{}", User::current().uid);
    let first = entry(&agent_path(&token), "/before", &selector);
    let mut created = server.create_entry(first).await.unwrap();
    let agent = "experimental { sync_interval = \"1s\" }".to_owned();
    let file = AgentFile { agent, ..AgentFile::default() };
    let agent = Agent::start(&folder, &server, &token, &file).await.unwrap();

    let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
    let mut listener = Listener::new(client.stream_x509_contexts().await.unwrap()).await;
    assert_eq!(listener.held.id(), "spiffe://example.org/before");
    let roots = listener.held.bundle.clone();

    created.spiffe_id = Some(member("/after"));
    let update = BatchUpdateEntryRequest { entries: vec![created], ..Default::default() };
    let mut entries = EntryClient::new(server.connect().await.unwrap());
    entries.batch_update_entry(update).await.unwrap();
    listener.until(|held| held.id() == "spiffe://example.org/after").await;

    let leaf = listener.held.chain[0].clone();
    listener.until(|held| held.chain[0] != leaf).await;

    // Signed by a CA that was not there when all began.
    listener
        .until(|held| {
            let mut later = held.bundle.clone();
            later.x509_authorities.retain(|root| !roots.x509_authorities.contains(root));
            x509::verify(&held.chain, &later, Timestamp::now()).is_ok()
        })
        .await;
    assert_eq!(listener.held.id(), "spiffe://example.org/after");
}

/// What a workload holds after an answer.
struct Held {
    chain: Vec<Bytes>,
    bundle: Bundle,
}

impl Held {
    fn of(context: &X509Context) -> Self {
        let svid = context.default_svid().unwrap();
        let trust_domain = svid.spiffe_id().trust_domain();
        let roots = context.bundle_set().get(trust_domain).unwrap();
        let copy = |bytes| Bytes::copy_from_slice(bytes);
        let mut bundle = Bundle::empty(TrustDomain::parse("example.org").unwrap());
        bundle.x509_authorities = roots
            .authorities()
            .iter()
            .map(|root| X509Authority::trusted(copy(root.as_bytes())).unwrap())
            .collect();
        Self { chain: svid.cert_chain().iter().map(|one| copy(one.as_bytes())).collect(), bundle }
    }

    fn id(&self) -> String {
        self.assert_valid().id.to_string()
    }

    /// The SVID is valid now and chains to the bundle that came with it.
    fn assert_valid(&self) -> x509::X509Svid {
        x509::verify(&self.chain, &self.bundle, Timestamp::now()).unwrap()
    }
}

struct Listener<S> {
    answers: S,
    held: Held,
}

impl<S: Stream<Item = Result<X509Context, WorkloadApiError>> + Unpin> Listener<S> {
    async fn new(mut answers: S) -> Self {
        let first = answers.next().await.unwrap().unwrap();
        Self { answers, held: Held::of(&first) }
    }

    /// Follows the stream until `what`; whatever is held is valid until the next answer is there.
    async fn until(&mut self, what: impl Fn(&Held) -> bool) {
        let followed = async {
            while !what(&self.held) {
                let next = self.answers.next().await.unwrap().unwrap();
                self.held.assert_valid();
                self.held = Held::of(&next);
                self.held.assert_valid();
            }
        };
        tokio::time::timeout(LIMIT, followed).await.expect("it turns over in time");
    }
}
