//! `bundle`.

use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::wire::entry::BatchCreateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::types;

use super::*;

const STARS: &str = "****************************************";

fn partner() -> TrustDomain {
    TrustDomain::parse("partner.test").unwrap()
}

/// The server's own roots, as those of another trust domain.
async fn foreign_pem(server: &TestServer) -> String {
    run(server, "bundle show").await.printed()
}

async fn set(server: &TestServer, name: &str) {
    let pem = foreign_pem(server).await;
    let ran = run_with_input(server, &format!("bundle set -id {name}"), &pem).await;
    assert_eq!(ran.printed(), "bundle set.\n");
}

#[tokio::test]
async fn the_own_bundle_is_shown_in_every_form() {
    let server = server().await;
    let pem = foreign_pem(&server).await;
    let bundle = Bundle::from_pem(harness::trust_domain(), pem.as_bytes()).unwrap();
    assert_eq!(bundle.to_pem(), pem);

    let document = run(&server, "bundle show -format spiffe").await.printed();
    assert!(document.starts_with("{\n    \"keys\": [\n        {\n"), "{document}");
    assert!(document.ends_with("\n}\n"), "{document}");
    let read = Bundle::from_spiffe_json(harness::trust_domain(), document.as_bytes()).unwrap();
    assert_eq!(read.x509_authorities, bundle.x509_authorities);
    assert_eq!(read.jwt_authorities.len(), 1);

    let json = run(&server, "bundle show -output json -format ignored").await.json();
    let names = [
        "jwt_authorities",
        "refresh_hint",
        "sequence_number",
        "trust_domain",
        "wit_authorities",
        "x509_authorities",
    ];
    assert_eq!(members(&json), names);
    assert_eq!(members(&json["x509_authorities"][0]), ["asn1", "tainted"]);
    let key = &json["jwt_authorities"][0];
    assert_eq!(members(key), ["expires_at", "key_id", "public_key", "tainted"]);
    assert_eq!(
        (&json["refresh_hint"], &json["trust_domain"]),
        (&"0".into(), &"example.org".into())
    );
    server.stop().await;
}

#[tokio::test]
async fn federated_bundles_are_set_listed_and_deleted() {
    let server = server().await;
    assert_eq!(run(&server, "bundle list").await.printed(), "");
    assert_eq!(run(&server, "bundle count").await.printed(), "1 bundle\n");
    set(&server, "partner.test").await;
    set(&server, "spiffe://other.test/ignored").await;
    let pem = foreign_pem(&server).await;
    let listed =
        format!("{STARS}\n* partner.test\n{STARS}\n{pem}\n{STARS}\n* other.test\n{STARS}\n{pem}");
    assert_eq!(run(&server, "bundle list").await.printed(), listed);
    assert_eq!(run(&server, "bundle list -id spiffe://partner.test").await.printed(), pem);
    assert_eq!(run(&server, "bundle count").await.printed(), "3 bundles\n");
    assert_eq!(run(&server, "bundle count -output json").await.printed(), "{\"count\":3}\n");

    let json = run(&server, "bundle list -output json").await.json();
    assert_eq!(members(&json), ["bundles", "next_page_token"]);
    assert_eq!(json["bundles"][1]["trust_domain"], "other.test");
    let json = run(&server, "bundle list -id partner.test -output json").await.json();
    assert_eq!(json["trust_domain"], "partner.test");

    assert_eq!(run(&server, "bundle delete -id other.test").await.printed(), "bundle deleted.\n");
    let json = run(&server, "bundle delete -id partner.test -output json").await.printed();
    let expected = "{\"results\":[{\"status\":{\"code\":0,\"message\":\"OK\"},\
                    \"trust_domain\":\"partner.test\"}]}\n";
    assert_eq!(json, expected);
    assert_eq!(run(&server, "bundle list").await.printed(), "");
    server.stop().await;
}

