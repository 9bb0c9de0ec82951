//! What agents say where they have nothing to show.

use http::StatusCode;
use spire_fakes::http::{Trouble, json};

use crate::support::{Scene, imds_refusal, msi_refusal};

fn refused(status: StatusCode, error: &str, description: &str) -> Trouble {
    let body = serde_json::json!({ "error": error, "error_description": description });
    Trouble::Answer(json(status, body.to_string()))
}

#[tokio::test]
async fn errors_name_the_usual_causes() {
    const IDENTITY: &str = "assign a managed identity to this virtual machine";
    let scene = Scene::new().await;
    let here = scene.azure.agent_endpoints(&scene.machine);
    let metadata = &scene.azure.metadata;
    let bad = StatusCode::BAD_REQUEST;
    for (trouble, parts) in [
        (
            refused(bad, "invalid_request", "Identity not found"),
            &["status code 400", "Identity not found", IDENTITY][..],
        ),
        (
            refused(bad, "invalid_resource", "AADSTS500011: no such resource"),
            &["status code 400", "AADSTS500011", "check resource_id"],
        ),
        (Trouble::Body(r#"{"access_token":""}"#.into()), &["gave no access token"]),
        (Trouble::Body("{}".into()), &["gave no access token"]),
        (Trouble::Body("<html>".into()), &["unable to decode the answer"]),
    ] {
        metadata.fail_next(1, trouble);
        let error = msi_refusal(&here).await;
        assert!(error.contains("unable to get a token of the managed identity"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
    // The identity has nothing to do with other refusals, nor with documents.
    metadata.fail_next(1, refused(StatusCode::FORBIDDEN, "forbidden", "no"));
    let error = msi_refusal(&here).await;
    assert!(error.contains("status code 403") && !error.contains(IDENTITY), "{error}");
    metadata.fail_next(1, refused(bad, "invalid_request", "Bad request"));
    let error = imds_refusal(&here).await;
    assert!(error.contains("unable to get attested document"), "{error}");
    assert!(error.contains("status code 400") && !error.contains(IDENTITY), "{error}");
}

#[tokio::test]
async fn a_service_that_is_not_there_or_does_not_answer_is_named() {
    let scene = Scene::new().await;
    scene.azure.metadata.fail_always(Trouble::Hang);
    let hanging = scene.azure.agent_endpoints(&scene.machine);
    let nowhere = "endpoints { metadata = \"http://127.0.0.1:1\" }";
    let refusals = futures::join!(
        msi_refusal(nowhere),
        imds_refusal(nowhere),
        msi_refusal(&hanging),
        imds_refusal(&hanging),
    );
    for (error, part) in [
        (refusals.0, "http://127.0.0.1:1: cannot connect"),
        (refusals.1, "http://127.0.0.1:1: cannot connect"),
        (refusals.2, "no answer within 8 s"),
        (refusals.3, "no answer within 8 s"),
    ] {
        for part in ["unable to reach the instance metadata service", "containers", part] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
