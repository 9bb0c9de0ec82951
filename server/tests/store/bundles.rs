//! Bundles.

use bytes::Bytes;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::entry::Entry;
use spire_server::store::{Change, DeleteMode, Page, StoreError};

use crate::{Fresh, Kind, at, domain, each_database, entry, store_bundles};

each_database! {
    a_bundle_is_read_as_it_was_written,
    setting_a_bundle_keeps_its_publishers_number,
    appending_counts_what_is_added,
    appends_at_the_same_time_lose_nothing,
    an_edit_is_kept_counted_or_refused,
    bundles_are_listed_in_pages_without_our_own,
    entries_that_federate_decide_how_a_bundle_goes,
    a_bundle_that_nothing_refers_to_may_always_go,
    many_entries_leave_a_bundle_in_several_transactions,
}

fn x509(byte: u8) -> X509Authority {
    X509Authority { certificate: Bytes::from(vec![byte; 3]), tainted: false }
}

fn jwt(key_id: &str) -> JwtAuthority {
    JwtAuthority {
        key_id: key_id.into(),
        public_key: Bytes::from_static(b"key"),
        expires_at: Some(at(0)),
        tainted: false,
    }
}

fn full(name: &str) -> Bundle {
    Bundle {
        trust_domain: domain(name),
        x509_authorities: vec![X509Authority { tainted: true, ..x509(2) }, x509(1)],
        jwt_authorities: vec![
            JwtAuthority { expires_at: None, tainted: true, ..jwt("k") },
            jwt("j"),
        ],
        refresh_hint: u32::MAX,
        sequence_number: u64::MAX,
    }
}

async fn a_bundle_is_read_as_it_was_written(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    fresh.store.create_bundle(full("a.org")).await.unwrap();
    let again = fresh.store.create_bundle(full("a.org")).await;
    assert_eq!(again, Err(StoreError::AlreadyExists("bundle already exists".into())));
    fresh.reopen().await;
    assert_eq!(fresh.store.bundle(&domain("a.org")).await, Ok(Some(full("a.org"))));
    assert_eq!(fresh.store.bundle(&domain("b.org")).await, Ok(None));
}

async fn setting_a_bundle_keeps_its_publishers_number(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let given = Bundle { sequence_number: 7, ..full("a.org") };
    fresh.store.set_bundle(given.clone()).await.unwrap();
    let before = fresh.store.bookmark().await.unwrap();
    fresh.store.set_bundle(given.clone()).await.unwrap();
    assert_eq!(fresh.store.bookmark().await, Ok(before));
    let older = Bundle { sequence_number: 3, ..Bundle::empty(domain("a.org")) };
    fresh.store.set_bundle(older.clone()).await.unwrap();
    assert_eq!(fresh.store.bundle(&domain("a.org")).await, Ok(Some(older)));
    assert_eq!(fresh.changes(before).await, [Change::Bundle(domain("a.org"))]);
}

async fn appending_counts_what_is_added(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let append = |x509, jwt| fresh.store.append_to_bundle(domain("a.org"), x509, jwt);
    let first = append(vec![x509(1), x509(1)], vec![]).await.unwrap();
    assert_eq!((first.sequence_number, first.x509_authorities.len()), (0, 1));
    let tainted = fresh.store.edit_bundle(domain("a.org"), |bundle| {
        bundle.x509_authorities[0].tainted = true;
        Ok(())
    });
    assert_eq!(tainted.await.unwrap().sequence_number, 1);
    let second = append(vec![x509(1), x509(2)], vec![jwt("k")]).await.unwrap();
    assert_eq!(second.sequence_number, 2);
    assert!(second.x509_authorities[0].tainted && !second.x509_authorities[1].tainted);
    let third = append(vec![x509(2)], vec![jwt("k")]).await.unwrap();
    assert_eq!(third, second);
    assert_eq!(fresh.store.bundle(&domain("a.org")).await, Ok(Some(second)));
}

async fn appends_at_the_same_time_lose_nothing(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let appends =
        (0..40).map(|byte| fresh.store.append_to_bundle(domain("a.org"), vec![x509(byte)], vec![]));
    futures::future::try_join_all(appends).await.unwrap();
    let bundle = fresh.store.bundle(&domain("a.org")).await.unwrap().unwrap();
    assert_eq!((bundle.x509_authorities.len(), bundle.sequence_number), (40, 39));
}

async fn an_edit_is_kept_counted_or_refused(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let missing = fresh.store.edit_bundle(domain("a.org"), |_| Ok(())).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    fresh.store.create_bundle(full("a.org")).await.unwrap();
    let same = fresh.store.edit_bundle(domain("a.org"), |_| Ok(())).await;
    assert_eq!(same, Ok(full("a.org")));
    let refused = fresh.store.edit_bundle(domain("a.org"), |bundle| {
        bundle.x509_authorities.clear();
        Err(StoreError::Refused("no".into()))
    });
    assert_eq!(refused.await, Err(StoreError::Refused("no".into())));
    let set = fresh.store.edit_bundle(domain("a.org"), |bundle| {
        bundle.jwt_authorities.clear();
        bundle.sequence_number = 5;
        Ok(())
    });
    assert_eq!(set.await.unwrap().sequence_number, 5);
    let kept = fresh.store.bundle(&domain("a.org")).await.unwrap().unwrap();
    assert_eq!((kept.x509_authorities.len(), kept.jwt_authorities.len()), (2, 0));
}

