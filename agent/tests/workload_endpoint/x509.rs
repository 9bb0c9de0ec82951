//! X.509-SVIDs and their bundles.

use std::time::Duration;

use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::keys::{LocalKey, SigningKey};
use spire_core::svid::x509::{split_chain, verify};
use spire_core::wire::types;
use spire_core::wire::workload::{JwtBundlesRequest, X509BundlesRequest};
use tonic::Code;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::node::{Authority, Node, call};
use super::{entry, federated_with, ids, next, selectors, silent, x509_svids};

#[tokio::test]
async fn wl_05_each_message_is_the_complete_state() {
    let node = Node::start().await;
    node.authorize([entry("/a"), entry("/b")]).await;
    let mut answers = x509_svids(&mut node.client().await).await;
    let before = next(&mut answers).await.unwrap();
    assert_eq!(ids(&before), ["spiffe://example.org/a", "spiffe://example.org/b"]);

    node.renew("/a").await;
    let renewed = next(&mut answers).await.unwrap();
    assert_eq!(ids(&renewed), ids(&before));
    assert_ne!(renewed.svids[0].x509_svid, before.svids[0].x509_svid);
    assert_eq!(renewed.svids[1].x509_svid, before.svids[1].x509_svid);

    node.add_root().await;
    let with_root = next(&mut answers).await.unwrap();
    assert_eq!(ids(&with_root), ids(&before));
    for (old, new) in renewed.svids.iter().zip(&with_root.svids) {
        assert_eq!(old.x509_svid, new.x509_svid);
        assert!(new.bundle.len() > old.bundle.len());
    }
}

#[tokio::test]
async fn wl_06_each_stream_begins_with_a_message() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    let x509_bundles = client.fetch_x509_bundles(call(X509BundlesRequest {})).await;
    next(&mut x509_bundles.unwrap().into_inner()).await.unwrap();
    let jwt_bundles = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await;
    next(&mut jwt_bundles.unwrap().into_inner()).await.unwrap();
    next(&mut x509_svids(&mut client).await).await.unwrap();
}

#[tokio::test]
async fn wl_07_08_messages_follow_changes_and_a_burst_is_one() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut answers = x509_svids(&mut node.client().await).await;
    assert_eq!(next(&mut answers).await.unwrap().svids.len(), 1);
    node.authorize([entry("/w")]).await;
    assert!(silent(&mut answers).await, "nothing has changed");

    for count in 1..=100 {
        let more = (0..count).map(|number| entry(&format!("/more/{number}")));
        node.authorize_without_svids(more.chain([entry("/w")]));
    }
    node.sign().await;
    assert_eq!(next(&mut answers).await.unwrap().svids.len(), 101);
    assert!(silent(&mut answers).await);
}

#[tokio::test]
async fn wl_14_15_16_17_19_each_identity_comes_with_all_that_it_needs() {
    let node = Node::start().await;
    node.authorize(["/a", "/b", "/c"].map(entry)).await;
    let message = next(&mut x509_svids(&mut node.client().await).await).await.unwrap();
    assert_eq!(message.svids.len(), 3);
    assert!(message.crl.is_empty());
    for svid in &message.svids {
        let chain = split_chain(&svid.x509_svid).unwrap();
        assert_eq!(chain.len(), 2, "the leaf, then the authority below the root");
        let domain = TrustDomain::parse("example.org").unwrap();
        let bundle = Bundle::from_der(domain, &svid.bundle).unwrap();
        let verified = verify(&chain, &bundle, node.clock.now()).unwrap();
        assert_eq!(verified.id.as_str(), svid.spiffe_id);
        let key = LocalKey::from_pkcs8(&svid.x509_svid_key).unwrap();
        let leaf = Certificate::from_der(&chain[0]).unwrap();
        let spki = leaf.tbs_certificate().subject_public_key_info().to_der().unwrap();
        assert_eq!(key.public_key().spki, spki);
    }
}

