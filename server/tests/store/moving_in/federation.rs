//! Bundles, and where those of other trust domains are.

use spire_core::bundle::{JwtAuthority, X509Authority};
use spire_test_databases::spire::messages::PublicKey;

use super::*;
use crate::each_database;

each_database! {
    case_03_bundles_keep_their_content,
    case_03_field_6_is_read_in_both_meanings,
    case_03_fields_that_are_not_known_are_told,
    case_09_entries_federate_with_bundles_and_not_with_relationships,
}

const AGENT: &str = "spiffe://example.org/spire/agent/x509pop/a";

fn public_key(kid: &str, not_after: i64, tainted_key: bool) -> PublicKey {
    PublicKey { pkix_bytes: kid.as_bytes().to_vec(), kid: kid.into(), not_after, tainted_key }
}

async fn case_03_bundles_keep_their_content(kind: Kind) {
    let [a, b, c] = [ca(&key()).await, ca(&key()).await, ca(&key()).await];
    let mut spire = spire(kind, schema_of(kind, 3)).await;
    let own = messages::Bundle {
        root_cas: vec![
            root(&b, false),
            root(&[&a[..], &c[..]].concat(), false),
            root(&b, true),
            root(&a, false),
        ],
        jwt_signing_keys: vec![
            public_key("late", LATER, false),
            public_key("never", 0, true),
            public_key("ended", BEFORE, false),
            public_key("late", LATER, true),
        ],
        refresh_hint: 300,
        sequence_number: u64::MAX,
        ..empty("example.org")
    };
    spire.bundle(&own);
    spire.bundle(&messages::Bundle { root_cas: vec![root(&c, true)], ..empty("foreign.org") });
    let row = spire.bundle(&messages::Bundle { refresh_hint: -1, ..empty("renamed.org") });
    let column = "UPDATE bundles SET trust_domain = 'spiffe://column.org' WHERE id = ";
    spire.write().await.unwrap();
    spire.execute(&format!("{column}{row}")).await.unwrap();
    let copied = copied(&mut spire, kind).await;

    let [own, foreign, renamed] = copied.bundles().await.try_into().unwrap();
    let root = |der: &Bytes, tainted| X509Authority { certificate: der.clone(), tainted };
    let key = |kid: &'static str, expires_at, tainted| JwtAuthority {
        key_id: kid.into(),
        public_key: Bytes::from_static(kid.as_bytes()),
        expires_at,
        tainted,
    };
    let expected = Bundle {
        x509_authorities: vec![root(&b, true), root(&a, false), root(&c, false)],
        jwt_authorities: vec![
            key("late", Some(at(LATER)), true),
            key("never", None, true),
            key("ended", Some(at(BEFORE)), false),
        ],
        refresh_hint: 300,
        sequence_number: u64::MAX,
        ..Bundle::empty(domain("example.org"))
    };
    assert_eq!(own, expected);
    assert_eq!(foreign.x509_authorities, [root(&c, true)]);
    assert_eq!(renamed, Bundle::empty(domain("renamed.org")));
    assert_eq!(copied.report.remarks.items[0].name, "renamed.org");
    assert_eq!(copied.report.skipped.items, []);
}

async fn case_03_field_6_is_read_in_both_meanings(kind: Kind) {
    let (one, two) = (key(), key());
    let (a, b) = (ca(&one).await, ca(&two).await);
    let mut spire = spire(kind, schema_of(kind, 3)).await;
    let tainted = PublicKey { pkix_bytes: two.public_key().spki.to_vec(), ..PublicKey::default() };
    let bundle = messages::Bundle {
        root_cas: vec![root(&a, false), root(&b, false)],
        wit_signing_keys: vec![public_key("wit", LATER, false), tainted],
        ..empty("example.org")
    };
    spire.bundle(&bundle);
    let copied = copied(&mut spire, kind).await;
    let [bundle] = copied.bundles().await.try_into().unwrap();
    let taints: Vec<_> = bundle.x509_authorities.iter().map(|root| root.tainted).collect();
    assert_eq!((taints, bundle.jwt_authorities), (vec![false, true], vec![]));
    let [remark] = &copied.report.remarks.items[..] else { panic!("{:?}", copied.report.remarks) };
    assert!(remark.text.contains("WIT-SVIDs (1)"), "{}", remark.text);
}

