//! Signed messages: what verifies says what was signed, whatever stands around it.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::pkcs7::{Attributes, SignedData};

static KEY: &[u8] = include_bytes!("pkcs7.key");
static DOCUMENT: &[u8] =
    include_bytes!("../../localstack-tests/data/aws-iid-samples/ap-southeast-2.document");

fuzz_target!(|message: &[u8]| {
    bound::in_time(|| {
        let Ok(message) = SignedData::parse(message) else { return };
        if let Ok(content) = message.verified_content(KEY, Attributes::Required) {
            assert_eq!(content, DOCUMENT);
        }
        assert!(message.verified_content(KEY, Attributes::Forbidden).is_err());
    });
});
