//! `azure_msi`: cases M1 to M14, and what a genuine node comes to.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use spire_core::clock::Clock;
use spire_core::node::{AttestError, NodeAttestor};
use spire_fakes::azure::{
    Interface, Machine, Membership, OTHER_TENANT, SUBSCRIPTION, ScaleSet, TENANT,
};
use spire_fakes::http::Trouble;

use crate::support::{Answerer, Node, Scene, assert_outcome, msi_agent, msi_server, msi_tenant};

pub(crate) const ARM: &str = "https://management.azure.com/";

impl Scene {
    pub(crate) fn claims(&self) -> Value {
        self.azure.entra.claims(TENANT, &self.machine.principal_id, ARM)
    }

    /// The payload with a token of these claims.
    pub(crate) fn token(&self, claims: &Value) -> Vec<u8> {
        payload(&self.azure.entra.token(claims))
    }

    /// A token that says something else in some claims; `null` takes them away.
    fn altered(&self, changes: &Value) -> Vec<u8> {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        self.token(&claims)
    }
}

pub(crate) fn payload(token: &str) -> Vec<u8> {
    json!({ "token": token }).to_string().into_bytes()
}

type Outcome = Result<(String, Vec<String>), AttestError>;

pub(crate) async fn shown(server: &dyn NodeAttestor, payload: &[u8]) -> Outcome {
    Node::new(Answerer::Gone).attest(server, payload).await
}

#[tokio::test]
async fn a_machine_with_an_identity_is_attested() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let evidence = msi_agent(&scene.azure, &scene.machine, "").await;
    let mut node = Node::new(Answerer::Gone);
    let (id, selectors) = node.attest(&*server, evidence.payload()).await.unwrap();
    let principal = &scene.machine.principal_id;
    assert_eq!(id, format!("spiffe://example.org/spire/agent/azure_msi/{TENANT}/{principal}"));
    assert_eq!(
        selectors,
        [
            "azure_msi:network-security-group:frontend:webservers".to_owned(),
            format!("azure_msi:subscription-id:{SUBSCRIPTION}"),
            "azure_msi:virtual-network-subnet:frontend:vnet:default".to_owned(),
            "azure_msi:virtual-network:frontend:vnet".to_owned(),
            "azure_msi:vm-name:frontend:blog".to_owned(),
        ]
    );
    assert_eq!(node.examination.failed(), None);
    assert!(node.examination.claimed.unwrap().contains(principal));
    assert!(node.examination.cloud_request_id.is_some());
    let requests = scene.azure.metadata.requests();
    assert_eq!(requests[0].header("metadata"), "true");
    assert_eq!(
        requests[0].query,
        "api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
    );
}

#[tokio::test]
async fn the_template_may_use_what_the_token_says() {
    let scene = Scene::new().await;
    let template = r#"agent_path_template = "/{{ .IssuedAt }}/{{ .PrincipalID | upper }}""#;
    let server = scene.msi("", template).await;
    let (id, _) = shown(&*server, &scene.token(&scene.claims())).await.unwrap();
    assert!(id.ends_with(&scene.machine.principal_id.to_uppercase()), "{id}");
    let server = scene.msi("", r#"agent_path_template = "/{{ .Audience }}""#).await;
    assert_outcome(shown(&*server, &scene.token(&scene.claims())).await, "PD", "no path");
}

#[tokio::test]
async fn m01_token_missing_empty_or_no_jws() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    for text in ["", "{}", "[]", "null", r#"{"token":null}"#, r#"{"token":1}"#] {
        assert_outcome(shown(&*server, text.as_bytes()).await, "IA", text);
    }
    for token in ["", "a", "a.b", "a.b.c", "e30.e30.", "....", "ä.ö.ü"] {
        assert_outcome(shown(&*server, &payload(token)).await, "IA", token);
    }
}

#[tokio::test]
async fn m02_no_algorithm_or_one_with_another_key() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let entra = &scene.azure.entra;
    let keys = entra.keys();
    let key_id = keys["keys"][0]["kid"].as_str().unwrap();
    for algorithm in ["none", "None", "", "RS1", "ES256", "PS256", "RS384"] {
        let header = json!({ "alg": algorithm, "kid": key_id });
        let token = entra.token_with(&header, &scene.claims());
        assert_outcome(shown(&*server, &payload(&token)).await, "IA", algorithm);
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_outcome(shown(&*server, &payload(&unsigned)).await, "IA", algorithm);
    }
    let header = json!({ "alg": "HS256", "kid": key_id }).to_string();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(scene.claims().to_string())
    );
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &entra.modulus());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes()));
    assert_outcome(shown(&*server, &payload(&format!("{signed}.{tag}"))).await, "IA", "HS256");
}

