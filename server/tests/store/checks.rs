//! What a look at a database tells of it.

use std::time::Duration;

use spire_server::store::check::{self, Report};
use spire_server::store::{ConnectionString, Settings, Store};

use crate::{FILE, Fresh, Kind, Location, each_database, entry, settings};

each_database! {
    a_sound_database_has_no_problem,
    an_index_that_is_gone_is_found,
    a_large_table_that_is_read_whole_is_told_with_the_statement,
    a_log_that_nobody_shortens_is_told,
    what_is_no_database_of_a_server_is_told,
}

async fn check(settings: &Settings) -> Report {
    let mut report = check::check(settings, Duration::from_hours(12)).await.unwrap();
    // Databases of tests do not wait for the disk.
    report.problems.retain(|problem| !problem.what.contains("can take back what was acknowledged"));
    report
}

/// What is wrong, and what to do about it.
async fn problems(settings: &Settings) -> Vec<(String, String)> {
    let problems = check(settings).await.problems;
    problems.into_iter().map(|problem| (problem.what, problem.remedy)).collect()
}

async fn create(store: &Store, numbers: std::ops::Range<u32>) {
    let one = |number| entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
    for created in store.create_entries(numbers.map(one).collect()).await.unwrap() {
        created.unwrap();
    }
}

async fn a_sound_database_has_no_problem(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, 0..3).await;
    let before = fresh.store.latest_revision().await;
    let report = check(&fresh.settings).await;
    assert_eq!(report.problems, []);
    let rows = |name: &str| report.tables.iter().find(|table| table.name == name).unwrap().rows;
    assert_eq!((rows("entries"), rows("entry_selectors"), rows("nodes")), (3, 3, 0));
    let fact = |name: &str| &report.facts.iter().find(|fact| fact.name == name).unwrap().value;
    assert!(fact("schema").ends_with("as this server needs"), "{report:?}");
    assert!(fact("change log").starts_with("3 changes up to revision 3, "), "{report:?}");
    let engine = match kind {
        Kind::Sqlite => "SQLite 3.",
        Kind::Postgres => "PostgreSQL ",
        Kind::MySql => "MariaDB ",
    };
    assert!(fact("engine").starts_with(engine), "{report:?}");
    if kind != Kind::Sqlite {
        assert_eq!(fact("TLS"), "no");
        assert!(fact("round trip").ends_with(" ms"), "{report:?}");
    }
    assert!(report.statements.len() > 12, "{report:?}");
    if kind == Kind::Sqlite {
        // The others know that the tables are small.
        for (statement, index) in [
            ("list agents by attestation type", "nodes_by_attestation_type"),
            ("list banned agents", "nodes_banned"),
            ("list agents that cannot attest again", "nodes_by_can_reattest"),
            ("prune expired agents", "nodes_by_expiry"),
        ] {
            let mut plans = report.statements.iter();
            let plan = plans.find(|plan| plan.statement == statement).unwrap();
            assert_eq!((&*plan.indexes, &plan.reads_all_of), (&[index.to_owned()][..], &None));
        }
    }
    assert!(!format!("{report:?}").contains("not-secret"));
    assert_eq!(fresh.store.latest_revision().await, before);
}

