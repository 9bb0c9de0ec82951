//! When SVIDs that lead to tainted roots are due.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use spire_core::bundle::X509Authority;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{Issuer, LeafTemplate, Subject, self_sign_ca};

use super::super::HeldSvid;
use super::super::samples::{entry, start};
use super::Node;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_tainted_svid_is_due_at_once_and_once() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"]), entry("b", &["unix:uid:2"])]);
    node.sign(10);
    assert_eq!(node.cache.taint(|svid| svid.svid.id.path() == "/a"), 1);
    assert_eq!(node.sign(10), ["a"]);
    assert!(node.cache.due(10).is_empty());
}

#[tokio::test]
async fn what_is_signed_below_a_tainted_root_is_due_again_later_and_later() {
    let mut node = Node::new(10);
    let signer = Signer::new(&node).await;
    let certificate = signer.issuer.certificate().clone();
    node.own.x509_authorities = vec![X509Authority { certificate, tainted: true }];
    node.authorize([entry("a", &["unix:uid:1"])]);
    let mut shares = Vec::new();
    for wait in [5, 10, 20, 40, 80, 160, 240, 240] {
        assert_eq!(node.cache.due(10).len(), 1);
        signer.sign(&node, HOUR).await;
        assert!(node.cache.due(10).is_empty());
        let wait = SignedDuration::from_secs(wait);
        let due_in = node.cache.next_due().unwrap().duration_since(node.clock.now());
        shares.push(due_in.as_secs_f64() / wait.as_secs_f64());
        node.clock.advance(due_in);
    }
    assert!(shares.iter().all(|share| (0.89..1.11).contains(share)), "{shares:?}");
    assert!(shares.iter().any(|share| *share != shares[0]), "agents would ask all at once");
    signer.sign(&node, Duration::from_secs(60)).await;
    let in_time = node.clock.now() + SignedDuration::from_secs(40);
    assert!(node.cache.next_due().unwrap() < in_time, "it is over before it is due");

    node.own.x509_authorities[0].tainted = false;
    node.authorize([entry("a", &["unix:uid:1"])]);
    signer.sign(&node, HOUR).await;
    let quarter = node.clock.now() + SignedDuration::from_mins(15);
    assert!(node.cache.next_due().unwrap() > quarter);
}

/// A server's root, and the key of all SVIDs below it.
struct Signer {
    issuer: Issuer,
    key: LocalKey,
}

impl Signer {
    async fn new(node: &Node) -> Self {
        let new_key = || LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let (root_key, key) = (Arc::new(new_key()), new_key());
        let (domain, subject) = (&node.own.trust_domain, Subject::of_svids());
        let root = self_sign_ca(&*root_key, domain, &subject, HOUR * 24, start()).await;
        Self { issuer: Issuer::root(root.unwrap(), root_key).unwrap(), key }
    }

    /// Signs an SVID of the entry `a`.
    async fn sign(&self, node: &Node, ttl: Duration) {
        let entry = node.cache.entries()["a"].clone();
        let template = LeafTemplate {
            id: &entry.spiffe_id,
            public_key: &self.key.public_key().spki,
            dns_names: &[],
            subject: None,
            ttl,
        };
        let svid = self.issuer.sign_leaf(&template, node.clock.now()).await.unwrap();
        let svid = HeldSvid::new(svid, &self.key, entry.revision_number).unwrap();
        node.cache.hold(vec![(entry.id.clone(), svid)]);
    }
}
