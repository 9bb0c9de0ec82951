//! `azure_imds`: scale sets, and Resource Graph that answers in every way.

use serde_json::{Value, json};
use spire_core::node::{AttestError, NodeAttestor};
use spire_fakes::azure::{
    CertificateKind, DOMAIN, Interface, Machine, Membership, Message, ScaleSet, TENANT,
};
use spire_fakes::http::Trouble;

use crate::support::{Node, Scene, answer_with, assert_outcome, imds_agent};

async fn attest(scene: &Scene, server: &dyn NodeAttestor) -> Result<Vec<String>, AttestError> {
    attest_as(scene, server, &scene.machine).await
}

async fn attest_as(
    scene: &Scene,
    server: &dyn NodeAttestor,
    machine: &Machine,
) -> Result<Vec<String>, AttestError> {
    let mut node = Node::agent(imds_agent(&scene.azure, machine).await);
    node.attest(server, b"x").await.map(|(_, selectors)| selectors)
}

/// Attests with a hint that the agent does not give.
async fn hinting(
    scene: &Scene,
    server: &dyn NodeAttestor,
    hint: Value,
) -> Result<(String, Vec<String>), AttestError> {
    let signer = scene.azure.pki.issue(&CertificateKind::default());
    let content = scene.content("NONCE").to_string();
    let mut node = Node::made(move |nonce| {
        let content = content.replace("NONCE", nonce);
        let message = Message::signed_by(&signer, content.as_bytes());
        answer_with(&message.base64(), DOMAIN, &hint)
    });
    node.attest(server, b"x").await
}

#[tokio::test]
async fn z15_hints_of_a_scale_set() {
    let scene = Scene::new().await;
    scene.azure.add_scale_set(ScaleSet::new("web"));
    let server = scene.imds("", "").await;
    for (hint, expected) in [
        (json!("web' or 1==1 //"), "IA"),
        (json!("a".repeat(65)), "IA"),
        (json!(""), "IA"),
        (json!("web"), "PD"),
        (json!("no-such-set"), "PD"),
        (Value::Null, "A"),
    ] {
        assert_outcome(hinting(&scene, &*server, hint.clone()).await, expected, &hint.to_string());
    }
    let member = Machine::new("web_0").in_set(Membership::Uniform("web".into()));
    let scene = Scene::with(member).await;
    scene.azure.add_scale_set(ScaleSet::new("web"));
    scene.azure.add_scale_set(ScaleSet::new("other"));
    let server = scene.imds("", "").await;
    for (hint, expected) in [
        (json!("web"), "A"),
        (json!("WEB"), "A"),
        (json!("other"), "PD"),
        (json!("no-such-set"), "NF"),
        (Value::Null, "NF"),
    ] {
        assert_outcome(hinting(&scene, &*server, hint.clone()).await, expected, &hint.to_string());
    }
}

#[tokio::test]
async fn z16_scale_sets_of_both_kinds_and_two_of_one_name() {
    for (membership, shouts) in [
        (Membership::Flexible("web".into()), false),
        (Membership::Uniform("web".into()), false),
        (Membership::Uniform("web".into()), true),
    ] {
        let machine = Machine { shouts, ..Machine::new("web_3").in_set(membership.clone()) };
        let scene = Scene::with(machine).await;
        scene.azure.add_scale_set(ScaleSet { group: "elsewhere".into(), name: "web".into() });
        scene.azure.add_scale_set(ScaleSet::new("web"));
        for number in 0..5 {
            let name = format!("web_{}", 10 + number);
            scene.azure.add_machine(Machine::new(&name).in_set(membership.clone()));
        }
        scene.azure.set_page(2);
        let server = scene.imds("", "").await;
        let selectors = attest(&scene, &*server).await.unwrap();
        for selector in [
            "azure_imds:vmss-name:web",
            "azure_imds:vm-name:web_3",
            "azure_imds:resource-group:frontend",
            "azure_imds:virtual-network-subnet:vnet:default",
        ] {
            assert!(selectors.iter().any(|one| one == selector), "{selector}: {selectors:?}");
        }
    }
}

