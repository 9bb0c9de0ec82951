//! A server and agents whose entries, SVIDs and CAs turn over within a minute, and what a workload
//! of theirs holds.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spiffe::X509Context;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::svid::x509::{self, X509Svid};
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

/// Several times what a CA needs to be replaced.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A server whose CA makes the next one after 18 seconds and lets it sign after 30, while it signs
/// what lives for 18 seconds.
pub(crate) async fn server(folder: &Folder) -> Server {
    let lives = r#"ca_ttl = "36s"
    agent_ttl = "18s"
    default_x509_svid_ttl = "18s"
    default_jwt_svid_ttl = "18s"
    experimental { rotation_check_interval = "1s" }"#;
    let file = ServerFile { server: lives.to_owned(), ..ServerFile::default() };
    Server::start(folder, &file).await.unwrap()
}

/// An agent whose workloads of the current user are `path`, and the entry that says so.
pub(crate) async fn agent(
    folder: &Folder,
    server: &Server,
    path: &str,
) -> (Agent, spire_core::wire::types::Entry) {
    let token = server.join_token().await.unwrap();
    let selector = format!("unix:uid:{}", User::current().uid);
    let entry = entry(&agent_path(&token), path, &selector);
    let entry = server.create_entry(entry).await.unwrap();
    let agent = "experimental { sync_interval = \"1s\" }".to_owned();
    let file = AgentFile { agent, ..AgentFile::default() };
    (Agent::start(folder, server, &token, &file).await.unwrap(), entry)
}

/// What a workload holds after an answer.
pub(crate) struct Held {
    pub(crate) chain: Vec<Bytes>,
    pub(crate) bundle: Bundle,
}

impl Held {
    pub(crate) fn of(context: &X509Context) -> Self {
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

    /// The SVID is valid now and chains to the bundle that came with it.
    pub(crate) fn assert_valid(&self) -> X509Svid {
        x509::verify(&self.chain, &self.bundle, Timestamp::now()).unwrap()
    }

    /// Whether a CA signed the SVID that is not in `former`.
    pub(crate) fn is_by_a_later_ca(&self, former: &Bundle) -> bool {
        let mut later = self.bundle.clone();
        later.x509_authorities.retain(|root| !former.x509_authorities.contains(root));
        x509::verify(&self.chain, &later, Timestamp::now()).is_ok()
    }
}
