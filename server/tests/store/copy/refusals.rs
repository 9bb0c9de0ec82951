//! What is not copied, and that it is left as it is.

use std::path::Path;

use spire_server::store::OpenError;
use spire_server::store::copy::Outcome;

use super::*;
use crate::{each_database, settings};

each_database! {
    a_source_in_use_is_refused_and_may_be_rehearsed,
    a_target_that_holds_something_is_refused,
    a_source_that_is_none_is_refused,
    entries_of_two_trust_domains_are_refused,
    an_empty_store_may_be_filled,
    nobody_writes_to_the_source_meanwhile,
}

/// The refusal of an order, in words.
async fn refused(order: &Order) -> String {
    run(order).await.unwrap_err().to_string()
}

async fn a_source_in_use_is_refused_and_may_be_rehearsed(kind: Kind) {
    let source = Fresh::new(kind).await;
    fill(&source.store).await;
    let target = Location::new(Kind::Sqlite).await;
    let there = order(&source.settings, &target.settings());
    let error = run(&there).await.unwrap_err();
    assert!(matches!(error, CopyError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("-rehearsal"), "{error}");

    let report = run(&Order { rehearsal: true, ..there.clone() }).await.unwrap();
    assert_eq!(report.outcome, Outcome::Rehearsed);
    assert!(report.in_use.is_some());
    assert_eq!(tables(&target).await, 0);
    // The server was not disturbed.
    source.store.create_entries(vec![entry("late", "/late", &["a:1"])]).await.unwrap();
    source.store.close().await;
    assert_eq!(run(&there).await.unwrap().outcome, Outcome::Copied);
}

async fn a_target_that_holds_something_is_refused(kind: Kind) {
    let source = filled(Kind::Sqlite).await;
    let target = Fresh::new(kind).await;
    target.store.create_entries(vec![entry("mine", "/mine", &["a:1"])]).await.unwrap();
    target.store.close().await;
    let before = dump(&target.database).await;
    let there = order(&source.settings, &target.settings);
    let told = refused(&there).await;
    assert!(told.contains("holds other data: one of the bundles is not there"), "{told}");
    assert_eq!(dump(&target.database).await, before);

    // A copy that somebody changed is no copy any more.
    let copied = Location::new(kind).await;
    let there = order(&source.settings, &copied.settings());
    run(&there).await.unwrap();
    copied.execute("UPDATE entries SET revision_number = 7 WHERE entry_id = 'e9'").await;
    let told = refused(&there).await;
    assert!(told.contains("holds other data: one of the entries, e9"), "{told}");
    copied.execute("UPDATE entries SET revision_number = 0 WHERE entry_id = 'e9'").await;
    copied.execute("DELETE FROM nodes WHERE agent_id = 'spiffe://example.org/spire/agent/a'").await;
    let told = refused(&there).await;
    assert!(told.contains("one of the agents is"), "{told}");

    for (table, what) in [("migrations", "tables of SPIRE"), ("albums", "another program")] {
        let other = Location::new(kind).await;
        other.execute(&format!("CREATE TABLE {table} (version INTEGER)")).await;
        let told = refused(&order(&source.settings, &other.settings())).await;
        assert!(told.contains(what), "{told}");
        assert_eq!(tables(&other).await, 1);
    }
}

async fn a_source_that_is_none_is_refused(kind: Kind) {
    let target = Location::new(Kind::Sqlite).await;
    let told = async |from: &Settings| refused(&order(from, &target.settings())).await;
    let empty = Location::new(kind).await;
    assert!(told(&empty.settings()).await.contains("holds nothing"));
    let fresh = Fresh::new(kind).await;
    fresh.store.close().await;
    assert!(told(&fresh.settings).await.contains("holds nothing"));
    fresh.database.execute("UPDATE schema_version SET version = 1000, readable_since = 1000").await;
    let error = run(&order(&fresh.settings, &target.settings())).await.unwrap_err();
    assert!(matches!(error, CopyError::Open(OpenError::TooNew { found: 1000, .. })), "{error}");
    fresh.database.execute("UPDATE schema_version SET version = 1").await;
    assert!(told(&fresh.settings).await.contains("start the server once"));
    let with_folder = order(&fresh.settings, &target.settings());
    let with_folder = Order { data_dir: Some("/somewhere".into()), ..with_folder };
    assert!(refused(&with_folder).await.contains("leave out -dataDir"));
    let other = Location::new(kind).await;
    other.execute("CREATE TABLE albums (version INTEGER)").await;
    assert!(told(&other.settings()).await.contains("another program"));
    let same = refused(&order(&other.settings(), &other.settings())).await;
    assert!(same.contains("the same database"), "{same}");
    assert_eq!(tables(&target).await, 0);
}

async fn entries_of_two_trust_domains_are_refused(kind: Kind) {
    let source = Fresh::new(kind).await;
    let stray =
        Entry { spiffe_id: "spiffe://b.org/x".parse().unwrap(), ..entry("2", "/2", &["a:1"]) };
    source.store.create_entries(vec![entry("1", "/1", &["a:1"]), stray]).await.unwrap();
    source.store.close().await;
    let target = Location::new(kind).await;
    let told = refused(&order(&source.settings, &target.settings())).await;
    assert!(told.starts_with("entry 2 is of the trust domain"), "{told}");
    assert_eq!(tables(&target).await, 0);
}

async fn an_empty_store_may_be_filled(kind: Kind) {
    let source = filled(Kind::Sqlite).await;
    let target = Fresh::new(kind).await;
    // What was there once left its traces in the log.
    target.store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    target.store.delete_entries(vec!["1".parse().unwrap()]).await.unwrap();
    target.store.close().await;
    let there = order(&source.settings, &target.settings);
    run(&Order { rehearsal: true, ..there.clone() }).await.unwrap();
    assert!(tables(&target.database).await > 0, "tables that were there stay");
    run(&there).await.unwrap();
    assert_eq!(dump(&target.database).await, dump(&source.database).await);
}

async fn nobody_writes_to_the_source_meanwhile(kind: Kind) {
    let source = filled(kind).await;
    let target = Location::new(Kind::Sqlite).await;
    let (reached, mut is_reached) = tokio::sync::mpsc::unbounded_channel();
    let there = order(&source.settings, &target.settings());
    let writer = async {
        is_reached.recv().await.unwrap();
        let store = Store::open(&source.settings).await;
        let Ok(store) = store else { return };
        // Where it could be opened, the write waits or fails.
        let _ = store.create_entries(vec![entry("late", "/late", &["a:1"])]).await;
        store.close().await;
    };
    let report = copy_told(&there, || assert_eq!(reached.send(()), Ok(())));
    let (report, ()) = tokio::join!(report, writer);
    assert_eq!(report.unwrap().counts[2].copied, u64::from(ENTRIES) + 1);
}

async fn copy_told(order: &Order, told: impl Fn() + Send + Sync) -> Result<Report, CopyError> {
    copy(order, &mut |_| told()).await
}

#[tokio::test]
async fn what_lies_in_memory_is_refused() {
    let file = Location::new(Kind::Sqlite).await;
    for (from, to) in [(":memory:", "x"), ("x", ":memory:")] {
        let place = |text: &str| match text {
            "x" => file.settings(),
            text => settings(text),
        };
        let told = refused(&order(&place(from), &place(to))).await;
        assert!(told.contains("in memory"), "{told}");
    }
}

#[tokio::test]
async fn another_name_of_a_file_is_the_same_file() {
    let source = filled(Kind::Sqlite).await;
    let link = source.path().with_file_name("link");
    std::os::unix::fs::symlink(source.path(), &link).unwrap();
    let told = refused(&order(&source.settings, &settings(link.to_str().unwrap()))).await;
    assert!(told.contains("the same database"), "{told}");
}

/// The names and bytes of the files in a folder.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut files: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_file_stays_as_it_is_to_the_byte() {
    let source = filled(Kind::Sqlite).await;
    let before = contents(source.path().parent().unwrap());
    assert_eq!(before.len(), 1);
    let target = Location::new(Kind::Sqlite).await;
    run(&order(&source.settings, &target.settings())).await.unwrap();
    assert!(contents(source.path().parent().unwrap()) == before);
}