#[tokio::test]
async fn m03_key_missing_unknown_or_not_to_be_had() {
    let scene = Scene::new().await;
    let clock = Clock::standing_at(Timestamp::now());
    let server = scene.msi_at(clock.clone(), "", "").await;
    let (entra, login) = (&scene.azure.entra, &scene.azure.login);
    login.fail_always(Trouble::Status(http::StatusCode::INTERNAL_SERVER_ERROR));
    let genuine = scene.token(&scene.claims());
    assert_outcome(shown(&*server, &genuine).await, "UNAV", "no keys yet");
    login.fail_always(None);
    assert_outcome(shown(&*server, &genuine).await, "A", "keys are there");
    for header in [
        json!({ "alg": "RS256" }),
        json!({ "alg": "RS256", "kid": "" }),
        json!({ "alg": "RS256", "kid": "another" }),
    ] {
        let token = entra.token_with(&header, &scene.claims());
        assert_outcome(shown(&*server, &payload(&token)).await, "IA", &header.to_string());
    }
    clock.advance(SignedDuration::from_mins(10));
    login.fail_always(Trouble::Status(http::StatusCode::INTERNAL_SERVER_ERROR));
    assert_outcome(shown(&*server, &genuine).await, "A", "keys are stale");

    let empty = Scene::new().await;
    empty.azure.entra.publish(Some(json!({ "keys": [] })));
    let server = empty.msi("", "").await;
    let token = empty.token(&empty.claims());
    assert_outcome(shown(&*server, &token).await, "IA", "an empty set");
}

#[tokio::test]
async fn m04_a_tenant_that_is_not_configured_learns_nothing() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let foreign = scene.azure.entra.claims(OTHER_TENANT, &scene.machine.principal_id, ARM);
    let foreign = scene.token(&foreign);
    let mut node = Node::new(Answerer::Gone);
    let fresh = node.attest(&*server, &foreign).await.unwrap_err();
    let principal = &scene.machine.principal_id;
    node.known
        .add(&format!("spiffe://example.org/spire/agent/azure_msi/{OTHER_TENANT}/{principal}"));
    let known = node.attest(&*server, &foreign).await.unwrap_err();
    assert_eq!(node.asked, 0, "first use was looked up for a foreign tenant");
    assert_eq!(fresh.to_string(), known.to_string());
    assert_outcome(Err::<(), _>(fresh), "PD", "a foreign tenant");
    assert_outcome(Err::<(), _>(known), "PD", "a foreign tenant");
}

#[tokio::test]
async fn m05_a_tenant_in_the_token_and_another_that_issued_it() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    for issuer in [
        json!(format!("https://sts.windows.net/{OTHER_TENANT}/")),
        json!(format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0")),
        json!(format!("https://sts.windows.net/{TENANT}")),
        json!(format!("http://sts.windows.net/{TENANT}/")),
        json!(format!("https://sts.windows.net.evil/{TENANT}/")),
        json!(format!("https://sts.chinacloudapi.cn/{TENANT}/")),
        Value::Null,
    ] {
        let token = scene.altered(&json!({ "iss": issuer }));
        assert_outcome(shown(&*server, &token).await, "PD", &issuer.to_string());
    }
    let second = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let token = scene.altered(&json!({ "iss": second }));
    assert_outcome(shown(&*server, &token).await, "A", "version 2");
}

