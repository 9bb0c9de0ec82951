//! Attested nodes.

use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::try_join_all;
use spire_server::store::{
    Attestation, Bookmark, Change, EntryFilter, KeyFingerprint, Node, NodeFilter, Page, Recorded,
    Redemption, SetMatch, SetRule, Settings, Store, StoreError, TokenUse,
};
use spire_test_databases::{Database, Engine, Server};

use crate::{Fresh, Kind, at, attestation, each_database, entry, id, selectors};

each_database! {
    an_attested_node_is_known_after_a_restart,
    attesting_again_replaces_what_was_known,
    evidence_that_could_be_replayed_counts_once,
    an_agent_whose_answer_was_lost_may_ask_again_for_a_while,
    a_banned_agent_stays_out_until_it_is_deleted,
    a_pending_serial_becomes_the_present_one_when_used,
    a_version_that_did_not_change_is_no_change,
    an_evicted_token_agent_takes_its_token_and_alias_along,
    a_token_that_admits_nobody_records_nobody,
    filters_find_what_they_name,
    pruning_spares_the_banned_and_the_proof_of_first_use,
}

async fn record(store: &Store, attestation: Attestation) -> Recorded {
    store.record_attestation(attestation, at(1000)).await.unwrap()
}

async fn known(store: &Store, path: &str) -> Node {
    store.node(&id(path)).await.unwrap().unwrap()
}

async fn an_attested_node_is_known_after_a_restart(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    let given = Attestation {
        expires_at: "2040-01-01T00:00:00.5Z".parse().unwrap(),
        ..attestation("/spire/agent/a", "17")
    };
    let Recorded::Stored(node) = record(&fresh.store, given.clone()).await else { panic!() };
    assert_eq!((&node.serial, &node.selectors), (&given.serial, &given.selectors));
    fresh.reopen().await;
    assert_eq!(known(&fresh.store, "/spire/agent/a").await, node);
    assert_eq!(fresh.store.node(&id("/spire/agent/b")).await, Ok(None));
    assert_eq!(fresh.changes(Bookmark::default()).await, [Change::Node(node.agent_id)]);
}

async fn attesting_again_replaces_what_was_known(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let first = attestation("/spire/agent/a", "1");
    record(&fresh.store, first.clone()).await;
    let agent_id = first.agent_id.clone();
    fresh.store.renew_node(agent_id.clone(), "2".into(), at(2_100_000_000)).await.unwrap();
    fresh.store.set_agent_version(agent_id, "1.2.3".into()).await.unwrap();
    let again = Attestation {
        serial: "3".into(),
        expires_at: at(2_200_000_000),
        selectors: selectors(&["x509pop:ca:two", "x509pop:ca:three"]),
        ..first
    };
    let Recorded::Stored(node) = record(&fresh.store, again.clone()).await else { panic!() };
    assert_eq!(known(&fresh.store, "/spire/agent/a").await, node);
    assert_eq!((node.serial.as_str(), node.new_serial.as_str()), ("3", ""));
    assert_eq!((node.expires_at, node.new_expires_at), (again.expires_at, None));
    assert_eq!((node.selectors, node.agent_version.as_str()), (again.selectors, "1.2.3"));
    let by = |text: &str| NodeFilter {
        selectors: Some(SetMatch { members: selectors(&[text]), rule: SetRule::Superset }),
        ..NodeFilter::default()
    };
    assert_eq!(fresh.store.count_nodes(&by("x509pop:subject:cn:one")).await, Ok(0));
    assert_eq!(fresh.store.count_nodes(&by("x509pop:ca:three")).await, Ok(1));
}

async fn evidence_that_could_be_replayed_counts_once(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let tries = (0..50_u8).map(|number| {
        let first = attestation("/spire/agent/a", &number.to_string());
        let key = KeyFingerprint([number; 32]);
        record(&fresh.store, Attestation { can_reattest: false, key, ..first })
    });
    let outcomes = futures::future::join_all(tries).await;
    let mut stored = outcomes.iter().filter_map(|outcome| match outcome {
        Recorded::Stored(node) => Some(node),
        Recorded::AlreadyUsed => None,
        other => panic!("{other:?}"),
    });
    let winner = stored.next().unwrap();
    assert_eq!(stored.next(), None);
    assert_eq!(known(&fresh.store, "/spire/agent/a").await, *winner);
}

