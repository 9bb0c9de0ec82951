//! SPIFFE IDs: what is read is printed as it was, and comes apart without loss.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::id::{MAX_ID_BYTES, SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    bound::in_time(|| {
        if let Ok(domain) = TrustDomain::parse(text) {
            assert_eq!(TrustDomain::parse(domain.as_str()).as_ref(), Ok(&domain));
            assert_eq!(domain.id().trust_domain(), domain);
        }
        let Ok(id) = SpiffeId::parse(text) else { return };
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= MAX_ID_BYTES);
        assert_eq!(id.trust_domain().member(id.path()).as_ref(), Ok(&id));
        assert_eq!(TrustDomain::parse(text), Ok(id.trust_domain()));
        assert!(!id.trust_domain_name().contains('/') && !id.path().contains("//"));
    });
});
