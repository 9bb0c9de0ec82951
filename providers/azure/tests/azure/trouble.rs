//! Cases of all attestors: Azure in trouble, many nodes at once, nodes that go away.

use std::time::{Duration, Instant};

use futures::future::join_all;
use spire_core::node::NodeAttestor;
use spire_fakes::azure::{Machine, Membership, ScaleSet, TENANT};
use spire_fakes::http::{HttpServer, Request, Trouble, text};

use crate::msi::{ARM, payload, shown};
use crate::support::{Answerer, Node, Scene, assert_outcome, imds_agent};

/// IDs of tenants, subscriptions and machines are UUIDs and principals are words, or they are
/// refused before: what is left are claims that every token may have.
#[tokio::test]
async fn x11_claims_that_make_no_path() {
    let scene = Scene::new().await;
    let server = scene.msi("", r#"agent_path_template = "/azure_msi/{{ .ID }}""#).await;
    for id in ["a/b", "a/../b", "..", ".", "/", "a b", "a%2fb", "ä", ""] {
        let mut claims = scene.claims();
        claims["jti"] = id.into();
        let mut node = Node::new(Answerer::Gone);
        assert_outcome(node.attest(&*server, &scene.token(&claims)).await, "PD", id);
        assert_eq!(node.examination.failed().unwrap().name, "agent ID", "{id:?}");
    }
    let mut claims = scene.claims();
    claims["jti"] = "a-b".into();
    assert_outcome(shown(&*server, &scene.token(&claims)).await, "A", "a word");
}

#[tokio::test]
async fn x12_a_template_that_asks_for_what_is_not_there() {
    let scene = Scene::new().await;
    let server = scene.msi("", r#"agent_path_template = "/{{ .Tags.Role }}""#).await;
    assert_outcome(shown(&*server, &scene.token(&scene.claims())).await, "PD", "msi");
    let server = scene.imds("", r#"agent_path_template = "/{{ .Tags.Role }}""#).await;
    let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    assert_outcome(node.attest(&*server, b"x").await, "PD", "imds");
}

#[tokio::test]
async fn x05_x10_an_agent_that_is_known_costs_no_call() {
    let scene = Scene::new().await;
    let server = scene.imds("", r#"agent_path_template = "/{{ .TenantID }}""#).await;
    let mut first = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    first.attest(&*server, b"x").await.unwrap();
    let calls = scene.azure.resource_manager.count();
    let other = scene.azure.add_machine(Machine::new("other"));
    let mut second = Node::agent(imds_agent(&scene.azure, &other).await);
    second.known = first.known.clone();
    assert_outcome(second.attest(&*server, b"x").await, "PD", "the same ID");
    assert_eq!(scene.azure.resource_manager.count(), calls);
}

#[tokio::test]
async fn x13_envelopes_with_a_member_twice_or_in_another_case() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let token = scene.azure.entra.token(&scene.claims());
    for text in [
        format!(r#"{{"token":"{token}","token":"{token}"}}"#),
        format!(r#"{{"Token":"{token}"}}"#),
        format!(r#"{{"token":"{token}","TOKEN":"x"}}"#),
        format!(r#"{{"token":"{token}"}} x"#),
    ] {
        assert_outcome(shown(&*server, text.as_bytes()).await, "IA", &text);
    }
    let header = scene.azure.entra.keys()["keys"][0]["kid"].clone();
    let claims = scene.claims().to_string();
    for (header, claims) in [
        (format!(r#"{{"alg":"RS256","alg":"RS256","kid":{header}}}"#), claims.clone()),
        (format!(r#"{{"alg":"RS256","kid":{header}}}"#), claims.replacen('{', r#"{"aud":"x","#, 1)),
        (format!(r#"{{"alg":"RS256","crit":["x"],"kid":{header}}}"#), claims.clone()),
    ] {
        let token = scene.azure.entra.token_of(&header, &claims);
        assert_outcome(shown(&*server, &payload(&token)).await, "IA", &header);
    }
}

#[tokio::test]
async fn x14_azure_in_trouble() {
    let troubles = [
        Trouble::Status(http::StatusCode::TOO_MANY_REQUESTS),
        Trouble::Status(http::StatusCode::INTERNAL_SERVER_ERROR),
        Trouble::Status(http::StatusCode::BAD_REQUEST),
        Trouble::Reset,
    ];
    join_all(troubles.into_iter().map(|trouble| async move {
        let scene = Scene::new().await;
        let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
        let manager = &scene.azure.resource_manager;
        manager.fail_next(2, trouble.clone());
        let for_a_moment = match trouble {
            Trouble::Status(http::StatusCode::BAD_REQUEST) => "UNAV",
            _ => "A",
        };
        both(&scene, &*imds, &*msi, for_a_moment, &format!("twice {trouble:?}")).await;
        manager.fail_always(trouble.clone());
        both(&scene, &*imds, &*msi, "UNAV", &format!("{trouble:?}")).await;
        manager.fail_always(None);
        both(&scene, &*imds, &*msi, "A", "recovered").await;
    }))
    .await;
}

#[tokio::test]
async fn x14_azure_hangs() {
    let scene = Scene::new().await;
    let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
    scene.azure.resource_manager.fail_always(Trouble::Hang);
    let began = Instant::now();
    let failed = both(&scene, &*imds, &*msi, "UNAV", "hangs").await;
    assert_eq!(failed, [Some("virtual machine"); 2]);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn x14_azure_answers_every_question_late() {
    const DELAY: Duration = Duration::from_millis(7500);
    let by_document = async {
        let set = Membership::Uniform("set".into());
        let scene = Scene::with(Machine::new("blog").in_set(set)).await;
        scene.azure.add_scale_set(ScaleSet::new("set"));
        let server = scene.imds("", "").await;
        scene.azure.resource_manager.delay(DELAY);
        let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
        (node.attest(&*server, b"x").await, node)
    };
    let by_identity = async {
        let scene = Scene::new().await;
        scene.azure.set_graph_answer(Some(serde_json::json!({ "totalRecords": 0, "data": [] })));
        let server = scene.msi("", "").await;
        scene.azure.resource_manager.delay(DELAY);
        let mut node = Node::new(Answerer::Gone);
        (node.attest(&*server, &scene.token(&scene.claims())).await, node)
    };
    let began = Instant::now();
    let (one, other) = futures::join!(by_document, by_identity);
    for (found, node) in [one, other] {
        assert_eq!(node.examination.failed().unwrap().name, "virtual machine", "{found:?}");
        assert!(found.unwrap_err().to_string().contains("did not answer within 20 s"));
    }
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn the_check_that_azure_keeps_from_being_made_is_named() {
    let scene = Scene::new().await;
    let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
    let bad = Trouble::Status(http::StatusCode::BAD_REQUEST);
    scene.azure.resource_manager.fail_where(2, bad, |request| {
        let body = String::from_utf8_lossy(&request.body);
        format!("{} {body}", request.path).to_lowercase().contains("microsoft.network/networkint")
    });
    let failed = both(&scene, &*imds, &*msi, "UNAV", "no interfaces").await;
    assert_eq!(failed, [Some("network interfaces"); 2]);
    let mut gone = Node::new(Answerer::Gone);
    assert_outcome(gone.attest(&*imds, b"x").await, "IA", "the stream ends");
    assert_eq!(gone.examination.failed().unwrap().name, "challenge");
}

/// Attests by both; the checks that failed.
async fn both(
    scene: &Scene,
    imds: &dyn NodeAttestor,
    msi: &dyn NodeAttestor,
    expected: &str,
    what: &str,
) -> [Option<&'static str>; 2] {
    let mut machine = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    let mut identity = Node::new(Answerer::Gone);
    let token = scene.token(&scene.claims());
    let (one, other) = futures::join!(machine.attest(imds, b"x"), identity.attest(msi, &token));
    assert_outcome(one, expected, what);
    assert_outcome(other, expected, what);
    [machine, identity].map(|node| node.examination.failed().map(|check| check.name))
}

#[tokio::test]
async fn x14_the_login_service_in_trouble() {
    let scene = Scene::new().await;
    let imds = scene.imds("", "").await;
    scene.azure.login.fail_next(2, Trouble::Status(http::StatusCode::SERVICE_UNAVAILABLE));
    let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    assert_outcome(node.attest(&*imds, b"x").await, "A", "for a moment");
    let wrong = scene.imds("", "").await;
    scene.azure.login.fail_always(Trouble::Status(http::StatusCode::UNAUTHORIZED));
    let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    assert_outcome(node.attest(&*wrong, b"x").await, "UNAV", "for good");
}

#[tokio::test]
async fn x15_a_node_that_goes_away() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    scene.azure.resource_manager.delay(Duration::from_millis(300));
    let token = scene.token(&scene.claims());
    let mut node = Node::new(Answerer::Gone);
    let gone = tokio::time::timeout(Duration::from_millis(100), node.attest(&*server, &token));
    gone.await.unwrap_err();
    // Nothing is left of it: the same node may come again.
    let mut again = Node::new(Answerer::Gone);
    again.known = node.known.clone();
    assert_outcome(again.attest(&*server, &token).await, "A", "again");
}

#[tokio::test]
async fn x16_many_nodes_at_once() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let mut machines = vec![scene.machine.clone()];
    for number in 1..200 {
        machines.push(scene.azure.add_machine(Machine::new(&format!("web-{number}"))));
    }
    let mut evidence = Vec::new();
    for machine in &machines {
        evidence.push(imds_agent(&scene.azure, machine).await);
    }
    let tokens =
        || scene.azure.login.requests().iter().filter(|one| one.path.ends_with("/token")).count();
    let all = evidence.into_iter().map(|evidence| {
        let server = server.clone();
        async move { Node::agent(evidence).attest(&*server, b"x").await }
    });
    for attested in join_all(all).await {
        attested.unwrap();
    }
    let queries = scene.azure.queries().len();
    assert!(queries <= 20, "{queries} queries for 200 machines");
    assert_eq!(scene.azure.issuer_certificates.count(), 1);
    assert_eq!(tokens(), 1);
}

#[tokio::test]
async fn x16_msi_two_hundred_nodes() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let machines = (0..200).map(|number| Machine::new(&format!("web-{number}")));
    let nodes = machines.map(|machine| {
        let machine = scene.azure.add_machine(machine);
        let token = scene.token(&scene.azure.entra.claims(TENANT, &machine.principal_id, ARM));
        let server = server.clone();
        async move { (shown(&*server, &token).await, machine) }
    });
    for (attested, machine) in join_all(nodes.collect::<Vec<_>>()).await {
        let (_, selectors) = attested.unwrap();
        let name = format!("azure_msi:vm-name:frontend:{}", machine.name);
        assert!(selectors.len() == 5 && selectors.contains(&name), "{selectors:?}");
    }
    let calls = scene.azure.resource_manager.count();
    assert!(calls <= 20, "{calls} calls for 200 machines");
    assert_eq!(scene.azure.queries().len(), calls, "a machine was asked for alone");
}

/// Where Resource Graph may not be asked, or lags behind.
#[tokio::test]
async fn without_resource_graph_an_identity_is_found_by_resource_manager() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let token = scene.token(&scene.claims());
    let known = shown(&*server, &token).await.unwrap();
    let manager = &scene.azure.resource_manager;
    let is_graph = |request: &Request| request.path.contains("ResourceGraph");
    let calls = manager.count();
    manager.fail_where(2, Trouble::Status(http::StatusCode::FORBIDDEN), is_graph);
    assert_eq!(shown(&*server, &token).await.unwrap(), known);
    // The machine, by a list and by itself, and its interface.
    assert_eq!(manager.count() - calls, 5);
    scene.azure.set_graph_answer(Some(serde_json::json!({ "totalRecords": 0, "data": [] })));
    assert_eq!(shown(&*server, &token).await.unwrap(), known);
    assert_eq!(manager.count() - calls, 10);
    scene.azure.remove_machines();
    assert_outcome(shown(&*server, &token).await, "NF", "nobody knows it");
    manager.fail_where(1, Trouble::Status(http::StatusCode::BAD_REQUEST), is_graph);
    assert_outcome(shown(&*server, &token).await, "UNAV", "trouble is no answer");
}

#[tokio::test]
async fn x17_keys_that_are_none() {
    let scene = Scene::new().await;
    let server = scene.msi("", "").await;
    let elsewhere = HttpServer::start(|_| text(http::StatusCode::OK, "{}")).await;
    let login = &scene.azure.login;
    for trouble in [
        Trouble::Body("<html>".into()),
        Trouble::Body(vec![b' '; 8 << 20].into()),
        Trouble::Body(format!(r#"{{"jwks_uri":"{}/keys"}}"#, elsewhere.url()).into()),
        Trouble::Body(r#"{"jwks_uri":"http://login.microsoftonline.com/keys"}"#.into()),
        Trouble::Redirect(elsewhere.url()),
    ] {
        login.fail_next(1, trouble.clone());
        let token = scene.token(&scene.claims());
        assert_outcome(shown(&*server, &token).await, "UNAV", &format!("{trouble:.60?}"));
    }
    assert_eq!(elsewhere.count(), 0, "keys were sought elsewhere");
    assert_outcome(shown(&*server, &scene.token(&scene.claims())).await, "A", "recovered");
}
