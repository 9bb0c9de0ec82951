//! Opening: new files, old files, other people's files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spire_server::store::{EntryFilter, OpenError, Settings, Store};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::{Fresh, entry, settings};

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(&settings(path.to_str().unwrap())).await
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap()
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// The tables of SPIRE that tell it apart, as schema 25 has them in part.
const SPIRE: &str = "CREATE TABLE migrations (id integer primary key autoincrement, \
    created_at datetime, updated_at datetime, version integer, code_version varchar(255)); \
    INSERT INTO migrations (version, code_version) VALUES (25, '1.15.3'); \
    CREATE TABLE bundles (id integer primary key autoincrement, trust_domain varchar(255)); \
    CREATE TABLE registered_entries (id integer primary key autoincrement, entry_id varchar(255));";

#[tokio::test]
async fn spires_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let mut connection = raw(&path).await;
    sqlx::raw_sql(SPIRE).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let before = contents(folder.path());
    assert_eq!(before.len(), 1);
    let error = open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::SpireTables { .. }), "{error:?}");
    let command = format!("spire-server datastore copy -from sqlite3:{} -to", path.display());
    assert!(error.to_string().contains(&command), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[tokio::test]
async fn spires_tables_are_seen_while_they_are_in_the_log_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let mut connection = raw(&path).await;
    sqlx::raw_sql(SPIRE).execute(&mut connection).await.unwrap();
    let file_before = std::fs::read(&path).unwrap();
    let error = open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::SpireTables { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), file_before);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn tables_of_another_program_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("albums.sqlite3");
    let mut connection = raw(&path).await;
    sqlx::raw_sql("CREATE TABLE albums (title)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let before = contents(folder.path());
    let error = open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::ForeignTables(_)), "{error:?}");
    assert_eq!(contents(folder.path()), before);
}

#[tokio::test]
async fn a_later_schema_is_refused() {
    let fresh = Fresh::of_file("").await;
    let mut connection = fresh.other_connection().await;
    let later = sqlx::query("UPDATE schema_version SET version = 1000, readable_since = 1000");
    later.execute(&mut connection).await.unwrap();
    let error = open(&fresh.path()).await.err().unwrap();
    assert!(matches!(error, OpenError::TooNew { found: 1000, .. }), "{error:?}");
}

#[tokio::test]
async fn the_file_is_for_the_server_alone_and_safe_from_power_loss() {
    let fresh = Fresh::of_file("").await;
    fresh.store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    for file in ["", "-wal", "-shm"] {
        let path = format!("{}{file}", fresh.path().display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    let mut connection = fresh.other_connection().await;
    let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
    assert_eq!(mode.fetch_one(&mut connection).await.unwrap(), "wal");
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/x.sqlite3");
    let error = open(&missing).await.err().unwrap().to_string();
    assert!(error.contains("no/such/folder") && error.contains("No such file"), "{error}");
    let text = folder.path().join("text");
    std::fs::write(&text, "this is a text and no database, whatever its name may be".repeat(99))
        .unwrap();
    let error = open(&text).await.err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
    let absent = format!("{}/x.sqlite3?mode=rw", folder.path().display());
    assert!(Store::open(&settings(&absent)).await.is_err());
    assert!(!folder.path().join("x.sqlite3").exists());
}

#[tokio::test]
async fn memory_serves_as_well_and_is_nobody_elses() {
    let one = Store::open(&settings(":memory:")).await.unwrap();
    let two = Store::open(&settings("file::memory:?cache=shared")).await.unwrap();
    one.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    assert_eq!(one.count_entries(&EntryFilter::default()).await, Ok(1));
    assert_eq!(two.count_entries(&EntryFilter::default()).await, Ok(0));
}

#[tokio::test]
async fn servers_that_start_at_once_all_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let stores = futures::future::join_all((0..4).map(|_| open(&path))).await;
    let stores: Vec<Store> = stores.into_iter().map(Result::unwrap).collect();
    stores[0].create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    for store in &stores {
        assert_eq!(store.count_entries(&EntryFilter::default()).await, Ok(1));
    }
}

#[tokio::test]
async fn a_look_changes_nothing_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let missing = Store::look(&settings(path.to_str().unwrap())).await.err().unwrap();
    assert!(missing.to_string().contains("it holds no tables yet"), "{missing}");
    assert!(contents(folder.path()).is_empty());

    let store = open(&path).await.unwrap();
    store.create_entries(vec![entry("one", "/one", &["unix:uid:1"])]).await.unwrap();
    let entries = async |store: &Store| store.count_entries(&EntryFilter::default()).await.unwrap();
    let beside = Store::look(&settings(path.to_str().unwrap())).await.unwrap();
    assert_eq!(entries(&beside).await, 1);
    beside.close().await;
    store.close().await;

    let before = contents(folder.path());
    let look = Store::look(&settings(path.to_str().unwrap())).await.unwrap();
    assert_eq!(entries(&look).await, 1);
    look.create_entries(vec![entry("two", "/two", &["unix:uid:1"])]).await.unwrap_err();
    look.close().await;
    assert_eq!(contents(folder.path()), before);
}

#[tokio::test]
async fn the_first_schema_is_brought_up_to_date() {
    let fresh = Fresh::of_file("").await;
    fresh.store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    fresh.store.close().await;
    let back = "ALTER TABLE change_head DROP COLUMN number; \
                ALTER TABLE changes DROP COLUMN writer; \
                DROP TABLE federation_relationships; \
                DROP INDEX nodes_by_attestation_type; DROP INDEX nodes_banned; \
                DROP INDEX nodes_by_can_reattest; \
                ALTER TABLE nodes DROP COLUMN attested_key; \
                ALTER TABLE nodes DROP COLUMN attested_at; \
                ALTER TABLE change_head DROP COLUMN last_writer; \
                ALTER TABLE schema_version DROP COLUMN readable_since; \
                UPDATE schema_version SET version = 1; \
                INSERT INTO sqlite_sequence (name, seq) VALUES ('nodes', 41)";
    fresh.database.execute(back).await;
    let kept = Settings { disable_migration: true, ..fresh.settings.clone() };
    let error = Store::open(&kept).await.err().unwrap();
    assert!(matches!(error, OpenError::MigrationDisabled { found: 1, .. }), "{error:?}");
    let store = Store::open(&fresh.settings).await.unwrap();
    store.create_entries(vec![entry("2", "/2", &["a:1"])]).await.unwrap();
    let last = fresh.database.number("SELECT MAX(number) FROM entries").await;
    assert_eq!(last, 42, "no number is given twice");
}
