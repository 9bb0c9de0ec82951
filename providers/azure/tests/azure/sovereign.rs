//! Private endpoints, which do not bear the names of the services behind them: of Azure, and of the
//! clouds that Microsoft runs apart from it.

use std::process::Command;

use spire_core::clock::Clock;
use spire_fakes::azure::{CHINA, DOMAIN, GOVERNMENT, Machine, Names, PUBLIC, TENANT};
use spire_fakes::tls::TlsFront;

use crate::msi::{ARM, shown};
use crate::support::{
    Node, Scene, assert_outcome, imds_agent, imds_server, imds_tenant, msi_agent, msi_server,
    msi_tenant,
};

/// Which cloud the inner process is to be in.
const INNER: &str = "AZURE_TEST_CLOUD";

/// A process has one environment, which names the cloud, so that this test runs itself again in
/// others.
#[tokio::test]
async fn nodes_of_sovereign_clouds_attest_behind_private_endpoints() {
    match std::env::var(INNER).as_deref() {
        Ok("china") => return attest(CHINA).await,
        Ok(_) => return attest(GOVERNMENT).await,
        Err(_) => {}
    }
    for (cloud, Names { login, .. }) in [("china", CHINA), ("government", GOVERNMENT)] {
        let mut inner = Command::new(std::env::current_exe().unwrap());
        let test = "sovereign::nodes_of_sovereign_clouds_attest_behind_private_endpoints";
        inner.args(["--exact", test]).env(INNER, cloud);
        inner.env("AZURE_AUTHORITY_HOST", format!("https://{login}"));
        let output = tokio::task::spawn_blocking(move || inner.output().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{cloud}: {text}");
    }
}

async fn attest(names: Names) {
    let scene = Scene::within(names, Machine::new("blog")).await;
    let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
    let mut node = Node::agent(imds_agent(&scene.azure, &scene.machine).await);
    assert_outcome(node.attest(&*imds, b"x").await, "A", "by its document");
    let evidence = msi_agent(&scene.azure, &scene.machine, "").await;
    assert_outcome(shown(&*msi, evidence.payload()).await, "A", "by its identity");
    // A token of the same tenant in Azure itself is none of this cloud's.
    let mut claims = scene.azure.entra.claims(TENANT, &scene.machine.principal_id, ARM);
    claims["iss"] = format!("https://{}/{TENANT}/v2.0", PUBLIC.login).into();
    assert_outcome(shown(&*msi, &scene.token(&claims)).await, "PD", "of another cloud");
}

/// The login service with its tokens and keys, Resource Manager, and certificates of CAs.
#[tokio::test]
async fn private_endpoints_are_reached_by_tls_below_a_private_ca() {
    let scene = Scene::new().await;
    let azure = &scene.azure;
    let mut endpoints = azure.server_endpoints_with_issuers();
    let mut authorities = String::new();
    let mut fronts = Vec::new();
    for server in [&azure.login, &azure.resource_manager, &azure.issuer_certificates] {
        let front = TlsFront::to(server).await;
        endpoints = endpoints.replace(&server.url(), &front.url());
        authorities += front.authority();
        fronts.push(front);
    }
    let bundle = scene.folder.path().join("authorities.pem");
    std::fs::write(&bundle, authorities).unwrap();
    let trusting = format!("{endpoints}endpoints {{ ca_bundle_path = {bundle:?} }}\n");
    let imds = |endpoints: &str| endpoints.to_owned() + &scene.trust() + &imds_tenant(DOMAIN, "");
    let msi = |endpoints: &str| {
        let issuers = format!("issuer_certificates = {:?}", fronts[2].url());
        endpoints.replace(&issuers, "") + &msi_tenant("")
    };
    let token = scene.token(&scene.claims());

    let Err(error) = imds_server(&imds(&endpoints), Clock::system()).await else {
        panic!("a login service that is not trusted was asked")
    };
    assert!(error.contains("unable to resolve tenant") && error.contains("certificate"), "{error}");
    let server = msi_server(&msi(&endpoints), Clock::system()).await.unwrap();
    assert_outcome(shown(&*server, &token).await, "UNAV", "nothing is trusted");
    assert_eq!(azure.login.count(), 0);

    let server = imds_server(&imds(&trusting), Clock::system()).await.unwrap();
    let mut node = Node::agent(imds_agent(azure, &scene.machine).await);
    assert_outcome(node.attest(&*server, b"x").await, "A", "by its document");
    let server = msi_server(&msi(&trusting), Clock::system()).await.unwrap();
    assert_outcome(shown(&*server, &token).await, "A", "by its identity");
}
