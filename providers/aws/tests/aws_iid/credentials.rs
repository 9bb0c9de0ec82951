//! A32: the credentials of the environment.

use std::process::Command;

use spire_core::clock::Clock;
use spire_fakes::aws::Aws;

use super::support::{REGION, SIGNER, build, genuine, instance, show};

/// Where the inner process finds the configuration.
const INNER: &str = "AWS_IID_TEST_CONFIG";

/// A process has one environment, so that this test runs itself again in another.
#[tokio::test]
async fn a32_temporary_credentials_of_the_environment() {
    if let Ok(config) = std::env::var(INNER) {
        let plugin = build(&config, &Clock::system()).unwrap();
        show(&*plugin, &genuine_of_file(), true).await.accepted();
        return;
    }
    let aws = Aws::start().await;
    aws.world().instances.push(instance());
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join(format!("{REGION}.pem")), SIGNER.pem()).unwrap();
    let evidence = folder.path().join("evidence");
    std::fs::write(&evidence, genuine()).unwrap();
    let config = format!("certificates_dir = {:?}\n{}", folder.path(), aws.endpoints());
    let output = tokio::task::spawn_blocking(move || {
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "credentials::a32_temporary_credentials_of_the_environment"]);
        inner.env(INNER, config).env("AWS_IID_TEST_EVIDENCE", evidence);
        inner.env("AWS_ACCESS_KEY_ID", "ASIA123456789012").env("AWS_SECRET_ACCESS_KEY", "secret");
        inner.env("AWS_SESSION_TOKEN", "session").output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let requests = aws.server().requests();
    assert!(requests.iter().any(|request| request.header("x-amz-security-token") == "session"));
}

fn genuine_of_file() -> Vec<u8> {
    std::fs::read(std::env::var("AWS_IID_TEST_EVIDENCE").unwrap()).unwrap()
}