#[tokio::test]
async fn a_scale_set_is_listed_once_for_its_members() {
    let membership = Membership::Uniform("web".into());
    let scene = Scene::with(Machine::new("web_0").in_set(membership.clone())).await;
    scene.azure.add_scale_set(ScaleSet::new("web"));
    let mut machines = vec![scene.machine.clone()];
    for number in 1..20 {
        let machine = Machine::new(&format!("web_{number}")).in_set(membership.clone());
        machines.push(scene.azure.add_machine(machine));
    }
    let server = scene.imds("", "").await;
    let all = machines.iter().map(|machine| attest_as(&scene, &*server, machine));
    for attested in futures::future::join_all(all).await {
        attested.unwrap();
    }
    let lists = || {
        let requests = scene.azure.resource_manager.requests();
        requests.iter().filter(|one| one.path.ends_with("/virtualMachines")).count()
    };
    assert!(lists() <= 3, "{} lists", lists());
    // A member that came later has the list made anew.
    let late = scene.azure.add_machine(Machine::new("web_99").in_set(membership));
    let before = lists();
    attest_as(&scene, &*server, &late).await.unwrap();
    assert_eq!(lists(), before + 1);
}

#[tokio::test]
async fn z17_ids_in_another_case() {
    let scene = Scene::with(Machine { shouts: true, ..Machine::new("Blog") }).await;
    let selectors = attest(&scene, &*scene.imds("", "").await).await.unwrap();
    let group = "azure_imds:network-security-group:frontend:webservers";
    assert!(selectors.iter().any(|one| one == group), "{selectors:?}");
}

#[tokio::test]
async fn z18_answers_of_resource_graph() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let row = json!({
        "id": "/x", "name": "x", "vmId": scene.machine.vm_id, "tenantId": TENANT,
        "subscriptionId": scene.machine.subscription,
    });
    for (answer, expected) in [
        (json!({ "totalRecords": 0, "data": [] }), "NF"),
        (json!({ "totalRecords": 2, "data": [row, row] }), "PD"),
        (json!({ "data": [row] }), "UNAV"),
        (json!({ "totalRecords": 1, "data": {} }), "UNAV"),
        (json!([]), "UNAV"),
    ] {
        scene.azure.set_graph_answer(Some(answer.clone()));
        assert_outcome(attest(&scene, &*server).await, expected, &answer.to_string());
    }
    scene.azure.set_graph_answer(None);
    scene.azure.set_page(1);
    let mut machine = Machine::new("two-interfaces");
    machine.interfaces.push(Interface {
        subscription: None,
        security_group: None,
        subnet: ("vnet".into(), "second".into()),
    });
    let machine = scene.azure.add_machine(machine);
    let selectors = attest_as(&scene, &*server, &machine).await.unwrap();
    assert!(selectors.iter().any(|one| one.ends_with("vnet:second")), "{selectors:?}");
    let busy = Trouble::Status(http::StatusCode::TOO_MANY_REQUESTS);
    scene.azure.resource_manager.fail_next(2, busy.clone());
    assert_outcome(attest(&scene, &*server).await, "A", "busy for a moment");
    scene.azure.resource_manager.fail_always(busy);
    assert_outcome(attest(&scene, &*server).await, "UNAV", "busy for long");
}

#[tokio::test]
async fn a_machine_without_a_visible_interface_is_not_found() {
    let scene = Scene::with(Machine { interfaces: vec![], ..Machine::new("blog") }).await;
    assert_outcome(attest(&scene, &*scene.imds("", "").await).await, "NF", "no interface");
}

#[tokio::test]
async fn z21_tags_that_are_no_texts() {
    let mut machine = Machine::new("blog");
    machine.tags = json!({
        "text": "a:b", "empty": "", "null": null, "number": 7, "nested": { "a": "b" },
        "TEXT2": "other case", "hidden": "x",
    })
    .as_object()
    .cloned()
    .unwrap();
    let scene = Scene::with(machine).await;
    let tags =
        r#"allowed_vm_tags = ["text", "empty", "null", "number", "nested", "text2", "gone"]"#;
    let selectors = attest(&scene, &*scene.imds(tags, "").await).await.unwrap();
    let tags = selectors.iter().filter_map(|one| one.strip_prefix("azure_imds:vm-tag:"));
    assert_eq!(tags.collect::<Vec<_>>(), ["empty:", "null:", "number:7", "text:a:b"]);
}
