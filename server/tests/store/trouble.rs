//! Locks and obstacles, and what the store does about them.

use spire_core::entry::EntryUpdate;
use spire_server::store::{EntryFilter, StoreError};
use sqlx::Connection;

use crate::{Fresh, Kind, at, each_database, entry};

each_database! {
    a_row_that_cannot_be_read_costs_nobody_else_a_write,
    a_write_that_fails_half_way_leaves_nothing,
}

async fn a_row_that_cannot_be_read_costs_nobody_else_a_write(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let one = |name: &str| vec![entry(name, &format!("/{name}"), &["a:1"])];
    fresh.store.create_entries(one("spoilt")).await.unwrap();
    let bytes = if kind == Kind::Postgres { r"'\xff'" } else { "x'ff'" };
    fresh.database.execute(&format!("UPDATE entries SET selectors = {bytes}")).await;
    // While the first one is written the others come together.
    let update =
        EntryUpdate { x509_svid_ttl: Some(60), ..EntryUpdate::new("spoilt".parse().unwrap()) };
    let (first, updated, token, last) = futures::join!(
        fresh.store.create_entries(one("first")),
        fresh.store.update_entries(vec![update]),
        fresh.store.create_join_token("token".into(), at(1000), None),
        fresh.store.create_entries(one("last")),
    );
    assert!(matches!(updated, Err(StoreError::Corrupt(_))), "{updated:?}");
    assert!(first.unwrap()[0].is_ok() && last.unwrap()[0].is_ok());
    token.unwrap();
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(3));
}

#[tokio::test]
async fn a_locked_database_refuses_writes_serves_reads_and_recovers() {
    let fresh = Fresh::of_file("?_busy_timeout=50").await;
    let create = |name: &str| {
        let entry = entry(name, &format!("/{name}"), &["a:1"]);
        fresh.store.create_entries(vec![entry])
    };
    create("before").await.unwrap();
    let mut other = fresh.other_connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();

    let refused = futures::future::join_all(["a", "b", "c"].map(create)).await;
    for outcome in refused {
        let Err(StoreError::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("locked"), "{why}");
    }
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(1));

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    create("after").await.unwrap();
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(2));
}

#[tokio::test]
async fn a_lock_that_ends_in_time_costs_nothing() {
    let fresh = Fresh::of_file("").await;
    let mut other = fresh.other_connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut write = Box::pin(fresh.store.create_entries(vec![entry("1", "/1", &["a:1"])]));
    assert!(futures::poll!(&mut write).is_pending());
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    assert!(write.await.unwrap()[0].is_ok());
}

async fn a_write_that_fails_half_way_leaves_nothing(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let many = |first: u32| {
        let numbers = first..first + 500;
        let one = |number| entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
        numbers.map(one).collect::<Vec<_>>()
    };
    fresh.store.create_entries(many(0)).await.unwrap();
    let revision = fresh.store.latest_revision().await;
    // Links are written after all rows.
    let (trigger, drop) = match kind {
        Kind::Sqlite => (
            "CREATE TRIGGER obstacle BEFORE INSERT ON entry_selectors \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER obstacle",
        ),
        Kind::Postgres => (
            "CREATE FUNCTION obstacle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END $$; \
             CREATE TRIGGER obstacle BEFORE INSERT ON entry_selectors \
             FOR EACH ROW EXECUTE FUNCTION obstacle()",
            "DROP TRIGGER obstacle ON entry_selectors",
        ),
        Kind::MySql => (
            "CREATE TRIGGER obstacle BEFORE INSERT ON entry_selectors FOR EACH ROW BEGIN \
             SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1062, MESSAGE_TEXT = 'no'; END",
            "DROP TRIGGER obstacle",
        ),
    };
    fresh.database.execute(trigger).await;
    assert_eq!(fresh.store.create_entries(many(500)).await, Err(StoreError::Conflict));
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(500));
    assert_eq!(fresh.store.latest_revision().await, revision);
    fresh.database.execute(drop).await;
    fresh.store.create_entries(many(500)).await.unwrap();
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(1000));
}
