//! `aws_pca` against a small AWS Private CA.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use spire_core::config::Section;
use spire_core::keys::SigningKey;
use spire_core::upstream::{UpstreamAuthority, UpstreamError};
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Malice, PrivateCa, action_of};
use spire_fakes::http::{self as fake_http, Trouble};
use spire_upstream_ca::aws_pca::{AwsPca, PLUGIN};
use spire_upstream_ca::check;

use crate::harness::{Folder, HOUR, build, domain, host, key, mint, now, request};

const REGION: &str = "us-west-2";

/// An AWS with a CA, and the settings that lead to it.
struct World {
    aws: Aws,
    arn: String,
}

impl World {
    async fn new() -> Self {
        let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, true);
        Self::with(PrivateCa::below(&root, REGION, 365)).await
    }

    async fn with(authority: PrivateCa) -> Self {
        let (aws, arn) = (Aws::start().await, authority.arn.clone());
        aws.world().authorities.push(authority);
        Self { aws, arn }
    }

    fn build(&self, more: &str) -> Arc<dyn UpstreamAuthority> {
        build(&PLUGIN, &self.settings(more), &now()).unwrap()
    }

    fn settings(&self, more: &str) -> String {
        let (arn, url) = (&self.arn, self.aws.url());
        format!(
            "region = {REGION:?}\ncertificate_authority_arn = {arn:?}\nendpoint = {url:?}\n\
             access_key_id = \"AKIA\"\nsecret_access_key = \"secret\"\n{more}"
        )
    }

    fn change<T>(&self, change: impl FnOnce(&mut PrivateCa) -> T) -> T {
        change(&mut self.aws.world().authorities[0])
    }

    /// The body of the last request for `action`.
    fn asked(&self, action: &str) -> Value {
        let requests = self.aws.server().requests();
        let last = requests.iter().rev().find(|request| action_of(request) == action).unwrap();
        serde_json::from_slice(&last.body).unwrap()
    }
}

#[tokio::test]
async fn it_signs_below_the_root_as_the_facts_say() {
    let (world, folder, clock) = (World::new().await, Folder::new(), now());
    world.change(|authority| authority.in_progress = 2);
    let upstream = world.build("");
    let minted = mint(&folder, &*upstream, &clock).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (2, 1));
    assert_eq!(minted.roots[0].certificate, world.change(|it| it.root_certificate().to_vec()));
    assert_eq!(world.aws.count("GetCertificate"), 3);
    let asked = world.asked("IssueCertificate");
    let template = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1";
    assert_eq!(asked["TemplateArn"], template);
    assert_eq!(asked["SigningAlgorithm"], "SHA256WITHECDSA");
    let ends_at = clock.now().as_second() + 3600;
    assert_eq!(asked["Validity"], json!({ "Type": "ABSOLUTE", "Value": ends_at }));
    let csr = BASE64_STANDARD.decode(asked["Csr"].as_str().unwrap()).unwrap();
    assert!(csr.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----"));
    assert!((1..=36).contains(&asked["IdempotencyToken"].as_str().unwrap().len()));
}

#[tokio::test]
async fn template_algorithm_and_role_are_as_configured() {
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 365, true);
    let (world, folder) = (World::with(root).await, Folder::new());
    world.aws.world().roles.insert((HOME_ACCOUNT.to_owned(), "signer".to_owned()));
    let template = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen2/V1";
    let url = world.aws.url();
    let upstream = world.build(&format!(
        "ca_signing_template_arn = {template:?}\nsigning_algorithm = \"SHA512WITHRSA\"\n\
         assume_role_arn = \"arn:aws:iam::{HOME_ACCOUNT}:role/signer\"\nttl = \"1h\"\n\
         endpoints {{ sts = {url:?} }}"
    ));
    let minted = mint(&folder, &*upstream, &now()).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (1, 1));
    let asked = world.asked("IssueCertificate");
    assert_eq!(
        (&asked["TemplateArn"], &asked["SigningAlgorithm"]),
        (&json!(template), &json!("SHA512WITHRSA"))
    );
    assert_eq!(world.aws.count("AssumeRole"), 1);
}

#[tokio::test]
async fn what_would_outlive_the_authority_ends_with_it() {
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, false);
    let world = World::with(PrivateCa::below(&root, REGION, 2)).await;
    let upstream = world.build("");
    let key = key();
    let csr = request(&key, &domain()).await;
    let minted = upstream.mint(&csr, 100 * HOUR).await.unwrap();
    check(&minted, &key.public_key().spki, &domain(), now().now()).unwrap();
}

#[tokio::test]
async fn one_request_is_paid_for_once() {
    let world = World::new().await;
    let upstream = world.build("");
    let csr = request(&key(), &domain()).await;
    let first = upstream.mint(&csr, HOUR).await.unwrap();
    let second = upstream.mint(&csr, HOUR).await.unwrap();
    assert_eq!(first.chain, second.chain);
    assert_eq!(world.change(|authority| authority.bought()), 1);
}

