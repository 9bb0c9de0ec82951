//! CA journals, and the log of changes.

use bytes::Bytes;
use jiff::Timestamp;
use spire_server::store::{Bookmark, CaJournal, Change, Changes, Revision};

use crate::{Fresh, Kind, at, domain, each_database, entry, store_bundles};

each_database! {
    a_server_finds_its_journal_by_its_keys,
    changes_are_read_in_pieces_and_in_order,
    who_is_behind_the_log_is_told_so,
    many_changes_are_pruned_in_turns,
    whoever_saw_a_revision_saw_all_before_it,
}

fn journal(authority: &str, data: &'static [u8], second: i64) -> CaJournal {
    CaJournal {
        id: None,
        active_x509_authority_id: authority.into(),
        data: Bytes::from_static(data),
        expires_at: at(second),
    }
}

async fn a_server_finds_its_journal_by_its_keys(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    let first = fresh.store.set_ca_journal(journal("aa", b"one", 10)).await.unwrap();
    let other = fresh.store.set_ca_journal(journal("bb", b"two", 20)).await.unwrap();
    assert_ne!(first, other);
    let next = CaJournal { id: Some(first), ..journal("cc", b"\0\xff", 30) };
    assert_eq!(fresh.store.set_ca_journal(next.clone()).await, Ok(first));
    fresh.reopen().await;
    let found = fresh.store.find_ca_journal(&["dd".into(), "cc".into()]).await;
    assert_eq!(found, Ok(Some(next.clone())));
    for unknown in [vec!["aa".into()], vec![]] {
        assert_eq!(fresh.store.find_ca_journal(&unknown).await, Ok(None));
    }
    let both = fresh.store.find_ca_journal(&["cc".into(), "bb".into()]).await.unwrap().unwrap();
    assert_eq!(both.id, Some(other), "the newest row wins");
    assert_eq!(fresh.store.prune_ca_journals(at(30)).await, Ok(1));
    assert_eq!(fresh.store.ca_journals().await, Ok(vec![next.clone()]));
    assert_eq!(fresh.store.prune_ca_journals(at(31)).await, Ok(1));
    assert_ne!(
        fresh.store.set_ca_journal(next).await,
        Ok(first),
        "a row that is gone is made anew"
    );
}

async fn changes_are_read_in_pieces_and_in_order(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    let mut changed = fresh.store.changed();
    let start = Bookmark::default();
    assert_eq!(fresh.store.bookmark().await, Ok(start));
    assert_eq!(since(&fresh, start, 9).await, (vec![], start));
    store_bundles(&fresh.store, &["a.org", "b.org", "c.org"]).await;
    changed.changed().await.unwrap();
    assert_eq!(*changed.borrow(), Revision(3));
    let (changes, second) = since(&fresh, start, 2).await;
    assert_eq!(changes, ["a.org", "b.org"].map(|name| Change::Bundle(domain(name))));
    assert_eq!(second.revision, Revision(2));
    let (changes, third) = since(&fresh, second, 2).await;
    assert_eq!(changes, [Change::Bundle(domain("c.org"))]);
    assert_eq!(third.revision, Revision(3));
    fresh.reopen().await;
    assert_eq!(fresh.store.bookmark().await, Ok(third));
    assert_eq!(fresh.store.latest_revision().await, Ok(Revision(3)));
    assert_eq!(*fresh.store.changed().borrow(), Revision(3));
    assert_eq!(since(&fresh, third, 2).await, (vec![], third));
}

/// At most `limit` changes after a bookmark, and where they end.
async fn since(fresh: &Fresh, bookmark: Bookmark, limit: u32) -> (Vec<Change>, Bookmark) {
    match fresh.store.changes_since(bookmark, limit).await.unwrap() {
        Changes::Since { changes, last } => (changes, last),
        Changes::Pruned => panic!("pruned"),
    }
}

async fn who_is_behind_the_log_is_told_so(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org"]).await;
    let first = fresh.store.bookmark().await.unwrap();
    store_bundles(&fresh.store, &["b.org"]).await;
    let second = fresh.store.bookmark().await.unwrap();
    assert_eq!(fresh.store.prune_changes(at(0)).await, Ok(0));
    assert_eq!(fresh.store.prune_changes(Timestamp::MAX).await, Ok(2));
    for behind in [Bookmark::default(), first] {
        assert_eq!(fresh.store.changes_since(behind, 9).await.unwrap(), Changes::Pruned);
    }
    // Who has read what was pruned goes on, and so does who came after that.
    assert_eq!(since(&fresh, second, 9).await, (vec![], second));
    let late = fresh.store.bookmark().await.unwrap();
    store_bundles(&fresh.store, &["c.org", "d.org"]).await;
    assert_eq!(fresh.store.latest_revision().await, Ok(Revision(4)));
    let change = |name| Change::Bundle(domain(name));
    for bookmark in [second, late] {
        assert_eq!(fresh.changes(bookmark).await, ["c.org", "d.org"].map(change));
        let (one, third) = since(&fresh, bookmark, 1).await;
        assert_eq!((one, third.revision), (vec![change("c.org")], Revision(3)));
        assert_eq!(fresh.changes(third).await, [change("d.org")]);
    }
}

async fn many_changes_are_pruned_in_turns(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let entries =
        (0..12_000).map(|number| entry(&format!("{number}"), &format!("/{number}"), &["a:1"]));
    fresh.store.create_entries(entries.collect()).await.unwrap();
    assert_eq!(fresh.store.prune_changes(Timestamp::MAX).await, Ok(12_000));
}

async fn whoever_saw_a_revision_saw_all_before_it(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let writes = (0..200).map(|number| {
        let store = fresh.store.clone();
        let name = format!("{number}");
        let change = Change::Entry(name.parse().unwrap());
        let entry = entry(&name, &format!("/{number}"), &["a:1"]);
        async move {
            store.create_entries(vec![entry]).await.unwrap();
            // What the caller just wrote is within the revision that everybody is told.
            let told = *store.changed().borrow();
            let Changes::Since { changes, .. } =
                store.changes_since(Bookmark::default(), told.0 as u32).await.unwrap()
            else {
                panic!("pruned")
            };
            assert!(changes.contains(&change));
        }
    });
    futures::future::join_all(writes).await;
    assert_eq!(fresh.changes(Bookmark::default()).await.len(), 200);
}
