//! `x509 mint` and `jwt mint`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spire_core::bundle::Bundle;
use spire_core::svid::jwt;

use super::*;

const ID: &str = "-spiffeID spiffe://example.org/app";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_x509_svid_in_files_is_one_that_openssl_accepts() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let line = format!("x509 mint {ID} -dns app.test -dns alias.test -write {path}/ -output json");
    let printed = run(&server, &line).await.printed();
    let expected = format!(
        "X509-SVID written to {path}/svid.pem\nPrivate key written to {path}/key.pem\nRoot CAs \
         written to {path}/bundle.pem\n"
    );
    assert_eq!(printed, expected);
    openssl(&format!("verify -CAfile {path}/bundle.pem {path}/svid.pem"));
    let text = openssl(&format!("x509 -in {path}/svid.pem -noout -text"));
    for part in ["CN = app.test", "URI:spiffe://example.org/app", "DNS:app.test, DNS:alias.test"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let key = openssl(&format!("pkey -in {path}/key.pem -pubout"));
    assert_eq!(openssl(&format!("x509 -in {path}/svid.pem -noout -pubkey")), key);
    let pem = fs::read_to_string(folder.path().join("key.pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(mode(&folder.path().join("key.pem")), 0o600);
    assert_eq!(mode(&folder.path().join("svid.pem")) & 0o600, 0o600);
    server.stop().await;
}

#[tokio::test]
async fn an_x509_svid_is_printed_in_both_forms() {
    let server = server().await;
    let roots = run(&server, "bundle show").await.printed();
    let printed = run(&server, &format!("x509 mint {ID}")).await.printed();
    let certificate = "-----BEGIN CERTIFICATE-----\n";
    assert!(printed.starts_with(&format!("X509-SVID:\n{certificate}")), "{printed}");
    assert!(printed.contains("-----END CERTIFICATE-----\n\nPrivate key:\n-----BEGIN PRIVATE KEY"));
    let end = format!("-----END PRIVATE KEY-----\n\nRoot CAs:\n{roots}\n");
    assert!(printed.ends_with(&end), "{printed}");

    let json = run(&server, &format!("x509 mint {ID} -output json")).await.json();
    assert_eq!(members(&json), ["x509_svid", "private_key", "root_cas"]);
    let roots = Bundle::from_pem(harness::trust_domain(), roots.as_bytes()).unwrap();
    let root = STANDARD.encode(&roots.x509_authorities[0].certificate);
    assert_eq!(json["root_cas"], serde_json::json!([root]));
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_one_that_the_bundle_proves() {
    let server = server().await;
    let line = format!("jwt mint {ID} -audience a,b -audience c");
    let token = run(&server, &line).await.printed();
    let document = run(&server, "bundle show -format spiffe").await.printed();
    let bundle = Bundle::from_spiffe_json(harness::trust_domain(), document.as_bytes()).unwrap();
    let now = server.clock.now();
    let verified = jwt::verify(token.trim_end(), "c", |_| Some(&bundle), now).unwrap();
    assert_eq!(verified.claims["aud"], serde_json::json!(["a,b", "c"]));
    assert!(token.ends_with('\n'));

    let json = run(&server, &format!("{line} -output json")).await.json();
    assert_eq!(members(&json["svid"]), ["expires_at", "hint", "id", "issued_at", "token"]);
    assert_eq!(members(&json["svid"]["id"]), ["path", "trust_domain"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let printed = run(&server, &format!("{line} -write {}", path.display())).await.printed();
    assert_eq!(printed, format!("JWT-SVID written to {}\n", path.display()));
    assert_eq!(mode(&path), 0o600);
    let written = fs::read_to_string(&path).unwrap();
    assert!(jwt::verify(&written, "c", |_| Some(&bundle), now).is_ok(), "{written}");
    server.stop().await;
}

#[tokio::test]
async fn a_lifetime_that_was_cut_is_told_and_the_svid_is_there() {
    let server = server().await;
    for (what, line) in [
        ("X509-SVID", format!("x509 mint {ID} -ttl 10000h")),
        ("JWT-SVID", format!("jwt mint {ID} -audience a -ttl 10000h")),
    ] {
        let ran = run(&server, &line).await;
        assert_eq!(ran.code, 0);
        assert!(!ran.stdout.is_empty());
        let start = format!("{what} lifetime was capped shorter than specified ttl; expires \"20");
        assert!(ran.stderr.starts_with(&start) && ran.stderr.ends_with("Z\"\n"), "{}", ran.stderr);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_wish_is_told() {
    let server = server().await;
    let foreign = "-spiffeID spiffe://other.test/x";
    for (line, told) in [
        ("x509 mint".to_owned(), "spiffeID must be specified"),
        ("x509 mint -spiffeID foo".to_owned(), "scheme is missing or invalid (-spiffeID \"foo\")"),
        (
            format!("x509 mint {ID} -write /nowhere"),
            "unable to write SVID: open /nowhere/svid.pem: no such file or directory",
        ),
        (
            format!("x509 mint {foreign}"),
            "unable to mint SVID: rpc error: code = InvalidArgument desc = CSR URI SAN is \
             invalid: \"spiffe://other.test/x\" is not a member of trust domain \"example.org\"",
        ),
        ("jwt mint -audience a".to_owned(), "spiffeID must be specified"),
        (format!("jwt mint {ID}"), "at least one audience must be specified"),
        (
            format!("jwt mint {ID} -audience a -write /nowhere/t"),
            "unable to write token: open /nowhere/t: no such file or directory",
        ),
    ] {
        assert_eq!(run(&server, &line).await.told(), format!("Error: {told}\n"), "{line}");
    }
    server.stop().await;
}