#[tokio::test]
async fn m06_a_token_for_somebody_else() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    for audience in
        [json!("https://graph.microsoft.com/"), json!("https://management.azure.com"), json!([])]
    {
        let token = scene.altered(&json!({ "aud": audience }));
        assert_outcome(shown(&*server, &token).await, "PD", &audience.to_string());
    }
    let own = scene.msi(r#"resource_id = "api://spire""#, "").await;
    assert_outcome(shown(&*own, &scene.token(&scene.claims())).await, "PD", "the default one");
    let evidence = msi_agent(&scene.azure, &scene.machine, r#"resource_id = "api://spire""#).await;
    assert_outcome(shown(&*own, evidence.payload()).await, "A", "our own");
}

#[tokio::test]
async fn m07_x18_time_is_exact_to_the_leeway() {
    let scene = Scene::new().await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let server = scene.msi_at(Clock::standing_at(now), "", "").await;
    let at = |seconds: i64| json!(now.as_second() + seconds);
    for (changes, expected) in [
        (json!({ "exp": at(-299) }), "A"),
        (json!({ "exp": at(-300) }), "A"),
        (json!({ "exp": at(-301) }), "PD"),
        (json!({ "exp": null }), "PD"),
        (json!({ "nbf": at(300) }), "A"),
        (json!({ "nbf": at(301) }), "PD"),
        (json!({ "iat": at(301) }), "PD"),
        (json!({ "exp": "soon" }), "IA"),
    ] {
        let token = scene.altered(&changes);
        assert_outcome(shown(&*server, &token).await, expected, &changes.to_string());
    }
}

#[tokio::test]
async fn m08_a_principal_that_is_no_id() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    for principal in
        [Value::Null, json!(""), json!("'"), json!("x' or '1' eq '1"), json!("a/b"), json!("..")]
    {
        let token = scene.altered(&json!({ "sub": principal }));
        assert_outcome(shown(&*server, &token).await, "PD", &principal.to_string());
    }
    assert_outcome(shown(&*server, &scene.altered(&json!({ "tid": null }))).await, "PD", "tid");
    assert_eq!(scene.azure.resource_manager.count(), 0);
}

#[tokio::test]
async fn m09_a_person_or_an_application_is_no_machine() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    for changes in [
        json!({ "sub": "PWeu-1MB0sHj0rDlO5_2yv7R", "scp": "user_impersonation", "upn": "a@b" }),
        json!({ "sub": "6b2d64a5-93b6-4ee9-8f0f-5a4f0b7a2a35", "idtyp": "app" }),
    ] {
        let token = scene.altered(&changes);
        assert_outcome(shown(&*server, &token).await, "NF", &changes.to_string());
    }
}

#[tokio::test]
async fn m10_an_identity_of_none_two_or_a_scale_set() {
    let scene = Scene::with(Machine::new("a").in_set(Membership::Uniform("set".into()))).await;
    scene.azure.add_scale_set(ScaleSet::new("set"));
    let server = scene.msi("", "").await;
    let token = scene.token(&scene.claims());
    assert_outcome(shown(&*server, &token).await, "NF", "a scale set");
    for name in ["b", "c"] {
        let mut machine = Machine::new(name);
        machine.principal_id.clone_from(&scene.machine.principal_id);
        scene.azure.add_machine(machine);
    }
    assert_outcome(shown(&*server, &token).await, "PD", "two machines");
    scene.azure.set_page(1);
    assert_outcome(shown(&*server, &token).await, "PD", "two machines on two pages");
    scene.azure.remove_machines();
    assert_outcome(shown(&*server, &token).await, "NF", "no machine");
}

#[tokio::test]
async fn m11_a_network_that_is_not_as_usual() {
    let interface = |security_group: Option<&str>, subscription: Option<&str>| Interface {
        subscription: subscription.map(Into::into),
        security_group: security_group.map(Into::into),
        subnet: ("vnet".into(), "default".into()),
    };
    let elsewhere = "00000000-0000-4000-8000-000000000009";
    for (interfaces, shouts, expected) in [
        (vec![], false, vec![]),
        (vec![interface(None, None)], false, vec!["subnet"]),
        (vec![interface(Some("Web"), None)], true, vec!["group:frontend:web", "subnet"]),
        (vec![interface(Some("web"), Some(elsewhere))], false, vec![]),
    ] {
        let scene = Scene::with(Machine { interfaces, shouts, ..Machine::new("blog") }).await;
        let server = scene.msi("", "").await;
        let (_, selectors) = shown(&*server, &scene.token(&scene.claims())).await.unwrap();
        for part in ["group:frontend:web", "subnet"] {
            let is_there = selectors.iter().any(|selector| selector.contains(part));
            assert_eq!(is_there, expected.contains(&part), "{part} in {selectors:?}");
        }
    }
}

