//! What both halves take from the environment.

use std::path::Path;
use std::process::Command;

use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_fakes::aws::{Imds, Instance, Mode};
use spire_fakes::gcp::SubjectSource;

use crate::world::Outcome::Accepted;
use crate::world::{World, agent, attest, host};

/// The server's section, where this program runs itself.
const INNER: &str = "GCP_IIT_TEST_SECTION";

/// Collects evidence and has it attested in a process of its own, whose home is `folder`.
async fn attest_in(environment: &[(&str, &str)], section: &str, folder: &Path) {
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "environment::metadata_server_and_credentials_that_no_section_names"]);
    for name in [
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "NO_PROXY",
        "no_proxy",
    ] {
        inner.env_remove(name);
    }
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

    // A proxy that is there for the net sees nothing of the machine's own metadata service.
    let mut host = Instance::new("123456789012", "us-east-1", "i-1");
    host.profile = Some("arn:aws:iam::123456789012:instance-profile/spire-server".to_owned());
    let imds = Imds::of(Mode::Version2, &host).await;
    let by_name = |text: &str| text.replace("127.0.0.1", "localhost");
    for impersonates in [false, true] {
        let file = by_name(&tokens.external_file(SubjectSource::Aws("IMDS"), impersonates));
        std::fs::write(&named, file.replace("IMDS", &imds.url())).unwrap();
        let proxy = ("HTTP_PROXY", "http://127.0.0.1:1");
        let environment = [place, variable, proxy, ("NO_PROXY", "localhost")];
        let before = imds.server().count();
        attest_in(&environment, &by_name(&section), folder.path()).await;
        assert!(imds.server().count() > before);
    }
    let (identities, given) = (asked("/identity"), tokens.server().count());

    let well_known = folder.path().join(".config/gcloud/application_default_credentials.json");
    std::fs::create_dir_all(well_known.parent().unwrap()).unwrap();
    std::fs::write(&well_known, tokens.user_file()).unwrap();
    attest_in(&[place], &section, folder.path()).await;
    let expected = (identities + 1, 1, given + 1);
    assert_eq!((asked("/identity"), asked("/token"), tokens.server().count()), expected);
}
