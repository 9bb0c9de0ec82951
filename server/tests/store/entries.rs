//! Registration entries.

use futures::TryStreamExt;
use spire_core::entry::{AdditionalAttributes, Entry, EntryUpdate};
use spire_server::store::{
    Bookmark, Change, CreatedEntry, EntryFilter, Page, PageToken, SetMatch, SetRule, Store,
    StoreError,
};

use crate::{Fresh, Kind, at, domain, each_database, entry, id, selectors, store_bundles};

each_database! {
    an_entry_is_read_as_it_was_written_and_after_a_restart,
    what_cannot_differ_on_reading_is_made_equal_on_writing,
    each_item_of_a_creation_gets_its_own_answer,
    of_many_equal_creations_at_once_one_is_stored,
    an_update_changes_what_it_names_and_nothing_else,
    an_update_that_cannot_be_is_refused_alone,
    deleted_entries_leave_nothing_behind,
    filters_find_what_they_name,
    page_tokens_are_decimal_and_never_given_twice,
    all_entries_come_in_batches,
    expired_entries_are_pruned_and_others_stay,
    each_change_is_in_the_log_once,
}

async fn create(store: &Store, entries: &[Entry]) -> Vec<Result<CreatedEntry, StoreError>> {
    store.create_entries(entries.to_vec()).await.unwrap()
}

fn everything(entry_id: &str) -> Entry {
    Entry {
        federates_with: ["a.org", "b.org"].map(domain).into(),
        dns_names: ["z.example.org", "a.example.org"].map(|name| name.parse().unwrap()).into(),
        x509_svid_ttl: 60,
        jwt_svid_ttl: u32::MAX,
        admin: true,
        downstream: true,
        store_svid: true,
        expires_at: Some(at(1_900_000_000)),
        hint: "ünternal".parse().unwrap(),
        attributes: Some(AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: false,
        }),
        ..entry(entry_id, "/everything", &["k8s:ns:one two\n", "k8s:sa:ü"])
    }
}

async fn an_entry_is_read_as_it_was_written_and_after_a_restart(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org", "b.org"]).await;
    let (full, plain) = (everything("full"), entry("plain", "/plain", &["unix:uid:1"]));
    let created = create(&fresh.store, &[full.clone(), plain.clone()]).await;
    assert_eq!(created, [full.clone(), plain.clone()].map(|entry| Ok(CreatedEntry::Stored(entry))));
    assert_eq!(fresh.store.entry(&full.id).await, Ok(Some(full.clone())));
    fresh.reopen().await;
    let mut found = fresh
        .store
        .entries(&[plain.id.clone(), full.id.clone(), "no".parse().unwrap()])
        .await
        .unwrap();
    found.sort_by(|one, two| one.id.cmp(&two.id));
    assert_eq!(found, [full, plain]);
    assert_eq!(fresh.store.entry(&"no".parse().unwrap()).await, Ok(None));
    assert_eq!(fresh.store.entries(&[]).await, Ok(vec![]));
}

async fn what_cannot_differ_on_reading_is_made_equal_on_writing(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let given = Entry {
        created_at: "2024-01-01T00:00:00.9Z".parse().unwrap(),
        expires_at: Some("2034-01-01T00:00:00.9Z".parse().unwrap()),
        revision_number: 9,
        dns_names: ["b", "a", "b"].map(|name| name.parse().unwrap()).into(),
        ..entry("one", "/one", &["a:b"])
    };
    let created = create(&fresh.store, &[given]).await.pop().unwrap().unwrap();
    let CreatedEntry::Stored(stored) = created else { panic!("{created:?}") };
    assert_eq!(fresh.store.entry(&stored.id).await, Ok(Some(stored.clone())));
    assert_eq!(stored.revision_number, 0);
    assert_eq!(stored.dns_names, ["b", "a"].map(|name| name.parse().unwrap()));
}

async fn each_item_of_a_creation_gets_its_own_answer(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let first = entry("first", "/one", &["a:1", "a:2"]);
    create(&fresh.store, std::slice::from_ref(&first)).await;
    let same = entry("same", "/one", &["a:2", "a:1"]);
    let taken = entry("first", "/other", &["a:1"]);
    let lost = Entry {
        federates_with: ["nowhere.org"].map(domain).into(),
        ..entry("lost", "/lost", &["a:1"])
    };
    let subset = entry("subset", "/one", &["a:1"]);
    let twice = entry("twice", "/one", &["a:1"]);
    let parent = Entry { parent_id: id("/other"), ..entry("parent", "/one", &["a:1"]) };
    let created =
        create(&fresh.store, &[same, taken, lost, subset.clone(), twice, parent.clone()]).await;
    assert_eq!(created[0], Ok(CreatedEntry::Similar(first)));
    let taken = StoreError::AlreadyExists("an entry with ID first already exists".into());
    assert_eq!(created[1], Err(taken));
    let lost = domain("nowhere.org");
    assert_eq!(created[2], Err(StoreError::NoFederatedBundle(lost)));
    assert_eq!(created[3], Ok(CreatedEntry::Stored(subset.clone())));
    assert_eq!(created[4], Ok(CreatedEntry::Similar(subset)));
    assert_eq!(created[5], Ok(CreatedEntry::Stored(parent)));
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(3));
}