#[tokio::test]
async fn what_a_killed_server_left_in_the_log_is_copied_and_stays_there() {
    let source = Fresh::new(Kind::Sqlite).await;
    fill(&source.store).await;
    // What a crash would leave: the files of a database that is open.
    let killed = tempfile::tempdir().unwrap();
    let path = killed.path().join("datastore.sqlite3");
    std::fs::copy(source.path(), &path).unwrap();
    let log = |path: &Path| path.with_file_name("datastore.sqlite3-wal");
    std::fs::copy(log(&source.path()), log(&path)).unwrap();
    let before = contents(killed.path());
    let target = Location::new(Kind::Sqlite).await;
    run(&order(&settings(path.to_str().unwrap()), &target.settings())).await.unwrap();
    let after = contents(killed.path());
    let kept = after.into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect::<Vec<_>>();
    assert!(kept == before, "a copy moves nothing from the log to the file");
    source.store.close().await;
    let (copied, held) = (dump(&target).await, dump(&source.database).await);
    assert_eq!(copied.entries, held.entries);
}

#[tokio::test]
async fn a_user_that_may_only_read_is_told_what_is_missing() {
    let source = filled(Kind::Postgres).await;
    let Location::Server(database) = &source.database else { panic!("a server") };
    let user = database.name();
    let rights = format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA public TO {user}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"
    );
    source.database.execute(&rights).await;
    let mut url = url::Url::parse(source.settings.connection_string.as_str()).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some("p")).unwrap();
    let from = Settings::new("postgres", url.as_str()).unwrap();
    let target = Location::new(Kind::Sqlite).await;
    let told = refused(&order(&from, &target.settings())).await;
    assert!(told.contains("permission denied") && told.contains("all rights"), "{told}");
    source.database.execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await;
}
