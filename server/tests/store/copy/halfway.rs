//! Copies that end before they are done leave nothing behind.

use spire_server::store::copy::{Kind as Records, Outcome, Step};

use super::*;
use crate::each_database;

each_database! {
    a_copy_that_is_cut_off_leaves_an_empty_target,
    a_copy_that_fails_leaves_an_empty_target,
    what_a_target_makes_of_a_copy_is_noticed,
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

async fn what_a_target_makes_of_a_copy_is_noticed(kind: Kind) {
    let source = filled(Kind::Sqlite).await;
    let nothing = if kind == Kind::Postgres { r"'\x00'::bytea" } else { "x'00'" };
    let elsewhere = "NEW.owner + 1000000";
    for (table, key, column, value, told) in [
        ("nodes", "number", "agent_version", "'other'", "one of the agents, spiffe://"),
        ("entries", "number", "hint", "'other'", "one of the entries, e0"),
        ("entries", "number", "identity", nothing, "one of the entries, e0, has another identity"),
        ("entry_selectors", "owner", "owner", elsewhere, "links lead to entries"),
        ("entry_federations", "owner", "owner", elsewhere, "links lead to entries"),
        ("node_selectors", "owner", "owner", elsewhere, "links lead to agents"),
    ] {
        let target = Fresh::new(kind).await;
        target.store.close().await;
        let trigger = match kind {
            Kind::Sqlite => format!(
                "CREATE TRIGGER spoiler AFTER INSERT ON {table} BEGIN UPDATE {table} \
                 SET {column} = {value} WHERE {key} = NEW.{key}; END"
            ),
            Kind::Postgres => format!(
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN NEW.{column} := {value}; RETURN NEW; END $$; \
                 CREATE TRIGGER spoiler BEFORE INSERT ON {table} \
                 FOR EACH ROW EXECUTE FUNCTION spoil()"
            ),
            Kind::MySql => format!(
                "CREATE TRIGGER spoiler BEFORE INSERT ON {table} \
                 FOR EACH ROW SET NEW.{column} = {value}"
            ),
        };
        target.database.execute(&trigger).await;
        let error = run(&order(&source.settings, &target.settings)).await.unwrap_err();
        assert!(matches!(error, CopyError::Differs(_)), "{table}: {error}");
        assert!(error.to_string().contains(told), "{table}: {error}");
        for table in ["bundles", "entries", table] {
            let count = format!("SELECT COUNT(*) FROM {table}");
            assert_eq!(target.database.number(&count).await, 0, "{table}");
        }
    }
}
