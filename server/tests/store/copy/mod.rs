//! Copies between databases of every kind: what arrives, what is refused, what is left behind.

pub(crate) mod command;
mod halfway;
mod killed;
mod pairs;
mod refusals;

use std::collections::BTreeSet;

use bytes::Bytes;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::entry::{AdditionalAttributes, Entry, EntryId, EntryUpdate};
use spire_core::selector::RequiredSelectors;
use spire_server::store::copy::{CopyError, Order, Progress, Report, copy};
use spire_server::store::{
    Attestation, CaJournal, EntryFilter, KeyFingerprint, Node, NodeFilter, Page, Redemption,
    Revision, Settings, Store, TokenUse,
};

use crate::{Fresh, Kind, Location, at, attestation, domain, entry, id, selectors};

/// More than are read at a time.
const ENTRIES: u32 = 1100;

/// A store that holds something of everything, closed.
async fn filled(kind: Kind) -> Fresh {
    let fresh = Fresh::new(kind).await;
    fill(&fresh.store).await;
    fresh
        .database
        .execute(
            "INSERT INTO federation_relationships \
             (number, trust_domain, bundle_endpoint_url, endpoint_spiffe_id) VALUES \
             (7, 'b.org', 'https://b.org/bundle', ''), \
             (9, 'a.org', 'https://a.org:8443', 'spiffe://c.org/endpoint')",
        )
        .await;
    fresh.store.close().await;
    fresh
}

async fn fill(store: &Store) {
    for bundle in bundles() {
        store.create_bundle(bundle).await.unwrap();
    }
    let one = |number: u32| entry(&format!("e{number}"), &format!("/{number}"), &["a:1", "b:2"]);
    store.create_entries((0..ENTRIES).map(one).collect()).await.unwrap();
    store.create_entries(vec![rich("CLUSTER.rich_1"), rich("cluster.rich_1")]).await.unwrap();
    store.delete_entries(vec!["e5".parse().unwrap()]).await.unwrap();
    let update = EntryUpdate::new("e6".parse::<EntryId>().unwrap());
    store.update_entries(vec![update.clone(), update]).await.unwrap();

    let attest = async |attestation: Attestation| {
        store.record_attestation(attestation, at(1000)).await.unwrap();
    };
    attest(attestation("/spire/agent/a", "340282366920938463463374607431768211455")).await;
    attest(attestation("/spire/agent/banned", "2")).await;
    attest(attestation("/spire/agent/pending", "3")).await;
    let replayable = attestation("/spire/agent/once", "4");
    let expires_at = at(1_600_000_000);
    attest(Attestation {
        can_reattest: false,
        expires_at,
        selectors: BTreeSet::new(),
        ..replayable
    })
    .await;
    store.ban_node(id("/spire/agent/banned")).await.unwrap();
    let pending = id("/spire/agent/pending");
    store.renew_node(pending, "5".into(), at(2_000_000_009)).await.unwrap();
    store.set_agent_version(id("/spire/agent/a"), "1.15.3".into()).await.unwrap();

    for token in ["unused", "Unused", "spent"] {
        store.create_join_token(token.into(), at(2_000_000_000), None).await.unwrap();
    }
    store.redeem_join_token(offered("spent", 1), at(1000)).await.unwrap();
    for (authority, data) in [("aa", &b"one"[..]), ("bb", b"\0\xff")] {
        let (active_x509_authority_id, data) = (authority.into(), Bytes::from_static(data));
        let expires_at = at(2_000_000_000);
        let journal = CaJournal { id: None, active_x509_authority_id, data, expires_at };
        store.set_ca_journal(journal).await.unwrap();
    }
}

fn offered(token: &str, key: u8) -> TokenUse {
    TokenUse { token: token.into(), key: KeyFingerprint([key; 32]) }
}