async fn bundles_are_listed_in_pages_without_our_own(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["b.org", "own.org", "a.org", "c.org"]).await;
    let mut page = Page { after: None, limit: Some(2) };
    let own = domain("own.org");
    let first = fresh.store.list_bundles(Some(&own), page).await.unwrap();
    page.after = first.next;
    let second = fresh.store.list_bundles(Some(&own), page).await.unwrap();
    assert_eq!(second.next, None);
    let names = first.items.iter().chain(&second.items).map(|bundle| bundle.trust_domain.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["b.org", "a.org", "c.org"]);
    assert_eq!(fresh.store.list_bundles(None, Page::default()).await.unwrap().items.len(), 4);
    assert_eq!(fresh.store.count_bundles().await, Ok(4));
}

async fn entries_that_federate_decide_how_a_bundle_goes(kind: Kind) {
    for mode in [DeleteMode::Restrict, DeleteMode::Delete, DeleteMode::Dissociate] {
        let fresh = Fresh::new(kind).await;
        store_bundles(&fresh.store, &["a.org", "b.org"]).await;
        let federated = Entry {
            federates_with: ["a.org", "b.org"].map(domain).into(),
            ..entry("one", "/one", &["a:1"])
        };
        let entries = vec![federated.clone(), entry("two", "/two", &["a:1"])];
        fresh.store.create_entries(entries).await.unwrap();
        let before = fresh.store.bookmark().await.unwrap();
        let deleted = fresh.store.delete_bundle(domain("a.org"), mode).await;
        let kept = fresh.store.entry(&federated.id).await.unwrap();
        let left = fresh.store.bundle(&domain("a.org")).await.unwrap().is_some();
        let expected = [Change::Entry(federated.id.clone()), Change::Bundle(domain("a.org"))];
        match mode {
            DeleteMode::Restrict => {
                let why = "cannot delete bundle; federated with 1 registration entries";
                assert_eq!(deleted, Err(StoreError::Refused(why.into())));
                assert!(left && kept == Some(federated));
                assert_eq!(fresh.changes(before).await, []);
                continue;
            }
            DeleteMode::Delete => assert_eq!(kept, None),
            DeleteMode::Dissociate => {
                let federates_with = [domain("b.org")].into();
                assert_eq!(kept, Some(Entry { federates_with, ..federated }));
            }
        }
        assert_eq!((deleted, left), (Ok(()), false));
        assert_eq!(fresh.changes(before).await, expected);
        let gone = fresh.store.delete_bundle(domain("a.org"), mode).await;
        assert_eq!(gone, Err(StoreError::NotFound));
    }
}

async fn a_bundle_that_nothing_refers_to_may_always_go(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    store_bundles(&fresh.store, &["a.org"]).await;
    let created = fresh.store.bookmark().await.unwrap();
    fresh.store.delete_bundle(domain("a.org"), DeleteMode::Restrict).await.unwrap();
    let twice = [Change::Bundle(domain("a.org"))];
    assert_eq!(fresh.changes(created).await, twice);
}

async fn many_entries_leave_a_bundle_in_several_transactions(kind: Kind) {
    for mode in [DeleteMode::Delete, DeleteMode::Dissociate] {
        let fresh = Fresh::new(kind).await;
        store_bundles(&fresh.store, &["a.org", "b.org"]).await;
        let federated = |number: u32| Entry {
            federates_with: ["a.org", "b.org"].map(domain).into(),
            ..entry(&format!("{number}"), &format!("/{number}"), &["a:1"])
        };
        fresh.store.create_entries((0..1001).map(federated).collect()).await.unwrap();
        let before = fresh.store.latest_revision().await.unwrap().0;
        fresh.store.delete_bundle(domain("a.org"), mode).await.unwrap();
        assert_eq!(fresh.store.bundle(&domain("a.org")).await, Ok(None));
        let kept = if mode == DeleteMode::Dissociate { 1001 } else { 0 };
        for table in ["entries", "entry_selectors", "entry_federations"] {
            let left = fresh.database.number(&format!("SELECT COUNT(*) FROM {table}")).await;
            assert_eq!(left, kept, "{mode:?}: {table}");
        }
        // Others may write between these.
        let transactions =
            format!("SELECT COUNT(DISTINCT writer) FROM changes WHERE revision > {before}");
        assert_eq!(fresh.database.number(&transactions).await, 3, "{mode:?}");
        let changes = format!("SELECT COUNT(*) FROM changes WHERE revision > {before}");
        assert_eq!(fresh.database.number(&changes).await, 1002, "{mode:?}");
    }
}
