//! `awssecret` against a small Secrets Manager.

use std::fs;

use http::StatusCode;
use spire_core::upstream::UpstreamError;
use spire_fakes::aws::{Aws, HOME_ACCOUNT};
use spire_fakes::http::Trouble;
use spire_upstream_ca::awssecret::PLUGIN;

use crate::harness::{Folder, HOUR, build, domain, key, mint, now, request};

const CURVE: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const REGION: &str = "us-west-2";
const KEY: &str = "access_key_id = \"AKIA\"\nsecret_access_key = \"secret\"\n";
const NAMES: &str = "cert_file_arn = \"cert\"\nkey_file_arn = \"key\"\n";

/// Puts a file of the folder into a secret.
fn put(aws: &Aws, region: &str, name: &str, folder: &Folder, file: &str) {
    let text = fs::read_to_string(folder.path(file)).unwrap();
    aws.world().secrets.insert((region.to_owned(), name.to_owned()), text);
}

fn endpoints(aws: &Aws) -> String {
    let url = aws.url();
    format!("region = {REGION:?}\nendpoints {{ secretsmanager = {url:?}, sts = {url:?} }}\n")
}

/// A root of OpenSSL in two secrets.
async fn world() -> (Aws, Folder) {
    let (aws, folder) = (Aws::start().await, Folder::new());
    folder.root("acme", CURVE, 30);
    put(&aws, REGION, "cert", &folder, "acme.crt");
    put(&aws, REGION, "key", &folder, "acme.key");
    (aws, folder)
}

#[tokio::test]
async fn secrets_are_found_by_name_and_by_arn_in_other_regions() {
    let (aws, folder, clock) = (Aws::start().await, Folder::new(), now());
    folder.root("root", "rsa:2048", 30);
    folder.intermediate("middle", "root", "");
    put(&aws, REGION, "cert", &folder, "middle.crt");
    put(&aws, "eu-west-1", "team/key", &folder, "middle.key");
    put(&aws, "eu-central-1", "roots", &folder, "root.crt");
    let arn =
        |region, name| format!("arn:aws:secretsmanager:{region}:{HOME_ACCOUNT}:secret:{name}");
    let settings = format!(
        "{}{KEY}cert_file_arn = \"cert\"\nkey_file_arn = {:?}\nbundle_file_arn = {:?}\nttl = \"1h\"",
        endpoints(&aws),
        arn("eu-west-1", "team/key"),
        arn("eu-central-1", "roots")
    );
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    let minted = mint(&folder, &*upstream, &clock).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (2, 1));
}

#[tokio::test]
async fn a_role_is_assumed_once_and_its_key_is_used() {
    let (aws, folder) = world().await;
    let account = "210987654321";
    let role = format!("assume_role_arn = \"arn:aws:iam::{account}:role/signer\"\n");
    let settings = format!("{}{KEY}{NAMES}{role}", endpoints(&aws));
    let clock = now();
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    let csr = request(&key(), &domain()).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
    assert!(error.contains("unable to load upstream CA cert: GetSecretValue failed"), "{error}");

    aws.world().roles.insert((account.to_owned(), "signer".to_owned()));
    let before = aws.count("AssumeRole");
    mint(&folder, &*upstream, &clock).await;
    mint(&folder, &*upstream, &clock).await;
    assert_eq!(aws.count("AssumeRole"), before + 1);
    let requests = aws.server().requests();
    let last = requests.last().unwrap().header("authorization").to_owned();
    assert!(last.contains(&format!("ASIA{account}")), "{last}");
}

#[tokio::test]
async fn a_secret_that_is_rotated_is_noticed_and_half_a_rotation_changes_nothing() {
    let ((aws, folder), clock) = (world().await, now());
    let settings = format!("{}{KEY}{NAMES}", endpoints(&aws));
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    let first = mint(&folder, &*upstream, &clock).await;

    folder.root("acme", CURVE, 30);
    put(&aws, REGION, "cert", &folder, "acme.crt");
    assert_eq!(upstream.bundle().await.unwrap().roots, first.roots);
    assert_eq!(mint(&folder, &*upstream, &clock).await.roots, first.roots);

    put(&aws, REGION, "key", &folder, "acme.key");
    let told = upstream.bundle().await.unwrap().roots;
    assert_ne!(told, first.roots);
    assert_eq!(mint(&folder, &*upstream, &clock).await.roots, told);
}

#[tokio::test]
async fn while_it_is_away_the_last_ca_signs_until_it_ends() {
    let ((aws, folder), clock) = (world().await, now());
    let settings = format!("{}{KEY}{NAMES}", endpoints(&aws));
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    mint(&folder, &*upstream, &clock).await;
    aws.world().forbidden.insert("GetSecretValue".to_owned());
    mint(&folder, &*upstream, &clock).await;
    clock.advance(jiff::SignedDuration::from_hours(24 * 31));
    let csr = request(&key(), &domain()).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "it is asked again soon: {error}");
    assert!(error.to_string().contains("AccessDenied"), "{error}");

    aws.world().forbidden.clear();
    folder.root("acme", CURVE, 60);
    put(&aws, REGION, "cert", &folder, "acme.crt");
    put(&aws, REGION, "key", &folder, "acme.key");
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn a_call_that_is_throttled_is_made_again() {
    let ((aws, folder), clock) = (world().await, now());
    let settings = format!("{}{KEY}{NAMES}", endpoints(&aws));
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    aws.fail("GetSecretValue", 1, Trouble::Status(StatusCode::SERVICE_UNAVAILABLE));
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn a_secret_without_measure_is_refused() {
    let ((aws, folder), clock) = (world().await, now());
    let settings = format!("{}{KEY}{NAMES}", endpoints(&aws));
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    let csr = request(&key(), &domain()).await;
    let grow = || {
        let text = "x".repeat(10 << 20);
        aws.world().secrets.insert((REGION.to_owned(), "cert".to_owned()), text);
    };
    grow();
    let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
    assert!(error.contains("secret cert is larger than 65536 bytes"), "{error}");

    // After one that was good, that one goes on.
    put(&aws, REGION, "cert", &folder, "acme.crt");
    let good = mint(&folder, &*upstream, &clock).await;
    grow();
    assert_eq!(mint(&folder, &*upstream, &clock).await.roots, good.roots);
}

#[test]
fn what_is_missing_is_named() {
    let error = build(&PLUGIN, "region = \"us-west-2\"\naccess_key_id = \"AKIA\"", &now());
    let error = error.err().unwrap();
    for sentence in [
        "cert_file_arn is required",
        "key_file_arn is required",
        "configuration has access_key_id but no secret_access_key",
    ] {
        assert!(error.contains(sentence), "{error}");
    }
}
