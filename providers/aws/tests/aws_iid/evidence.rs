//! A1–A17, A34, A35: what is forged is not believed.

use spire_fakes::aws::pkcs7::{self, Message, element};
use spire_fakes::aws::{Evidence, Instance, RegionSigner, lines};

use super::support::{ID, REGION, SIGNER, Setup, genuine, instance};

/// The instance's evidence, with its message as `change` makes it.
fn with_message(change: impl FnOnce(&[u8]) -> Message) -> Vec<u8> {
    let evidence = SIGNER.evidence(&instance(), false);
    let message = change(evidence.document.as_bytes()).encode();
    Evidence { rsa2048: lines(&message), ..evidence }.payload()
}

fn usual(content: &[u8]) -> Message {
    SIGNER.message(content)
}

fn sign(message: &[u8]) -> Vec<u8> {
    SIGNER.sign(message)
}

/// What becomes of the signed attributes of a message; nothing where they are left out.
type Change<'c> = &'c dyn Fn(Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>>;

#[tokio::test]
async fn a01_document_altered() {
    let setup = Setup::new("").await;
    let evidence = SIGNER.evidence(&instance(), true);
    for (from, to) in
        [(ID, "i-0b22a22eec53b9322"), ("123456789012", "123456789013"), (REGION, "us-east-1")]
    {
        let document = evidence.document.replace(from, to);
        assert_ne!(document, evidence.document);
        let altered = Evidence { document: document.clone(), ..evidence.clone() };
        setup.show(&altered.payload()).await.malformed();
        let legacy = Evidence { document, rsa2048: String::new(), ..evidence.clone() };
        setup.show(&legacy.payload()).await.malformed();
    }
    assert!(setup.aws.server().requests().is_empty(), "AWS was asked about a forged document");
}

#[tokio::test]
async fn a02_genuine_message_of_another_instance() {
    let setup = Setup::new("").await;
    let own = SIGNER.evidence(&Instance::new("666666666666", REGION, "i-06660000000000000"), true);
    let forged = Evidence { document: instance().document(), ..own };
    let verdict = setup.show(&forged.payload()).await;
    assert_eq!(verdict.malformed(), "the signed identity document is not the one that was sent");
}

#[tokio::test]
async fn a03_document_with_other_line_ends() {
    let setup = Setup::new("").await;
    let evidence = SIGNER.evidence(&instance(), false);
    for document in [format!("{}\n", evidence.document), evidence.document.replace('\n', "\r\n")] {
        setup.show(&Evidence { document, ..evidence.clone() }.payload()).await.malformed();
    }
}

#[tokio::test]
async fn a04_own_certificate_with_the_names_of_the_genuine_one() {
    let setup = Setup::new("").await;
    let attacker = RegionSigner::new(REGION);
    let evidence = with_message(|content| {
        let certificates = vec![certificate(&attacker)];
        let sign = |message: &[u8]| attacker.sign(message);
        Message { certificates, ..Message::new(content, &SIGNER.signer(content), &sign) }
    });
    let why = setup.show(&evidence).await.malformed();
    assert!(why.ends_with("the signature does not hold"), "{why}");
}

fn certificate(signer: &RegionSigner) -> Vec<u8> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(signer.certificate().as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn a05_unknown_region() {
    let setup = Setup::new("").await;
    let elsewhere = Instance { region: "xx-fake-1".to_owned(), ..instance() };
    let why = setup.show(&SIGNER.evidence(&elsewhere, false).payload()).await.malformed();
    assert!(why.contains("no key of the region \"xx-fake-1\" is known"), "{why}");
}

#[tokio::test]
async fn a06_signature_of_another_region() {
    let setup = Setup::new("").await;
    let elsewhere = Instance { region: "us-east-1".to_owned(), ..instance() };
    let evidence = SIGNER.evidence(&elsewhere, true);
    setup.show(&evidence.payload()).await.malformed();
    let legacy = Evidence { rsa2048: String::new(), ..evidence };
    setup.show(&legacy.payload()).await.malformed();
}

#[tokio::test]
async fn a07_signature_of_1024_bits_alone() {
    let evidence = SIGNER.evidence(&instance(), true);
    let legacy = Evidence { rsa2048: String::new(), ..evidence }.payload();
    let text = String::from_utf8(legacy.clone()).unwrap();
    let oldest = text.replace(r#","rsa2048":"""#, "");
    assert_ne!(text, oldest);
    let setup = Setup::new("").await;
    setup.show(&legacy).await.accepted();
    setup.show(oldest.as_bytes()).await.accepted();
    let strict = Setup::new("allow_rsa1024_signature = false").await;
    assert!(strict.show(&legacy).await.malformed().contains("allow_rsa1024_signature"));
    strict.attest().await.accepted();
}

#[tokio::test]
async fn a08_key_of_all_regions_that_has_expired() {
    // The key itself is AWS's; that no region falls back to it is what counts.
    let setup = Setup::new("").await;
    let elsewhere = Instance { region: "xx-fake-1".to_owned(), ..instance() };
    let evidence = SIGNER.evidence(&elsewhere, true);
    setup.show(&Evidence { rsa2048: String::new(), ..evidence }.payload()).await.malformed();
}

#[tokio::test]
async fn a09_garbage_beside_a_genuine_signature() {
    let setup = Setup::new("").await;
    let evidence = SIGNER.evidence(&instance(), true);
    for rsa2048 in ["garbage", "AAAA", "!", " "] {
        let garbage = Evidence { rsa2048: rsa2048.to_owned(), ..evidence.clone() };
        setup.show(&garbage.payload()).await.malformed();
    }
}

#[tokio::test]
async fn a10_no_signature_or_one_of_another_length() {
    let setup = Setup::new("").await;
    let evidence = SIGNER.evidence(&instance(), true);
    let genuine = SIGNER.sign_legacy(evidence.document.as_bytes());
    let longer = [&genuine[..], &[0]].concat();
    let mut cases = vec![String::new(), lines(&[0; 128])];
    cases.extend([lines(&genuine[..127]), lines(&longer), lines(&[&[0], &genuine[..]].concat())]);
    for signature in cases {
        let bare = Evidence { signature, rsa2048: String::new(), ..evidence.clone() };
        setup.show(&bare.payload()).await.malformed();
    }
}

#[tokio::test]
async fn a11_detached_message() {
    let setup = Setup::new("").await;
    let detached = with_message(|content| Message { content: None, ..usual(content) });
    assert!(setup.show(&detached).await.malformed().ends_with("holds no content"));
}

#[tokio::test]
async fn a12_several_signers() {
    let setup = Setup::new("").await;
    for order in 0..3 {
        let several = with_message(|content| {
            let valid = SIGNER.signer(content).encode(content, &sign);
            let forged = SIGNER.signer(content).with_signature(&[1; 256]);
            let signers = match order {
                0 => vec![valid, forged],
                1 => vec![forged, valid],
                _ => vec![valid.clone(), valid],
            };
            Message { signers, ..usual(content) }
        });
        assert!(setup.show(&several).await.malformed().contains("2 signers"));
    }
}

#[tokio::test]
async fn a13_signed_attributes_missing_or_wrong() {
    let setup = Setup::new("").await;
    let digest =
        |length: usize| pkcs7::attribute(pkcs7::MESSAGE_DIGEST, &[element(0x04, &vec![0; length])]);
    let with_attributes = |change: &dyn Fn(Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>>| {
        with_message(|content| {
            let mut signer = SIGNER.signer(content);
            signer.attributes = change(pkcs7::attributes(content));
            Message::new(content, &signer, &sign)
        })
    };
    setup.show(&with_attributes(&Some)).await.accepted();
    let cases: [Change<'_>; 5] = [
        &|_| None,
        &|_| Some(Vec::new()),
        &|usual| Some(usual[..2].to_vec()),
        &|usual| Some([&usual[..], &usual[2..]].concat()),
        &|usual| Some(vec![usual[0].clone(), usual[1].clone(), digest(31)]),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let why = setup.show(&with_attributes(case)).await.malformed();
        assert!(why.contains("attributes") || why.contains("digest"), "case {number}: {why}");
    }
}

#[tokio::test]
async fn a14_signed_attributes_in_another_order_or_encoding() {
    let setup = Setup::new("").await;
    let reordered = with_message(|content| {
        let mut signer = SIGNER.signer(content);
        let attributes = pkcs7::attributes(content);
        signer.attributes = Some(attributes.iter().rev().cloned().collect());
        Message::new(content, &signer, &sign)
    });
    setup.show(&reordered).await.malformed();
    let signed_in_order = with_message(|content| {
        let mut signer = SIGNER.signer(content);
        let attributes = pkcs7::attributes(content);
        let signature = sign(&element(0x31, &attributes.concat()));
        signer.attributes = Some(attributes.iter().rev().cloned().collect());
        Message { signers: vec![signer.with_signature(&signature)], ..usual(content) }
    });
    setup.show(&signed_in_order).await.malformed();
    // A length that takes one byte more than it need.
    let long = with_message(|content| {
        let mut signer = SIGNER.signer(content);
        let mut attributes = pkcs7::attributes(content);
        let longer = [&[0x30, 0x81, attributes[0][1]], &attributes[0][2..]].concat();
        attributes[0] = longer;
        signer.attributes = Some(attributes);
        Message::new(content, &signer, &sign)
    });
    setup.show(&long).await.malformed();
}

#[tokio::test]
async fn a15_other_digests() {
    let setup = Setup::new("").await;
    for algorithm in [pkcs7::SHA_1, pkcs7::MD5] {
        let weak = with_message(|content| {
            let mut signer = SIGNER.signer(content);
            signer.digest_algorithm = algorithm.to_vec();
            Message::new(content, &signer, &sign)
        });
        assert!(setup.show(&weak).await.malformed().contains("algorithm"));
    }
}

#[tokio::test]
async fn a16_other_kinds_and_trailing_bytes() {
    let setup = Setup::new("").await;
    let enveloped =
        with_message(|content| Message { kind: pkcs7::ENVELOPED_DATA.to_vec(), ..usual(content) });
    setup.show(&enveloped).await.malformed();
    let newer = with_message(|content| Message { version: 5, ..usual(content) });
    setup.show(&newer).await.malformed();
    let evidence = SIGNER.evidence(&instance(), false);
    let mut message = usual(evidence.document.as_bytes()).encode();
    message.push(0);
    let trailing = Evidence { rsa2048: lines(&message), ..evidence };
    setup.show(&trailing.payload()).await.malformed();
}

#[tokio::test]
async fn a17_encodings_made_to_cost_much() {
    let setup = Setup::new("").await;
    let evidence = SIGNER.evidence(&instance(), false);
    let endless = vec![0x30, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for message in [[0x30, 0x80].repeat(10_000), [0x24, 0x80].repeat(10_000), endless] {
        let bomb = Evidence { rsa2048: lines(&message), ..evidence.clone() };
        setup.show(&bomb.payload()).await.malformed();
    }
}

#[tokio::test]
async fn a34_signed_attributes_shown_as_the_document() {
    let setup = Setup::new("").await;
    let document = instance().document();
    let attributes = element(0x31, &pkcs7::attributes(document.as_bytes()).concat());
    let signature = sign(&attributes);
    let mut signer = SIGNER.signer(&attributes);
    signer.attributes = None;
    let signers = vec![signer.with_signature(&signature)];
    let message = Message { content: Some(attributes.clone()), signers, ..usual(b"") };
    let rsa2048 = lines(&message.encode());
    for document in [document, String::from_utf8_lossy(&attributes).into_owned()] {
        let shown = Evidence { document, signature: String::new(), rsa2048: rsa2048.clone() };
        setup.show(&shown.payload()).await.malformed();
    }
}

const GENUINE_DOCUMENT: &str =
    include_str!("../../../../localstack-tests/data/aws-iid-samples/ap-southeast-2.document");
const GENUINE_SIGNATURE: &str =
    include_str!("../../../../localstack-tests/data/aws-iid-samples/ap-southeast-2.signature");
const GENUINE_RSA2048: &str =
    include_str!("../../../../localstack-tests/data/aws-iid-samples/ap-southeast-2.rsa2048");

#[tokio::test]
async fn a35_genuine_evidence_and_what_is_one_byte_off() {
    let setup = Setup::new("assume_role = \"attest\"").await;
    let mut real = Instance::new("189292791360", "ap-southeast-2", "i-0c5541936caf78c12");
    real.zone = "ap-southeast-2a".to_owned();
    setup.aws.world().instances.push(real);
    setup.aws.world().roles.insert(("189292791360".to_owned(), "attest".to_owned()));
    let evidence = Evidence {
        document: GENUINE_DOCUMENT.to_owned(),
        signature: GENUINE_SIGNATURE.to_owned(),
        rsa2048: GENUINE_RSA2048.to_owned(),
    };
    let selectors = setup.show(&evidence.payload()).await.accepted();
    assert!(selectors.contains(&"account_id:189292791360".to_owned()), "{selectors:?}");
    let legacy = Evidence { rsa2048: String::new(), ..evidence.clone() };
    setup.show(&legacy.payload()).await.accepted();

    let message = decoded(&evidence.rsa2048);
    let at = |part: &[u8], offset: usize| {
        offset + message.windows(part.len()).position(|window| window == part).unwrap()
    };
    let places = [
        ("document", at(b"i-0c5541936caf78c12", 5)),
        ("signature", message.len() - 100),
        ("attributes", at(b"260216003828Z", 3)),
        ("issuer", at(b"Washington State", 2)),
        ("serial", at(&[0xbd, 0x9b, 0x3a, 0x06, 0xfe], 2)),
        ("digest", at(&[0x26, 0xe0, 0x5a, 0x91], 1)),
        ("algorithm", at(pkcs7::SHA_256, 8)),
        ("length", at(&[0x04, 0x82, 0x01, 0xe4], 3)),
    ];
    for (what, place) in places {
        let mut changed = message.clone();
        changed[place] ^= 1;
        let changed = Evidence { rsa2048: lines(&changed), ..evidence.clone() };
        let verdict = setup.show(&changed.payload()).await;
        assert!(verdict.result.is_err(), "{what}");
        verdict.malformed();
    }
    let document = evidence.document.replacen("arm64", "arm65", 1);
    setup.show(&Evidence { document, ..evidence.clone() }.payload()).await.malformed();
    let mut signature = decoded(&evidence.signature);
    signature[64] ^= 1;
    let legacy = Evidence { signature: lines(&signature), ..legacy };
    setup.show(&legacy.payload()).await.malformed();
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    let text: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[tokio::test]
async fn what_was_made_sure_of_is_written_down() {
    let setup = Setup::new("").await;
    let verdict = setup.show(&genuine()).await;
    let names: Vec<_> = verdict.examination.checks.iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        [
            "evidence",
            "document signature",
            "allowed account",
            "allowed region",
            "agent ID",
            "instance",
            "block device",
            "selectors"
        ]
    );
    let claimed = verdict.examination.claimed.as_deref();
    assert_eq!(claimed, Some("123456789012/us-west-2/i-0b22a22eec53b9321"));
    assert!(verdict.examination.cloud_request_id.unwrap().starts_with("fake-"));
}
