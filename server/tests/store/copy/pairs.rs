//! Every kind of database into every other, and back.

use spire_core::bundle::X509Authority;
use spire_server::store::copy::{Count, Kind as Records, Outcome};

use super::*;
use crate::each_database;

each_database! {
    everything_arrives_everywhere_and_comes_back,
}

const KINDS: [Kind; 3] = [Kind::Sqlite, Kind::Postgres, Kind::MySql];

async fn everything_arrives_everywhere_and_comes_back(kind: Kind) {
    let source = filled(kind).await;
    let held = dump(&source.database).await;
    assert_eq!((held.relationships, held.entries.len()), (2, ENTRIES as usize + 1));
    for to in KINDS {
        let (target, back) = (Location::new(to).await, Location::new(kind).await);
        let there = order(&source.settings, &target.settings());
        let rehearsal = Order { rehearsal: true, ..there.clone() };

        let report = run(&rehearsal).await.unwrap();
        assert_eq!((report.outcome, report.in_use), (Outcome::Rehearsed, None));
        assert_eq!(tables(&target).await, 0, "{kind:?} to {to:?}");

        let report = run(&there).await.unwrap();
        assert_eq!(report.outcome, Outcome::Copied);
        assert_eq!(report.counts, counts());
        assert_eq!((report.skipped.total(), report.remarks.total()), (0, 0));
        assert_eq!(dump(&target).await, held, "{kind:?} to {to:?}");

        if to == Kind::Postgres {
            let counted = "SELECT reltuples::bigint FROM pg_class WHERE relname = 'entries'";
            assert_eq!(target.number(counted).await, i64::from(ENTRIES) + 1);
        }

        let report = run(&there).await.unwrap();
        assert_eq!(report.outcome, Outcome::AlreadyThere);
        assert_eq!(report.counts, counts());

        run(&order(&target.settings(), &back.settings())).await.unwrap();
        assert_eq!(dump(&back).await, held, "{kind:?} to {to:?} and back");
        a_server_goes_on(&source, &target).await;
    }
    assert_eq!(dump(&source.database).await, held);
}

fn counts() -> Vec<Count> {
    let entries = u64::from(ENTRIES) + 1;
    let count = |(kind, count)| Count { kind, read: count, copied: count };
    [
        (Records::Bundle, 3),
        (Records::Relationship, 2),
        (Records::Entry, entries),
        (Records::Node, 4),
        (Records::JoinToken, 3),
        (Records::CaJournal, 2),
    ]
    .map(count)
    .into()
}

/// A server on the copy gives numbers and revisions that the source did not give.
async fn a_server_goes_on(source: &Fresh, target: &Location) {
    let last = source.database.number("SELECT number FROM change_head").await;
    let store = Store::open(&target.settings()).await.unwrap();
    let revision = store.latest_revision().await.unwrap();
    tokens_are_good(&store).await;
    store.create_entries(vec![entry("new", "/new", &["a:1"])]).await.unwrap();
    let number = target.number("SELECT number FROM entries WHERE entry_id = 'new'").await;
    assert!(number > last, "{number} after {last}");
    assert_eq!(store.latest_revision().await.unwrap(), Revision(revision.0 + 1));
    let found = spire_server::store::SetMatch {
        members: selectors(&["unix:user:Bob"]),
        rule: spire_server::store::SetRule::Superset,
    };
    let filter = EntryFilter { selectors: Some(found), ..EntryFilter::default() };
    assert_eq!(store.count_entries(&filter).await, Ok(2), "links are there");
    store.close().await;
}

#[tokio::test]
async fn bundles_of_a_megabyte_fit_into_what_a_database_takes_at_once() {
    let source = Fresh::new(Kind::Sqlite).await;
    for number in 0..20 {
        let root = X509Authority { certificate: vec![number; 1 << 20].into(), tainted: false };
        let name = domain(&format!("d{number}.org"));
        source.store.append_to_bundle(name, vec![root], vec![]).await.unwrap();
    }
    source.store.close().await;
    let target = Location::new(Kind::MySql).await;
    let report = run(&order(&source.settings, &target.settings())).await.unwrap();
    assert_eq!((report.outcome, report.counts[0].copied), (Outcome::Copied, 20));
}
