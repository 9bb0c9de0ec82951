//! A31 and what else a section may hold.

use spire_core::catalog::PluginError;
use spire_core::clock::Clock;

use super::support::{SIGNER, build};

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
