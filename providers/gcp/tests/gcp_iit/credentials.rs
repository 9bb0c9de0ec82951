//! The server's own credentials, from each kind of file.

use std::path::PathBuf;

use http::StatusCode;
use jiff::SignedDuration;
use spire_core::config::Section;
use spire_fakes::gcp::SubjectSource;
use spire_fakes::http::Trouble;
use spire_fakes::tls::TlsFront;

use crate::world::Outcome::{Accepted, Unavailable};
use crate::world::{World, attest, host};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The configuration of a server with credentials of this text.
    fn config(&self, text: &str) -> String {
        let path = self.write("credentials.json", text);
        format!("use_instance_metadata = true\nservice_account_file = {path:?}")
    }
}

#[tokio::test]
async fn every_kind_of_file_gives_a_token_that_the_api_takes() {
    let (world, files) = (World::new().await, Files::new());
    let tokens = &world.google.tokens;
    let subject = files.write("subject", tokens.subject_token());
    for (kind, text) in [
        ("service account", tokens.service_account_file()),
        ("user", tokens.user_file()),
        ("user who takes on an identity", tokens.impersonating_user_file()),
        ("subject in a file", tokens.external_file(SubjectSource::File(&subject), false)),
        ("subject at a URL", tokens.external_file(SubjectSource::Url, false)),
        ("subject in a file, another identity", {
            tokens.external_file(SubjectSource::File(&subject), true)
        }),
        ("subject at a URL, another identity", tokens.external_file(SubjectSource::Url, true)),
    ] {
        let server = world.server(&files.config(&text));
        world.attest(&*server, &world.claims()).await.is(Accepted, kind);
    }
}

/// Google's keys, the Compute API, and the token endpoint that the file with the key names.
#[tokio::test]
async fn private_endpoints_are_reached_by_tls_below_a_private_ca() {
    let (world, files) = (World::new().await, Files::new());
    let google = &world.google;
    let tokens = TlsFront::to(google.tokens.server()).await;
    let certificates = TlsFront::to(google.certificates.server()).await;
    let compute = TlsFront::to(google.compute.server()).await;
    let key = google.tokens.service_account_file();
    let key = key.replace(&google.tokens.server().url(), &tokens.url());
    let token = world.token(&world.claims());
    let attest = async |trusted: &[&TlsFront]| {
        let trusted: String = trusted.iter().map(|front| front.authority()).collect();
        let config = format!(
            "projectid_allow_list = [{:?}]\n{}\nendpoints {{\n ca_bundle_path = {:?}\n \
             token_certificates = {:?}\n compute = {:?}\n}}",
            world.vm.project_id,
            files.config(&key),
            files.write("authorities.pem", &trusted),
            certificates.url(),
            compute.url()
        );
        let section = Section::parse(&config).unwrap();
        let server = (spire_provider_gcp::server::PLUGIN.build)(&section, &host(&world.clock));
        attest(&*server.unwrap(), token.as_bytes()).await
    };
    let verdict = attest(&[&certificates, &compute]).await;
    verdict.is(Unavailable, "the token endpoint is not trusted");
    assert!(verdict.error().contains(&tokens.url()), "{}", verdict.error());
    assert_eq!(google.tokens.server().count(), 0);
    attest(&[&certificates, &compute, &tokens]).await.is(Accepted, "all are trusted");
}

#[tokio::test]
async fn a_token_is_used_until_it_expires_or_the_api_refuses_it() {
    let (world, files) = (World::new().await, Files::new());
    let tokens = &world.google.tokens;
    let server = world.server(&files.config(&tokens.service_account_file()));
    let mut number = 0;
    let mut attest = async || {
        number += 1;
        let vm = spire_fakes::gcp::Vm::new(&format!("vm-{number}"), number);
        world.google.compute.add(&vm);
        let issued_at = u64::try_from(world.clock.now().as_second()).unwrap();
        let claims = vm.claims(spire_fakes::gcp::AUDIENCE, issued_at);
        world.attest(&*server, &claims).await.is(Accepted, "a node");
        tokens.server().count()
    };
    assert_eq!((attest().await, attest().await), (1, 1));
    world.clock.advance(SignedDuration::from_mins(60));
    assert_eq!((attest().await, attest().await), (2, 2));
    tokens.revoke();
    assert_eq!((attest().await, attest().await), (3, 3));
}

#[tokio::test]
async fn x14_token_endpoints_in_trouble_are_the_clouds_trouble() {
    let (world, files) = (World::new().await, Files::new());
    let tokens = &world.google.tokens;
    let subject = files.write("subject", tokens.subject_token());
    let external = tokens.external_file(SubjectSource::File(&subject), false);
    let server = world.server(&files.config(&external));
    let claims = world.claims();
    let attest = || world.attest(&*server, &claims);

    tokens.server().fail_always(Trouble::Status(StatusCode::FORBIDDEN));
    let verdict = attest().await;
    verdict.is(Unavailable, "403");
    assert!(verdict.error().contains("no credentials for the Compute API"), "{}", verdict.error());
    tokens.server().fail_always(Trouble::Body("<html>".into()));
    attest().await.is(Unavailable, "no token");
    tokens.server().fail_always(None);

    for wrong in ["", "expired-token"] {
        files.write("subject", wrong);
        attest().await.is(Unavailable, "wrong subject token");
    }
    files.write("subject", &" ".repeat(65_537));
    let verdict = attest().await;
    verdict.is(Unavailable, "a subject token without end");
    assert!(verdict.error().contains("more than 65536 bytes"), "{}", verdict.error());
    std::fs::remove_file(&subject).unwrap();
    attest().await.is(Unavailable, "no subject token");
    // It is read anew each time.
    files.write("subject", tokens.subject_token());
    attest().await.is(Accepted, "a good one");
}

#[tokio::test]
async fn files_that_are_no_credentials_are_refused_at_the_start() {
    let (world, files) = (World::new().await, Files::new());
    let refusal = |text: &str| {
        let text = format!("projectid_allow_list = [\"p\"]\n{}", files.config(text));
        let section = Section::parse(&text).unwrap();
        let built = (spire_provider_gcp::server::PLUGIN.build)(&section, &host(&world.clock));
        built.err().expect("it is refused").to_string()
    };
    let key = world.google.tokens.service_account_file();
    for (text, part) in [
        (String::new(), "no credentials of a kind that is supported"),
        ("[]".to_owned(), "no credentials of a kind that is supported"),
        (r#"{"type": "gdch_service_account"}"#.to_owned(), "external_account"),
        (r#"{"type": "service_account"}"#.to_owned(), "missing field"),
        (key.replace("BEGIN PRIVATE KEY", "BEGIN NOTHING"), "key"),
        (
            r#"{"type": "external_account", "audience": "a", "subject_token_type": "t",
                "token_url": "http://x", "credential_source": {"executable": {"command": "c"}}}"#
                .to_owned(),
            "executables are not supported",
        ),
        (" ".repeat(70 << 10), "more than 65536 bytes"),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(part) && refusal.contains("credentials.json"), "{refusal}");
        assert!(!refusal.contains("PRIVATE KEY"), "{refusal}");
    }
}
