//! Copies that end before they are done leave nothing behind.

use spire_server::store::copy::{Kind as Records, Outcome, Step};

use super::*;
use crate::each_database;

each_database! {
    a_copy_that_is_cut_off_leaves_an_empty_target,
    a_copy_that_fails_leaves_an_empty_target,
}

async fn a_copy_that_is_cut_off_leaves_an_empty_target(kind: Kind) {
    let source = filled(Kind::Sqlite).await;
    let target = Location::new(kind).await;
    let there = order(&source.settings, &target.settings());
    let moments = [
        (Step::Copying, Records::Entry),
        (Step::Copying, Records::CaJournal),
        (Step::Comparing, Records::CaJournal),
    ];
    for moment in moments {
        let order = there.clone();
        let cut_off = tokio::spawn(async move {
            copy(&order, &mut |progress| {
                assert_ne!((progress.step, progress.kind), moment, "cut off here");
            })
            .await
        });
        assert!(cut_off.await.unwrap_err().is_panic(), "{moment:?}");
        let store = Store::open(&target.settings()).await.unwrap();
        assert_eq!(store.count_entries(&EntryFilter::default()).await, Ok(0), "{moment:?}");
        assert_eq!(store.count_bundles().await, Ok(0), "{moment:?}");
        store.close().await;
    }
    assert_eq!(run(&there).await.unwrap().outcome, Outcome::Copied);
}

async fn a_copy_that_fails_leaves_an_empty_target(kind: Kind) {
    let source = filled(Kind::Sqlite).await;
    // Journals are written last.
    let target = Fresh::new(kind).await;
    target.store.close().await;
    let (obstacle, remedy) = match kind {
        Kind::Sqlite => (
            "CREATE TRIGGER obstacle BEFORE INSERT ON ca_journals \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER obstacle",
        ),
        _ => (
            "ALTER TABLE ca_journals ADD CONSTRAINT obstacle CHECK (expires_at < 5)",
            "ALTER TABLE ca_journals DROP CONSTRAINT obstacle",
        ),
    };
    target.database.execute(obstacle).await;
    let there = order(&source.settings, &target.settings);
    let error = run(&there).await.unwrap_err();
    assert!(matches!(error, CopyError::Write { kind: Records::CaJournal, .. }), "{error}");
    target.database.execute(remedy).await;
    for table in ["bundles", "entries", "entry_selectors", "nodes", "join_tokens"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        assert_eq!(target.database.number(&count).await, 0, "{table}");
    }
    assert_eq!(target.database.number("SELECT number FROM change_head").await, 0);
    assert_eq!(run(&there).await.unwrap().outcome, Outcome::Copied);
}
