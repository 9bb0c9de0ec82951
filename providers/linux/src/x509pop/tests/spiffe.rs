//! Nodes that show an SVID of the trust domain itself, below a prefix that is kept for them.

use super::*;

/// A node whose certificate has these names, below the trust domain's own root.
fn node(names: &str) -> Pki {
    Pki::with_leaf(&P256, &leaf(names))
}

fn leaf(names: &str) -> String {
    format!("subjectAltName={names}\nkeyUsage=critical,digitalSignature")
}

impl Pki {
    /// The same node with other names.
    fn rename(&self, names: &str) {
        self.certificate("leaf", "/O=SPIRE", &P256, &leaf(names), "middle");
    }

    /// The bundle of a trust domain whose root this is.
    fn bundle(&self) -> Bundle {
        let root = std::fs::read(self.path("root.pem")).unwrap();
        Bundle::from_pem(trust_domain(), &root).unwrap()
    }

    async fn attest_by_svid(&self, bundle: Bundle, more: &str) -> Result<SpiffeId, AttestError> {
        let section = Section::parse(&format!("mode = \"spiffe\"\n{more}")).unwrap();
        let server = (super::super::server::PLUGIN.build)(&section, &host_with(bundle)).unwrap();
        let mut peer = Agent::of(self).await;
        let payload = peer.evidence.payload().to_vec();
        server.verify(&payload, &mut peer).await.map(|attested| attested.agent_id)
    }
}

#[tokio::test]
async fn an_svid_below_the_prefix_names_the_agent_by_what_follows() {
    let node = node("URI:spiffe://example.org/spire-exchange/rack/7");
    let id = node.attest_by_svid(node.bundle(), "").await.unwrap();
    assert_eq!(id.as_str(), "spiffe://example.org/spire/agent/x509pop/rack/7");

    node.rename("URI:spiffe://example.org/nodes/7");
    for prefix in ["/nodes", "/nodes/"] {
        let more = format!("spiffe_prefix = \"{prefix}\"");
        let id = node.attest_by_svid(node.bundle(), &more).await.unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/spire/agent/x509pop/7", "{prefix}");
    }
}

#[tokio::test]
async fn another_svid_makes_no_agent() {
    let node = node("URI:spiffe://example.org/spire-exchange/7");
    let bundle = node.bundle();
    let prefix = "begin with spiffe_prefix \"/spire-exchange/\"";
    for (names, why) in [
        ("URI:spiffe://example.org/web", prefix),
        ("URI:spiffe://example.org/spire-exchange", prefix),
        ("URI:spiffe://example.org/spire-exchange-of-others/7", prefix),
        ("URI:spiffe://example.org/a/spire-exchange/7", prefix),
        ("URI:spiffe://other.test/spire-exchange/7", "is not a member of example.org"),
        ("URI:https://example.org/spire-exchange/7", "leaf certificate has no SPIFFE ID"),
        ("DNS:example.org", "must have exactly one URI SAN"),
        (
            "URI:spiffe://example.org/spire-exchange/7,URI:spiffe://example.org/spire-exchange/8",
            "must have exactly one URI SAN",
        ),
    ] {
        node.rename(names);
        let error = node.attest_by_svid(bundle.clone(), "").await.unwrap_err();
        assert!(matches!(error, AttestError::Refused(_)), "{names}: {error:?}");
        assert!(error.to_string().contains(why), "{names}: {error}");
    }
}

#[tokio::test]
async fn an_svid_counts_only_where_the_bundle_holds_its_root() {
    let names = "URI:spiffe://example.org/spire-exchange/7";
    let (node, other) = (node(names), node(names));
    for bundle in [other.bundle(), Bundle::empty(trust_domain())] {
        let error = node.attest_by_svid(bundle, "").await.unwrap_err();
        assert!(error.to_string().starts_with("certificate verification failed: "), "{error}");
    }
}

#[tokio::test]
async fn a_workload_api_that_is_not_there_is_named() {
    let section = Section::parse("spiffe_endpoint_socket = \"unix:///nowhere/api.sock\"").unwrap();
    let agent = (super::super::agent::PLUGIN.build)(&section, &host()).unwrap();
    let Err(error) = agent.collect().await else { panic!("there is no such socket") };
    let start = "unable to fetch an X509-SVID from unix:///nowhere/api.sock: ";
    assert!(error.to_string().starts_with(start), "{error}");
}
