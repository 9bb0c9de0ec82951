//! Database servers that go away, and what the store does about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spire_server::store::{CaJournal, EntryFilter, Settings, Store, StoreError};
use spire_test_databases::{Cut, Database, Engine, Proxy, Server};
use tokio::time::Instant;

use crate::exhaustion::wait_until_stuck;
use crate::{at, entry, private};

const ENGINES: [Engine; 2] = [Engine::Postgres, Engine::MariaDb];

async fn create(store: &Store, name: &str) -> Result<(), StoreError> {
    let one = entry(name, &format!("/{name}"), &["a:1"]);
    store.create_entries(vec![one]).await?.remove(0).map(drop)
}

async fn count(store: &Store) -> u64 {
    store.count_entries(&EntryFilter::default()).await.unwrap()
}

#[tokio::test]
async fn a_server_that_stops_refuses_writes_and_costs_none_once_it_is_back() {
    for engine in ENGINES {
        let server = Arc::new(Server::start(engine).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let text = database.connection_string();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();
        assert_eq!(count(&store).await, 1);
        server.stop().unwrap();
        for name in ["a", "b"] {
            let refused = create(&store, name).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        server.start_again().await.unwrap();
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2);
        server.kill().unwrap();
        server.start_again().await.unwrap();
        // The connections of before are lost, and nobody notices.
        create(&store, "again").await.unwrap();
        assert_eq!(count(&store).await, 3);

        server.stop().unwrap();
        let opening = tokio::spawn(async move { Store::open(&settings).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!opening.is_finished(), "a server that is away at the start is waited for");
        server.start_again().await.unwrap();
        assert_eq!(count(&opening.await.unwrap()).await, 3);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_done_once() {
    for engine in ENGINES {
        let database = private(engine).await;
        let proxy = Proxy::to(database.server().address().unwrap()).await.unwrap();
        let text = database.through(&proxy).unwrap();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        for (number, cut) in [Cut::BeforeCommit, Cut::AfterCommit].into_iter().enumerate() {
            proxy.cut_at_commit(cut);
            let before = store.latest_revision().await.unwrap();
            create(&store, &format!("{number}")).await.unwrap();
            assert!(!proxy.awaits_commit(), "{engine:?} {cut:?}: nothing was cut");
            let after = store.latest_revision().await.unwrap();
            assert_eq!(after.0, before.0 + 1, "{engine:?} {cut:?}");
            // What is not in the log of changes is found out as well.
            proxy.cut_at_commit(cut);
            store.create_join_token(format!("{number}"), at(1), None).await.unwrap();
            assert!(!proxy.awaits_commit(), "{engine:?} {cut:?}: nothing was cut");
            proxy.cut_at_commit(cut);
            store.set_ca_journal(journal()).await.unwrap();
            assert!(!proxy.awaits_commit(), "{engine:?} {cut:?}: nothing was cut");
        }
        assert_eq!(count(&store).await, 2);
        assert_eq!(store.ca_journals().await.unwrap().len(), 2);
        assert_eq!(store.prune_join_tokens(at(2)).await, Ok(2));
    }
}

fn journal() -> CaJournal {
    CaJournal {
        id: None,
        active_x509_authority_id: "00".into(),
        data: Bytes::from_static(b"journal"),
        expires_at: at(1000),
    }
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_keeps_nobody_for_long() {
    let test = async |engine| {
        let database = private(engine).await;
        let proxy = Proxy::to(database.server().address().unwrap()).await.unwrap();
        let text = database.through(&proxy).unwrap();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();
        // Nobody tells that the machine is gone.
        proxy.hold(true);
        let begun = Instant::now();
        let refused = create(&store, "lost").await;
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("no answer within"), "{engine:?}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(25), "{engine:?}: {:?}", begun.elapsed());
        proxy.hold(false);
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2, "{engine:?}");
    };
    futures::future::join_all(ENGINES.map(test)).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_middle_of_a_write_keeps_nobody_for_long() {
    let test = async |engine| {
        let database = private(engine).await;
        let proxy = Proxy::to(database.server().address().unwrap()).await.unwrap();
        let text = database.through(&proxy).unwrap();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();
        let (lock, unlock) = match engine {
            Engine::Postgres => ("BEGIN; LOCK TABLE entries IN ACCESS EXCLUSIVE MODE", "ROLLBACK"),
            Engine::MariaDb => ("LOCK TABLES entries WRITE", "UNLOCK TABLES"),
        };
        let mut obstacle = database.hold(lock).await.unwrap();
        let begun = Instant::now();
        let (refused, ()) = futures::join!(create(&store, "lost"), async {
            wait_until_stuck(&database, 1).await;
            proxy.hold(true);
        });
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("no answer within"), "{engine:?}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{engine:?}: {:?}", begun.elapsed());
        obstacle.execute(unlock).await.unwrap();
        proxy.hold(false);
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2, "{engine:?}");
    };
    futures::future::join_all(ENGINES.map(test)).await;
}