async fn of_many_equal_creations_at_once_one_is_stored(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let creations = (0..50).map(|number| {
        let same = entry(&format!("id-{number}"), "/one", &["a:1"]);
        fresh.store.create_entries(vec![same])
    });
    let mut stored = 0;
    for created in futures::future::join_all(creations).await {
        stored += usize::from(matches!(created.unwrap()[0], Ok(CreatedEntry::Stored(_))));
    }
    assert_eq!(stored, 1);
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(1));
}

async fn an_update_changes_what_it_names_and_nothing_else(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org", "b.org", "c.org"]).await;
    let before = everything("one");
    create(&fresh.store, std::slice::from_ref(&before)).await;

    let nothing = EntryUpdate::new(before.id.clone());
    let updated = fresh.store.update_entries(vec![nothing.clone()]).await.unwrap();
    let same = Entry { revision_number: 1, ..before.clone() };
    assert_eq!(updated, [Ok(same)]);

    let after = Entry {
        id: before.id.clone(),
        federates_with: ["c.org"].map(domain).into(),
        revision_number: 2,
        ..entry("x", "/after", &["k8s:ns:two"])
    };
    let update = EntryUpdate {
        id: before.id.clone(),
        spiffe_id: Some(after.spiffe_id.clone()),
        parent_id: Some(after.parent_id.clone()),
        selectors: Some(after.selectors.clone()),
        x509_svid_ttl: Some(0),
        jwt_svid_ttl: Some(0),
        federates_with: Some(after.federates_with.clone()),
        dns_names: Some(vec![]),
        admin: Some(false),
        downstream: Some(false),
        store_svid: Some(false),
        expires_at: Some(None),
        hint: Some("".parse().unwrap()),
        attributes: Some(None),
    };
    let updated = fresh.store.update_entries(vec![update]).await.unwrap();
    assert_eq!(updated, [Ok(after.clone())]);
    assert_eq!(fresh.store.entry(&before.id).await, Ok(Some(after)));
    for (text, count) in [("k8s:sa:ü", 0), ("k8s:ns:two", 1)] {
        let wanted = SetMatch { members: selectors(&[text]), rule: SetRule::Any };
        let filter = EntryFilter { selectors: Some(wanted), ..EntryFilter::default() };
        assert_eq!(fresh.store.count_entries(&filter).await, Ok(count), "{text}");
    }
}

async fn an_update_that_cannot_be_is_refused_alone(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, &[entry("one", "/one", &["a:1", "b:1"])]).await;
    let update = EntryUpdate::new("one".parse().unwrap());
    let updates = vec![
        EntryUpdate::new("none".parse().unwrap()),
        EntryUpdate { store_svid: Some(true), ..update.clone() },
        EntryUpdate { federates_with: Some([domain("x.org")].into()), ..update.clone() },
        EntryUpdate { admin: Some(true), ..update },
    ];
    let updated = fresh.store.update_entries(updates).await.unwrap();
    assert_eq!(updated[0], Err(StoreError::NotFound));
    assert!(matches!(&updated[1], Err(StoreError::Invalid(why)) if why.contains("store SVID")));
    assert!(
        matches!(&updated[2], Err(StoreError::NoFederatedBundle(domain)) if domain.as_str() == "x.org")
    );
    assert_eq!(updated[3].as_ref().unwrap().revision_number, 1);
}

async fn deleted_entries_leave_nothing_behind(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org", "b.org"]).await;
    create(&fresh.store, &[everything("one"), entry("two", "/two", &["a:1"])]).await;
    let ids = ["one", "none", "two"].map(|id| id.parse().unwrap());
    let mut deleted = fresh.store.delete_entries(ids.into()).await.unwrap();
    deleted.sort();
    assert_eq!(deleted, ["one", "two"].map(|id| id.parse().unwrap()));
    for table in ["entries", "entry_selectors", "entry_federations"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        assert_eq!(fresh.database.number(&count).await, 0, "{table}");
    }
}

