//! `azure_imds`: what a genuine node comes to, and the cases of its answer and of its tenant.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use spire_core::clock::Clock;
use spire_core::node::Outcome;
use spire_fakes::aws::RegionSigner;
use spire_fakes::azure::{
    APP, CertificateKind, DOMAIN, MD5, Machine, Message, OTHER_DOMAIN, RSA, RSA_WITH_SHA256, SHA1,
    SUBSCRIPTION, SignerInfo, TENANT,
};

use crate::support::{
    Answerer, Node, Scene, answer, answer_of, answer_with, assert_outcome, imds_agent, imds_server,
    imds_tenant,
};

/// A node that answers with a document of that content, signed as genuine ones are.
fn says(scene: &Scene, content: impl Fn(&str) -> String + Send + 'static) -> Node {
    let signer = scene.azure.pki.issue(&CertificateKind::default());
    Node::made(move |nonce| answer_of(&Message::signed_by(&signer, content(nonce).as_bytes())))
}

/// A node whose genuine content is altered.
fn alters(scene: &Scene, alter: impl Fn(&mut Value) + Send + 'static) -> Node {
    let content = scene.content("");
    says(scene, move |nonce| {
        let mut content = content.clone();
        content["nonce"] = nonce.into();
        alter(&mut content);
        content.to_string()
    })
}

#[tokio::test]
async fn a_machine_is_attested_by_its_document() {
    let scene = Scene::new().await;
    let server = scene.imds(r#"allowed_vm_tags = ["environment"]"#, "").await;
    let evidence = imds_agent(&scene.azure, &scene.machine).await;
    assert_eq!(evidence.payload(), b"non_empty_payload");
    let mut node = Node::agent(evidence);
    let (id, selectors) = node.attest(&*server, b"non_empty_payload").await.unwrap();
    let vm_id = &scene.machine.vm_id;
    let path = format!("azure_imds/{TENANT}/{SUBSCRIPTION}/{vm_id}");
    assert_eq!(id, format!("spiffe://example.org/spire/agent/{path}"));
    assert_eq!(
        selectors,
        [
            "azure_imds:network-security-group:frontend:webservers".to_owned(),
            "azure_imds:resource-group:frontend".to_owned(),
            format!("azure_imds:subscription-id:{SUBSCRIPTION}"),
            "azure_imds:virtual-network-subnet:vnet:default".to_owned(),
            "azure_imds:virtual-network:vnet".to_owned(),
            "azure_imds:vm-location:westeurope".to_owned(),
            "azure_imds:vm-name:blog".to_owned(),
            "azure_imds:vm-tag:environment:production".to_owned(),
        ]
    );
    assert_eq!(node.examination.failed(), None);
    assert!(node.examination.claimed.unwrap().contains(vm_id));
    assert!(node.examination.cloud_request_id.is_some());
    assert!(
        node.nonces[0].len() == 32 && node.nonces[0].bytes().all(|b| b.is_ascii_alphanumeric())
    );
    let asked = scene.azure.metadata.requests();
    assert!(asked.iter().any(|one| {
        one.query == format!("api-version=2025-04-07&nonce={}", node.nonces[0])
            && one.path.ends_with("/metadata/attested/document")
    }));
}

#[tokio::test]
async fn evidence_that_was_written_down_shows_all_but_the_nonce() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for nonce in [None, Some("chosen")] {
        let mut evidence = imds_agent(&scene.azure, &scene.machine).await;
        let exhibit = evidence.exhibit(nonce).await.unwrap();
        let mut paper = Node::new(Answerer::Nobody);
        paper.attest(&*server, &exhibit).await.unwrap();
        let checks = paper.examination.checks;
        for check in checks {
            let is_skipped = matches!(check.outcome, Outcome::Skipped(_));
            assert_eq!(is_skipped, check.name == "nonce", "{check:?}");
        }
    }
}

