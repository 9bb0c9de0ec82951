//! Whole databases, of every schema and origin.

use spire_test_databases::spire::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::*;
use crate::each_database;

each_database! {
    case_01_everything_arrives_and_the_source_is_untouched,
    case_02_a_database_that_grew_gives_the_same_as_a_fresh_one,
    case_17_a_database_of_0_12_is_read_as_it_is,
    case_25_a_migrated_database_gives_the_same_as_a_fresh_one,
}

/// Fills a database with something of everything that the releases of `schema` write. All calls
/// with the same `ca` write the same.
fn fill(spire: &mut SpireDatabase, schema: u32, ca: &Bytes) {
    let own = messages::Bundle {
        root_cas: vec![root(ca, false)],
        sequence_number: 3,
        ..empty("example.org")
    };
    spire.bundle(&own);
    let bundles = ["a.org", "b.org"].map(|name| spire.bundle(&empty(name)));
    let agent = format!("{OWN}/spire/agent/x509pop/a");
    spire.agent(&agent, "x509pop", "340282366920938463463374607431768211455", at(LATER), &[]);
    spire.node_selectors(&agent, &["x509pop:subject:cn:a"]);
    spire.agent(&format!("{OWN}/spire/agent/aws_iid/b"), "aws_iid", "", at(BEFORE), &[]);
    spire.node_selectors(&format!("{OWN}/spire/agent/gone"), &["x509pop:subject:cn:gone"]);
    let late: [(&str, Value); 3] =
        [("admin", true.into()), ("downstream", true.into()), ("revision_number", 4.into())];
    for index in 0..3 {
        let id = format!("entry-{index}");
        let more = if index == 1 { &late[..] } else { &[] };
        let row = spire.entry(&id, &format!("{OWN}/{index}"), &agent, &["a:1", "b:é"], more);
        spire.dns_names(row, &["z.example.org", "a.example.org"]);
        bundles.iter().take(index).for_each(|bundle| spire.federate(row, *bundle));
    }
    let expired = [("expiry", BEFORE.into())];
    spire.entry("expired", &format!("{OWN}/expired"), &agent, &["a:1"], &expired);
    spire.selectors(99, &["a:orphan"]);
    spire.join_token("token", LATER);
    spire.join_token("expired", BEFORE);
    if schema >= 17 {
        spire.relationship("a.org", "https://a.org/bundle", "https_web", "");
    }
    if schema >= 22 {
        spire.row("registered_entries_events", &[("entry_id", "entry-0".into())]);
        spire.row("attested_node_entries_events", &[("spiffe_id", agent.as_str().into())]);
    }
    if schema >= 23 {
        use spire_test_databases::spire::messages::{Entries, X509CaEntry};
        let certificate = ca.to_vec();
        let entry = X509CaEntry { slot_id: "A".into(), certificate, ..X509CaEntry::default() };
        let entries = Entries { x509_cas: vec![entry], ..Entries::default() };
        spire.ca_journal("", &entries);
    }
}

/// Read, and copied, of each kind.
fn counts(copied: &Copied) -> Vec<(u64, u64)> {
    copied.report.counts.iter().map(|count| (count.read, count.copied)).collect()
}

const EVERYTHING: [(u64, u64); 6] = [(3, 3), (1, 1), (4, 3), (2, 2), (2, 1), (1, 1)];