/// The ids of the entries that pass, read page by page.
async fn listed(store: &Store, filter: &EntryFilter, limit: Option<u32>) -> Vec<String> {
    let mut page = Page { after: None, limit };
    let mut ids = Vec::new();
    loop {
        let listed = store.list_entries(filter, page).await.unwrap();
        if let Some(limit) = limit {
            assert!(listed.items.len() <= limit as usize);
            assert!(listed.next.is_none() || listed.items.len() == limit as usize);
        }
        ids.extend(listed.items.iter().map(|entry| entry.id.to_string()));
        match listed.next {
            // Through its text, as a client sends it.
            Some(next) => page.after = Some(next.to_string().parse::<PageToken>().unwrap()),
            None => return ids,
        }
    }
}

async fn filters_find_what_they_name(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org", "b.org"]).await;
    let federated = |names: &[&str], entry: Entry| Entry {
        federates_with: names.iter().map(|name| domain(name)).collect(),
        ..entry
    };
    let entries = [
        entry("1", "/one", &["a:1"]),
        entry("12", "/one", &["a:1", "a:2"]),
        federated(&["a.org"], entry("123", "/two", &["a:1", "a:2", "a:3"])),
        federated(&["a.org", "b.org"], entry("3", "/two", &["a:3"])),
        Entry { parent_id: id("/p"), hint: "h".parse().unwrap(), ..entry("9", "/one", &["a:9"]) },
        Entry { downstream: true, ..entry("19", "/down", &["a:1", "a:9"]) },
    ];
    create(&fresh.store, &entries).await;
    let base = EntryFilter::default();
    let by = |texts: &[&str], rule| EntryFilter {
        selectors: Some(SetMatch { members: selectors(texts), rule }),
        ..EntryFilter::default()
    };
    let federating = |names: &[&str], rule| EntryFilter {
        federates_with: Some(SetMatch {
            members: names.iter().map(|name| domain(name)).collect(),
            rule,
        }),
        ..EntryFilter::default()
    };
    let cases: &[(EntryFilter, &[&str])] = &[
        (base.clone(), &["1", "12", "123", "3", "9", "19"]),
        (EntryFilter { spiffe_id: Some(id("/one")), ..base.clone() }, &["1", "12", "9"]),
        (EntryFilter { parent_id: Some(id("/p")), ..base.clone() }, &["9"]),
        (EntryFilter { hint: Some("h".into()), ..base.clone() }, &["9"]),
        (EntryFilter { hint: Some("".into()), ..base.clone() }, &["1", "12", "123", "3", "19"]),
        (EntryFilter { downstream: true, ..base.clone() }, &["19"]),
        (by(&["a:1"], SetRule::Exact), &["1"]),
        (by(&["a:1", "a:2"], SetRule::Exact), &["12"]),
        (by(&["a:1"], SetRule::Subset), &["1"]),
        (by(&["a:1", "a:2", "a:3"], SetRule::Subset), &["1", "12", "123", "3"]),
        (by(&["a:1"], SetRule::Superset), &["1", "12", "123", "19"]),
        (by(&["a:1", "a:2"], SetRule::Superset), &["12", "123"]),
        (by(&["a:1", "a:2", "a:3"], SetRule::Superset), &["123"]),
        (by(&["a:3"], SetRule::Any), &["123", "3"]),
        (by(&["a:3", "a:9", "a:none"], SetRule::Any), &["123", "3", "9", "19"]),
        (by(&[], SetRule::Any), &[]),
        (federating(&["a.org"], SetRule::Exact), &["123"]),
        (federating(&["a.org"], SetRule::Superset), &["123", "3"]),
        (federating(&["a.org", "b.org"], SetRule::Subset), &["123", "3"]),
        (federating(&["b.org", "x.org"], SetRule::Any), &["3"]),
        (
            EntryFilter {
                spiffe_id: Some(id("/two")),
                federates_with: federating(&["a.org", "b.org"], SetRule::Superset).federates_with,
                ..by(&["a:1", "a:3"], SetRule::Any)
            },
            &["3"],
        ),
        (
            EntryFilter {
                parent_id: Some(id("/spire/agent/a")),
                federates_with: federating(&["a.org"], SetRule::Superset).federates_with,
                ..by(&["a:3"], SetRule::Superset)
            },
            &["123", "3"],
        ),
    ];
    for (filter, expected) in cases {
        for limit in [None, Some(1), Some(2), Some(100)] {
            assert_eq!(
                listed(&fresh.store, filter, limit).await,
                *expected,
                "{filter:?} {limit:?}"
            );
        }
        let count = fresh.store.count_entries(filter).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

/// All of the 10,000 entries have just this selector.
pub(crate) async fn pages_of_a_common_selector(store: &Store, text: &str) {
    let last = "9950".parse().unwrap();
    for rule in [SetRule::Any, SetRule::Subset] {
        for parent_id in [None, Some(id("/spire/agent/a"))] {
            let members = selectors(&[text, "none:1", "none:2"]);
            let selectors = Some(SetMatch { members, rule });
            let filter = EntryFilter { selectors, parent_id, ..EntryFilter::default() };
            for (after, expected) in [(None, 0..100), (Some(last), 9950..10_000)] {
                let page = Page { after, limit: Some(100) };
                let listed = store.list_entries(&filter, page).await.unwrap();
                let ids: Vec<_> = listed.items.iter().map(|entry| entry.id.to_string()).collect();
                assert_eq!(ids, Vec::from_iter(expected.map(|number| number.to_string())));
                assert_eq!(listed.next.is_some(), after.is_none());
            }
            assert_eq!(store.count_entries(&filter).await, Ok(10_000), "{filter:?}");
        }
    }
}

async fn page_tokens_are_decimal_and_never_given_twice(kind: Kind) {
    for bad in ["", "x", "-1", "+1", " 1", "99999999999999999999"] {
        assert!(bad.parse::<PageToken>().is_err(), "{bad}");
    }
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, &[entry("1", "/1", &["a:1"]), entry("2", "/2", &["a:1"])]).await;
    let page = Page { after: None, limit: Some(1) };
    let next = fresh.store.list_entries(&EntryFilter::default(), page).await.unwrap().next;
    fresh.store.delete_entries(["1", "2"].map(|id| id.parse().unwrap()).into()).await.unwrap();
    create(&fresh.store, &[entry("3", "/3", &["a:1"])]).await;
    let page = Page { after: next, limit: Some(1) };
    let listed = fresh.store.list_entries(&EntryFilter::default(), page).await.unwrap();
    assert_eq!(listed.items[0].id.as_str(), "3");
}

async fn all_entries_come_in_batches(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let entries = (0..2345).map(|number| {
        entry(
            &format!("id-{number}"),
            &format!("/{number}"),
            &["a:1", &format!("b:{}", number % 7)],
        )
    });
    create(&fresh.store, &entries.collect::<Vec<_>>()).await;
    let batches: Vec<_> = fresh.store.every_entry(Bookmark::default()).try_collect().await.unwrap();
    assert!(batches.len() > 2);
    let ids = batches.concat().into_iter().map(|entry| entry.id.to_string());
    assert!(ids.eq((0..2345).map(|number| format!("id-{number}"))));
}

async fn expired_entries_are_pruned_and_others_stay(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let expiring = |entry_id: &str, second| Entry {
        expires_at: Some(at(second)),
        ..entry(entry_id, &format!("/{entry_id}"), &["a:1"])
    };
    let entries = [
        entry("never", "/never", &["a:1"]),
        expiring("old", 100),
        expiring("older", 50),
        expiring("new", 200),
    ];
    create(&fresh.store, &entries).await;
    let first = fresh.store.prune_expired_entries(at(200), 1).await.unwrap();
    assert_eq!(first[0].id.as_str(), "older");
    let rest = fresh.store.prune_expired_entries(at(200), 10).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(listed(&fresh.store, &EntryFilter::default(), None).await, ["never", "new"]);
}

async fn each_change_is_in_the_log_once(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    create(&fresh.store, &[entry("1", "/1", &["a:1"]), entry("2", "/2", &["a:1"])]).await;
    let named = |id: &str| Change::Entry(id.parse().unwrap());
    assert_eq!(fresh.changes(Bookmark::default()).await, ["1", "2"].map(named));
    let created = fresh.store.bookmark().await.unwrap();
    let similar = create(&fresh.store, &[entry("3", "/1", &["a:1"])]).await;
    assert!(matches!(similar[0], Ok(CreatedEntry::Similar(_))));
    assert_eq!(fresh.store.bookmark().await, Ok(created));
    let twice =
        vec![EntryUpdate::new("2".parse().unwrap()), EntryUpdate::new("2".parse().unwrap())];
    fresh.store.update_entries(twice).await.unwrap();
    fresh.store.delete_entries(vec!["1".parse().unwrap()]).await.unwrap();
    assert_eq!(fresh.changes(created).await, ["2", "1"].map(named));
    assert_eq!(fresh.store.latest_revision().await, Ok(*fresh.store.changed().borrow()));
}
