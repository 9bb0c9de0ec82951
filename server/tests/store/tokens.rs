//! Join tokens.

use spire_server::store::{
    CreatedEntry, EntryFilter, KeyFingerprint, Redemption, Store, StoreError, TokenUse,
};

use crate::{Fresh, Kind, at, each_database, entry};

each_database! {
    a_token_admits_one_key_and_that_one_again,
    an_expired_token_is_gone_at_its_first_use,
    of_a_hundred_keys_one_wins,
    a_token_comes_with_its_alias_or_not_at_all,
    expired_tokens_are_pruned_used_or_not,
}

async fn redeem(store: &Store, token: &str, key: u8, second: i64) -> Redemption {
    let offered = TokenUse { token: token.into(), key: KeyFingerprint([key; 32]) };
    store.redeem_join_token(offered, at(second)).await.unwrap()
}

async fn a_token_admits_one_key_and_that_one_again(kind: Kind) {
    let mut fresh = Fresh::new(kind).await;
    fresh.store.create_join_token("t".into(), at(1000), None).await.unwrap();
    assert_eq!(redeem(&fresh.store, "T", 1, 1).await, Redemption::Unknown);
    assert_eq!(redeem(&fresh.store, "t", 1, 999).await, Redemption::Fresh);
    fresh.reopen().await;
    assert_eq!(redeem(&fresh.store, "t", 1, 1000).await, Redemption::Again);
    assert_eq!(redeem(&fresh.store, "t", 2, 1000).await, Redemption::Used);
    assert_eq!(redeem(&fresh.store, "t", 1, 1001).await, Redemption::Used);
    assert_eq!(redeem(&fresh.store, "t", 1, 1001).await, Redemption::Unknown);
}

async fn an_expired_token_is_gone_at_its_first_use(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    fresh.store.create_join_token("t".into(), at(1000), None).await.unwrap();
    assert_eq!(redeem(&fresh.store, "t", 1, 1001).await, Redemption::Expired);
    assert_eq!(redeem(&fresh.store, "t", 1, 1001).await, Redemption::Unknown);
}

async fn of_a_hundred_keys_one_wins(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    fresh.store.create_join_token("t".into(), at(1000), None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for key in 0..100 {
        let store = fresh.store.clone();
        tasks.spawn(async move { redeem(&store, "t", key, 1).await });
    }
    let outcomes = tasks.join_all().await;
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!((count(Redemption::Fresh), count(Redemption::Used)), (1, 99));
}

async fn a_token_comes_with_its_alias_or_not_at_all(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let alias = entry("alias", "/alias", &["spiffe_id:x"]);
    let created = fresh.store.create_join_token("t".into(), at(1000), Some(alias.clone())).await;
    assert_eq!(created, Ok(Some(CreatedEntry::Stored(alias.clone()))));

    let other = entry("other", "/other", &["spiffe_id:y"]);
    let exists = fresh.store.create_join_token("t".into(), at(1000), Some(other)).await;
    assert_eq!(exists, Err(StoreError::AlreadyExists("join token already exists".into())));
    assert_eq!(fresh.store.count_entries(&EntryFilter::default()).await, Ok(1));

    let taken = entry("alias", "/taken", &["spiffe_id:z"]);
    let refused = fresh.store.create_join_token("u".into(), at(1000), Some(taken)).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(_))), "{refused:?}");
    assert_eq!(redeem(&fresh.store, "u", 1, 1).await, Redemption::Unknown);
}

async fn expired_tokens_are_pruned_used_or_not(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    for (token, second) in [("used", 10), ("unused", 10), ("young", 20)] {
        fresh.store.create_join_token(token.into(), at(second), None).await.unwrap();
    }
    redeem(&fresh.store, "used", 1, 5).await;
    assert_eq!(fresh.store.prune_join_tokens(at(20)).await, Ok(2));
    assert_eq!(redeem(&fresh.store, "young", 1, 20).await, Redemption::Fresh);
    assert_eq!(redeem(&fresh.store, "used", 1, 5).await, Redemption::Unknown);
}

#[tokio::test]
async fn no_token_is_in_the_file() {
    let fresh = Fresh::of_file("").await;
    let token = "8f0c1a52-secret";
    fresh.store.create_join_token(token.into(), at(1000), None).await.unwrap();
    fresh.store.close().await;
    let bytes = std::fs::read(fresh.path()).unwrap();
    assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
}
