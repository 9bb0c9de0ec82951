//! Tokens: which hold, and which are refused.

use super::*;

#[test]
fn a_token_holds_by_the_key_that_signed_it_and_by_no_other() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let token = issuer.sign(HEADER, CLAIMS);
    let parsed = Jws::parse(token.as_bytes(), &[Algorithm::Rs256]).unwrap();
    assert_eq!(parsed.key_id(), "one");
    let claims = parsed.verify(&issuer.key()).unwrap();
    assert_eq!(claims.text("sub"), Ok(Some("someone")));
    assert_eq!(check(token.as_bytes(), &other.key()).unwrap_err(), JwsError::Signature);
    let curve = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(curve.public_key());
    let key = PublicKey::from_spki(Bytes::copy_from_slice(spki.unwrap().as_ref()));
    assert_eq!(check(token.as_bytes(), &key).unwrap_err(), JwsError::Signature);
    for place in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        check(&changed, &issuer.key()).unwrap_err();
    }
}

#[test]
fn what_is_not_exactly_a_signed_token_is_malformed() {
    let issuer = Issuer::new();
    let token = issuer.sign(HEADER, CLAIMS);
    let parts: Vec<&str> = token.split('.').collect();
    let padded = URL_SAFE.encode(CLAIMS);
    assert!(padded.ends_with('='));
    let mut wrong: Vec<String> = vec![
        String::new(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{token}."),
        format!("{token}\n"),
        format!("{token}="),
        format!("\"{token}\""),
        format!("{}.{padded}.{}", parts[0], parts[2]),
        format!("{token}{}", "A".repeat(64 << 10)),
        json!({"token": token}).to_string(),
    ];
    for header in [
        r#"{"alg":"none","kid":"one"}"#,
        r#"{"alg":"None","kid":"one"}"#,
        r#"{"alg":"","kid":"one"}"#,
        r#"{"alg":"rs256","kid":"one"}"#,
        r#"{"alg":"HS256","kid":"one"}"#,
        r#"{"alg":["RS256"],"kid":"one"}"#,
        r#"{"kid":"one"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":""}"#,
        r#"{"alg":"RS256","kid":7}"#,
        r#"{"alg":"RS256","alg":"RS256","kid":"one"}"#,
        r#"{"alg":"RS256","kid":"one","crit":["exp"],"exp":1}"#,
        r#"{"alg":"RS256","kid":"one","crit":[]}"#,
        "[]",
        "",
    ] {
        wrong.push(issuer.sign(header, CLAIMS));
    }
    for claims in ["", "[]", "null", "7", r#"{"aud":"a","aud":"b"}"#, r#"{"a":{"b":1,"b":2}}"#] {
        wrong.push(issuer.sign(HEADER, claims));
    }
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    wrong.push(issuer.sign(HEADER, &format!(r#"{{"a":{nested}}}"#)));
    for token in wrong {
        let error = check(token.as_bytes(), &issuer.key()).unwrap_err();
        assert!(matches!(error, JwsError::Malformed(_)), "{error}: {token:.200}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn an_algorithm_is_taken_only_where_it_is_allowed() {
    let issuer = Issuer::new();
    for (how, name, algorithm) in [
        (&RSA_PKCS1_SHA384 as &'static dyn RsaEncoding, "RS384", Algorithm::Rs384),
        (&RSA_PSS_SHA256, "PS256", Algorithm::Ps256),
    ] {
        let token = issuer.sign_as(how, &HEADER.replace("RS256", name), CLAIMS);
        let error = check(token.as_bytes(), &issuer.key()).unwrap_err();
        assert!(matches!(error, JwsError::Malformed(_)), "{error}");
        let parsed = Jws::parse(token.as_bytes(), &[algorithm]).unwrap();
        parsed.verify(&issuer.key()).unwrap();
    }
}

#[test]
fn keys_that_a_header_brings_along_are_passed_over() {
    let (issuer, attacker) = (Issuer::new(), Issuer::new());
    let mut header: Value = serde_json::from_str(HEADER).unwrap();
    header["jwk"] = attacker.jwk("one");
    header["jku"] = json!("https://attacker.example/keys");
    header["x5u"] = json!("https://attacker.example/cert");
    header["x5c"] = json!(["MAA="]);
    let token = attacker.sign(&header.to_string(), CLAIMS);
    assert_eq!(check(token.as_bytes(), &issuer.key()).unwrap_err(), JwsError::Signature);
}
