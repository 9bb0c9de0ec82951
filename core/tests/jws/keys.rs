//! Keys that issuers publish: which are understood, and how often they are fetched.

use super::*;

#[test]
fn a_jwk_set_gives_the_keys_that_are_understood_and_not_ambiguous() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let mut encryption = issuer.jwk("encryption");
    encryption["use"] = json!("enc");
    let keys = json!({ "keys": [
        issuer.jwk("one"),
        issuer.jwk("twice"),
        issuer.jwk("twice"),
        issuer.jwk("two"),
        other.jwk("two"),
        encryption,
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA"},
        7,
    ]});
    let set = KeySet::from_jwks(keys.to_string().as_bytes()).unwrap();
    for known in ["one", "twice"] {
        assert_eq!(set.get(known), Some(&issuer.key()), "{known}");
    }
    for unknown in ["two", "encryption", "secret", "broken", ""] {
        assert_eq!(set.get(unknown), None, "{unknown}");
    }
    for wrong in ["", "<html>", "[]", "{}", r#"{"keys": {}}"#] {
        KeySet::from_jwks(wrong.as_bytes()).unwrap_err();
    }
    KeySet::from_jwks(&vec![b' '; 2 << 20]).unwrap_err();
}

/// An issuer that publishes what a test says.
#[derive(Clone)]
struct Publisher {
    says: Arc<Mutex<Result<Value, String>>>,
    max_age: Arc<Mutex<Option<u64>>>,
    fetches: Arc<AtomicUsize>,
    clock: Clock,
}

impl Publisher {
    fn new(keys: Value) -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            says: Arc::new(Mutex::new(Ok(json!({ "keys": keys })))),
            max_age: Arc::new(Mutex::new(Some(3600))),
            fetches: Arc::default(),
            clock: Clock::standing_at(start),
        }
    }

    fn cache(&self) -> KeyCache {
        KeyCache::new(self.clone(), self.clock.clone())
    }

    fn publishes(&self, keys: Value) {
        *self.says.lock().unwrap() = Ok(json!({ "keys": keys }));
    }

    fn fails(&self) {
        *self.says.lock().unwrap() = Err("status 503".to_owned());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

#[async_trait]
impl KeySource for Publisher {
    async fn fetch(&self) -> Result<Fetched, String> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let document = self.says.lock().unwrap().clone()?;
        let mut headers = HeaderMap::new();
        if let Some(seconds) = *self.max_age.lock().unwrap() {
            let value = format!("public, max-age={seconds}");
            headers.insert("cache-control", HeaderValue::from_str(&value).unwrap());
        }
        let keys = KeySet::from_jwks(document.to_string().as_bytes())?;
        Ok(Fetched::new(keys, &headers, self.clock.now()))
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_for_all_and_kept_as_long_as_their_issuer_says() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    for key in join_all((0..200).map(|_| cache.key("one"))).await {
        assert_eq!(key, Ok(issuer.key()));
    }
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(3599);
    cache.key("one").await.unwrap();
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(1);
    cache.key("one").await.unwrap();
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_without_a_lifetime_are_kept_for_a_while() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    for max_age in [None, Some(0)] {
        *publisher.max_age.lock().unwrap() = max_age;
        let before = publisher.fetches();
        for _ in 0..10 {
            cache.key("one").await.unwrap();
            publisher.pass(29);
        }
        assert_eq!(publisher.fetches() - before, 1, "{max_age:?}");
        publisher.pass(3600);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_once_and_not_often() {
    let (issuer, later) = (Issuer::new(), Issuer::new());
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    cache.key("one").await.unwrap();
    publisher.publishes(json!([later.jwk("two")]));
    for name in ["two", "x", "y"] {
        assert_eq!(cache.key(name).await, Err(JwsError::UnknownKey(name.to_owned())));
    }
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(30);
    assert_eq!(cache.key("two").await, Ok(later.key()));
    assert_eq!(cache.key("one").await, Err(JwsError::UnknownKey("one".to_owned())));
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_renewed_are_used_for_a_day() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    cache.key("one").await.unwrap();
    publisher.pass(3600);
    publisher.fails();
    for _ in 0..5 {
        assert_eq!(cache.key("one").await, Ok(issuer.key()));
    }
    assert_eq!(publisher.fetches(), 2, "a failing issuer is left in peace for a moment");
    publisher.publishes(json!([]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    assert_eq!(publisher.fetches(), 3);
    publisher.fails();
    publisher.pass(23 * 3600 - 30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    publisher.pass(31);
    assert_eq!(cache.key("one").await, Err(JwsError::NoKeys("status 503".to_owned())));
    publisher.publishes(json!([issuer.jwk("one")]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
}

#[tokio::test(start_paused = true)]
async fn where_there_are_no_keys_each_asker_tries_again() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    publisher.fails();
    assert_eq!(cache.key("one").await, Err(JwsError::NoKeys("status 503".to_owned())));
    publisher.publishes(json!([]));
    assert_eq!(cache.key("one").await, Err(JwsError::UnknownKey("one".to_owned())));
    publisher.publishes(json!([issuer.jwk("one")]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    assert_eq!(publisher.fetches(), 3);
}