async fn an_index_that_is_gone_is_found(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let drop = match kind {
        Kind::MySql => "DROP INDEX entries_by_hint ON entries",
        _ => "DROP INDEX entries_by_hint",
    };
    fresh.database.execute(drop).await;
    let found = problems(&fresh.settings).await;
    let [(what, remedy)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(what, "index entries_by_hint of table entries is missing");
    let statement = remedy.strip_prefix("run \"").and_then(|rest| rest.strip_suffix('"'));
    fresh.database.execute(statement.unwrap()).await;
    assert_eq!(problems(&fresh.settings).await, []);

    if kind == Kind::Postgres {
        let spoil = "UPDATE pg_index SET indisvalid = false \
                     WHERE indexrelid = 'entries_by_hint'::regclass";
        fresh.database.execute(spoil).await;
        let found = problems(&fresh.settings).await;
        let [(what, _)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(what, "index entries_by_hint of table entries is invalid and not used");
    }
}

async fn a_large_table_that_is_read_whole_is_told_with_the_statement(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    for first in (0..10_000).step_by(2500) {
        create(&fresh.store, first..first + 2500).await;
    }
    let (count, drop) = match kind {
        Kind::MySql => ("ANALYZE TABLE entries", "DROP INDEX entries_by_parent_id ON entries"),
        _ => ("ANALYZE entries", "DROP INDEX entries_by_parent_id"),
    };
    fresh.database.execute(count).await;
    assert_eq!(problems(&fresh.settings).await, []);
    crate::entries::pages_of_a_common_selector(&fresh.store, "a:1").await;
    fresh.database.execute(drop).await;
    let found = problems(&fresh.settings).await;
    let what: Vec<&str> = found.iter().map(|(what, _)| what.as_str()).collect();
    let expected = [
        "index entries_by_parent_id of table entries is missing",
        "\"list entries by parent\" reads all 10000 rows of entries",
    ];
    assert_eq!(what, expected);
}

async fn a_log_that_nobody_shortens_is_told(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, 0..2).await;
    fresh.database.execute("UPDATE changes SET changed_at = 1").await;
    // Nobody is at work, who could shorten it.
    assert_eq!(problems(&fresh.settings).await, []);
    create(&fresh.store, 2..3).await;
    let found = problems(&fresh.settings).await;
    let [(what, _)] = &found[..] else { panic!("{found:?}") };
    assert!(what.starts_with("the change log is not shortened"), "{what}");
}

async fn what_is_no_database_of_a_server_is_told(kind: Kind) {
    let database = Location::new(kind).await;
    let only = async || {
        let found = problems(&database.settings()).await;
        let [(what, remedy)] = &found[..] else { panic!("{found:?}") };
        (what.clone(), remedy.clone())
    };
    if kind == Kind::Sqlite {
        let (what, _) = only().await;
        assert!(what.contains("does not answer"), "{what}");
        let Location::File(folder) = &database else { panic!("a file is in a folder") };
        assert!(!folder.path().join(FILE).exists());
    } else {
        let (what, _) = only().await;
        assert_eq!(what, "it holds no tables yet");
    }
    database.execute("CREATE TABLE registered_entries (entry_id VARCHAR(255))").await;
    if kind == Kind::Sqlite {
        database.execute("PRAGMA journal_mode = WAL").await;
    }
    let (what, remedy) = only().await;
    assert!(what.contains("tables of SPIRE"), "{what}");
    assert!(remedy.contains("spire-server datastore copy -from "), "{remedy}");

    let fresh = Fresh::new(kind).await;
    for (version, expected) in [(1, "earlier"), (1000, "later")] {
        let note =
            format!("UPDATE schema_version SET version = {version}, readable_since = {version}");
        fresh.database.execute(&note).await;
        let found = problems(&fresh.settings).await;
        let [(what, _)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*what, format!("the tables are of an {expected} version of the server"));
    }
}

#[tokio::test]
async fn a_file_without_a_write_ahead_log_is_told() {
    let fresh = Fresh::of_file("").await;
    fresh.store.close().await;
    fresh.database.execute("PRAGMA journal_mode = DELETE").await;
    let found = problems(&fresh.settings).await;
    let [(what, _)] = &found[..] else { panic!("{found:?}") };
    assert!(what.starts_with("the file is not in WAL mode"), "{what}");
    let found = problems(&settings(":memory:")).await;
    assert!(found[0].0.contains("in the memory of its server"), "{found:?}");
}

#[tokio::test]
async fn what_postgresql_leaves_lying_is_told() {
    let fresh = Fresh::new(Kind::Postgres).await;
    fresh.database.execute("ALTER TABLE entries SET (autovacuum_enabled = false)").await;
    let found = problems(&fresh.settings).await;
    let [(what, remedy)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(what, "autovacuum leaves table entries alone");
    assert!(remedy.contains("ALTER TABLE entries RESET"), "{remedy}");
}

#[tokio::test]
async fn tables_of_mysql_that_were_rebuilt_otherwise_are_told() {
    let fresh = Fresh::new(Kind::MySql).await;
    let text = "ALTER TABLE ca_journals MODIFY active_x509_authority_id VARCHAR(255) NOT NULL; \
                ALTER TABLE ca_journals ENGINE = MyISAM";
    fresh.database.execute(text).await;
    let found = problems(&fresh.settings).await;
    let [(column, _), (engine, remedy)] = &found[..] else { panic!("{found:?}") };
    let start = "column active_x509_authority_id of table ca_journals compares by ";
    assert!(column.starts_with(start), "{column}");
    assert_eq!(engine, "table ca_journals is kept by MyISAM, without transactions");
    assert!(remedy.contains("ENGINE = InnoDB"), "{remedy}");
}

#[tokio::test]
async fn a_replica_that_is_none_is_told() {
    let (fresh, other) = (Fresh::new(Kind::Postgres).await, Fresh::new(Kind::Postgres).await);
    create(&other.store, 0..1).await;
    let with = |text: &str| Settings {
        ro_connection_string: ConnectionString::new(text),
        ..fresh.settings.clone()
    };
    let found = problems(&with(other.settings.connection_string.as_str())).await;
    let [(written, _), (apart, _)] = &found[..] else { panic!("{found:?}") };
    assert!(written.contains("leads to a database that can be written"), "{written}");
    assert_eq!(apart, "the replica is at revision 1, the primary at 0");
    let gone = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";
    let found = problems(&with(gone)).await;
    let [(what, _)] = &found[..] else { panic!("{found:?}") };
    assert!(what.starts_with("the replica of ro_connection_string does not answer"), "{what}");
}
