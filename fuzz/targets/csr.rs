//! Certificate requests: one that is taken has been signed by the key in it.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::svid::x509::CertificateRequest;

fuzz_target!(|der: &[u8]| {
    bound::in_time(|| {
        let Ok(request) = CertificateRequest::parse(der) else { return };
        let found = der.windows(request.public_key.len()).any(|part| part == request.public_key);
        assert!(found, "the key is not from the request");
        // A signature over other bytes does not hold for these.
        let mut longer = der.to_vec();
        longer.push(0);
        assert!(CertificateRequest::parse(&longer).is_err());
    });
});
