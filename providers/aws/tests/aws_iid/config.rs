//! A31 and what else a section may hold.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use spire_core::catalog::PluginError;
use spire_core::clock::Clock;
use spire_core::config::Section;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::support::{SIGNER, build, host, time};

/// Keeps the warnings that are logged.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut |field: &Field, value: &dyn Debug| {
            if *event.metadata().level() == Level::WARN && field.name() == "message" {
                self.0.lock().unwrap().push(format!("{value:?}"));
            }
        });
    }
}

/// What `act` warns of.
fn logged<T>(act: impl FnOnce() -> T) -> Vec<String> {
    let messages = Messages::default();
    let subscriber = tracing_subscriber::registry().with(messages.clone());
    let kept = tracing::subscriber::with_default(subscriber, act);
    drop(kept);
    std::mem::take(&mut *messages.0.lock().unwrap())
}

fn mistakes(text: &str) -> Vec<String> {
    match build(text, &Clock::system()) {
        Ok(_) => Vec::new(),
        Err(PluginError::Config(errors)) => errors.0.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a31_mistakes_are_all_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (good, words) = (path("good", "[\"123456789012\"]"), path("words", "[\"twelve\"]"));
    let api = r#"management_account_id = "123456789012", assume_org_role = "org""#;
    let block = |inside: &str| format!("verify_organization = {{ {inside} }}");
    for (text, expected) in [
        ("partition = \"aws-mars\"".to_owned(), "invalid partition"),
        ("access_key_id = \"a\"".to_owned(), "has access_key_id but no secret_access_key"),
        ("secret_access_key = \"a\"".to_owned(), "has secret_access_key but no access_key_id"),
        (block(""), "verify_organization is empty"),
        (block("assume_org_role = \"org\""), "management_account_id is required"),
        (block(&format!("{api}, org_account_map_ttl = \"30s\"")), "must be at least 1m"),
        (block(&format!("{api}, account_list_file = {good:?}")), "cannot both be configured"),
        (block("account_list_file = \"/nowhere\""), "unable to read account_list_file"),
        (block(&format!("account_list_file = {words:?}")), "is not an ID of 12 digits"),
        ("validate_eks_cluster_membership = { }".to_owned(), "eks_cluster_names is empty"),
        ("agent_path_template = \"/{{ .A\"".to_owned(), "failed to parse agent path template"),
        (
            r#"agent_path_template = "{{ printf \"/%s\" .InstanceID }}""#.to_owned(),
            "write slashes outside of the braces",
        ),
        ("allowed_account_ids = [\"1\"]".to_owned(), "is not the ID of an account"),
        ("allowed_regions = [\"Oregon\"]".to_owned(), "is not the name of a region"),
        ("certificates_dir = \"/nowhere\"".to_owned(), "unable to load AWS certificates"),
        ("endpoints { ec2 = \"ftp://a\" }".to_owned(), "not an http or https URL"),
        ("max_instance_age = \"soon\"".to_owned(), "max_instance_age"),
    ] {
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
    let all = mistakes("partition = \"x\"\naccess_key_id = \"a\"\nallowed_regions = [\"X\"]");
    assert_eq!(all.len(), 3, "{all:?}");
}

#[test]
fn what_is_right_is_taken() {
    for text in [
        "",
        "partition = \"aws-us-gov\"",
        "partition = \"aws-eusc\"",
        "verify_organization { management_account_id = \"123456789012\", assume_org_role = \"o\" }",
        "account_ids_for_local_validation = [\"123456789012\"]",
    ] {
        assert_eq!(mistakes(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn certificates_of_a_folder() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = format!("certificates_dir = {:?}", folder.path());
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(mistakes(&text)[0].contains("there is no file <region>.pem"));
    file("README.md", "nothing");
    file("us-west-2.pem", SIGNER.certificate());
    assert_eq!(mistakes(&text), Vec::<String>::new());
    file("us-east-1.pem", "nothing");
    assert!(mistakes(&text)[0].contains("no certificate of an RSA key"));
    file("us-east-1.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(mistakes(&text).len(), 1);
    std::fs::remove_file(folder.path().join("us-east-1.pem")).unwrap();
    file("Oregon.pem", SIGNER.certificate());
    assert!(mistakes(&text)[0].contains("not named after a region"));
}

#[test]
fn what_is_lax_on_the_server_is_warned_about() {
    const RSA1024: &str = "allow_rsa1024_signature is true";
    const ROLE: &str = "assume_role is set, but";
    let clock = Clock::standing_at(time("2026-11-27T00:00:00Z"));
    let organization = "verify_organization = { management_account_id = \"123456789012\", assume_org_role = \"o\" }";
    let strict = "allow_rsa1024_signature = false";
    let assumes = format!("{strict}\nassume_role = \"r\"");
    for (text, warnings) in [
        (String::new(), &[RSA1024][..]),
        ("assume_role = \"r\"".to_owned(), &[RSA1024, ROLE]),
        (strict.to_owned(), &[]),
        (assumes.clone(), &[ROLE]),
        (format!("{assumes}\nallowed_account_ids = [\"123456789012\"]"), &[]),
        (format!("{assumes}\n{organization}"), &[]),
        (format!("{strict}\nassume_role = \"\""), &[]),
        (format!("{strict}\npartition = \"aws-cn\""), &["partition has no effect"]),
    ] {
        let logged = logged(|| build(&text, &clock).unwrap());
        assert_eq!(logged.len(), warnings.len(), "{text}: {logged:?}");
        for warning in warnings {
            assert!(logged.iter().any(|line| line.contains(warning)), "{text}: {logged:?}");
        }
    }
    let later = Clock::standing_at(time("2028-06-01T00:00:00Z"));
    let logged = logged(|| build(strict, &later).unwrap());
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert!(logged[0].contains("the AWS certificate of cn-north-1 (RSA"), "{logged:?}");
}

#[test]
fn an_agent_that_asks_without_a_token_is_warned_about() {
    let agent = |text: &str| {
        let section = Section::parse(text).unwrap();
        let host = host(&Clock::system());
        logged(|| (spire_provider_aws::agent::PLUGIN.build)(&section, &host).unwrap())
    };
    assert_eq!(agent(""), Vec::<String>::new());
    let here = "http://169.254.169.254/latest";
    assert_eq!(agent(&format!("ec2_metadata_endpoint = {here:?}")), Vec::<String>::new());
    let away = agent("ec2_metadata_endpoint = \"http://192.0.2.7/latest\"");
    assert!(away.len() == 1 && away[0].contains("ec2_metadata_endpoint is reached"), "{away:?}");
    let warned = agent("allow_imds_v1 = true");
    assert!(warned.len() == 1 && warned[0].contains("allow_imds_v1 is set"), "{warned:?}");
}
