//! `azure_imds`: sections that cannot work, Z24 and Z25 among them.

use std::time::{Duration, Instant};

use spire_core::clock::Clock;
use spire_fakes::azure::{CertificateKind, DOMAIN};
use spire_fakes::http::Trouble;

use crate::support::{Scene, imds_server, imds_tenant};

async fn mistake(text: &str) -> String {
    match imds_server(text, Clock::system()).await {
        Err(error) => error,
        Ok(_) => panic!("{text} is accepted"),
    }
}

#[tokio::test]
async fn mistakes_of_the_section_are_named_at_once() {
    let tenant = |body: &str| format!("tenants = {{ {DOMAIN:?} = {{ {body} }} }}\n");
    for (text, sentence) in [
        (String::new(), "at least one tenant must be configured"),
        (tenant("secret_auth = { app_id = \"a\" }"), "secret_auth requires app_secret"),
        (tenant("secret_auth = { app_secret = \"a\" }"), "secret_auth requires app_id"),
        (tenant("token_auth = { app_id = \"a\" }"), "token_auth requires token_path"),
        (tenant("token_auth = { token_path = \"a\" }"), "token_auth requires app_id"),
        (
            tenant(
                "token_auth = { app_id = \"a\", token_path = \"b\" }\n secret_auth = { app_id = \"a\", app_secret = \"b\" }",
            ),
            "only one of secret_auth and token_auth",
        ),
        (tenant("restrict_to_subscriptions = [\" \"]"), "must not hold an empty entry"),
        (tenant("") + "allowed_metadata_domains = [\"\"]", "must not hold an empty domain"),
        (tenant("") + "agent_path_template = \"/{{ .Nonce }}\"", "must not use .Nonce"),
        ("tenants = { \"a/b\" = {} }".to_owned(), "is not a domain"),
    ] {
        let error = mistake(&text).await;
        assert!(error.contains(sentence), "{text}: {error}");
    }
    let both = mistake("allowed_metadata_domains = [\"\"]\nmax_instance_age = \"x\"").await;
    for sentence in ["at least one tenant", "empty domain", "max_instance_age"] {
        assert!(both.contains(sentence), "{both}");
    }
}

#[tokio::test]
async fn z24_trust_bundles_that_are_none() {
    let scene = Scene::new().await;
    let path = scene.folder.path().join("bundle.pem");
    let text = imds_tenant(DOMAIN, "") + &format!("trust_bundle_path = {path:?}");
    assert!(mistake(&text).await.contains("unable to load trust bundle"));
    let leaf = scene.azure.pki.issue(&CertificateKind::default()).pem();
    for (content, sentence) in [
        (String::new(), "no PEM blocks"),
        (leaf.clone(), "not of a CA"),
        (scene.azure.pki.root_pem() + &leaf, "not of a CA"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = mistake(&text).await;
        assert!(error.contains(sentence), "{error}");
    }
}

#[tokio::test]
async fn z25_tenants_that_cannot_be_resolved() {
    let scene = Scene::new().await;
    let text = |domain: &str| scene.azure.server_endpoints() + &imds_tenant(domain, "");
    assert!(mistake(&text("nobody.example")).await.contains("unable to resolve tenant"));
    let login = &scene.azure.login;
    let issuer = |issuer: &str| Trouble::Body(format!(r#"{{"issuer":"{issuer}"}}"#).into());
    for trouble in [
        issuer("https://sts.windows.net/"),
        issuer("https://sts.windows.net/x/"),
        issuer("https://sts.windows.net.evil/8f2a7c11-9a4e-4f0b-8d6c-3b1d0f5e7a01/"),
        issuer("https://sts.chinacloudapi.cn/8f2a7c11-9a4e-4f0b-8d6c-3b1d0f5e7a01/"),
        Trouble::Body("<html>".into()),
        Trouble::Status(http::StatusCode::NOT_FOUND),
        Trouble::Redirect("http://127.0.0.1:1".into()),
    ] {
        login.fail_next(1, trouble.clone());
        let error = mistake(&text(DOMAIN)).await;
        assert!(error.contains("unable to resolve tenant"), "{trouble:?}: {error}");
    }
    login.fail_always(Trouble::Hang);
    let began = Instant::now();
    assert!(mistake(&text(DOMAIN)).await.contains("no answer within 8 s"));
    assert!(began.elapsed() < Duration::from_secs(15));
}
