//! Databases that take the place of another: without its last changes, or not to be written yet.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use spire_core::clock::Clock;
use spire_core::tasks::Tasks;
use spire_server::registry::Registry;
use spire_server::store::{Change, Changes, Revision, Settings, Store, StoreError};
use spire_test_databases::{Database, Engine, Server};
use tokio::time::timeout;

use crate::{Fresh, Kind, Location, domain, each_database, entry, store_bundles};

each_database! {
    a_log_that_fell_back_and_filled_up_again_is_another,
    a_registry_shows_what_is_left_and_what_came_instead,
}

/// What a failover loses, with the last revision that is left.
async fn lose(database: &Location, entries: &[&str], left: u64) {
    let names = entries.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let lost = format!(
        "DELETE FROM entry_selectors WHERE owner IN \
         (SELECT number FROM entries WHERE entry_id IN ({names})); \
         DELETE FROM entries WHERE entry_id IN ({names}); \
         DELETE FROM changes WHERE revision > {left}; UPDATE change_head SET revision = {left}"
    );
    database.execute(&lost).await;
}

async fn create(store: &Store, name: &str) -> Result<(), StoreError> {
    let one = entry(name, &format!("/{name}"), &["a:1"]);
    store.create_entries(vec![one]).await?.remove(0).map(drop)
}

async fn a_log_that_fell_back_and_filled_up_again_is_another(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, "kept").await.unwrap();
    let kept = fresh.store.bookmark().await.unwrap();
    create(&fresh.store, "lost").await.unwrap();
    let lost = fresh.store.bookmark().await.unwrap();
    lose(&fresh.database, &["lost"], 1).await;
    let since = async |bookmark| fresh.store.changes_since(bookmark, 9).await.unwrap();
    assert_eq!(since(lost).await, Changes::Pruned, "it is shorter");

    // This server gives the same revision once more.
    let mut changed = fresh.store.changed();
    assert_eq!(*changed.borrow_and_update(), Revision(2));
    create(&fresh.store, "new").await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(fresh.store.bookmark().await.unwrap().revision, lost.revision);
    assert_eq!(since(lost).await, Changes::Pruned, "it is as long as before");
    store_bundles(&fresh.store, &["a.org"]).await;
    assert_eq!(since(lost).await, Changes::Pruned, "it is longer");

    // Who had not read what was lost has missed nothing.
    let new = [Change::Entry("new".parse().unwrap()), Change::Bundle(domain("a.org"))];
    assert_eq!(fresh.changes(kept).await, new);
}

async fn a_registry_shows_what_is_left_and_what_came_instead(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    for name in ["kept", "lost", "lost-2"] {
        create(&fresh.store, name).await.unwrap();
    }
    let (clock, tasks) = (Clock::standing_at(crate::at(1)), Tasks::new());
    let store = fresh.store.clone();
    // It does not look by itself within this test.
    let interval = Duration::from_hours(1);
    let follow = Registry::follow(store, domain("example.org"), clock, interval, &tasks);
    let registry = follow.await.unwrap();
    assert_eq!(registry.snapshot().entry_count(), 3);

    let mut revisions = registry.revisions();
    lose(&fresh.database, &["lost", "lost-2"], 1).await;
    create(&fresh.store, "new").await.unwrap();
    let seen = revisions.wait_for(|revision| *revision == Revision(2));
    timeout(Duration::from_secs(30), seen).await.expect("nothing was published").unwrap();
    let snapshot = registry.snapshot();
    let is_there = |id: &str| snapshot.entry(&id.parse().unwrap()).is_some();
    assert_eq!(["kept", "new", "lost", "lost-2"].map(is_there), [true, true, false, false]);
    assert!(tasks.drain(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_replica_in_the_place_of_the_primary_refuses_writes_until_it_is_promoted() {
    // A server of its own: read_only holds for all of MariaDB.
    let test = async |engine| {
        let server = Arc::new(Server::start(engine).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let name = database.name();
        let (text, demote, promote) = match engine {
            Engine::Postgres => {
                let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only");
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE datname = current_database() AND pid <> pg_backend_pid()";
                let on = format!("{read_only} = on; {end}");
                let off = format!("BEGIN READ WRITE; {read_only} = off; COMMIT");
                (database.connection_string(), on, off)
            }
            Engine::MariaDb => {
                // The administrator may write all the same.
                let user = format!(
                    "CREATE USER writer IDENTIFIED BY 'p'; GRANT ALL ON {name}.* TO writer"
                );
                database.execute(&user).await.unwrap();
                let text = database.connection_string().replace("spire:not-secret@", "writer:p@");
                (text, "SET GLOBAL read_only = 1".into(), "SET GLOBAL read_only = 0".into())
            }
        };
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();

        database.execute(&demote).await.unwrap();
        for name in ["a", "b"] {
            let refused = create(&store, name).await;
            let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
            assert!(why.contains("must lead to the primary"), "{engine:?}: {why}");
        }
        let all = spire_server::store::EntryFilter::default();
        assert_eq!(store.count_entries(&all).await, Ok(1), "{engine:?}");
        database.execute(&promote).await.unwrap();
        create(&store, "after").await.unwrap();
        assert_eq!(store.count_entries(&all).await, Ok(2), "{engine:?}");

        database.execute(&demote).await.unwrap();
        let opening = tokio::spawn(async move { Store::open(&settings).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!opening.is_finished(), "{engine:?}: a failover at the start is waited for");
        database.execute(&promote).await.unwrap();
        create(&opening.await.unwrap(), "late").await.unwrap();
    };
    join(test(Engine::Postgres), test(Engine::MariaDb)).await;
}
