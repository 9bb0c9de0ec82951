//! Tokens of foreign issuers: of all texts, only the token that was signed holds.
#![no_main]

mod bound;

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use spire_core::jws::{Algorithm, Jws, KeySet};

static SIGNED: &[u8] = include_bytes!("../seeds/jws/signed");

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    KeySet::from_jwks(include_bytes!("../seeds/jws/keys.json")).expect("a set of keys")
});

fuzz_target!(|bytes: &[u8]| {
    bound::in_time(|| {
        let holds = Jws::parse(bytes, &Algorithm::ALL).ok().and_then(|token| {
            let now = Timestamp::from_second(1_800_000_000).expect("a time");
            if let Some(claims) = token.unverified_claims() {
                let _ = claims.check_audience("audience");
                let _ = claims.check_times(now, SignedDuration::from_secs(60));
            }
            let key = KEYS.get(token.key_id())?.clone();
            token.verify(&key).ok()
        });
        assert_eq!(holds.is_some(), bytes == SIGNED);
        let _ = KeySet::from_jwks(bytes);
        let _ = KeySet::from_certificates(bytes);
    });
});
