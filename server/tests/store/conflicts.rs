//! Transactions that the database gives up, and what the store makes of that.

use std::time::Duration;

use spire_core::entry::EntryUpdate;
use spire_server::store::{EntryFilter, StoreError};
use spire_test_databases::{Database, Engine};
use tokio::time::{Instant, sleep};

use crate::{Fresh, Kind, Location, entry};

const KINDS: [Kind; 2] = [Kind::Postgres, Kind::MySql];

fn database(fresh: &Fresh) -> &Database {
    match &fresh.database {
        Location::Server(database) => database,
        Location::File(_) => panic!("a file is no server"),
    }
}

#[tokio::test]
async fn a_write_that_loses_a_deadlock_is_done_again() {
    for kind in KINDS {
        let fresh = Fresh::new(kind).await;
        let one = |number| entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
        fresh.store.create_entries((0..100).map(one).collect()).await.unwrap();
        let database = database(&fresh);
        // Somebody, who has more to lose, holds the entry, and then wants what each write holds from its beginning.
        let take = "BEGIN; UPDATE entries SET created_at = created_at + 1";
        let mut other = database.hold(take).await.unwrap();
        let update = EntryUpdate { x509_svid_ttl: Some(7), ..EntryUpdate::new(one(1).id) };
        let store = fresh.store.clone();
        let write = tokio::spawn(async move { store.update_entries(vec![update]).await });
        wait_for_the_write(database).await;
        other.execute("SELECT revision FROM change_head FOR UPDATE").await.unwrap();
        assert!(!write.is_finished(), "{kind:?}");
        other.execute("COMMIT").await.unwrap();
        let updated = write.await.unwrap().unwrap().remove(0).unwrap();
        assert_eq!((updated.x509_svid_ttl, updated.revision_number), (7, 1), "{kind:?}");
    }
}

/// Waits until a write waits for a lock.
async fn wait_for_the_write(database: &Database) {
    let query = match database.server().engine() {
        Engine::Postgres => {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock'"
        }
        Engine::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.innodb_trx t \
             JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id \
             WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'"
        }
    };
    // InnoDB tells anew only those who have not asked for 0.1 s.
    while database.number(query).await.unwrap() == 0 {
        sleep(Duration::from_millis(200)).await;
    }
}

/// Lets the database give up the first `times` transactions that insert an entry.
async fn give_up(fresh: &Fresh, kind: Kind, times: u32) {
    let last = 1000 + times;
    let text = match kind {
        Kind::Postgres => format!(
            "CREATE SEQUENCE tries START 1001; \
             CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF nextval('tries') <= {last} THEN \
                     RAISE EXCEPTION 'given up' USING ERRCODE = '40001'; END IF; \
                 RETURN NEW; END $$; \
             CREATE TRIGGER give_up BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION give_up()"
        ),
        _ => format!(
            "CREATE SEQUENCE tries START WITH 1001; \
             CREATE TRIGGER give_up BEFORE INSERT ON entries FOR EACH ROW BEGIN \
                 IF NEXT VALUE FOR tries <= {last} THEN \
                     SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'given up'; \
                 END IF; END"
        ),
    };
    fresh.database.execute(&text).await;
}

#[tokio::test]
async fn a_transaction_that_cannot_be_serialized_is_done_again_with_a_bound() {
    for kind in KINDS {
        let fresh = Fresh::new(kind).await;
        give_up(&fresh, kind, 4).await;
        let create = async |name: &str| {
            let one = entry(name, &format!("/{name}"), &["a:1"]);
            fresh.store.create_entries(vec![one]).await
        };
        create("patient").await.unwrap().remove(0).unwrap();
        assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(1), "{kind:?}");

        let fresh = Fresh::new(kind).await;
        give_up(&fresh, kind, 1000).await;
        let one = entry("1", "/1", &["a:1"]);
        let begun = Instant::now();
        let outcome = fresh.store.create_entries(vec![one]).await;
        assert_eq!(outcome, Err(StoreError::Conflict), "{kind:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let tries = match kind {
            Kind::Postgres => "SELECT last_value - 1000 FROM tries",
            _ => "SELECT NEXT VALUE FOR tries - 1001",
        };
        assert_eq!(fresh.database.number(tries).await, 5, "{kind:?}");
        // What shares a transaction with it does not suffer for it.
        let fails = entry("2", "/2", &["a:1"]);
        let (failed, token) = futures::join!(
            fresh.store.create_entries(vec![fails]),
            fresh.store.create_join_token("t".into(), crate::at(2_000_000_000), None)
        );
        assert_eq!((failed, token), (Err(StoreError::Conflict), Ok(None)), "{kind:?}");
        assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(0), "{kind:?}");
    }
}