#[tokio::test]
async fn z01_whatever_comes_first_and_then_nothing() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for first in [&b"x"[..], b"{}", &[0xff; 100_000]] {
        let gone = Node::new(Answerer::Gone).attest(&*server, first).await;
        assert_outcome(gone, "IA", "gone");
        let silent = Node::made(|_| Vec::new()).attest(&*server, first).await;
        assert_outcome(silent, "IA", "an empty answer");
        let mut genuine = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        assert_outcome(
            genuine.attest(&*server, first).await,
            "A",
            "the first message says nothing",
        );
    }
    assert_eq!(scene.azure.issuer_certificates.count(), 1, "the issuer is asked for once");
}

#[tokio::test]
async fn z02_a_nonce_of_another_challenge() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let mut genuine = imds_agent(&scene.azure, &scene.machine).await;
    let old = genuine.exhibit(Some("abcdefghijklmnopqrstuvwxyz012345")).await.unwrap();
    let without = genuine.exhibit(None).await.unwrap();
    for (answer, what) in [(old, "old"), (without, "none asked for")] {
        assert_outcome(
            Node::made(move |_| answer.clone()).attest(&*server, b"x").await,
            "IA",
            what,
        );
    }
    for nonce in [json!(""), Value::Null, json!("a")] {
        let what = nonce.to_string();
        let mut node = alters(&scene, move |content| content["nonce"] = nonce.clone());
        assert_outcome(node.attest(&*server, b"x").await, "IA", &what);
    }
    assert_eq!(scene.azure.resource_manager.count(), 0);
}

#[tokio::test]
async fn z11_content_that_is_not_the_document() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let vm_id = scene.machine.vm_id.clone();
    for text in ["", "x", "[]", "1", "{", "{}"] {
        assert_outcome(
            says(&scene, move |_| text.to_owned()).attest(&*server, b"x").await,
            "IA",
            text,
        );
    }
    let content = scene.content("NONCE").to_string();
    let twice = content.replacen('{', &format!("{{\"vmId\":\"{vm_id}\","), 1);
    let mut node = says(&scene, move |nonce| twice.replace("NONCE", nonce));
    assert_outcome(node.attest(&*server, b"x").await, "IA", "vmId twice");
    let mut node = alters(&scene, |content| content["nonce"] = json!(7));
    assert_outcome(node.attest(&*server, b"x").await, "IA", "a number as nonce");
}

#[tokio::test]
async fn z12_a_machine_id_in_every_spelling() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let id = scene.machine.vm_id.clone();
    for (spelling, expected) in [
        (Value::Null, "IA"),
        (json!(""), "IA"),
        (json!(id.to_uppercase()), "A"),
        (json!(format!("{{{id}}}")), "IA"),
        (json!(format!("urn:uuid:{id}")), "IA"),
        (json!(id.replace('-', "")), "IA"),
        (json!("' or 1==1 | project id //"), "IA"),
    ] {
        let what = spelling.to_string();
        let mut node = alters(&scene, move |content| content["vmId"] = spelling.clone());
        let attested = node.attest(&*server, b"x").await;
        if let Ok((agent, _)) = &attested {
            assert!(agent.ends_with(&id), "{agent}");
        }
        assert_outcome(attested, expected, &what);
    }
}

#[tokio::test]
async fn z13_a_subscription_outside_of_the_restriction() {
    let scene = Scene::new().await;
    let other = "00000000-0000-4000-8000-000000000001";
    for (tenant, more, expected) in [
        (format!("restrict_to_subscriptions = [\" {SUBSCRIPTION} \"]"), String::new(), "A"),
        (format!("restrict_to_subscriptions = [{other:?}]"), String::new(), "PD"),
        (
            format!("restrict_to_subscriptions = [{:?}]", SUBSCRIPTION.to_uppercase()),
            String::new(),
            "PD",
        ),
        (String::new(), format!("allowed_subscription_ids = [{SUBSCRIPTION:?}]"), "A"),
        (
            String::new(),
            format!("allowed_subscription_ids = [\" {} \"]", SUBSCRIPTION.to_uppercase()),
            "A",
        ),
        (String::new(), format!("allowed_subscription_ids = [{other:?}]"), "PD"),
    ] {
        let server = scene.imds(&tenant, &more).await;
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        assert_outcome(node.attest(&*server, b"x").await, expected, &format!("{tenant}{more}"));
    }
}