#[tokio::test]
async fn wl_18_25_fed_13_bundles_come_under_the_ids_of_their_domains() {
    let node = Node::start().await;
    let (partner, stranger) = (Authority::new("partner.org").await, Authority::new("no.org").await);
    node.federate([partner.bundle(), stranger.bundle()]);
    node.authorize([federated_with("partner.org", entry("/w"))]).await;
    let mut client = node.client().await;
    let message = next(&mut x509_svids(&mut client).await).await.unwrap();
    let (own, foreign) = (node.authority.bundle().x509_der(), partner.bundle().x509_der());
    assert_eq!(message.svids[0].bundle, own);
    assert_eq!(message.federated_bundles.len(), 1);
    assert_eq!(message.federated_bundles["spiffe://partner.org"], foreign);

    let answers = client.fetch_x509_bundles(call(X509BundlesRequest {})).await;
    let bundles = next(&mut answers.unwrap().into_inner()).await.unwrap().bundles;
    assert_eq!(bundles.len(), 2);
    assert_eq!(bundles["spiffe://example.org"], own);
    assert_eq!(bundles["spiffe://partner.org"], foreign);
}

#[tokio::test]
async fn verifiers_without_identity_get_the_own_bundle_where_that_is_allowed() {
    let node = Node::start_with(|parts| parts.allow_unauthenticated_verifiers = true).await;
    let partner = Authority::new("partner.org").await;
    node.federate([partner.bundle()]);
    let others = types::Entry { selectors: selectors(&["nobody"]), ..entry("/others") };
    node.authorize([federated_with("partner.org", others)]).await;
    let mut client = node.client().await;
    let answers = client.fetch_x509_bundles(call(X509BundlesRequest {})).await;
    let mut answers = answers.unwrap().into_inner();
    let bundles = next(&mut answers).await.unwrap().bundles;
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    let denied = next(&mut x509_svids(&mut client).await).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);

    node.authorize([federated_with("partner.org", entry("/w"))]).await;
    assert_eq!(next(&mut answers).await.unwrap().bundles.len(), 2);
    node.authorize([]).await;
    assert_eq!(next(&mut answers).await.unwrap().bundles.len(), 1);
}

#[tokio::test]
async fn wl_20_of_identities_with_one_hint_the_oldest_is_there() {
    let node = Node::start().await;
    let hinted = |path: &str, created_at| types::Entry {
        hint: "internal".into(),
        created_at,
        ..entry(path)
    };
    node.authorize([hinted("/a", 200), hinted("/b", 100), entry("/c"), entry("/d")]).await;
    let mut client = node.client().await;
    for _ in 0..3 {
        let message = next(&mut x509_svids(&mut client).await).await.unwrap();
        let found = ids(&message);
        let expected = ["/b", "/c", "/d"].map(|path| format!("spiffe://example.org{path}"));
        assert_eq!(found, expected);
        let hints: Vec<_> = message.svids.iter().map(|svid| svid.hint.as_str()).collect();
        assert_eq!(hints, ["internal", "", ""]);
    }
}

#[tokio::test]
async fn wl_23_a_stream_ends_with_the_last_identity() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut answers = x509_svids(&mut node.client().await).await;
    next(&mut answers).await.unwrap();
    node.authorize([]).await;
    let status = next(&mut answers).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn wl_52_a_caller_that_is_no_longer_entitled_gets_no_further_keys() {
    let node = Node::start().await;
    node.authorize([entry("/w"), entry("/x")]).await;
    let mut answers = x509_svids(&mut node.client().await).await;
    assert_eq!(next(&mut answers).await.unwrap().svids.len(), 2);
    let moved = |path: &str| types::Entry {
        selectors: selectors(&["another"]),
        revision_number: 1,
        ..entry(path)
    };
    node.authorize([moved("/w"), entry("/x")]).await;
    assert_eq!(ids(&next(&mut answers).await.unwrap()), ["spiffe://example.org/x"]);
    node.authorize([moved("/w"), moved("/x")]).await;
    assert_eq!(next(&mut answers).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn wl_50_the_first_identity_stays_the_first() {
    let node = Node::start().await;
    node.authorize(["/c", "/a", "/b"].map(entry)).await;
    let mut client = node.client().await;
    let first = next(&mut x509_svids(&mut client).await).await.unwrap();
    for _ in 0..5 {
        node.renew("/b").await;
        let message = next(&mut x509_svids(&mut client).await).await.unwrap();
        assert_eq!(ids(&message), ids(&first));
    }
}

#[tokio::test]
async fn a_caller_that_waits_hears_once_its_svid_is_signed() {
    let node = Node::start().await;
    node.authorize_without_svids([entry("/w")]);
    let mut client = node.client().await;
    let mut answers = x509_svids(&mut client).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), answers.message()).await.is_err());
    node.sign().await;
    assert_eq!(ids(&next(&mut answers).await.unwrap()), ["spiffe://example.org/w"]);
}