async fn case_01_everything_arrives_and_the_source_is_untouched(kind: Kind) {
    let ca = ca(&key()).await;
    let mut dumps = Vec::new();
    for (schema, release) in [(23, "1.14.2"), (24, "1.14.7"), (25, "1.15.3")] {
        let mut spire = spire(kind, schema).await;
        fill(&mut spire, schema, &ca);
        spire.write().await.unwrap();
        let before = spire.fingerprint().await.unwrap();
        let copied = copied(&mut spire, kind).await;
        assert_eq!(spire.fingerprint().await.unwrap(), before, "the source is untouched");
        assert_eq!(counts(&copied), EVERYTHING);
        let title = format!("SPIRE {release}, schema {schema}, trust domain example.org");
        assert_eq!(copied.report.source_title, title);
        // An expired entry, an expired token, two orphans.
        assert_eq!(copied.report.skipped.total(), 4);
        assert_eq!((copied.report.unreadable, copied.report.remarks.total()), (0, 0));
        let dump = copied.dump().await;
        copied.store.close().await;
        let again = run(&order(source(&spire), &copied.target)).await.unwrap();
        assert_eq!(again.outcome, Outcome::AlreadyThere);
        let store = Store::open(&copied.target.settings()).await.unwrap();
        assert_eq!(Copied { store, ..copied }.dump().await, dump);
        dumps.push(dump);
    }
    assert!(dumps.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Releases from before 0.7 on have had it; columns came at the end, and hold NULL in old rows.
async fn case_02_a_database_that_grew_gives_the_same_as_a_fresh_one(kind: Kind) {
    let ca = ca(&key()).await;
    let mut grown = SpireDatabase::new(spire_kind(kind), 15, Origin::Ancient).await.unwrap();
    fill(&mut grown, 15, &ca);
    for schema in [17, 19, 22, 23, 24, 25] {
        grown.migrate(schema).await.unwrap();
    }
    let mut fresh = spire(kind, 25).await;
    fill(&mut fresh, 15, &ca);
    let (grown, fresh) = (copied(&mut grown, kind).await, copied(&mut fresh, kind).await);
    assert_eq!(grown.dump().await, fresh.dump().await);
    assert_eq!(counts(&grown), counts(&fresh));
    assert_eq!(grown.report.skipped, fresh.report.skipped);
    assert_eq!(grown.report.remarks.items, []);
}

async fn case_17_a_database_of_0_12_is_read_as_it_is(kind: Kind) {
    let ca = ca(&key()).await;
    let mut old = SpireDatabase::new(spire_kind(kind), 15, Origin::Ancient).await.unwrap();
    let mut fresh = spire(kind, 25).await;
    for spire in [&mut old, &mut fresh] {
        fill(spire, 15, &ca);
    }
    let parent = format!("{OWN}/spire/agent/x509pop/a");
    old.entry("ttl", &format!("{OWN}/ttl"), &parent, &["a:1"], &[("ttl", 60.into())]);
    fresh.entry("ttl", &format!("{OWN}/ttl"), &parent, &["a:1"], &[("ttl", 60.into())]);
    let (old, fresh) = (copied(&mut old, kind).await, copied(&mut fresh, kind).await);
    assert_eq!(old.dump().await, fresh.dump().await);
    assert_eq!(old.report.skipped, fresh.report.skipped);
    let names = old.report.remarks.items.iter().map(|remark| remark.name.as_str());
    assert!(names.collect::<Vec<_>>().contains(&"ttl"), "{:?}", old.report.remarks);
    assert!(old.report.source_title.starts_with("SPIRE 0.12.3, schema 15"));
}

async fn case_25_a_migrated_database_gives_the_same_as_a_fresh_one(kind: Kind) {
    let ca = ca(&key()).await;
    let (mut migrated, mut fresh) = (spire(kind, 23).await, spire(kind, 25).await);
    for spire in [&mut migrated, &mut fresh] {
        fill(spire, 23, &ca);
    }
    migrated.migrate(25).await.unwrap();
    let (migrated, fresh) = (copied(&mut migrated, kind).await, copied(&mut fresh, kind).await);
    assert_eq!(migrated.dump().await, fresh.dump().await);
    assert_eq!(counts(&migrated), EVERYTHING);
    assert_eq!(migrated.report.skipped, fresh.report.skipped);
    assert_eq!(migrated.report.source_title, fresh.report.source_title);
}

/// A server that was killed leaves what it wrote last in the log beside the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_19_rows_in_the_log_of_a_file_are_copied() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    fill(&mut spire, 25, &ca(&key()).await);
    spire.write().await.unwrap();
    let file = spire.file().unwrap();
    let mut running = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    let late = format!(
        "INSERT INTO registered_entries (id, entry_id, spiffe_id, parent_id, ttl) \
         VALUES (50, 'late', '{OWN}/late', '{OWN}/host', 0); \
         INSERT INTO selectors (registered_entry_id, type, value) VALUES (50, 'a', '1');"
    );
    sqlx::raw_sql(AssertSqlSafe(late)).execute(&mut running).await.unwrap();

    let error = refusal(&spire).await;
    assert!(error.contains("is in use"), "{error}");

    let killed = tempfile::tempdir().unwrap();
    for ending in ["", "-wal"] {
        let from = format!("{}{ending}", file.display());
        assert!(std::fs::metadata(&from).unwrap().len() > 0, "{from}");
        std::fs::copy(&from, killed.path().join(format!("x.sqlite3{ending}"))).unwrap();
    }
    running.close().await.unwrap();
    let path = killed.path().join("x.sqlite3");
    let from = Settings::new("sqlite3", path.to_str().unwrap()).unwrap();
    let target = Location::new(Kind::Sqlite).await;
    let report = run(&order(from, &target)).await.unwrap();
    let store = Store::open(&target.settings()).await.unwrap();
    let copied = Copied { store, report, target };
    assert_eq!(copied.entry("late").await.created_at, at(0));
}