#[tokio::test]
async fn a_bundle_document_is_set_from_a_file() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.json");
    let pem = foreign_pem(&server).await;
    let mut bundle = Bundle::from_pem(partner(), pem.as_bytes()).unwrap();
    bundle.sequence_number = 7;
    bundle.refresh_hint = 60;
    std::fs::write(&path, bundle.to_spiffe_json()).unwrap();
    let line =
        format!("bundle set -id partner.test -format spiffe -output json -path {}", path.display());
    let json = run(&server, &line).await.json();
    assert_eq!(members(&json["results"][0]), ["bundle", "status"]);
    assert_eq!(json["results"][0]["bundle"]["refresh_hint"], "60");
    let shown = run(&server, "bundle list -id partner.test -format spiffe").await.printed();
    assert_eq!(shown, bundle.to_spiffe_json() + "\n");
    server.stop().await;
}

#[tokio::test]
async fn the_commands_of_old_servers_take_bundle_documents() {
    let server = server().await;
    let document = run(&server, "bundle show -format spiffe").await.printed();
    let line = "experimental bundle show -registrationUDSPath";
    let line = format!("{line} {}", server.socket.display());
    assert_eq!(run(&server, &line).await.printed(), document);

    let line = "experimental bundle set -id spiffe://partner.test";
    assert_eq!(run_with_input(&server, line, &document).await.printed(), "bundle set.\n");
    let stored = run(&server, "bundle list -id partner.test -format spiffe").await.printed();
    let line = "experimental bundle list";
    let listed = format!("{STARS}\n* partner.test\n{STARS}\n{stored}");
    assert_eq!(run(&server, line).await.printed(), listed);
    let one = run(&server, &format!("{line} -id spiffe://partner.test")).await.printed();
    assert_eq!(one, stored);
    server.stop().await;
}

#[tokio::test]
async fn a_bundle_that_entries_need_goes_as_the_mode_says() {
    let server = server().await;
    set(&server, "partner.test").await;
    let id = |path: &str| {
        Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
    };
    let entry = types::Entry {
        spiffe_id: id("/w"),
        parent_id: id("/spire/agent/x"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        federates_with: vec!["partner.test".into()],
        ..types::Entry::default()
    };
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let mut entries = EntryClient::new(server.operator().await);
    let created = entries.batch_create_entry(request).await.unwrap().into_inner().results;
    assert_eq!(created[0].status.as_ref().unwrap().code, 0);

    let told = run(&server, "bundle delete -id partner.test").await.told();
    assert_eq!(
        told,
        "Error: failed to delete federated bundle \"partner.test\": failed to delete federated \
         bundle: datastore-sql: cannot delete bundle; federated with 1 registration entries\n"
    );
    let ran = run(&server, "bundle delete -id partner.test -output json").await.json();
    assert_eq!(ran["results"][0]["status"]["code"], 9);
    let line = "bundle delete -id partner.test -mode dissociate";
    assert_eq!(run(&server, line).await.printed(), "bundle deleted.\n");
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_bundle_is_told() {
    let server = server().await;
    for (flags, told) in [
        ("show -format foo", "invalid format: \"foo\""),
        ("list -id foo.test", "rpc error: code = NotFound desc = bundle not found"),
        ("set", "id flag is required"),
        ("set -id partner.test -format foo", "invalid format: \"foo\""),
        (
            "set -id partner.test -path /nowhere/x",
            "unable to load bundle data: open /nowhere/x: no such file or directory",
        ),
        ("set -id partner.test", "unable to parse bundle data: no PEM blocks"),
        ("delete", "id is required"),
        ("delete -id partner.test -mode foo", "unsupported mode \"foo\""),
        (
            "delete -id partner.test",
            "failed to delete federated bundle \"partner.test\": bundle not found",
        ),
    ] {
        let ran = run(&server, &format!("bundle {flags}")).await;
        assert_eq!(ran.told(), format!("Error: {told}\n"), "{flags}");
    }
    let line = "bundle set -id partner.test -format spiffe";
    let told = run_with_input(&server, line, "{").await.told();
    let start = "Error: unable to parse to spiffe bundle: spiffebundle: unable to parse JWKS: ";
    assert!(told.starts_with(start), "{told}");
    let pem = foreign_pem(&server).await;
    let told = run_with_input(&server, "bundle set -id example.org", &pem).await.told();
    assert_eq!(
        told,
        "Error: failed to set federated bundle: setting a federated bundle for the server's own \
         trust domain is not allowed\n"
    );
    server.stop().await;
}
