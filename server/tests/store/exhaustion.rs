//! What runs out: connections of the pool, connections of the database, its disk.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use spire_server::store::{EntryFilter, PoolSettings, Settings, Store, StoreError};
use spire_test_databases::{Database, Engine, Limits, Server};
use tokio::time::Instant;

use crate::entry;

/// The longest that a call waits for a connection, and some time for a slow machine.
const BOUND: Duration = Duration::from_secs(20);

async fn create(store: &Store, name: &str) -> Result<(), StoreError> {
    let one = entry(name, &format!("/{name}"), &["a:1"]);
    store.create_entries(vec![one]).await?.remove(0).map(drop)
}

async fn count(store: &Store) -> Result<u64, StoreError> {
    store.count_entries(&EntryFilter::default()).await
}

async fn open(database: &Database, max_open: u32) -> Store {
    let settings = Settings::new(database.database_type(), &database.connection_string()).unwrap();
    let pool = PoolSettings { max_open, ..PoolSettings::default() };
    Store::open(&Settings { pool, ..settings }).await.unwrap()
}

/// The reason why a call was refused, which it was in time.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>, begun: Instant) -> String {
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    let Err(StoreError::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
    why
}

#[tokio::test]
async fn reads_that_find_no_connection_of_the_pool_are_refused_in_time() {
    let test = async |engine, lock: &str, own: u32| {
        let database = Database::new(engine).await.unwrap();
        // The writer has one, and where there is a listener that one too.
        let store = open(&database, 2 + own).await;
        create(&store, "before").await.unwrap();
        let mut obstacle = database.hold(lock).await.unwrap();
        let stuck = [tokio::spawn(read(store.clone())), tokio::spawn(read(store.clone()))];
        wait_until_stuck(&database, 2).await;

        let begun = Instant::now();
        for outcome in join_all([count(&store), count(&store), count(&store)]).await {
            let why = refused(outcome, begun);
            assert!(why.contains("max_open_conns is low"), "{engine:?}: {why}");
        }
        let unlock = if engine == Engine::Postgres { "ROLLBACK" } else { "UNLOCK TABLES" };
        obstacle.execute(unlock).await.unwrap();
        for outcome in join_all(stuck).await {
            assert_eq!(outcome.unwrap(), Ok(1), "{engine:?}");
        }
        assert_eq!(count(&store).await, Ok(1), "{engine:?}");
        create(&store, "after").await.unwrap();
    };
    let lock = "BEGIN; LOCK TABLE entries IN ACCESS EXCLUSIVE MODE";
    let of_mysql = "LOCK TABLES entries WRITE";
    join(test(Engine::Postgres, lock, 2), test(Engine::MariaDb, of_mysql, 1)).await;
}

async fn read(store: Store) -> Result<u64, StoreError> {
    count(&store).await
}

/// Waits until so many reads of entries wait for a lock.
pub(crate) async fn wait_until_stuck(database: &Database, reads: i64) {
    let query = match database.server().engine() {
        Engine::Postgres => {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock'"
        }
        Engine::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
             AND state LIKE 'Waiting for table%'"
        }
    };
    while database.number(query).await.unwrap() < reads {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_database_that_takes_no_more_connections_refuses_reads_and_is_got_over() {
    let test = async |engine| {
        let server = Arc::new(
            Server::start_with(engine, Limits { connections: 10, ..Limits::default() })
                .await
                .unwrap(),
        );
        let database = Database::on(&server).await.unwrap();
        let store = open(&database, 100).await;
        create(&store, "before").await.unwrap();
        let mut others = Vec::new();
        let why = loop {
            match database.hold("SELECT 1").await {
                Ok(other) => others.push(other),
                Err(why) => break why.to_string().to_lowercase(),
            }
        };
        assert!(why.contains("too many"), "{engine:?}: {why}");

        // What is open goes on; what needs a new connection waits for a while.
        create(&store, "meanwhile").await.unwrap();
        let begun = Instant::now();
        let why = refused(count(&store).await, begun);
        assert!(why.contains("max_open_conns"), "{engine:?}: {why}");
        let settings = Settings::new(database.database_type(), &database.connection_string());
        let begun = Instant::now();
        let look = Store::look(&settings.unwrap()).await.err().unwrap().to_string();
        assert!(begun.elapsed() < BOUND && look.contains("max_connections"), "{engine:?}: {look}");

        for other in others {
            other.close().await.unwrap();
        }
        // The database notices a moment later that they have gone.
        let begun = Instant::now();
        while count(&store).await != Ok(2) {
            assert!(begun.elapsed() < BOUND, "{engine:?}");
        }
        create(&store, "after").await.unwrap();
    };
    join(test(Engine::Postgres), test(Engine::MariaDb)).await;
}

#[tokio::test]
async fn a_full_disk_of_a_database_refuses_writes_loses_none_and_is_got_over() {
    let test = async |engine| {
        let server = Arc::new(
            Server::start_with(engine, Limits { disk: Some(384), ..Limits::default() })
                .await
                .unwrap(),
        );
        let database = Database::on(&server).await.unwrap();
        let store = open(&database, 100).await;
        let many = |from: u32| {
            let numbers = from..from + 100;
            let one = |number| entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
            store.create_entries(numbers.map(one).collect())
        };
        let mut acknowledged = 0;
        many(acknowledged).await.unwrap();
        acknowledged += 100;
        server.fill_disk().unwrap();
        let why = loop {
            match many(acknowledged).await {
                Ok(_) => acknowledged += 100,
                Err(StoreError::Unavailable(why)) => break why,
                Err(other) => panic!("{engine:?}: {other:?}"),
            }
            assert!(acknowledged < 100_000, "{engine:?}: the disk is not full");
        };
        assert!(why.contains("free space on the disk of the database"), "{engine:?}: {why}");
        assert_eq!(count(&store).await, Ok(acknowledged.into()), "{engine:?}");
        server.free_disk().unwrap();
        many(acknowledged).await.unwrap();
        assert_eq!(count(&store).await, Ok(u64::from(acknowledged) + 100), "{engine:?}");
    };
    join(test(Engine::Postgres), test(Engine::MariaDb)).await;
}
