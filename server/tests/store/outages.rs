//! Database servers that go away, and what the store does about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use spire_server::store::{CaJournal, EntryFilter, PoolSettings, Settings, Store, StoreError};
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

#[tokio::test]
async fn what_others_wrote_after_a_lost_commit_hides_only_what_the_log_does_not_tell() {
    for engine in ENGINES {
        let database = private(engine).await;
        let address = database.server().address().unwrap();
        let proxy = Proxy::to(address).await.unwrap();
        let open = async |text: &str| {
            Store::open(&Settings::new(database.database_type(), text).unwrap()).await.unwrap()
        };
        let store = open(&database.through(&proxy).unwrap()).await;
        let other = open(&database.connection_string()).await;
        let lose = async |name: &str| {
            while proxy.awaits_commit() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            create(&other, name).await.unwrap();
            proxy.lead_to(address);
        };
        // Until the other one has written, the database cannot be asked.
        let nowhere = ([127, 0, 0, 1], 1).into();
        proxy.lead_to(nowhere);
        proxy.cut_at_commit(Cut::AfterCommit);
        let (created, ()) = futures::join!(create(&store, "one"), lose("two"));
        assert_eq!(created, Ok(()), "{engine:?}");
        proxy.lead_to(nowhere);
        proxy.cut_at_commit(Cut::AfterCommit);
        let token = store.create_join_token("token".into(), at(1), None);
        let (created, ()) = futures::join!(token, lose("three"));
        assert!(matches!(created, Err(StoreError::Unavailable(_))), "{engine:?}: {created:?}");
        assert_eq!(count(&store).await, 3, "{engine:?}");
        assert_eq!(store.prune_join_tokens(at(2)).await, Ok(1), "{engine:?}");
    }
}

#[tokio::test]
async fn connections_are_replaced_when_their_time_is_up_and_few_are_held_at_rest() {
    let test = async |engine| {
        let database = Database::new(engine).await.unwrap();
        let own = match engine {
            Engine::Postgres => {
                "(SELECT pid::bigint id FROM pg_stat_activity WHERE datname = current_database() \
                 AND pid <> pg_backend_pid()) c"
            }
            Engine::MariaDb => {
                "(SELECT id FROM information_schema.processlist WHERE db = DATABASE() \
                 AND id <> CONNECTION_ID()) c"
            }
        };
        let number =
            async |what: &str| database.number(&format!("SELECT {what} FROM {own}")).await.unwrap();
        let settings = Settings::new(database.database_type(), &database.connection_string());
        let settings = settings.unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "kept").await.unwrap();
        assert_eq!(count(&store).await, 1);
        // The writer's, a reader's, and with PostgreSQL the listener's, which may take a moment.
        let expected = if engine == Engine::Postgres { 3 } else { 2 };
        within_reason(async || number("COUNT(*)").await == expected).await;
        store.close().await;
        within_reason(async || number("COUNT(*)").await == 0).await;

        let pool = PoolSettings {
            max_lifetime: Some(Duration::from_millis(200)),
            ..PoolSettings::default()
        };
        let store = Store::open(&Settings { pool, ..settings }).await.unwrap();
        within_reason(async || number("COUNT(*)").await == expected - 1).await;
        let (first, last) = (number("MIN(id)").await, number("MAX(id)").await);
        let of_the_start = format!("COUNT(CASE WHEN id BETWEEN {first} AND {last} THEN 1 END)");
        let mut names = 0..;
        let replaced = async || {
            create(&store, &names.next().unwrap().to_string()).await.unwrap();
            number(&of_the_start).await == 0
        };
        within_reason(replaced).await;
    };
    join_all(ENGINES.map(test)).await;
}

/// Asks until it is so.
async fn within_reason(mut is_so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it is never so");
}

fn journal() -> CaJournal {
    CaJournal {
        id: None,
        active_x509_authority_id: "00".into(),
        data: Bytes::from_static(b"journal"),
        expires_at: at(1000),
    }
}

/// The clock of the tests that follow stands while a connection leads nowhere, and goes on by itself to
/// the next time limit.
#[tokio::test]
async fn a_connection_that_leads_nowhere_keeps_nobody_for_long() {
    for engine in ENGINES {
        let database = private(engine).await;
        let proxy = Proxy::to(database.server().address().unwrap()).await.unwrap();
        let text = database.through(&proxy).unwrap();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();
        // Nobody tells that the machine is gone.
        proxy.hold(true);
        tokio::time::pause();
        let begun = Instant::now();
        let refused = create(&store, "lost").await;
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("no answer within"), "{engine:?}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(25), "{engine:?}: {:?}", begun.elapsed());
        tokio::time::resume();
        proxy.hold(false);
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2, "{engine:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_middle_of_a_write_keeps_nobody_for_long() {
    for engine in ENGINES {
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
        let waiting = async || {
            wait_until_stuck(&database, 1).await;
            proxy.hold(true);
            tokio::time::pause();
            let begun = Instant::now();
            let names = ["a", "b", "c"];
            for refused in join_all(names.map(|name| create(&store, name))).await {
                assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
            }
            begun.elapsed()
        };
        let (refused, took) = futures::join!(create(&store, "lost"), waiting());
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("no answer within"), "{engine:?}: {why}");
        assert!(took < Duration::from_secs(35), "{engine:?}: {took:?}");
        tokio::time::resume();
        obstacle.execute(unlock).await.unwrap();
        proxy.hold(false);
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2, "{engine:?}");
    }
}
