//! What workloads get: the fields, their order, and their limits.

use super::*;

#[tokio::test]
async fn x509_01_13_15_17_18_19_20_the_leaf() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let dns_names = names(&["app.example.org", "*.b.example.org"]);
    let id = id();
    let template = LeafTemplate { dns_names: &dns_names, ..leaf(&id, &key.public_key().spki) };
    let svid = issuer.sign_leaf(&template, now).await.unwrap();
    let certificate = parse(&svid.chain[0]);
    let tbs = certificate.tbs_certificate();

    assert_eq!(svid.chain.len(), 1, "the root is in the bundle");
    assert_eq!(
        extensions(&certificate),
        in_order(&[
            (KEY_USAGE, true),
            (EXTENDED_KEY_USAGE, false),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (AUTHORITY_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    let (_, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
    assert!(usage.digital_signature() && usage.key_encipherment() && usage.key_agreement());
    assert!(!usage.key_cert_sign() && !usage.crl_sign());
    let (_, purposes) = tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap();
    let purposes: Vec<_> = purposes.0.iter().map(ToString::to_string).collect();
    assert_eq!(purposes, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
    assert!(!constraints.ca);
    assert_eq!(
        alternative_names(&certificate),
        ["DNS:app.example.org", "DNS:*.b.example.org", "URI:spiffe://example.org/app"]
    );
    let root = parse(issuer.certificate());
    assert_eq!(key_ids(&certificate), (sha1_of_key(&certificate), Some(sha1_of_key(&root))));
    assert_eq!(tbs.issuer(), root.tbs_certificate().subject());
    assert_eq!(validity(&certificate), (seconds(now) - 10, seconds(now) + 3600));
    assert_eq!((seconds(svid.not_before), seconds(svid.expires_at)), validity(&certificate));
    assert!(!tbs.serial_number().as_bytes().is_empty() && svid.serial != "0");
    assert_eq!(tbs.subject_public_key_info().to_der().unwrap(), key.public_key().spki);

    let mut bundle = Bundle::empty(trust_domain());
    let root = X509Authority::trusted(issuer.certificate().clone()).unwrap();
    bundle.x509_authorities.push(root);
    assert_eq!(verify(&svid.chain, &bundle, now).unwrap(), svid);
    openssl_verifies(issuer.certificate(), &svid.chain);
}

#[tokio::test]
async fn openssl_reads_what_was_meant() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let id = id();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let print = |der: &[u8], options: &str| {
        std::fs::write(directory.path().join("c.pem"), certificate_pem(der)).unwrap();
        openssl(directory.path(), &format!("x509 -in c.pem -noout {options}"))
    };
    let serial = print(&svid.chain[0], "-serial");
    let hexadecimal = serial.trim().strip_prefix("serial=").unwrap();
    assert_eq!(u128::from_str_radix(hexadecimal, 16).unwrap().to_string(), svid.serial);
    assert_eq!(print(&svid.chain[0], "-subject -nameopt RFC2253").trim(), "subject=O=SPIRE,C=US");

    let text = print(issuer.certificate(), "-text -nameopt RFC2253,sname");
    let serial = print(issuer.certificate(), "-serial");
    let serial = u128::from_str_radix(serial.trim().strip_prefix("serial=").unwrap(), 16).unwrap();
    let subject = format!("serialNumber={serial},CN=Authority,O=SPIFFE,C=US");
    assert!(text.contains(&format!("Subject: {subject}")), "{text}");
    assert!(text.contains(&format!("Issuer: {subject}")), "{text}");
    let mut rest = text.as_str();
    for line in [
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
        "X509v3 Subject Key Identifier: \n",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
    ] {
        rest = &rest[rest.find(line).unwrap_or_else(|| panic!("{line} is missing in {text}"))..];
    }
    assert!(!text.contains("Authority Key Identifier"), "{text}");
}

#[tokio::test]
async fn nothing_outlives_its_issuer() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let id = id();
    let template = LeafTemplate { ttl: Duration::MAX, ..leaf(&id, &key.public_key().spki) };
    let svid = issuer.sign_leaf(&template, now).await.unwrap();
    assert_eq!(svid.expires_at, issuer.expires_at());
    let later = issuer.expires_at() + SignedDuration::from_secs(11);
    let error = issuer.sign_leaf(&template, later).await.unwrap_err().to_string();
    assert!(error.starts_with("the signing authority expired at "), "{error}");
}

#[tokio::test]
async fn id_17_x509_and_jwt_svids_carry_ids_of_2048_bytes() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let longest = "a".repeat(2048 - "spiffe://example.org/".len());
    let id = trust_domain().member(&format!("/{longest}")).unwrap();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let mut bundle = Bundle::empty(trust_domain());
    let root = X509Authority::trusted(issuer.certificate().clone()).unwrap();
    bundle.x509_authorities.push(root);
    assert_eq!(verify(&svid.chain, &bundle, now).unwrap().id, id);
    openssl_verifies(issuer.certificate(), &svid.chain);

    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "kid".to_owned(),
        public_key: key.public_key().spki.clone(),
        expires_at: None,
        tainted: false,
    });
    let claims = jwt::Claims {
        subject: &id,
        audience: &["a".to_owned()],
        issued_at: now,
        expires_at: now + SignedDuration::from_mins(5),
        issuer: None,
        with_id: false,
    };
    let token = jwt::sign(&*key, "kid", &claims).await.unwrap();
    assert_eq!(jwt::verify(&token, "a", |_| Some(&bundle), now).unwrap().id, id);
}

#[tokio::test]
async fn x509_05_a_leaf_needs_a_path() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let id = trust_domain().id();
    let key = key(KeyType::EcP256);
    let error = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap_err();
    assert_eq!(error.to_string(), "spiffe://example.org has no path");
}

#[tokio::test]
async fn subjects_follow_the_request_and_the_first_dns_name() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let dns_names = names(&["first.example.org", "second.example.org"]);
    let asked = Subject {
        organization: vec!["Acme".into()],
        common_name: Some("app".into()),
        ..Subject::default()
    };
    let id = id();
    let empty = Subject::default();
    for (subject, dns_names, expected) in [
        (None, &dns_names[..0], "O=SPIRE,C=US"),
        (None, &dns_names[..], "CN=first.example.org,O=SPIRE,C=US"),
        (Some(&empty), &dns_names[..0], "O=SPIRE,C=US"),
        (Some(&asked), &dns_names[..0], "CN=app,O=Acme"),
        (Some(&asked), &dns_names[..], "CN=first.example.org,O=Acme"),
    ] {
        let template = LeafTemplate { subject, dns_names, ..leaf(&id, &key.public_key().spki) };
        let svid = issuer.sign_leaf(&template, now).await.unwrap();
        let certificate = parse(&svid.chain[0]);
        assert_eq!(certificate.tbs_certificate().subject().to_string(), expected);
    }
}
