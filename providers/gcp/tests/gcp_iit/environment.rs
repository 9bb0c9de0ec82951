//! What both halves take from the environment.

use std::path::Path;
use std::process::Command;

use spire_core::clock::Clock;
use spire_core::config::Section;

use crate::world::Outcome::Accepted;
use crate::world::{World, agent, attest, host};

/// The server's section, where this program runs itself.
const INNER: &str = "GCP_IIT_TEST_SECTION";

/// Collects evidence and has it attested in a process of its own, whose home is `folder`.
async fn attest_in(environment: &[(&str, &str)], section: &str, folder: &Path) {
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "environment::metadata_server_and_credentials_that_no_section_names"]);
    inner.env_remove("GOOGLE_APPLICATION_CREDENTIALS");
    inner.env(INNER, section).env("HOME", folder).envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || inner.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A process has one environment, so that this test runs itself again in others.
#[tokio::test]
async fn metadata_server_and_credentials_that_no_section_names() {
    if let Ok(section) = std::env::var(INNER) {
        let evidence = agent("").collect().await.unwrap();
        let section = Section::parse(&section).unwrap();
        let server = (spire_provider_gcp::server::PLUGIN.build)(&section, &host(&Clock::system()));
        attest(&*server.unwrap(), evidence.payload()).await.is(Accepted, "both halves");
        return;
    }
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let tokens = &world.google.tokens;
    let metadata = world.google.launch(&world.vm).await;
    let section = format!(
        "projectid_allow_list = [\"{}\"]\nuse_instance_metadata = true\n{}",
        world.vm.project_id,
        world.google.server_endpoints()
    );
    let asked = |end: &str| {
        metadata.server().requests().iter().filter(|request| request.path.ends_with(end)).count()
    };
    let metadata_host = metadata.host();
    let place = ("GCE_METADATA_HOST", metadata_host.as_str());

    attest_in(&[place], &section, folder.path()).await;
    assert_eq!((asked("/identity"), asked("/token"), tokens.server().count()), (1, 1, 0));

    let named = folder.path().join("credentials.json");
    std::fs::write(&named, tokens.service_account_file()).unwrap();
    let variable = ("GOOGLE_APPLICATION_CREDENTIALS", named.to_str().unwrap());
    attest_in(&[place, variable], &section, folder.path()).await;
    assert_eq!((asked("/identity"), asked("/token"), tokens.server().count()), (2, 1, 1));

    let well_known = folder.path().join(".config/gcloud/application_default_credentials.json");
    std::fs::create_dir_all(well_known.parent().unwrap()).unwrap();
    std::fs::write(&well_known, tokens.user_file()).unwrap();
    attest_in(&[place], &section, folder.path()).await;
    assert_eq!((asked("/identity"), asked("/token"), tokens.server().count()), (3, 1, 2));
}
