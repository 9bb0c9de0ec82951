//! Bundles in all their forms: what is read can be written, and says the same when read again.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;

fuzz_target!(|bytes: &[u8]| {
    bound::in_time(|| {
        let domain = || TrustDomain::parse("example.org").expect("a name");
        if let Ok(bundle) = Bundle::from_spiffe_json(domain(), bytes) {
            let again = Bundle::from_spiffe_json(domain(), bundle.to_spiffe_json().as_bytes());
            let again = again.expect("what was written is read");
            assert_eq!(again.jwt_authorities, bundle.jwt_authorities);
            assert_eq!(again.sequence_number, bundle.sequence_number);
        }
        if let Ok(bundle) = Bundle::from_jwks(domain(), bytes) {
            let again = Bundle::from_jwks(domain(), bundle.to_jwks().as_bytes());
            assert_eq!(again.expect("what was written is read"), bundle);
        }
        if let Ok(bundle) = Bundle::from_pem(domain(), bytes) {
            let again = Bundle::from_pem(domain(), bundle.to_pem().as_bytes());
            assert_eq!(again.expect("what was written is read"), bundle);
        }
        if let Ok(bundle) = Bundle::from_der(domain(), bytes) {
            assert_eq!(bundle.x509_der(), bytes);
            for root in &bundle.x509_authorities {
                let _ = (root.authority_id(), root.validity());
            }
        }
    });
});
