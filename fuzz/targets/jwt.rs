//! JWT-SVIDs: of all texts, only the token that was signed verifies.
#![no_main]

mod bound;

use std::sync::LazyLock;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::svid::jwt;

static SIGNED: &str = include_str!("../seeds/jwt/signed");

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let domain = TrustDomain::parse("example.org").expect("a name");
    let document = include_bytes!("../seeds/bundle/jwt.json");
    Bundle::from_spiffe_json(domain, document).expect("a bundle")
});

fuzz_target!(|token: &str| {
    bound::in_time(|| {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let verified = jwt::verify(token, "audience", |_| Some(&*BUNDLE), now);
        assert_eq!(verified.is_ok(), token == SIGNED, "{token}");
    });
});
