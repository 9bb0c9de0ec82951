//! Authorities, and the keys with which they sign.

use super::*;

#[tokio::test]
async fn x509_07_08_09_10_12_14_15_16_21_id_22_23_the_authorities() {
    let now = Timestamp::now();
    let root = root(KeyType::EcP384, now).await;
    let key = key(KeyType::EcP256);
    let subject = root.downstream_subject();
    let template = CaTemplate {
        trust_domain: &trust_domain(),
        public_key: &key.public_key().spki,
        subject: &subject,
        ttl: TTL,
    };
    let chain = root.sign_ca(&template, now).await.unwrap();
    assert_eq!(chain.len(), 1);
    let root_certificate = parse(root.certificate());
    let certificate = parse(&chain[0]);
    assert_eq!(
        extensions(&root_certificate),
        in_order(&[
            (KEY_USAGE, true),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    assert_eq!(
        extensions(&certificate),
        in_order(&[
            (KEY_USAGE, true),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (AUTHORITY_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    for authority in [&root_certificate, &certificate] {
        let tbs = authority.tbs_certificate();
        let (_, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
        assert!(constraints.ca && constraints.path_len_constraint.is_none());
        assert_eq!(alternative_names(authority), ["URI:spiffe://example.org"]);
    }
    let root_key = sha1_of_key(&root_certificate);
    assert_eq!(key_ids(&root_certificate), (root_key.clone(), None));
    assert_eq!(root.authority_id(), hex::encode(&root_key));
    assert_eq!(key_ids(&certificate).1, Some(root_key));

    let serial = root_certificate.tbs_certificate().serial_number().as_bytes();
    let serial = serial.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    assert_eq!(subject.serial_number, Some(serial.to_string()));
    assert_eq!(
        certificate.tbs_certificate().subject().to_string(),
        format!("SERIALNUMBER={serial},CN=Authority,OU=DOWNSTREAM-1,O=SPIFFE,C=US")
            .replace("SERIALNUMBER", "2.5.4.5")
            .replace(&format!("2.5.4.5={serial}"), &serial_in_name(&certificate))
    );

    let intermediate = Issuer::intermediate(chain.clone(), key.clone()).unwrap();
    assert_eq!(intermediate.downstream_subject().organizational_unit, ["DOWNSTREAM-1"]);
    let below = intermediate.sign_ca(&template, now).await.unwrap();
    assert_eq!(below.len(), 2);
    assert_eq!(below[1], chain[0]);
    let below = Issuer::intermediate(below, key.clone()).unwrap();
    assert_eq!(below.downstream_subject().organizational_unit, ["DOWNSTREAM-2"]);

    let id = id();
    let svid = intermediate.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    assert_eq!(svid.chain[1..], chain);
    openssl_verifies(root.certificate(), &svid.chain);
}

/// How x509-cert prints the attribute, whichever name it has for it.
fn serial_in_name(certificate: &Certificate) -> String {
    let name = certificate.tbs_certificate().subject().to_string();
    name.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn x509_06_where_there_is_no_subject_the_alternative_name_is_critical() {
    let now = Timestamp::now();
    let root = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let empty = Subject::default();
    let template = CaTemplate {
        trust_domain: &trust_domain(),
        public_key: &key.public_key().spki,
        subject: &empty,
        ttl: TTL,
    };
    let chain = root.sign_ca(&template, now).await.unwrap();
    let authority = parse(&chain[0]);
    assert!(authority.tbs_certificate().subject().is_empty());
    assert!(extensions(&authority).contains(&(SUBJECT_ALT_NAME.to_owned(), true)));
    // Leaves get the subject of SVIDs instead of none.
    let id = id();
    let leaf = LeafTemplate { subject: Some(&empty), ..leaf(&id, &key.public_key().spki) };
    let svid = root.sign_leaf(&leaf, now).await.unwrap();
    let leaf = parse(&svid.chain[0]);
    assert!(!leaf.tbs_certificate().subject().is_empty());
    assert!(extensions(&leaf).contains(&(SUBJECT_ALT_NAME.to_owned(), false)));
}

#[tokio::test]
async fn every_kind_of_key_signs_with_its_algorithm() {
    let now = Timestamp::now();
    let id = id();
    for (kind, algorithm) in [
        (KeyType::EcP256, "1.2.840.10045.4.3.2"),
        (KeyType::EcP384, "1.2.840.10045.4.3.3"),
        (KeyType::Rsa2048, "1.2.840.113549.1.1.11"),
    ] {
        let issuer = root(kind, now).await;
        let key = key(kind);
        let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
        let certificate = parse(&svid.chain[0]);
        assert_eq!(certificate.signature_algorithm().oid.to_string(), algorithm);
        assert_eq!(certificate.tbs_certificate().signature(), certificate.signature_algorithm());
        openssl_verifies(issuer.certificate(), &svid.chain);
    }
    let workshop = Workshop::new();
    openssl(
        workshop.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -subj /CN=p521 -days 1 \
         -addext keyUsage=critical,keyCertSign \
         -keyout p521.key -out p521.pem",
    );
    let key = Arc::new(LocalKey::from_pem(&workshop.key("p521")).unwrap());
    let issuer = Issuer::root(workshop.der("p521"), key.clone()).unwrap();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let algorithm = parse(&svid.chain[0]).signature_algorithm().oid.to_string();
    assert_eq!(algorithm, "1.2.840.10045.4.3.4");
    openssl_verifies(issuer.certificate(), &svid.chain);
}

#[tokio::test]
async fn an_issuer_needs_its_own_key() {
    let issuer = root(KeyType::EcP256, Timestamp::now()).await;
    let error = Issuer::root(issuer.certificate().clone(), key(KeyType::EcP256)).unwrap_err();
    assert_eq!(error.to_string(), "certificate and private key do not match");
}
