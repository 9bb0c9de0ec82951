//! The agent's half, against the metadata server.

use std::time::{Duration, Instant};

use http::StatusCode;
use spire_fakes::gcp::Metadata;
use spire_fakes::http::Trouble;

use crate::world::Outcome::Accepted;
use crate::world::{World, agent, attest};

async fn collect(text: &str) -> Result<Vec<u8>, String> {
    let collected = agent(text).collect().await;
    collected.map(|evidence| evidence.payload().to_vec()).map_err(|error| error.to_string())
}

fn at(metadata: &Metadata) -> String {
    format!("identity_token_host = \"{}\"", metadata.host())
}

#[tokio::test]
async fn the_token_is_asked_for_as_google_prescribes_and_sent_as_it_is() {
    let world = World::new().await;
    let metadata = world.google.launch(&world.vm).await;
    let payload = collect(&at(&metadata)).await.unwrap();
    let request = &metadata.server().requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.query.as_str()),
        (
            "GET",
            "/computeMetadata/v1/instance/service-accounts/default/identity",
            "audience=spire-gcp-node-attestor&format=full"
        )
    );
    assert_eq!(request.header("metadata-flavor"), "Google");
    attest(&*world.server(""), &payload).await.is(Accepted, "both halves");

    metadata.server().fail_next(1, Trouble::Body(" as it\n is".into()));
    assert_eq!(collect(&at(&metadata)).await.unwrap(), b" as it\n is");
}

#[tokio::test]
async fn a_service_account_and_a_place_may_be_named() {
    let world = World::new().await;
    let metadata = world.google.launch(&world.vm).await;
    let account = world.vm.service_account.as_deref().unwrap();
    let text = format!(
        "service_account = \"{account}\"\nidentity_token_host = \"127.0.0.1:1\"\n\
         endpoints {{ metadata = \"{}\" }}",
        metadata.server().url()
    );
    collect(&text).await.unwrap();
    let path = format!("/computeMetadata/v1/instance/service-accounts/{account}/identity");
    assert_eq!(metadata.server().requests()[0].path, path);
    let other = format!("service_account = \"other@example.com\"\n{}", at(&metadata));
    let error = collect(&other).await.unwrap_err();
    assert!(error.contains("knows no service account \"other@example.com\""), "{error}");
}

#[tokio::test]
async fn errors_name_the_usual_causes() {
    let world = World::new().await;
    let metadata = world.google.launch(&world.vm).await;
    metadata.change(|vm| vm.service_account = None);
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(error.contains("attach a service account to the instance"), "{error}");

    metadata.server().fail_next(1, Trouble::Status(StatusCode::FORBIDDEN));
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(error.contains("answers with status 403"), "{error}");
    metadata.server().fail_next(1, Trouble::Redirect(metadata.server().url()));
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(error.contains("answers with status 302"), "{error}");
    metadata.server().fail_next(1, Trouble::Body("".into()));
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(error.contains("gave none"), "{error}");
    metadata.server().fail_next(1, Trouble::Body(vec![b'x'; 70 << 10].into()));
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(error.contains("longer than 65536 bytes"), "{error}");
}

#[tokio::test]
async fn a_metadata_server_that_is_busy_is_asked_again_and_one_that_hangs_is_left() {
    let world = World::new().await;
    let metadata = world.google.launch(&world.vm).await;
    metadata.server().fail_next(2, Trouble::Status(StatusCode::SERVICE_UNAVAILABLE));
    collect(&at(&metadata)).await.unwrap();
    assert_eq!(metadata.server().count(), 3);

    metadata.server().fail_always(Trouble::Hang);
    let began = Instant::now();
    let error = collect(&at(&metadata)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(error.contains("is this an instance of Compute Engine?"), "{error}");
}