async fn an_agent_whose_answer_was_lost_may_ask_again_for_a_while(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let first = Attestation { can_reattest: false, ..attestation("/spire/agent/a", "1") };
    let stored = async |key: u8, second: i64, serial: &str| {
        let again =
            Attestation { key: KeyFingerprint([key; 32]), serial: serial.into(), ..first.clone() };
        let allowed = fresh.store.has_just_attested(&again.agent_id, again.key, at(second)).await;
        let recorded = fresh.store.record_attestation(again, at(second)).await.unwrap();
        let is_stored = matches!(recorded, Recorded::Stored(_));
        assert!(is_stored || recorded == Recorded::AlreadyUsed, "{recorded:?}");
        (allowed.unwrap(), is_stored)
    };
    assert_eq!(stored(1, 1000, "1").await, (false, true));
    assert_eq!(stored(2, 1001, "2").await, (false, false), "another key");
    assert_eq!(stored(1, 1599, "3").await, (true, true));
    let node = known(&fresh.store, "/spire/agent/a").await;
    assert_eq!((node.serial.as_str(), node.can_reattest), ("3", false));
    assert_eq!(stored(1, 1600, "4").await, (false, false), "repeating does not prolong it");

    fresh.store.delete_node(first.agent_id.clone()).await.unwrap();
    assert_eq!(stored(1, 2000, "5").await, (false, true));
    fresh.store.renew_node(first.agent_id.clone(), "6".into(), at(2_100_000_000)).await.unwrap();
    assert_eq!(stored(1, 2001, "7").await, (false, false), "it has renewed, and so was answered");
    fresh.store.ban_node(first.agent_id.clone()).await.unwrap();
    assert_eq!(record(&fresh.store, first.clone()).await, Recorded::Banned);
}

async fn a_banned_agent_stays_out_until_it_is_deleted(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let given = attestation("/spire/agent/a", "1");
    let agent_id = given.agent_id.clone();
    assert_eq!(fresh.store.ban_node(agent_id.clone()).await, Err(StoreError::NotFound));
    record(&fresh.store, given.clone()).await;
    fresh.store.renew_node(agent_id.clone(), "2".into(), at(2_100_000_000)).await.unwrap();
    fresh.store.ban_node(agent_id.clone()).await.unwrap();
    let node = known(&fresh.store, "/spire/agent/a").await;
    assert!(node.is_banned() && node.new_serial.is_empty());
    assert_eq!((node.expires_at, node.selectors.len()), (given.expires_at, 2));
    assert_eq!(record(&fresh.store, given.clone()).await, Recorded::Banned);
    let renewal = fresh.store.renew_node(agent_id.clone(), "3".into(), at(2_100_000_000)).await;
    assert_eq!(renewal, Err(StoreError::Refused("agent is banned".into())));
    let promoted = fresh.store.promote_serial(agent_id.clone(), "2".into()).await.unwrap();
    assert!(promoted.is_banned());
    fresh.store.delete_node(agent_id).await.unwrap();
    assert!(matches!(record(&fresh.store, given).await, Recorded::Stored(_)));
}

async fn a_pending_serial_becomes_the_present_one_when_used(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let agent_id = id("/spire/agent/a");
    let missing = fresh.store.renew_node(agent_id.clone(), "2".into(), at(1)).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    let missing = fresh.store.promote_serial(agent_id.clone(), "2".into()).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    record(&fresh.store, attestation("/spire/agent/a", "1")).await;
    let later = at(2_100_000_000);
    let node = fresh.store.renew_node(agent_id.clone(), "2".into(), later).await.unwrap();
    assert_eq!((node.serial.as_str(), node.new_serial.as_str()), ("1", "2"));
    for other in ["1", "3", ""] {
        let same = fresh.store.promote_serial(agent_id.clone(), other.into()).await;
        assert_eq!(same.as_ref(), Ok(&node), "{other:?}");
    }
    let promoted = fresh.store.promote_serial(agent_id.clone(), "2".into()).await.unwrap();
    assert_eq!((promoted.serial.as_str(), promoted.new_serial.as_str()), ("2", ""));
    assert_eq!((promoted.expires_at, promoted.new_expires_at), (later, None));
    assert_eq!(known(&fresh.store, "/spire/agent/a").await, promoted);
    assert_eq!(fresh.store.promote_serial(agent_id, "2".into()).await, Ok(promoted));
}