#[tokio::test]
async fn a_certificate_that_was_not_handed_out_is_asked_for_again_and_bought_once() {
    let world = World::new().await;
    let upstream = world.build("");
    let csr = request(&key(), &domain()).await;
    world.aws.world().forbidden.insert("GetCertificate".to_owned());
    let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
    assert!(error.contains("was not issued"), "{error}");
    world.aws.world().forbidden.clear();
    upstream.mint(&csr, 2 * HOUR).await.unwrap();
    assert_eq!(world.aws.count("IssueCertificate"), 1);

    // One that AWS gave up will never come.
    let csr = request(&key(), &domain()).await;
    let body = r#"{"__type":"RequestFailedException","message":"The request has failed"}"#;
    let failed = fake_http::json(StatusCode::BAD_REQUEST, body);
    world.aws.fail("GetCertificate", 1, Trouble::Answer(failed));
    upstream.mint(&csr, HOUR).await.unwrap_err();
    upstream.mint(&csr, HOUR).await.unwrap();
    assert_eq!(world.aws.count("IssueCertificate"), 3);
}

#[tokio::test]
async fn waiting_for_issuance_ends_and_goes_on_at_the_next_try() {
    let world = World::new().await;
    world.change(|authority| authority.in_progress = usize::MAX);
    let section = Section::parse(&world.settings("")).unwrap();
    let patience = Duration::from_secs(2);
    let upstream = AwsPca::new(&section, &host(&now(), domain()), patience).unwrap();
    let csr = request(&key(), &domain()).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("was not issued"), "{error}");
    // It waits a second and more between two questions.
    let asked = world.aws.count("GetCertificate");
    assert!((1..=3).contains(&asked), "{asked}");

    world.change(PrivateCa::finish);
    upstream.mint(&csr, HOUR).await.unwrap();
    assert_eq!(world.change(|authority| authority.bought()), 1);
}

#[tokio::test]
async fn throttling_is_waited_out_and_an_absence_is_told() {
    let (world, folder, clock) = (World::new().await, Folder::new(), now());
    let upstream = world.build("");
    let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    let throttled = fake_http::json(StatusCode::BAD_REQUEST, body);
    world.aws.fail("IssueCertificate", 2, Trouble::Answer(throttled));
    mint(&folder, &*upstream, &clock).await;
    assert_eq!(world.aws.count("IssueCertificate"), 3);
    assert_eq!(world.change(|authority| authority.bought()), 1);

    let csr = request(&key(), &domain()).await;
    world.aws.world().forbidden.insert("IssueCertificate".to_owned());
    let error = upstream.mint(&csr, HOUR).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("IssueCertificate failed: AccessDenied"), "{error}");
    world.aws.world().forbidden.clear();
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn an_authority_that_is_disabled_is_not_asked() {
    let (world, folder) = (World::new().await, Folder::new());
    let upstream = world.build("");
    let csr = request(&key(), &domain()).await;
    for status in ["DISABLED", "EXPIRED", "PENDING_CERTIFICATE"] {
        world.change(|authority| authority.status = status.to_owned());
        let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{} is {status}, not ACTIVE", world.arn)), "{error}");
    }
    assert_eq!(world.aws.count("IssueCertificate"), 0);
    world.change(|authority| authority.status = "ACTIVE".to_owned());
    mint(&folder, &*upstream, &now()).await;
}

#[tokio::test]
async fn a_renewed_authority_is_noticed_before_it_signs() {
    let (world, folder, clock) = (World::new().await, Folder::new(), now());
    let upstream = world.build("");
    let first = mint(&folder, &*upstream, &clock).await;
    assert_eq!(upstream.bundle().await.unwrap().roots, first.roots);
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, false);
    world.change(|authority| authority.renew(PrivateCa::below(&root, REGION, 365)));
    let told = upstream.bundle().await.unwrap().roots;
    assert_eq!(told[0].certificate, root.certificate());
    assert_eq!(mint(&folder, &*upstream, &clock).await.roots, told);
}

#[tokio::test]
async fn what_was_bought_before_a_renewal_is_not_waited_for() {
    let (world, clock) = (World::new().await, now());
    let upstream = world.build("");
    let key = key();
    let csr = request(&key, &domain()).await;
    world.aws.world().forbidden.insert("GetCertificate".to_owned());
    upstream.mint(&csr, HOUR).await.unwrap_err();
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, false);
    world.change(|authority| authority.renew(PrivateCa::below(&root, REGION, 365)));
    world.aws.world().forbidden.clear();
    let minted = upstream.mint(&csr, HOUR).await.unwrap();
    assert_eq!(minted.roots[0].certificate, root.certificate());
    check(&minted, &key.public_key().spki, &domain(), clock.now()).unwrap();
    assert_eq!(world.change(|authority| authority.bought()), 2);
}

#[tokio::test]
async fn when_it_ends_is_told_without_a_certificate_being_bought() {
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 2, false);
    let world = World::with(root).await;
    let upstream = world.build("");
    let left = upstream.ends_at().await.unwrap().unwrap().duration_since(now().now());
    assert!((46..48).contains(&left.as_hours()), "{left}");
    assert_eq!(world.change(|authority| authority.bought()), 0);
}

