//! By which credentials AWS is asked, A32 among them, and that private endpoints are trusted.

use std::path::Path;
use std::process::Command;

use futures::future::join_all;
use spire_core::clock::Clock;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Imds, Instance, Mode, WEB_IDENTITY};
use spire_fakes::tls::TlsFront;
use tempfile::TempDir;

use super::support::{REGION, SIGNER, Verdict, build, genuine, instance, show};

/// Where the inner process finds the configuration.
const INNER: &str = "AWS_IID_TEST_CONFIG";
const EVIDENCE: &str = "AWS_IID_TEST_EVIDENCE";

/// An AWS with one instance, and a folder with the key of its region and the instance's evidence.
async fn world() -> (Aws, TempDir) {
    let (aws, folder) = (Aws::start().await, TempDir::new().unwrap());
    aws.world().instances.push(instance());
    aws.world().roles.insert((HOME_ACCOUNT.to_owned(), "attest".to_owned()));
    std::fs::write(folder.path().join(format!("{REGION}.pem")), SIGNER.pem()).unwrap();
    std::fs::write(folder.path().join("evidence"), genuine()).unwrap();
    (aws, folder)
}

/// Attests in a process of its own, by this environment and a section without a key.
async fn attest_in(environment: &[(&str, &str)], config: &str, folder: &Path) {
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "credentials::a32_credentials_that_are_not_in_the_section"]);
    inner.env(INNER, format!("certificates_dir = {folder:?}\n{config}"));
    inner.env(EVIDENCE, folder.join("evidence")).env("HOME", folder);
    inner.env("AWS_EC2_METADATA_DISABLED", "true").envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || inner.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A process has one environment, so that this test runs itself again in others.
#[tokio::test]
async fn a32_credentials_that_are_not_in_the_section() {
    if let Ok(config) = std::env::var(INNER) {
        let plugin = build(&config, &Clock::system()).unwrap();
        let evidence = std::fs::read_to_string(std::env::var(EVIDENCE).unwrap()).unwrap();
        let nodes = evidence.lines().map(|payload| show(&*plugin, payload.as_bytes(), true));
        join_all(nodes).await.into_iter().for_each(|verdict| drop(verdict.accepted()));
        return;
    }
    let (aws, folder) = world().await;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = |session: &str| {
        format!(
            "[profile p]\naws_access_key_id = ASIA{HOME_ACCOUNT}\naws_secret_access_key = s\n\
             aws_session_token = {session}\n"
        )
    };
    let printed = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"ASIA{HOME_ACCOUNT}\", \"SecretAccessKey\": \"s\", \
         \"SessionToken\": \"of-process\"}}"
    );
    let process = format!("[profile p]\ncredential_process = cat {}\n", file("keys", &printed));
    let (profile, process) = (file("profile", &keys("of-profile")), file("process", &process));
    let (token, url) = (file("token", WEB_IDENTITY), aws.url());
    let role = format!("arn:aws:iam::{HOME_ACCOUNT}:role/attest");
    let name = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/Server");
    let host = Instance { profile: Some(name), ..instance() };
    let imds = Imds::of(Mode::Version2, &host).await;
    let metadata = imds.url();
    let key = format!("ASIA{HOME_ACCOUNT}");
    for (environment, session) in [
        (
            vec![
                ("AWS_ACCESS_KEY_ID", key.as_str()),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_SESSION_TOKEN", "of-environment"),
            ],
            "of-environment",
        ),
        (vec![("AWS_CONFIG_FILE", &profile), ("AWS_PROFILE", "p")], "of-profile"),
        (vec![("AWS_CONFIG_FILE", &process), ("AWS_PROFILE", "p")], "of-process"),
        (
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                ("AWS_ROLE_ARN", &role),
                ("AWS_ENDPOINT_URL_STS", &url),
            ],
            "session",
        ),
        (
            vec![
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str()),
                ("AWS_EC2_METADATA_DISABLED", "false"),
            ],
            "session",
        ),
    ] {
        let before = aws.count("DescribeInstances");
        attest_in(&environment, &aws.endpoints(), folder.path()).await;
        assert_eq!(aws.count("DescribeInstances"), before + 1);
        let requests = aws.server().requests();
        let shown = requests.last().unwrap().header("x-amz-security-token");
        assert_eq!(shown, session, "{environment:?}");
    }
    assert_eq!(aws.count("AssumeRoleWithWebIdentity"), 1);
    assert!(imds.server().requests().iter().any(|one| one.path.ends_with("/Server")));
}

#[tokio::test]
async fn the_servers_own_credentials_are_got_once_for_all_accounts() {
    let (aws, folder) = world().await;
    let mut evidence = Vec::new();
    for number in 0..20 {
        let account = format!("{:012}", 100 + number);
        let node = Instance::new(&account, REGION, &format!("i-{number:017x}"));
        evidence.push(String::from_utf8(SIGNER.evidence(&node, false).payload()).unwrap());
        aws.world().instances.push(node);
        aws.world().roles.insert((account, "attest".to_owned()));
    }
    std::fs::write(folder.path().join("evidence"), evidence.join("\n")).unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, WEB_IDENTITY).unwrap();
    let role = format!("arn:aws:iam::{HOME_ACCOUNT}:role/attest");
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", &role),
        ("AWS_ENDPOINT_URL_STS", &aws.url()),
    ];
    let config = format!("assume_role = \"attest\"\n{}", aws.endpoints());
    attest_in(&environment, &config, folder.path()).await;
    assert_eq!((aws.count("AssumeRole"), aws.count("AssumeRoleWithWebIdentity")), (20, 1));
}

#[tokio::test]
async fn the_environment_places_services_as_well() {
    let (aws, folder) = world().await;
    let url = aws.url();
    let profile = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/Blog");
    aws.world().instances[0].profile = Some(profile);
    aws.world().profiles.insert((HOME_ACCOUNT.to_owned(), "Blog".to_owned()), Vec::new());
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIAFAKE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_EC2", &url),
        ("AWS_ENDPOINT_URL_IAM", &url),
    ];
    attest_in(&environment, "", folder.path()).await;
    assert_eq!((aws.count("DescribeInstances"), aws.count("GetInstanceProfile")), (1, 1));
}

/// The SDK makes its connections itself: to each service, and to STS for the role.
#[tokio::test]
async fn private_endpoints_are_reached_by_tls_below_a_private_ca() {
    let (aws, folder) = world().await;
    let front = TlsFront::to(aws.server()).await;
    let authority = folder.path().join("authority");
    std::fs::write(&authority, front.authority()).unwrap();
    let private = aws.endpoints().replace(&aws.url(), &front.url());
    let trusting = private.replace('}', &format!("ca_bundle_path = {authority:?}\n}}"));
    let attest = async |endpoints: &str| -> Verdict {
        let config = format!(
            "access_key_id = \"AKIAFAKE\"\nsecret_access_key = \"secret\"\n\
             assume_role = \"attest\"\ncertificates_dir = {:?}\n{endpoints}",
            folder.path()
        );
        show(&*build(&config, &Clock::system()).unwrap(), &genuine(), true).await
    };
    attest(&private).await.unavailable();
    assert_eq!(aws.server().count(), 0);
    attest(&trusting).await.accepted();
    assert_eq!((aws.count("AssumeRole"), aws.count("DescribeInstances")), (1, 1));
}