async fn a_version_that_did_not_change_is_no_change(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let agent_id = id("/spire/agent/a");
    let missing = fresh.store.set_agent_version(agent_id.clone(), "1".into()).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    record(&fresh.store, attestation("/spire/agent/a", "1")).await;
    fresh.store.set_agent_version(agent_id.clone(), "1".into()).await.unwrap();
    let revision = fresh.store.latest_revision().await;
    fresh.store.set_agent_version(agent_id, "1".into()).await.unwrap();
    assert_eq!(fresh.store.latest_revision().await, revision);
}

async fn an_evicted_token_agent_takes_its_token_and_alias_along(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let agent_id = id("/spire/agent/join_token/secret");
    let own = format!("spiffe_id:{agent_id}");
    let below = |name: &str, texts: &[&str]| spire_core::entry::Entry {
        parent_id: agent_id.clone(),
        ..entry(name, &format!("/{name}"), texts)
    };
    let alias = Some(below("alias", &[&own]));
    fresh.store.create_join_token("secret".into(), at(5000), alias).await.unwrap();
    let others = vec![below("child", &["unix:uid:1"]), below("both", &[&own, "unix:uid:1"])];
    fresh.store.create_entries(others).await.unwrap();
    let key = KeyFingerprint([1; 32]);
    let given = Attestation {
        agent_id: agent_id.clone(),
        attestation_type: "join_token".into(),
        can_reattest: false,
        selectors: selectors(&[]),
        join_token: Some(TokenUse { token: "secret".into(), key }),
        ..attestation("/x", "1")
    };
    assert!(matches!(record(&fresh.store, given.clone()).await, Recorded::Stored(_)));
    let again = Attestation { serial: "2".into(), ..given.clone() };
    let Recorded::Stored(node) = record(&fresh.store, again).await else { panic!() };
    assert_eq!(node.serial, "2");

    let before = fresh.store.bookmark().await.unwrap();
    assert_eq!(fresh.store.delete_node(agent_id.clone()).await.unwrap(), node);
    let listed = fresh.store.list_entries(&EntryFilter::default(), Page::default()).await.unwrap();
    let left: Vec<_> = listed.items.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(left, ["child", "both"]);
    let changes = fresh.changes(before).await;
    assert_eq!(changes, [Change::Node(agent_id.clone()), Change::Entry("alias".parse().unwrap())]);
    assert_eq!(record(&fresh.store, given).await, Recorded::Token(Redemption::Unknown));
    assert_eq!(fresh.store.delete_node(agent_id).await, Err(StoreError::NotFound));
}

async fn a_token_that_admits_nobody_records_nobody(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    fresh.store.create_join_token("old".into(), at(999), None).await.unwrap();
    let offered = |token: &str| Attestation {
        join_token: Some(TokenUse { token: token.into(), key: KeyFingerprint([1; 32]) }),
        ..attestation("/spire/agent/a", "1")
    };
    let expired = record(&fresh.store, offered("old")).await;
    assert_eq!(expired, Recorded::Token(Redemption::Expired));
    for token in ["old", "none"] {
        let unknown = record(&fresh.store, offered(token)).await;
        assert_eq!(unknown, Recorded::Token(Redemption::Unknown), "{token}");
    }
    assert_eq!(fresh.store.count_nodes(&NodeFilter::default()).await, Ok(0));
}

