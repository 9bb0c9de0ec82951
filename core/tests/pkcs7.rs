//! Signed messages: what EC2 writes is read, what was tampered with is not believed, and nothing
//! that is sent costs much.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use spire_core::pkcs7::{Attributes, MAX_BYTES, Pkcs7Error, SignedData};
use spire_fakes::aws::pkcs7::{self as made, Message, Signer, element};
use spire_fakes::time::shortest;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

const DOCUMENT: &[u8] =
    include_bytes!("../../localstack-tests/data/aws-iid-samples/ap-southeast-2.document");
const RSA2048: &str =
    include_str!("../../localstack-tests/data/aws-iid-samples/ap-southeast-2.rsa2048");
const CERTIFICATES: &str =
    include_str!("../../localstack-tests/data/aws-iid-certificates/ap-southeast-2.pem");

/// A message of EC2, and the key that signed it.
static GENUINE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let text: String = RSA2048.split_ascii_whitespace().collect();
    let begin = CERTIFICATES.find("-----BEGIN").unwrap();
    let end = CERTIFICATES.find("-----END CERTIFICATE-----").unwrap();
    let pem = format!("{}-----END CERTIFICATE-----\n", &CERTIFICATES[begin..end]);
    let certificate = Certificate::from_pem(pem).unwrap();
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
    (STANDARD.decode(text).unwrap(), key)
});

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

const ISSUER: &[u8] = &[0x30, 0];
const CONTENT: &[u8] = b"{}";

fn sign(message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn signer() -> Signer {
    Signer::new(ISSUER, &[7], CONTENT)
}

fn message() -> Message {
    Message::new(CONTENT, &signer(), &sign)
}

fn by(signer: &Signer) -> Message {
    Message::new(CONTENT, signer, &sign)
}

fn verify(message: &[u8]) -> Result<Vec<u8>, Pkcs7Error> {
    let key = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(KEY.public_key()).unwrap();
    let parsed = SignedData::parse(message)?;
    parsed.verified_content(key.as_ref(), Attributes::Required).map(<[u8]>::to_vec)
}

#[test]
fn what_ec2_has_signed_is_read() {
    let (message, key) = &*GENUINE;
    let parsed = SignedData::parse(message).unwrap();
    assert_eq!(parsed.verified_content(key, Attributes::Required).unwrap(), DOCUMENT);
    assert!(parsed.certificates().is_empty());
    assert_eq!(hex::encode(parsed.signer().serial), "00bd9b3a06fe76af6b");
    let wrong = parsed.verified_content(key, Attributes::Forbidden).unwrap_err();
    assert!(matches!(wrong, Pkcs7Error::Attributes(_)), "{wrong}");
}

#[test]
fn no_bit_of_a_genuine_message_can_be_turned() {
    let (message, key) = &*GENUINE;
    let genuine = SignedData::parse(message).unwrap();
    for place in 0..message.len() * 8 {
        let mut turned = message.clone();
        turned[place / 8] ^= 1 << (place % 8);
        let Ok(parsed) = SignedData::parse(&turned) else { continue };
        if parsed.verified_content(key, Attributes::Required).is_ok() {
            // Whose key it is meant to be is compared by the caller.
            let (one, other) = (parsed.signer(), genuine.signer());
            assert!(one.issuer != other.issuer || one.serial != other.serial, "bit {place}");
        }
    }
    for length in 0..message.len() {
        SignedData::parse(&message[..length]).unwrap_err();
    }
    SignedData::parse(&[&message[..], &[0]].concat()).unwrap_err();
}

#[test]
fn what_is_made_here_is_read_in_both_encodings() {
    for indefinite in [true, false] {
        let certificates = vec![element(0x30, &[]); 2];
        let message = Message { indefinite, certificates, ..message() }.encode();
        assert_eq!(verify(&message).unwrap(), CONTENT);
        assert_eq!(SignedData::parse(&message).unwrap().certificates().len(), 2);
    }
}

#[test]
fn other_kinds_and_versions_are_refused() {
    let enveloped = Message { kind: made::ENVELOPED_DATA.to_vec(), ..message() };
    assert_eq!(verify(&enveloped.encode()), Err(Pkcs7Error::Kind));
    let newer = Message { version: 3, ..message() };
    assert!(matches!(verify(&newer.encode()), Err(Pkcs7Error::Shape(_))));
    let detached = Message { content: None, ..message() };
    assert_eq!(verify(&detached.encode()), Err(Pkcs7Error::Detached));
}

#[test]
fn a_message_has_one_signer() {
    let one = signer().encode(CONTENT, &sign);
    let forged = signer().with_signature(&[0; 256]);
    for signers in [
        vec![one.clone(), one.clone()],
        vec![one.clone(), forged.clone()],
        vec![forged.clone(), one],
    ] {
        let several = Message { signers, ..message() };
        assert_eq!(verify(&several.encode()), Err(Pkcs7Error::Signers(2)));
    }
    let none = Message { signers: Vec::new(), ..message() };
    assert_eq!(verify(&none.encode()), Err(Pkcs7Error::Signers(0)));
    let forged = Message { signers: vec![forged], ..message() };
    assert_eq!(verify(&forged.encode()), Err(Pkcs7Error::Signature));
}

#[test]
fn other_algorithms_are_refused() {
    for digest_algorithm in [made::SHA_1, made::MD5] {
        let signer = Signer { digest_algorithm: digest_algorithm.to_vec(), ..signer() };
        assert!(matches!(verify(&by(&signer).encode()), Err(Pkcs7Error::Algorithm(_))));
    }
    let unannounced = Message { digest_algorithms: vec![made::SHA_1.to_vec()], ..message() };
    assert!(matches!(verify(&unannounced.encode()), Err(Pkcs7Error::Algorithm(_))));
    let signer = Signer { signature_algorithm: made::SHA_256.to_vec(), ..signer() };
    assert!(matches!(verify(&by(&signer).encode()), Err(Pkcs7Error::Algorithm(_))));
}

#[test]
fn signed_attributes_are_as_they_must_be_or_not_believed() {
    let usual = made::attributes(CONTENT);
    let [kind, time, digest] = &usual[..] else { panic!("three attributes") };
    let other = made::attribute(made::MESSAGE_DIGEST, &[element(0x04, &[0; 32])]);
    let short = made::attribute(made::MESSAGE_DIGEST, &[element(0x04, &[0; 31])]);
    let bytes =
        element(0x04, aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, CONTENT).as_ref());
    let two_values = made::attribute(made::MESSAGE_DIGEST, &[bytes.clone(), bytes]);
    let wrong_kind = made::attribute(made::CONTENT_TYPE, &[element(0x06, made::SIGNED_DATA)]);
    let cases = [
        ("nothing", vec![]),
        ("no digest", vec![kind.clone(), time.clone()]),
        ("no kind", vec![time.clone(), digest.clone()]),
        ("digest twice", vec![kind.clone(), digest.clone(), digest.clone()]),
        ("two digests", vec![kind.clone(), other.clone(), digest.clone()]),
        ("two values", vec![kind.clone(), two_values]),
        ("short digest", vec![kind.clone(), short]),
        ("another digest", vec![kind.clone(), other]),
        ("another kind", vec![wrong_kind, digest.clone()]),
        ("another order", vec![kind.clone(), digest.clone(), time.clone()]),
    ];
    for (what, attributes) in cases {
        let signer = Signer { attributes: Some(attributes), ..signer() };
        let error = verify(&by(&signer).encode()).unwrap_err();
        assert!(matches!(error, Pkcs7Error::Attributes(_) | Pkcs7Error::Digest), "{what}: {error}");
    }
    let without = Signer { attributes: None, ..signer() };
    assert!(matches!(verify(&by(&without).encode()), Err(Pkcs7Error::Attributes(_))));
}