async fn case_03_fields_that_are_not_known_are_told(kind: Kind) {
    let root = ca(&key()).await;
    let mut spire = spire(kind, schema_of(kind, 3)).await;
    let roots = vec![messages::Certificate { der_bytes: root.to_vec(), tainted_key: false }];
    spire.bundle(&messages::Bundle { root_cas: roots.clone(), ..empty("plain.org") });
    let mut data =
        prost::Message::encode_to_vec(&messages::Bundle { root_cas: roots, ..empty("more.org") });
    // Field 200, a number.
    data.extend([0xc0, 0x0c, 0x01]);
    let columns = [("trust_domain", "spiffe://more.org".into()), ("data", data.into())];
    spire.row("bundles", &columns);
    let copied = copied(&mut spire, kind).await;
    assert_eq!(copied.bundles().await[1].x509_authorities.len(), 1);
    let [remark] = &copied.report.remarks.items[..] else { panic!("{:?}", copied.report.remarks) };
    assert_eq!(remark.name, "more.org");
    assert!(remark.text.contains("fields of a later release"), "{}", remark.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_cannot_be_read_is_named_and_nobody_federates_with_it() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    spire.bundle(&empty("example.org"));
    let broken = messages::Bundle { root_cas: vec![root(b"none", false)], ..empty("broken.org") };
    let broken = spire.bundle(&broken);
    spire.row(
        "bundles",
        &[
            ("trust_domain", "spiffe://twice.org".into()),
            ("data", prost::Message::encode_to_vec(&empty("example.org")).into()),
        ],
    );
    let entry = spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &[]);
    spire.federate(entry, broken);
    let copied = copied(&mut spire, Kind::Sqlite).await;
    let expected =
        [("spiffe://broken.org", Cause::Unreadable), ("spiffe://twice.org", Cause::Unreadable)];
    assert_eq!(copied.skipped("bundles"), expected);
    assert_eq!(copied.skipped("federated_registration_entries").len(), 1);
    assert_eq!(copied.bundles().await.len(), 1);
    assert!(copied.entry("e").await.federates_with.is_empty());
}

async fn case_09_entries_federate_with_bundles_and_not_with_relationships(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 9)).await;
    let names = ["a.org", "b.org", "c.org"];
    let rows = names.map(|name| spire.bundle(&empty(name)));
    for (id, count) in [("none", 0), ("one", 1), ("three", 3)] {
        let entry = spire.entry(id, &format!("{OWN}/{id}"), AGENT, &["a:1"], &[]);
        rows.iter().take(count).for_each(|bundle| spire.federate(entry, *bundle));
    }
    // c.org has no relationship, d.org has no bundle, a.org's ID is of another trust domain.
    let endpoint = "spiffe://b.org/endpoint";
    let first = spire.relationship("a.org", "https://a.org/bundle", "https_spiffe", endpoint);
    spire.relationship("b.org", "https://b.org:8443", "https_web", "spiffe://b.org/stale");
    spire.relationship("d.org", "https://d.org", "https_web", "");
    spire.relationship("odd.org", "https://odd.org", "https_carrier_pigeon", "");
    spire.relationship("plain.org", "http://plain.org", "https_web", "");
    let copied = copied(&mut spire, kind).await;

    let expected = ["odd.org", "plain.org"].map(|name| (name, Cause::Unreadable));
    assert_eq!(copied.skipped("federated_trust_domains"), expected);
    assert_eq!(copied.report.remarks.items, []);
    for (id, count) in [("none", 0), ("one", 1), ("three", 3)] {
        let expected = names.iter().take(count).map(|name| domain(name)).collect();
        assert_eq!(copied.entry(id).await.federates_with, expected);
    }
    // Case 4: one table has the scheme in its names, the other has not.
    let text = format!(
        "SELECT COUNT(*) FROM federation_relationships r JOIN bundles b \
         ON b.trust_domain = r.trust_domain WHERE \
         (r.number = {first} AND r.trust_domain = 'a.org' \
          AND r.bundle_endpoint_url = 'https://a.org/bundle' \
          AND r.endpoint_spiffe_id = '{endpoint}') OR \
         (r.trust_domain = 'b.org' AND r.bundle_endpoint_url = 'https://b.org:8443' \
          AND r.endpoint_spiffe_id = '')"
    );
    assert_eq!(copied.target.number(&text).await, 2);
    let all = "SELECT COUNT(*) FROM federation_relationships";
    assert_eq!(copied.target.number(all).await, 3);
}
