//! What a token must say.

use jiff::SignedDuration;
use serde_json::{Value, json};
use spire_fakes::gcp::AUDIENCE;

use crate::world::Outcome::{self, Accepted, InvalidArgument, PermissionDenied};
use crate::world::World;

async fn table(world: &World, server: &str, cases: &[(&str, Value, Outcome)]) {
    let server = world.server(server);
    for (pointer, value, outcome) in cases {
        let verdict = world.attest(&*server, &world.with(pointer, value.clone())).await;
        verdict.is(*outcome, &format!("{pointer} = {value}"));
    }
}

#[tokio::test]
async fn g07_audiences() {
    let world = World::new().await;
    let cases = [
        ("/aud", json!("other"), PermissionDenied),
        ("/aud", json!(["other", AUDIENCE]), Accepted),
        ("/aud", json!(["other"]), PermissionDenied),
        ("/aud", json!(7), InvalidArgument),
        ("/aud", json!(null), PermissionDenied),
    ];
    table(&world, "", &cases).await;
}

/// The issuer is named with its scheme; Google's older spelling without it is not taken.
#[tokio::test]
async fn g08_issuers() {
    let world = World::new().await;
    let cases = [
        ("/iss", json!("accounts.google.com"), PermissionDenied),
        ("/iss", json!("https://accounts.google.com.evil.example"), PermissionDenied),
        ("/iss", json!(null), PermissionDenied),
        ("/iss", json!(7), InvalidArgument),
    ];
    table(&world, "", &cases).await;
}

#[tokio::test]
async fn g09_times() {
    let world = World::new().await;
    let now = i64::try_from(world.now).unwrap();
    let cases = [
        ("/exp", json!(now - 59), Accepted),
        ("/exp", json!(now - 60), Accepted),
        ("/exp", json!(now - 61), PermissionDenied),
        ("/exp", json!(null), PermissionDenied),
        ("/iat", json!(now + 60), Accepted),
        ("/iat", json!(now + 61), PermissionDenied),
        ("/iat", json!(null), PermissionDenied),
        ("/nbf", json!(now + 61), PermissionDenied),
        ("/nbf", json!(now - 61), Accepted),
    ];
    table(&world, "", &cases).await;
}

#[tokio::test]
async fn x18_a_clock_that_is_ten_minutes_off() {
    let world = World::new().await;
    let server = world.server("");
    let claims = world.claims();
    world.clock.advance(SignedDuration::from_mins(-10));
    world.attest(&*server, &claims).await.is(PermissionDenied, "issued in the future");
    world.clock.advance(SignedDuration::from_secs(540));
    world.attest(&*server, &claims).await.is(Accepted, "60 s slow");
    world.clock.advance(SignedDuration::from_secs(60 + 3660));
    world.attest(&*server, &claims).await.is(Accepted, "60 s after the end");
    world.clock.advance(SignedDuration::from_secs(1));
    world.attest(&*server, &claims).await.is(PermissionDenied, "expired");
}

#[tokio::test]
async fn g10_tokens_that_name_no_instance() {
    let world = World::new().await;
    let engine = "/google/compute_engine";
    let allow = format!("projectid_allow_list = [\"\", \"{}\"]", world.vm.project_id);
    let server = world.server_of(&allow);
    for (pointer, value) in [
        ("/google".to_owned(), json!(null)),
        (engine.to_owned(), json!(null)),
        (engine.to_owned(), json!({})),
        (format!("{engine}/project_id"), json!("")),
        (format!("{engine}/project_id"), json!(null)),
        (format!("{engine}/zone"), json!("")),
        (format!("{engine}/instance_id"), json!(null)),
        (format!("{engine}/instance_name"), json!("")),
    ] {
        let verdict = world.attest(&*server, &world.with(&pointer, value.clone())).await;
        verdict.is(PermissionDenied, &format!("{pointer} = {value}"));
        assert_eq!(verdict.failed(), "instance");
    }
}

#[tokio::test]
async fn g11_projects_that_are_not_allowed() {
    let world = World::new().await;
    let project = "/google/compute_engine/project_id";
    let cases = [
        (project, json!("other-project"), PermissionDenied),
        (project, json!("Big-Kahuna-123456"), PermissionDenied),
        (project, json!("123456789012"), PermissionDenied),
        (project, json!("big-kahuna-123456"), Accepted),
    ];
    table(&world, "", &cases).await;
    let by_number = world.server_of("projectid_allow_list = [\"123456789012\"]");
    world.attest(&*by_number, &world.claims()).await.is(PermissionDenied, "the number is no ID");
}