#[tokio::test]
async fn without_the_permission_to_look_it_signs_all_the_same() {
    let (world, folder) = (World::new().await, Folder::new());
    world.aws.world().forbidden.insert("GetCertificateAuthorityCertificate".to_owned());
    let upstream = world.build("");
    assert!(matches!(upstream.bundle().await, Err(UpstreamError::Unavailable(_))));
    // What it has signed tells of its root.
    let signed = mint(&folder, &*upstream, &now()).await;
    assert_eq!(upstream.bundle().await.unwrap().roots, signed.roots);

    // The permission comes after the start, and is taken away for a while.
    let upstream = world.build("");
    let is_unavailable = |told| matches!(told, Err(UpstreamError::Unavailable(_)));
    assert!(is_unavailable(upstream.bundle().await));
    world.aws.world().forbidden.clear();
    assert_eq!(upstream.bundle().await.unwrap().roots, signed.roots);
    world.aws.world().forbidden.insert("GetCertificateAuthorityCertificate".to_owned());
    assert_eq!(upstream.bundle().await.unwrap().roots, signed.roots);

    // The supplemental bundle is looked at all the same.
    folder.root("a", "ec -pkeyopt ec_paramgen_curve:P-256", 30);
    let upstream = world.build(&format!("supplemental_bundle_path = {:?}", folder.path("a.crt")));
    assert_eq!(upstream.bundle().await.unwrap().roots.len(), 1);
    folder.root("b", "ec -pkeyopt ec_paramgen_curve:P-256", 30);
    folder.concat("a.crt", &["a.crt", "b.crt"]);
    assert_eq!(upstream.bundle().await.unwrap().roots.len(), 2);
}

#[tokio::test]
async fn roots_of_the_supplemental_bundle_are_trusted_too() {
    let (world, folder, clock) = (World::new().await, Folder::new(), now());
    let path = folder.path("more.pem");
    let own = Bytes::from(world.change(|authority| authority.root_certificate().to_vec()));
    folder.root("a", "ec -pkeyopt ec_paramgen_curve:P-256", 30);
    folder.write_pem("own.crt", &[own]);
    folder.concat("more.pem", &["a.crt", "own.crt", "a.crt"]);
    let setting = format!("supplemental_bundle_path = {path:?}");
    let upstream = world.build(&setting);
    assert_eq!(mint(&folder, &*upstream, &clock).await.roots.len(), 2);
    folder.root("b", "ec -pkeyopt ec_paramgen_curve:P-256", 30);
    folder.concat("more.pem", &["a.crt", "b.crt"]);
    assert_eq!(upstream.bundle().await.unwrap().roots.len(), 3);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(upstream.bundle().await.unwrap().roots.len(), 3);
    let settings = format!("certificate_authority_arn = {:?}\n{setting}", world.arn);
    let error = build(&PLUGIN, &settings, &clock).err().unwrap();
    assert!(error.contains("unable to load supplemental bundle: open "), "{error}");
}

#[tokio::test]
async fn what_a_hostile_authority_signs_is_refused() {
    for (malice, sentence) in [
        (Malice::OtherKey, "its first certificate carries another key than the request"),
        (Malice::NoCa, "its first certificate is no signing certificate"),
        (Malice::NameConstraints, "(name constraints)"),
        (Malice::OtherRoot, "leads to another root than the one of"),
        (Malice::Outlives, "and what it leads to only until"),
    ] {
        let world = World::new().await;
        world.change(|authority| authority.malice = Some(malice));
        let upstream = world.build("");
        let key = key();
        let csr = request(&key, &domain()).await;
        let refused = upstream.mint(&csr, HOUR).await.and_then(|minted| {
            check(&minted, &key.public_key().spki, &domain(), now().now()).map(drop)
        });
        let error = refused.unwrap_err();
        assert!(matches!(error, UpstreamError::Invalid(_)), "{malice:?}: {error}");
        assert!(error.to_string().contains(sentence), "{malice:?}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_that_leads_elsewhere_is_not_kept() {
    let world = World::new().await;
    world.change(|authority| authority.malice = Some(Malice::OtherRoot));
    let upstream = world.build("");
    let csr = request(&key(), &domain()).await;
    for asked in 1..=2 {
        upstream.mint(&csr, HOUR).await.unwrap_err();
        assert_eq!(world.aws.count("IssueCertificate"), asked);
    }
}

#[test]
fn mistakes_are_named() {
    let settings = "signing_algorithm = \"MD5\"\nendpoint = \"pca\"\nsecret_access_key = \"s\"";
    let error = build(&PLUGIN, settings, &now()).err().unwrap();
    for sentence in [
        "certificate_authority_arn is required",
        "\"MD5\" is no algorithm of AWS",
        "\"pca\" is not a URL",
        "configuration has secret_access_key but no access_key_id",
    ] {
        assert!(error.contains(sentence), "{error}");
    }
}