#[tokio::test]
async fn m12_x05_a_principal_counts_once() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let mut first = Node::new(Answerer::Gone);
    first.attest(&*server, &scene.token(&scene.claims())).await.unwrap();
    let asked = scene.azure.resource_manager.count();
    let mut second = Node::new(Answerer::Gone);
    second.known = first.known.clone();
    let again = second.attest(&*server, &scene.token(&scene.claims())).await;
    assert_outcome(again, "PD", "the same principal");
    assert_eq!(scene.azure.resource_manager.count(), asked, "Azure was asked about a known node");
}

#[tokio::test]
async fn m13_a_captured_token_is_good_once() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let ago = Timestamp::now().as_second() - 3600;
    let token = scene.altered(&json!({ "iat": ago, "nbf": ago }));
    let mut thief = Node::new(Answerer::Gone);
    assert_outcome(thief.attest(&*server, &token).await, "A", "first");
    assert_outcome(thief.attest(&*server, &token).await, "PD", "second");
}

#[tokio::test]
async fn m14_sections_that_cannot_work() {
    let scene = Scene::new().await;
    let tenant = |body: &str| format!("tenants = {{ {TENANT:?} = {{ {body} }} }}");
    for (text, sentence) in [
        (String::new(), "configuration must have at least one tenant"),
        (tenant(r#"app_id = "a", app_secret = "b""#), "missing subscription_id"),
        (tenant(r#"subscription_id = "a", app_secret = "b""#), "missing app_id"),
        (tenant(r#"subscription_id = "a", app_id = "b""#), "missing app_secret"),
        (
            tenant(r#"use_msi = true, subscription_id = "a", app_id = "b", app_secret = "c""#),
            "use_msi",
        ),
        (r#"tenants = { "example.org" = {} }"#.to_owned(), "not the ID of a tenant"),
        (msi_tenant("") + "agent_path_template = \"{{\"", "failed to parse agent path template"),
    ] {
        let Err(error) = msi_server(&text, Clock::system()).await else { panic!("{text}") };
        assert!(error.contains(sentence), "{text}: {error}");
        assert!(!error.contains("\"c\""), "{error}");
    }
    let of_metadata = |url: &str| format!("{}endpoints {{ metadata = {url:?} }}\n", tenant(""));
    let Err(error) = msi_server(&of_metadata("http://127.0.0.1:1"), Clock::system()).await else {
        panic!("a server without a metadata service")
    };
    assert!(error.contains("unable to find the subscription of this server"), "{error}");
    let began = std::time::Instant::now();
    scene.azure.metadata.fail_always(Trouble::Hang);
    let hanging = msi_server(&of_metadata(&scene.azure.metadata.url()), Clock::system()).await;
    assert!(hanging.is_err() && began.elapsed().as_secs() < 15);
}

#[tokio::test]
async fn a_server_on_azure_needs_no_credentials_in_its_file() {
    let scene = Scene::new().await;
    for more in ["", "use_msi = true\n"] {
        let text = scene.azure.server_endpoints() + &format!("tenants = {{ {TENANT:?} = {{}} }}\n");
        let server = msi_server(&(text + more), Clock::system()).await.unwrap();
        let (id, _) = shown(&*server, &scene.token(&scene.claims())).await.unwrap();
        assert!(id.ends_with(&scene.machine.principal_id));
    }
}

#[tokio::test]
async fn subscriptions_and_ages_can_be_bounded() {
    let scene = Scene::with(Machine {
        created: Timestamp::now() - SignedDuration::from_hours(2),
        ..Machine::new("old")
    })
    .await;
    let token = scene.token(&scene.claims());
    for (more, expected) in [
        (format!("allowed_subscription_ids = [{SUBSCRIPTION:?}]"), "A"),
        (format!("allowed_subscription_ids = [\" {} \"]", SUBSCRIPTION.to_uppercase()), "A"),
        (format!("allowed_subscription_ids = [{TENANT:?}]"), "PD"),
        ("max_instance_age = \"3h\"".to_owned(), "A"),
        ("max_instance_age = \"1h\"".to_owned(), "PD"),
    ] {
        let server = scene.msi("", &more).await;
        assert_outcome(shown(&*server, &token).await, expected, &more);
    }
}