fn bundles() -> [Bundle; 3] {
    let root =
        |byte: u8, tainted| X509Authority { certificate: Bytes::from(vec![byte; 600]), tainted };
    let key = |key_id: &str, expires_at, tainted| {
        let public_key = Bytes::from_static(b"\x30\x00key");
        JwtAuthority { key_id: key_id.into(), public_key, expires_at, tainted }
    };
    let own = Bundle {
        x509_authorities: vec![root(2, false), root(1, true)],
        jwt_authorities: vec![key("b", Some(at(2_000_000_000)), false), key("a", None, true)],
        refresh_hint: 300,
        sequence_number: 41,
        ..Bundle::empty(domain("example.org"))
    };
    let foreign = Bundle { sequence_number: u64::MAX, ..Bundle::empty(domain("b.org")) };
    [own, foreign, Bundle::empty(domain("a.org"))]
}

/// An entry with something in every field.
fn rich(name: &str) -> Entry {
    let attributes =
        AdditionalAttributes { disable_x509_svid_prefetch: true, jwt_svid_include_jti: false };
    Entry {
        selectors: RequiredSelectors::new(selectors(&[
            "unix:user:Bob",
            "unix:user:bob",
            "k:é\u{1f600}",
        ]))
        .unwrap(),
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        federates_with: [domain("a.org"), domain("b.org")].into(),
        dns_names: ["z.org", "a.org", "m.org"].map(|name| name.parse().unwrap()).into(),
        admin: true,
        downstream: true,
        expires_at: Some(at(1_900_000_000)),
        hint: "a hint, also 'quoted' ü".parse().unwrap(),
        attributes: Some(attributes),
        ..entry(name, &format!("/{name}"), &["a:1"])
    }
}

/// All that the public face of a store tells.
#[derive(Debug, PartialEq)]
struct Dump {
    bundles: Vec<Bundle>,
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    journals: Vec<CaJournal>,
    pages: Vec<String>,
    revision: Revision,
    relationships: i64,
}

/// What a database holds, with the tokens of its pages.
async fn dump(database: &Location) -> Dump {
    let store = Store::open(&database.settings()).await.unwrap();
    let all = Page::default();
    let mut pages = Vec::new();
    let mut page = Page { after: None, limit: Some(400) };
    while let Some(next) = store.list_entries(&EntryFilter::default(), page).await.unwrap().next {
        pages.push(next.to_string());
        page.after = Some(next);
    }
    let dump = Dump {
        bundles: store.list_bundles(None, all).await.unwrap().items,
        entries: store.list_entries(&EntryFilter::default(), all).await.unwrap().items,
        nodes: store.list_nodes(&NodeFilter::default(), all).await.unwrap().items,
        journals: store.ca_journals().await.unwrap(),
        pages,
        revision: store.latest_revision().await.unwrap(),
        relationships: database
            .number(
                "SELECT COUNT(*) FROM federation_relationships WHERE \
                 (number = 7 AND trust_domain = 'b.org' AND endpoint_spiffe_id = '') OR \
                 (number = 9 AND bundle_endpoint_url = 'https://a.org:8443' \
                  AND endpoint_spiffe_id = 'spiffe://c.org/endpoint')",
            )
            .await,
    };
    store.close().await;
    dump
}

/// Spends all tokens on a copy.
async fn tokens_are_good(store: &Store) {
    for (token, key, expected) in [
        ("unused", 1, Redemption::Fresh),
        ("Unused", 2, Redemption::Fresh),
        ("spent", 1, Redemption::Again),
        ("spent", 2, Redemption::Used),
        ("unknown", 1, Redemption::Unknown),
    ] {
        let redeemed = store.redeem_join_token(offered(token, key), at(1000)).await;
        assert_eq!(redeemed, Ok(expected), "{token}");
    }
}

fn order(from: &Settings, to: &Settings) -> Order {
    let (from, to) = (from.clone(), to.clone());
    Order { from, to, data_dir: None, rehearsal: false, now: at(1_700_000_000) }
}

async fn run(order: &Order) -> Result<Report, CopyError> {
    copy(order, &mut |_: Progress| ()).await
}

/// How many tables there are, without making any.
async fn tables(database: &Location) -> i64 {
    let tables = match database {
        Location::File(folder) if std::fs::read_dir(folder.path()).unwrap().count() == 0 => {
            return 0;
        }
        Location::File(_) => "SELECT COUNT(*) FROM sqlite_master",
        Location::Server(database) if database.database_type() == "postgres" => {
            "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema()"
        }
        Location::Server(_) => {
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
        }
    };
    database.number(tables).await
}
