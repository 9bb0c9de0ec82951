//! Several servers on one database, doing the same at the same moment.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::{join, join_all, try_join_all};
use spire_core::bundle::X509Authority;
use spire_core::clock::Clock;
use spire_core::entry::EntryUpdate;
use spire_core::tasks::Tasks;
use spire_server::registry::Registry;
use spire_server::store::{
    Attestation, Bookmark, CaJournal, Change, Changes, ConnectionString, CreatedEntry,
    KeyFingerprint, Recorded, Redemption, Settings, Store, StoreError, TokenUse,
};
use spire_test_databases::{Database, Engine, Proxy};
use tokio::time::{Instant, timeout};

use crate::{Fresh, Kind, at, attestation, domain, each_database, entry, private};

each_database! {
    what_must_be_single_is_single,
    no_change_is_missed_by_anybody,
}

/// How often everything is raced for: more by hand.
fn rounds() -> usize {
    std::env::var("SPIRE_TEST_RACES").map_or(100, |text| text.parse().unwrap())
}

async fn three(fresh: &Fresh) -> [Store; 3] {
    let open = || async { Store::open(&fresh.settings).await.unwrap() };
    [open().await, open().await, open().await]
}

async fn what_must_be_single_is_single(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let stores = three(&fresh).await;
    for round in 0..rounds() {
        futures::join!(
            one_token_admits_one_key(&stores, round),
            one_evidence_counts_once(&stores, round),
            one_entry_is_made_changed_and_deleted_once(&stores, round),
            appends_lose_nothing(&stores, round),
            pruning_takes_each_agent_once_and_none_that_came_back(&stores, round),
            each_server_has_its_own_journal(&stores, round),
        );
    }
    assert_eq!(stores[0].ca_journals().await.unwrap().len(), 3 * rounds());
    for store in &stores {
        store.close().await;
    }
}

async fn one_token_admits_one_key(stores: &[Store; 3], round: usize) {
    let token = format!("token-{round}");
    stores[0].create_join_token(token.clone(), at(1000), None).await.unwrap();
    let recorded = (0..6_u8).map(|number| {
        let key = KeyFingerprint([number; 32]);
        let agent = attestation(&format!("/spire/agent/join_token/{token}"), &number.to_string());
        let join_token = Some(TokenUse { token: token.clone(), key });
        let offered = Attestation { can_reattest: false, key, join_token, ..agent };
        stores[usize::from(number) % 3].record_attestation(offered, at(1))
    });
    let recorded = try_join_all(recorded).await.unwrap();
    let stored = recorded.iter().filter(|recorded| matches!(recorded, Recorded::Stored(_)));
    assert_eq!(stored.count(), 1, "{recorded:?}");
    let used = Recorded::Token(Redemption::Used);
    assert_eq!(recorded.iter().filter(|recorded| **recorded == used).count(), 5, "{recorded:?}");
}

/// Three agents have expired when all servers prune: one is gone, one attests anew, one has just been
/// given another SVID.
async fn pruning_takes_each_agent_once_and_none_that_came_back(stores: &[Store; 3], round: usize) {
    let agent = |name: &str, serial: &str, second: i64| Attestation {
        expires_at: at(second),
        ..attestation(&format!("/spire/agent/{name}/{round}"), serial)
    };
    let names = ["gone", "again", "renewed"];
    let [gone, again, renewed] = names.map(|name| agent(name, "1", 5));
    for expired in [&gone, &again, &renewed] {
        stores[0].record_attestation(expired.clone(), at(1)).await.unwrap();
    }
    let of_renewed = renewed.agent_id.clone();
    stores[0].renew_node(of_renewed.clone(), "2".into(), at(2_000_000_000)).await.unwrap();
    let (pruned, attested, promoted) = futures::join!(
        try_join_all(stores.iter().map(|store| store.prune_expired_nodes(at(10), true, 10))),
        stores[1].record_attestation(agent("again", "2", 2_000_000_000), at(1)),
        stores[2].promote_serial(of_renewed.clone(), "2".into()),
    );
    let pruned = pruned.unwrap().concat();
    let times = |agent: &Attestation| pruned.iter().filter(|id| **id == agent.agent_id).count();
    assert!(matches!(attested.unwrap(), Recorded::Stored(_)));
    let left = stores[0].nodes(&[again.agent_id.clone(), of_renewed, gone.agent_id.clone()]).await;
    let mut left: Vec<_> = left.unwrap().into_iter().map(|node| node.agent_id).collect();
    left.sort();
    assert_eq!(times(&gone), 1);
    assert!(times(&again) <= 1);
    match promoted {
        Ok(node) => {
            assert_eq!((node.serial.as_str(), times(&renewed)), ("2", 0));
            assert_eq!(left, [again.agent_id, renewed.agent_id]);
        }
        Err(error) => {
            assert_eq!((error, times(&renewed)), (StoreError::NotFound, 1));
            assert_eq!(left, [again.agent_id]);
        }
    }
}