#[tokio::test]
async fn g12_claims_of_other_types_and_sizes() {
    let world = World::new().await;
    let engine = |name: &str| format!("/google/compute_engine/{name}");
    let (id, number, created) =
        (engine("instance_id"), engine("project_number"), engine("instance_creation_timestamp"));
    let cases = [
        (id.as_str(), json!(7_152_993_111_222_333_444_u64), InvalidArgument),
        (&id, json!("-1"), InvalidArgument),
        (&id, json!("1/../2"), InvalidArgument),
        (&id, json!("9".repeat(40)), InvalidArgument),
        (&number, json!("123456789012"), InvalidArgument),
        (&number, json!(-1), InvalidArgument),
        (&number, json!(u64::MAX), InvalidArgument),
        (&created, json!(-1), InvalidArgument),
        (&created, json!(u64::MAX), InvalidArgument),
        (&created, json!(1e300), InvalidArgument),
        ("/exp", json!(u64::MAX), InvalidArgument),
        ("/exp", json!(1e300), InvalidArgument),
        ("/exp", json!("soon"), InvalidArgument),
        ("/iat", json!(i64::MIN), InvalidArgument),
        ("/google", json!([]), InvalidArgument),
        ("/email_verified", json!("true"), InvalidArgument),
    ];
    table(&world, "", &cases).await;
}

#[tokio::test]
async fn g21_tokens_of_other_services_than_compute_engine() {
    let world = World::new().await;
    let server = world.server("");
    let mut workload_identity = world.with("/google", json!(null));
    workload_identity["sub"] = json!("system:serviceaccount:default:default");
    let verdict = world.attest(&*server, &workload_identity).await;
    verdict.is(PermissionDenied, "no claim google");
    assert!(verdict.error().contains("Cloud Run"), "{}", verdict.error());
}

#[tokio::test]
async fn service_accounts_may_be_allowed_by_email_or_number() {
    let world = World::new().await;
    let account = "123456789-compute@developer.gserviceaccount.com";
    let allow = |name: &str| format!("service_account_allow_list = [\"{name}\"]");
    let cases = [
        ("/email", json!("other@example.com"), PermissionDenied),
        ("/email_verified", json!(false), PermissionDenied),
        ("/email_verified", json!(null), PermissionDenied),
        ("/email", json!(account), Accepted),
    ];
    table(&world, &allow(account), &cases).await;
    let cases = [
        ("/sub", json!("1"), PermissionDenied),
        ("/sub", json!(null), PermissionDenied),
        ("/email", json!("other@example.com"), Accepted),
    ];
    table(&world, &allow("112233445566778899000"), &cases).await;
    let empty = [("/email", json!(""), PermissionDenied), ("/sub", json!(""), PermissionDenied)];
    table(&world, &allow(""), &empty).await;
}

#[tokio::test]
async fn instances_may_have_to_be_young() {
    let world = World::new().await;
    let created = "/google/compute_engine/instance_creation_timestamp";
    let cases = [
        (created, json!(world.now - 3600), Accepted),
        (created, json!(world.now - 3601), PermissionDenied),
        (created, json!(world.now + 60), Accepted),
        (created, json!(world.now + 61), PermissionDenied),
        (created, json!(null), PermissionDenied),
    ];
    table(&world, "max_instance_age = \"1h\"", &cases).await;
}

#[tokio::test]
async fn x11_values_that_make_no_path() {
    let world = World::new().await;
    let name = "/google/compute_engine/instance_name";
    let template = "agent_path_template = \"/gcp_iit/{{ .InstanceName }}\"";
    for bad in ["a b", "..", ".", "%2f", "ä", "a/b", "a/../b", "a//b", "/"] {
        let server = world.server(template);
        let verdict = world.attest(&*server, &world.with(name, json!(bad))).await;
        verdict.is(PermissionDenied, bad);
        assert_eq!(verdict.failed(), "agent ID");
    }
    let by_account = "agent_path_template = \"/gcp_iit/{{ .ServiceAccount }}\"";
    table(&world, by_account, &[("/email", json!(""), PermissionDenied)]).await;
}

#[tokio::test]
async fn x12_a_template_with_a_field_that_is_not_there() {
    let world = World::new().await;
    let server = world.server("agent_path_template = \"/gcp_iit/{{ .Tags.Role }}\"");
    world.attest(&*server, &world.claims()).await.is(PermissionDenied, "no tags");
}

#[tokio::test]
async fn every_field_may_be_in_the_path() {
    let world = World::new().await;
    let fields = "{{ .ServiceAccount }}/{{ .ProjectNumber }}/{{ .Zone }}/{{ .InstanceName }}/\
                  {{ .InstanceCreationTimestamp }}";
    // Templates of SPIRE up to 0.12 have no slash at their beginning.
    let server = world.server(&format!(
        "agent_path_template = \"{{{{ .PluginName }}}}/{{{{ .ProjectID }}}}/{{{{ .InstanceID }}}}/{fields}\""
    ));
    assert_eq!(
        world.attest(&*server, &world.claims()).await.found().agent_id,
        format!(
            "spiffe://example.org/spire/agent/gcp_iit/big-kahuna-123456/7152993111222333444/\
             123456789-compute_developer.gserviceaccount.com/123456789012/us-west1-b/blog-server/{}",
            world.vm.created_at
        )
    );
}