#[tokio::test]
async fn z14_a_tenant_that_the_machine_is_not_of() {
    let scene = Scene::new().await;
    let more = imds_tenant(OTHER_DOMAIN, "");
    let server = scene.imds("", &more).await;
    for (domain, expected) in
        [(DOMAIN, "A"), ("nobody.example", "PD"), ("", "PD"), (OTHER_DOMAIN, "NF")]
    {
        let signer = scene.azure.pki.issue(&CertificateKind::default());
        let (azure, machine) = (&scene.azure, &scene.machine);
        let content = azure.document_content(machine, "NONCE").to_string();
        let mut node = Node::made(move |nonce| {
            let content = content.replace("NONCE", nonce);
            let message = Message::signed_by(&signer, content.as_bytes());
            answer_with(&message.base64(), domain, &Value::Null)
        });
        assert_outcome(node.attest(&*server, b"x").await, expected, domain);
    }
}

#[tokio::test]
async fn the_tenant_of_a_subscription_is_what_azure_says() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let attest = async || {
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        node.attest(&*server, b"x").await
    };
    // Rows that say nothing of the tenant: the subscription is asked about, and remembered.
    scene.azure.set_tells_tenant(false);
    assert_outcome(attest().await, "A", "by the subscription");
    assert_outcome(attest().await, "A", "by what is remembered");
    let asked = |path: &str| {
        let requests = scene.azure.resource_manager.requests();
        requests.iter().filter(|one| one.path == path).count()
    };
    assert_eq!(asked(&format!("/subscriptions/{SUBSCRIPTION}")), 1);
    // A credential may see machines of other tenants.
    let mut row = json!({ "id": "/x", "name": "x", "vmId": scene.machine.vm_id });
    row["subscriptionId"] = SUBSCRIPTION.into();
    row["tenantId"] = spire_fakes::azure::OTHER_TENANT.into();
    scene.azure.set_graph_answer(Some(json!({ "totalRecords": 1, "data": [row] })));
    assert_outcome(attest().await, "PD", "another tenant's machine");
}

#[tokio::test]
async fn z19_a_document_that_has_expired() {
    let scene = Scene::new().await;
    for (hours, expected) in [(5, "A"), (7, "IA")] {
        let clock = Clock::standing_at(Timestamp::now() + SignedDuration::from_hours(hours));
        let server = scene.imds_at(clock, "", "").await;
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        assert_outcome(node.attest(&*server, b"x").await, expected, &hours.to_string());
    }
    let server = scene.imds("", "").await;
    let mut node = alters(&scene, |content| content["timeStamp"] = json!({}));
    assert_outcome(node.attest(&*server, b"x").await, "IA", "no end");
}

#[tokio::test]
async fn z22_x13_an_answer_of_another_shape() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let signer = scene.azure.pki.issue(&CertificateKind::default());
    let content = scene.content("NONCE").to_string();
    let genuine = move |nonce: &str| {
        let content = content.replace("NONCE", nonce);
        let message = Message::signed_by(&signer, content.as_bytes());
        String::from_utf8(answer(&message.base64())).unwrap()
    };
    let genuine = std::sync::Arc::new(genuine);
    for (from, to, expected) in [
        ("\"pkcs7\"", "\"pkcs1\"", "IA"),
        ("\"pkcs7\"", "\"\"", "IA"),
        ("\"pkcs7\"", "null", "IA"),
        ("\"document\":", "\"Document\":", "IA"),
        ("\"signature\":", "\"Signature\":", "IA"),
        ("\"vmssName\":null", "\"vmssname\":null", "IA"),
        ("\"encoding\":\"pkcs7\"", "\"encoding\":\"pkcs7\",\"encoding\":\"pkcs7\"", "IA"),
        ("\"vmssName\":null", "\"vmssName\":null,\"vmssName\":null", "IA"),
        ("{\"document\"", "{\"extra\":[],\"document\"", "IA"),
        ("\"vmssName\":null", "\"vmssName\":7", "IA"),
    ] {
        let genuine = genuine.clone();
        let mut node = Node::made(move |nonce| genuine(nonce).replace(from, to).into_bytes());
        assert_outcome(node.attest(&*server, b"x").await, expected, to);
    }
}