async fn each_server_has_its_own_journal(stores: &[Store; 3], round: usize) {
    let journal = |number: usize| CaJournal {
        id: None,
        active_x509_authority_id: format!("{round}-{number}"),
        data: Bytes::from(vec![number as u8]),
        expires_at: at(1000),
    };
    let set = |(number, store): (usize, &Store)| {
        let store = store.clone();
        async move {
            let first = journal(number);
            let id = Some(store.set_ca_journal(first.clone()).await?);
            store.set_ca_journal(CaJournal { id, data: Bytes::from_static(b"2"), ..first }).await
        }
    };
    let ids = try_join_all(stores.iter().enumerate().map(set)).await.unwrap();
    for (number, id) in ids.into_iter().enumerate() {
        let found = stores[0].find_ca_journal(&[format!("{round}-{number}")]).await.unwrap();
        let expected =
            CaJournal { id: Some(id), data: Bytes::from_static(b"2"), ..journal(number) };
        assert_eq!(found, Some(expected));
    }
}

async fn one_evidence_counts_once(stores: &[Store; 3], round: usize) {
    let recorded = (0..6_u8).map(|number| {
        let first = attestation(&format!("/spire/agent/{round}"), &format!("{number}"));
        let key = KeyFingerprint([number; 32]);
        let once = Attestation { can_reattest: false, key, ..first };
        stores[usize::from(number) % 3].record_attestation(once, at(1))
    });
    let recorded = try_join_all(recorded).await.unwrap();
    let stored = recorded.iter().filter(|recorded| matches!(recorded, Recorded::Stored(_)));
    assert_eq!(stored.count(), 1, "{recorded:?}");
}

async fn one_entry_is_made_changed_and_deleted_once(stores: &[Store; 3], round: usize) {
    let created = stores.iter().enumerate().map(|(number, store)| {
        let same = entry(&format!("{round}-{number}"), &format!("/{round}"), &["a:1", "b:2"]);
        store.create_entries(vec![same])
    });
    let created = try_join_all(created).await.unwrap().into_iter().flatten();
    let (mut stored, mut ids) = (0, BTreeSet::new());
    for created in created {
        let (CreatedEntry::Stored(one) | CreatedEntry::Similar(one)) = created.clone().unwrap();
        stored += usize::from(matches!(created, Ok(CreatedEntry::Stored(_))));
        ids.insert(one.id);
    }
    assert_eq!((stored, ids.len()), (1, 1));

    let id = ids.pop_first().unwrap();
    let updates = [Some(60), Some(70), None].into_iter().zip(stores).map(|(ttl, store)| {
        let update = EntryUpdate { x509_svid_ttl: ttl, ..EntryUpdate::new(id.clone()) };
        store.update_entries(vec![update])
    });
    let updated = try_join_all(updates).await.unwrap().into_iter().flatten();
    let mut revisions: Vec<_> = updated.map(|updated| updated.unwrap().revision_number).collect();
    revisions.sort();
    assert_eq!(revisions, [1, 2, 3]);

    let deleted = stores.iter().map(|store| store.delete_entries(vec![id.clone()]));
    let deleted = try_join_all(deleted).await.unwrap();
    assert_eq!(deleted.concat(), [id]);
}

async fn appends_lose_nothing(stores: &[Store; 3], round: usize) {
    let name = domain(&format!("d{round}.org"));
    let appended = (0..6_u8).map(|byte| {
        let root = X509Authority { certificate: Bytes::from(vec![byte; 3]), tainted: false };
        stores[usize::from(byte) % 3].append_to_bundle(name.clone(), vec![root], vec![])
    });
    try_join_all(appended).await.unwrap();
    let bundle = stores[1].bundle(&name).await.unwrap().unwrap();
    assert_eq!((bundle.x509_authorities.len(), bundle.sequence_number), (6, 5));
}

async fn no_change_is_missed_by_anybody(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let stores = three(&fresh).await;
    let writes = stores.iter().enumerate().map(|(number, store)| async move {
        let mut written = BTreeSet::new();
        for count in 0..40 {
            let name = format!("{number}-{count}");
            let one = entry(&name, &format!("/{name}"), &["a:1"]);
            store.create_entries(vec![one]).await.unwrap();
            written.insert(name);
        }
        written
    });
    // Each server follows the log while all of them write.
    let followed = stores.iter().map(|store| async move {
        let (mut seen, mut bookmark) = (BTreeSet::new(), Bookmark::default());
        while seen.len() < 120 {
            let changes = store.changes_since(bookmark, 7).await.unwrap();
            let Changes::Since { changes, last } = changes else { panic!("{changes:?}") };
            for change in changes {
                let Change::Entry(id) = change else { panic!("{change:?}") };
                assert!(store.entry(&id).await.unwrap().is_some(), "named before it can be seen");
                seen.insert(id.as_str().to_owned());
            }
            bookmark = last;
        }
        seen
    });
    let (written, followed) = futures::join!(join_all(writes), join_all(followed));
    let written: BTreeSet<_> = written.into_iter().flatten().collect();
    assert!(followed.iter().all(|seen| *seen == written));
}