async fn filters_find_what_they_name(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let given = |name: &str, second, texts: &[&str]| Attestation {
        expires_at: at(second),
        selectors: selectors(texts),
        ..attestation(&format!("/{name}"), "1")
    };
    record(&fresh.store, given("a", 100, &["s:1"])).await;
    record(&fresh.store, Attestation { can_reattest: false, ..given("b", 200, &["s:1", "s:2"]) })
        .await;
    let token = Attestation { attestation_type: "k8s_psat".into(), ..given("c", 300, &[]) };
    record(&fresh.store, token).await;
    record(&fresh.store, given("d", 400, &["s:2"])).await;
    fresh.store.ban_node(id("/d")).await.unwrap();
    let base = NodeFilter::default();
    let by = |texts: &[&str], rule| NodeFilter {
        selectors: Some(SetMatch { members: selectors(texts), rule }),
        ..NodeFilter::default()
    };
    let cases: &[(NodeFilter, &[&str])] = &[
        (base.clone(), &["/a", "/b", "/c", "/d"]),
        (NodeFilter { attestation_type: Some("k8s_psat".into()), ..base.clone() }, &["/c"]),
        (NodeFilter { banned: Some(true), ..base.clone() }, &["/d"]),
        (NodeFilter { banned: Some(false), ..base.clone() }, &["/a", "/b", "/c"]),
        (NodeFilter { can_reattest: Some(false), ..base.clone() }, &["/b"]),
        (NodeFilter { expires_before: Some(at(300)), ..base.clone() }, &["/a", "/b"]),
        (by(&["s:1"], SetRule::Exact), &["/a"]),
        (by(&["s:1"], SetRule::Superset), &["/a", "/b"]),
        (by(&["s:1", "s:2"], SetRule::Superset), &["/b"]),
        (by(&["s:1", "s:2"], SetRule::Exact), &["/b"]),
        (by(&["s:2"], SetRule::Subset), &["/d"]),
        (by(&["s:1", "s:2"], SetRule::Any), &["/a", "/b", "/d"]),
        (NodeFilter { banned: Some(true), ..by(&["s:2"], SetRule::Any) }, &["/d"]),
    ];
    for (filter, expected) in cases {
        for limit in [None, Some(1), Some(3)] {
            let mut page = Page { after: None, limit };
            let mut paths = Vec::new();
            loop {
                let listed = fresh.store.list_nodes(filter, page).await.unwrap();
                paths.extend(listed.items.iter().map(|node| node.agent_id.path().to_owned()));
                page.after = listed.next;
                if page.after.is_none() {
                    break;
                }
            }
            assert_eq!(paths, *expected, "{filter:?} {limit:?}");
        }
        let count = fresh.store.count_nodes(filter).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
    let all: Vec<_> = fresh.store.every_node(Bookmark::default()).try_collect().await.unwrap();
    assert_eq!(all.concat().len(), 4);
    assert_eq!(fresh.store.nodes(&[id("/a"), id("/x"), id("/d")]).await.unwrap().len(), 2);
}

async fn pruning_spares_the_banned_and_the_proof_of_first_use(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    for (name, second, can_reattest) in [
        ("a", 100, true),
        ("b", 100, true),
        ("tofu", 100, false),
        ("ban", 100, true),
        ("new", 200, true),
    ] {
        let given = attestation(&format!("/{name}"), "1");
        record(&fresh.store, Attestation { expires_at: at(second), can_reattest, ..given }).await;
    }
    fresh.store.ban_node(id("/ban")).await.unwrap();
    let prune = |all, limit| fresh.store.prune_expired_nodes(at(200), all, limit);
    assert_eq!(prune(false, 1).await, Ok(vec![id("/a")]));
    assert_eq!(prune(false, 9).await, Ok(vec![id("/b")]));
    assert_eq!(prune(true, 9).await, Ok(vec![id("/tofu")]));
    assert_eq!(prune(true, 9).await, Ok(vec![]));
    assert_eq!(fresh.store.count_nodes(&NodeFilter::default()).await, Ok(2));
    assert_eq!(fresh.database.number("SELECT COUNT(*) FROM node_selectors").await, 4);
}

#[tokio::test]
async fn many_agents_go_with_few_statements() {
    // A server of its own, which counts for all databases.
    let server = Arc::new(Server::start(Engine::MariaDb).await.unwrap());
    let database = Database::on(&server).await.unwrap();
    let settings = Settings::new(database.database_type(), &database.connection_string()).unwrap();
    let store = Store::open(&settings).await.unwrap();
    let found: Vec<_> = (0..15).map(|number| format!("x509pop:of:{number}")).collect();
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    let attested = (0..200).map(|number| Attestation {
        expires_at: at(100),
        selectors: selectors(&found),
        ..attestation(&format!("/{number}"), "1")
    });
    let recorded = attested.map(|attestation| store.record_attestation(attestation, at(1)));
    try_join_all(recorded).await.unwrap();

    let executed = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                    WHERE variable_name = 'COM_STMT_EXECUTE'";
    let before = database.number(executed).await.unwrap();
    assert_eq!(store.prune_expired_nodes(at(200), false, 500).await.unwrap().len(), 200);
    let statements = database.number(executed).await.unwrap() - before;
    assert!(statements < 40, "{statements}");
    for table in ["nodes", "node_selectors"] {
        let left = database.number(&format!("SELECT COUNT(*) FROM {table}")).await;
        assert_eq!(left.unwrap(), 0, "{table}");
    }
}