#[tokio::test]
async fn z23_a_token_file_that_others_rotate() {
    let scene = Scene::new().await;
    let path = scene.folder.path().join("token");
    let text = scene.azure.server_endpoints_with_issuers()
        + &scene.trust()
        + &format!(
            "tenants = {{ {DOMAIN:?} = {{ token_auth = {{ app_id = {APP:?}, token_path = {path:?} }} }} }}"
        );
    let server = imds_server(&text, Clock::system()).await.unwrap();
    let attest = async || {
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        node.attest(&*server, b"x").await
    };
    assert_outcome(attest().await, "UNAV", "missing");
    for content in ["", "garbage", "a.b.c"] {
        std::fs::write(&path, content).unwrap();
        assert_outcome(attest().await, "UNAV", content);
    }
    let token = scene.azure.entra.token(&json!({ "sub": "spire-server" }));
    std::fs::write(&path, format!("{token}\n")).unwrap();
    assert_outcome(attest().await, "A", "rotated");
}

#[tokio::test]
async fn z26_the_genuine_shape_and_weaker_ones() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for (digest, algorithm, expected) in [
        (RSA_WITH_SHA256, RSA, "A"),
        (spire_fakes::azure::SHA256, RSA, "A"),
        (SHA1, RSA, "IA"),
        (MD5, RSA, "IA"),
        (RSA_WITH_SHA256, SHA1, "IA"),
    ] {
        let signer = scene.azure.pki.issue(&CertificateKind::default());
        let content = scene.content("NONCE").to_string();
        let mut node = Node::made(move |nonce| {
            let content = content.replace("NONCE", nonce);
            let mut message = Message::signed_by(&signer, content.as_bytes());
            message.signers[0].digest = digest.to_vec();
            message.signers[0].algorithm = algorithm.to_vec();
            answer_of(&message)
        });
        let what = format!("{digest:?} {algorithm:?}");
        assert_outcome(node.attest(&*server, b"x").await, expected, &what);
    }
}

/// Whoever made the certificate, its key is looked at first: a message by one of 2048 bits gets as
/// far as the signer's name.
#[tokio::test]
async fn z26_keys_below_2048_bits() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let signer = RegionSigner::new("small");
    let pem = signer.pem();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let certificates: Vec<_> = certificates.map(|one| one.unwrap().to_vec()).collect();
    let content = scene.content(&"n".repeat(32)).to_string();
    let large = signer.sign(content.as_bytes());
    let small = signer.sign_legacy(content.as_bytes());
    for (certificate, signature, check) in [
        (&certificates[0], large, "signer's name"),
        (&certificates[1], small, "document signature"),
    ] {
        let signed = SignerInfo {
            certificate: certificate.clone(),
            digest: RSA_WITH_SHA256.to_vec(),
            algorithm: RSA.to_vec(),
            signature,
        };
        let message = Message {
            content: Some(content.clone().into_bytes()),
            certificates: vec![certificate.clone()],
            signers: vec![signed],
        };
        let mut node = Node::made(move |_| answer_of(&message));
        assert_outcome(node.attest(&*server, b"x").await, "IA", check);
        assert_eq!(node.examination.failed().unwrap().name, check);
        // Whom it speaks of is told all the same.
        assert!(node.examination.claimed.unwrap().contains(&scene.machine.vm_id));
    }
}

#[tokio::test]
async fn instances_can_be_too_old() {
    let created = Timestamp::now() - SignedDuration::from_hours(2);
    let scene = Scene::with(Machine { created, ..Machine::new("old") }).await;
    for (age, expected) in [("3h", "A"), ("1h", "PD")] {
        let server = scene.imds("", &format!("max_instance_age = {age:?}")).await;
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        assert_outcome(node.attest(&*server, b"x").await, expected, age);
    }
}