/// Without notifications the servers look by themselves.
#[tokio::test]
async fn an_entry_is_authorized_on_another_server_at_once_or_when_that_looks() {
    let test = async |kind, interval, bound, times| {
        let fresh = Fresh::new(kind).await;
        let there = Store::open(&fresh.settings).await.unwrap();
        let (store, tasks) = (fresh.store.clone(), Tasks::new());
        let clock = Clock::standing_at(at(1));
        let registry = Registry::follow(store, domain("example.org"), clock, interval, &tasks);
        let registry = registry.await.unwrap();
        let agent = attestation("/spire/agent/a", "1");
        there.record_attestation(agent.clone(), at(1)).await.unwrap();
        let known = registry.wait_for(there.latest_revision().await.unwrap());
        // The listener may take a moment until it hears.
        timeout(Duration::from_secs(30), known).await.expect("nothing was heard");
        for number in 1..=times {
            let one = entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
            there.create_entries(vec![one]).await.unwrap();
            let revision = *there.changed().borrow();
            let snapshot = timeout(bound, registry.wait_for(revision)).await;
            let snapshot = snapshot.unwrap_or_else(|_| panic!("{kind:?}: {number} came late"));
            assert_eq!(snapshot.authorized(&agent.agent_id).len(), number, "{kind:?}");
        }
        assert!(tasks.drain(Duration::from_secs(10)).await);
    };
    let (second, interval) = (Duration::from_secs(1), Duration::from_millis(500));
    join(
        test(Kind::Postgres, Duration::from_hours(1), second, 20),
        test(Kind::MySql, interval, interval + second, 3),
    )
    .await;
}

#[tokio::test]
async fn a_replica_is_read_unless_it_lags_hangs_or_is_gone() {
    let test = async |kind, engine, gone| {
        let primary = Fresh::new(kind).await;
        primary.store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
        let database = private(engine).await;
        let text = database.connection_string();
        let replica = Store::open(&Settings::new(database.database_type(), &text).unwrap()).await;
        let replica = replica.unwrap();
        replica.create_entries(vec![entry("replica", "/r", &["a:1"])]).await.unwrap();
        // What it has instead tells where was read.
        let follow = async || {
            let head = "FROM changes WHERE revision = (SELECT revision FROM change_head)";
            let revision = primary.database.number("SELECT revision FROM change_head").await;
            let writer = primary.database.number(&format!("SELECT writer {head}")).await;
            let log = format!(
                "DELETE FROM changes; UPDATE change_head SET revision = {revision}; \
                 INSERT INTO changes (revision, kind, name, changed_at, writer) \
                 VALUES ({revision}, 1, '1', 0, {writer})"
            );
            database.execute(&log).await.unwrap();
        };
        let with = |text: &str| Settings {
            ro_connection_string: ConnectionString::new(text),
            ..primary.settings.clone()
        };
        let read = async |store: &Store| {
            let bookmark = store.bookmark().await.unwrap();
            let entries: Vec<_> = store.every_entry(bookmark).try_concat().await.unwrap();
            entries.into_iter().map(|entry| entry.id.as_str().to_owned()).collect::<Vec<_>>()
        };
        let everything = async |text: &str| read(&Store::open(&with(text)).await.unwrap()).await;
        assert_eq!(everything(&text).await, ["1"], "{engine:?}: it has another history");
        follow().await;
        assert_eq!(everything(&text).await, ["replica"], "{engine:?}");

        // It hangs with the connection that is open, then with a new one.
        let proxy = Proxy::to(database.server().address().unwrap()).await.unwrap();
        let store = Store::open(&with(&database.through(&proxy).unwrap())).await.unwrap();
        assert_eq!(read(&store).await, ["replica"], "{engine:?}");
        proxy.hold(true);
        for expected in [&["1"][..], &["1", "2"]] {
            let begun = Instant::now();
            assert_eq!(read(&store).await, expected, "{engine:?}: it hangs");
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
            primary.store.create_entries(vec![entry("2", "/2", &["a:1"])]).await.unwrap();
            follow().await;
        }
        assert_eq!(everything(&text).await, ["replica"], "{engine:?}: it has caught up");
        primary.store.create_entries(vec![entry("3", "/3", &["a:1"])]).await.unwrap();
        assert_eq!(everything(&text).await, ["1", "2", "3"], "{engine:?}: it lags");
        assert_eq!(everything(gone).await, ["1", "2", "3"], "{engine:?}: it is gone");
    };
    join(
        test(
            Kind::Postgres,
            Engine::Postgres,
            "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable",
        ),
        test(Kind::MySql, Engine::MariaDb, "nobody@tcp(127.0.0.1:1)/nowhere?parseTime=true"),
    )
    .await;
}

#[tokio::test]
async fn databases_are_the_tests_own() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let [one, two] =
            [Database::new(engine).await.unwrap(), Database::new(engine).await.unwrap()];
        one.execute("CREATE TABLE a (b INTEGER)").await.unwrap();
        assert!(two.execute("DROP TABLE a").await.is_err());
    }
}