#[test]
fn signed_attributes_shown_as_content_are_not_believed() {
    let attributes = element(0x31, &made::attributes(CONTENT).concat());
    let signature = sign(&attributes);
    let signer = Signer { attributes: None, ..signer() };
    let signers = vec![signer.with_signature(&signature)];
    let shown = Message { content: Some(attributes), signers, ..message() };
    assert!(matches!(verify(&shown.encode()), Err(Pkcs7Error::Attributes(_))));
}

#[tokio::test]
async fn an_input_that_is_made_to_cost_much_costs_little() {
    let deep = [0x30, 0x80].repeat(500_000);
    let deep_octets = [&GENUINE.0[..50], &[0x24, 0x80].repeat(500_000)[..]].concat();
    let lengths = [0x30, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].to_vec();
    let pieces = [&GENUINE.0[..52], &[0x04, 0x00].repeat(500_000)[..]].concat();
    let most = |bytes: &[u8]| bytes[..MAX_BYTES.min(bytes.len())].to_vec();
    for input in [&deep, &deep_octets, &lengths, &pieces] {
        for input in [input.clone(), most(input)] {
            let limit = Duration::from_millis(100);
            let took = shortest(limit, async || {
                SignedData::parse(&input).unwrap_err();
            });
            let took = took.await;
            assert!(took < limit, "{:x?}: {took:?}", &input[..8]);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(SignedData::parse(&bytes).is_err());
    }

    #[test]
    fn a_message_with_other_bytes_in_it_never_panics(
        place in any::<proptest::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (message, key) = &*GENUINE;
        let place = place.index(message.len());
        let end = (place + bytes.len()).min(message.len());
        let mut changed = message.clone();
        changed.splice(place..end, bytes);
        if let Ok(parsed) = SignedData::parse(&changed) {
            let _ = parsed.verified_content(key, Attributes::Required);
            let _ = parsed.verified_content(key, Attributes::Forbidden);
        }
    }
}
